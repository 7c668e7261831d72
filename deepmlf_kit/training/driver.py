"""Shared training driver: train or resume any registered model, then score its best checkpoint.

`models.py` says how each kind of model is built, `trainer.py` how it is optimised, `run_folder.py` what is left behind.
"""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import DatasetDict
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from ..data.collate import Collator
from ..data.normalize import Normalizer
from ..data.schema import dims_of, recipe_of
from ..errors import DeepMLFError
from ..features.cache import cache_folder
from .compiling import compile_layers
from .dataset import check_dataset, open_dataset, remarks, rows_of, scored_split
from .metric_table import metric_table
from .model_card import write_card
from .models import TrainableModel, registered_model, tokenizer_of
from .presets import Preset, load_preset
from .processes import processes
from .quiet import quiet_bars
from .recipe import Recipe
from .run_folder import FORMAT, Run, digest_of, versions, weights_digest, write_json
from .scoring import predict_split
from .trainer import SentimentTrainer


def train(
    preset: str | Path | Preset,
    dataset: DatasetDict | str | Path,
    out: str | Path,
    *,
    model: str = "fused",
    overrides: Sequence[str] | dict[str, Any] = (),
    av_encoder: Run | str | Path | None = None,
    seed: int = 0,
    lm: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    overwrite: bool = False,
    progress: bool = True,
    tensorboard: bool = True,
) -> Run:
    """Train a model and leave a run folder (its layout: `run_folder.py`).

    The same call resumes an interrupted run and ends with the weights of an uninterrupted one; for a finished run it
    returns the result.

    Args:
        preset: a name (`deepmlf presets` lists them), a YAML file or a `Preset`.
        dataset: a `DatasetDict` of the kit's schema, or its folder, with the splits `train`, `valid` and `test`
            (without `test`, or without a label there, the final table is that of `valid`).
        out: the run's folder, for example `runs/first`.
        model: `fused` (DeepMLF); `av`: AV pretraining, the AV encoder with a linear head, which is the AV-only baseline
            too; the baselines `text`, `prefix` and `flamingo`; or a model of yours (`register_model`).
        overrides: settings to change, `["fusion.tokens=12"]` or `{"fusion.tokens": 12}`.
        av_encoder: the run (or folder) of an AV pretraining to start the AV encoder from; None: random weights.
        seed: of weights, dropout, SeqAug and the order of batches. Two runs of one seed are equal on CPU.
        lm, tokenizer: a language model in memory, in place of the preset's `lm.name` (`av` reads the tokenizer only).
        overwrite: start anew where `out` holds a run.
        progress: show a progress bar.
        tensorboard: write logs for TensorBoard.

    Returns:
        The finished run: `run.metrics` (test split), `run.history()`, `run.predictions()`, `run.load_model()`.

    Raises:
        DeepMLFError: a setting or the name of the model is wrong, the dataset does not fit the preset, the folder holds
            a run with other settings, or training diverges.
    """
    preset = load_preset(preset, overrides)
    kind = registered_model(model)
    recipe = kind.recipe_of(preset)
    pretrained = _av_checkpoint(av_encoder)
    if pretrained is not None and not kind.takes_av_encoder:
        raise DeepMLFError(f"The model {model!r} does not start from a pretrained AV encoder: leave it out.")

    main = processes().is_main_process
    data, where = open_dataset(dataset)
    check_dataset(data, preset)
    out = Path(out).resolve()
    run = _open_folder(out, _description(model, preset, seed, data, where, pretrained), overwrite, main)
    if run.finished:
        return run

    set_seed(seed)
    net, tokenizer = _build(kind, preset, recipe, pretrained, lm, tokenizer)
    run.info["preprocessing"] = run.info.get("preprocessing") or _preprocessing(preset, data)
    run.info["parameters"] = {
        "trained": sum(p.numel() for p in net.parameters() if p.requires_grad),
        "frozen": sum(_weights(p) for p in net.parameters() if not p.requires_grad),
    }
    if main:
        run.save()
    lengths = _text_lengths(data, run.collator(tokenizer)) if kind.reads_text else {}
    run.info["notes"] = remarks(data, preset, lengths)
    if main and progress:
        for note in run.info["notes"]:
            print(f"note: {note}", file=sys.stderr)
    rows = {name: rows_of(part) for name, part in data.items()}
    grouped = kind.reads_text and recipe.group_by_length
    started = time.perf_counter()
    trainer = SentimentTrainer(
        net,
        recipe,
        out,
        run.collator(tokenizer),
        rows["train"],
        rows["valid"],
        lengths=[min(n, preset.data.max_text_tokens) for n in lengths["train"]] if grouped else None,
        scale=preset.data.scale,
        seed=seed,
        title=f"{kind.title} ({preset.name})" if progress else None,
        tensorboard=out / "tensorboard" if tensorboard else None,
    )
    try:
        trainer.train_or_resume()
    finally:
        if main:
            run.info["seconds"] = round(run.info.get("seconds", 0.0) + time.perf_counter() - started, 1)
            run.save()
    trainer.save_model(str(run.best))
    split = scored_split(data)
    metrics, table = predict_split(
        trainer.model, rows[split], data[split]["id"], run.collator(tokenizer), recipe, preset.data.scale
    )
    if main:
        (run.best / "training_args.bin").unlink(missing_ok=True)
        table.to_csv(out / "predictions.csv", index=False)
        _write_tables(run, split, metrics, len(table))
        run.info["best"] = _best(trainer, recipe)
        run.info["state"] = "finished"
        run.save()
        write_card(run)
        shutil.rmtree(out / "checkpoints", ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    run.info["test"] = metrics
    return run


def _av_checkpoint(av_encoder: Run | str | Path | None) -> Path | None:
    """The best checkpoint of an AV pretraining's run, or the folder as given."""
    if av_encoder is None:
        return None
    if isinstance(av_encoder, Run):
        return av_encoder.best
    path = Path(av_encoder)
    return path / "best" if (path / "run.json").is_file() else path


def _description(
    kind: str, preset: Preset, seed: int, data: DatasetDict, where: str | None, av_encoder: Path | None
) -> dict[str, Any]:
    """What `run.json` holds before training: everything that decides the result."""
    audio_dim, vision_dim = dims_of(data)
    return {
        "format": FORMAT,
        "kind": kind,
        "state": "running",
        "preset": preset.to_dict(),
        "seed": seed,
        "dataset": {
            "path": where,
            "rows": {name: len(part) for name, part in data.items()},
            "digest": digest_of(data),
            "audio_dim": audio_dim,
            "vision_dim": vision_dim,
        },
        "av_encoder": {"path": str(av_encoder), "digest": weights_digest(av_encoder)} if av_encoder else None,
        "versions": versions(),
    }


def _open_folder(out: Path, description: dict[str, Any], overwrite: bool, main: bool) -> Run:
    with processes().main_process_first():
        if overwrite and main and (out / "run.json").exists():
            shutil.rmtree(out)
        if (out / "run.json").exists():
            run = Run.open(out)
            run.check_same(description)
            return run
        if out.exists() and any(out.iterdir()):
            raise DeepMLFError(
                f"{out} exists and holds no run: choose another folder for this one, or empty it."
            )
        run = Run(out, description)
        if main:
            run.save()
        return run


def _build(
    kind: TrainableModel,
    preset: Preset,
    recipe: Recipe,
    av_checkpoint: Path | None,
    lm: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase | None,
) -> tuple[Any, PreTrainedTokenizerBase]:
    """The model as training starts with it, and its tokenizer."""
    with quiet_bars():
        model: Any = kind.build(preset.model_config(), lm=lm, tokenizer=tokenizer)
        if av_checkpoint is not None:
            model.load_av_encoder(av_checkpoint)
        tokenizer = tokenizer_of(model, tokenizer)
    if recipe.keep_text and hasattr(model, "cache_text_states"):
        model.cache_text_states(cache_folder() / "text-states", recipe.keep_text)
    if recipe.compile:
        compile_layers(model)
    return model, tokenizer


def _preprocessing(preset: Preset, data: DatasetDict) -> dict[str, Any]:
    normalizer = Normalizer.fit(data["train"]) if preset.data.normalize == "train" else None
    return {
        "lm": preset.lm.name,
        "max_text_tokens": preset.data.max_text_tokens,
        "long_texts": preset.data.long_texts,
        "normalizer": normalizer.to_dict() if normalizer else None,
        "recipe": recipe_of(data),
    }


def _text_lengths(data: DatasetDict, collator: Collator) -> dict[str, list[int]]:
    """How many tokens each text has, by split."""
    return {
        split: collator.lengths(list(part.with_format(None).select_columns(["text"])["text"]))
        for split, part in data.items()
    }


def _write_tables(run: Run, split: str, metrics: dict[str, float], utterances: int) -> None:
    write_json(run.path / "table.json", {"split": split, "utterances": utterances, "metrics": metrics})
    table = metric_table({run.path.name: metrics}, digits=4).markdown()
    settings = f"preset {run.preset.name}, seed {run.info['seed']}"
    (run.path / "table.md").write_text(
        f"{table}\nBest checkpoint on the {split} split ({utterances} utterances), {settings}.\n",
        encoding="utf-8",
    )
    run.info["test"] = metrics


def _weights(parameter: Tensor) -> int:
    """How many weights a parameter holds; bitsandbytes packs two 4-bit weights into one number."""
    packed = getattr(parameter, "quant_state", None)
    return math.prod(packed.shape) if packed is not None else parameter.numel()


def _best(trainer: SentimentTrainer, recipe: Recipe) -> dict[str, Any]:
    state = trainer.state
    steps_per_epoch = max(1, round(state.max_steps / recipe.epochs))
    return {
        "epoch": round((state.best_global_step or 0) / steps_per_epoch),
        "step": state.best_global_step,
        "metric": f"valid_{trainer.args.metric_for_best_model}",
        "value": state.best_metric,
    }
