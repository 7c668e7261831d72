"""Shared training driver: train or resume any registered model, then score its best checkpoint.

`models.py` says how each kind of model is built, `trainer.py` how it is optimised, `run_folder.py` what is left behind.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import DatasetDict
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from ..data.collate import Collator
from ..data.normalize import Normalizer
from ..data.schema import dims_of, recipe_of
from ..downloads.cache import CacheError, cache_folder
from ..errors import DeepMLFError
from ..features.cache import folder_hash
from ..model import text_cache
from ..storage.files import replacing, write_json, write_text
from ..storage.folders import foreign, remove_known, remove_temporary_files
from ..storage.locks import sole_writer
from .compiling import compile_layers
from .dataset import check_dataset, open_dataset, remarks, rows_of, scored_split
from .metric_table import metric_table
from .model_card import write_card
from .models import TrainableModel, registered_model, tokenizer_of
from .presets import Preset, load_preset
from .processes import processes
from .quiet import quiet_bars
from .recipe import Recipe
from .run_folder import FORMAT, RESULT_FILES, Run, digest_of, versions, weights_digest
from .scoring import calibrate, predict_split
from .trainer import SentimentTrainer

_LOCK = ".deepmlf-lock"
_log = logging.getLogger(__name__)


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
    returns the result, and writes again what is missing beside its weights.

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
        overwrite: start anew where `out` holds a run; files there that the kit did not write stay.
        progress: show a progress bar.
        tensorboard: write logs for TensorBoard, where it is installed.

    Returns:
        The finished run: `run.metrics` (test split), `run.history()`, `run.predictions()`, `run.load_model()`.

    Raises:
        DeepMLFError: a setting or the name of the model is wrong, the dataset does not fit the preset, the folder holds
            a run with other settings or another process trains in it, or training diverges.
    """
    preset = load_preset(preset, overrides)
    kind = registered_model(model)
    recipe = kind.recipe_of(preset)
    pretrained = _av_checkpoint(av_encoder)
    if pretrained is not None and not kind.takes_av_encoder:
        raise DeepMLFError(f"The model {model!r} does not start from a pretrained AV encoder: leave it out.")

    main = processes().is_main_process
    data, where = open_dataset(dataset)
    check_dataset(data, preset, kind.reads_text)
    out = Path(out).resolve()
    description = _description(model, preset, seed, data, where, pretrained, lm)
    with _writing(out, main):
        run = _open_folder(out, description, overwrite, main)
        if run.finished:
            if main and not _read_only(out):
                _complete(run, data, lm, tokenizer)
            return run
        return _train(run, kind, recipe, data, pretrained, lm, tokenizer, progress, tensorboard)


def _train(
    run: Run,
    kind: TrainableModel,
    recipe: Recipe,
    data: DatasetDict,
    pretrained: Path | None,
    lm: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase | None,
    progress: bool,
    tensorboard: bool,
) -> Run:
    """Train or resume a run whose folder is open, score it and finish it."""
    out, preset, seed, main = run.path, run.preset, run.info["seed"], processes().is_main_process
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
    run.info |= {"test": metrics, "best": _best(trainer, recipe)}
    if split != "valid" and not preset.heads.classes:
        _, checked = predict_split(
            trainer.model,
            rows["valid"],
            data["valid"]["id"],
            run.collator(tokenizer),
            recipe,
            preset.data.scale,
        )
        run.info["calibration"] = calibrate(checked, data["valid"], table, data[split])
    if main:
        (run.best / "training_args.bin").unlink(missing_ok=True)
        _write_predictions(run, table)
        _write_tables(run, split, len(table))
        write_card(run)
        run.info["state"] = "finished"  # the last thing: whatever is killed before goes on when repeated
        run.save()
        _remove_checkpoints(run)
    trainer.accelerator.wait_for_everyone()
    return run


def _complete(
    run: Run, data: DatasetDict, lm: PreTrainedModel | None, tokenizer: PreTrainedTokenizerBase | None
) -> None:
    """Write again what is missing in the folder of a finished run, and remove what was left to remove."""
    split = scored_split(data)
    if not (run.path / "predictions.csv").exists():
        model, preset = run.load_model(lm=lm, tokenizer=tokenizer), run.preset
        collate = run.collator(tokenizer_of(model, tokenizer))
        recipe = registered_model(run.kind).recipe_of(preset)
        _, table = predict_split(
            model, rows_of(data[split]), data[split]["id"], collate, recipe, preset.data.scale
        )
        _write_predictions(run, table)
    if not all((run.path / name).exists() for name in ("table.json", "table.md")):
        _write_tables(run, split, len(data[split]))
    if run.best.is_dir() and not (run.best / "README.md").exists():
        write_card(run)
    if not (run.path / "preset.yaml").exists():
        run.save()
    _remove_checkpoints(run)


def _av_checkpoint(av_encoder: Run | str | Path | None) -> Path | None:
    """The best checkpoint of an AV pretraining's run, or the folder as given."""
    if av_encoder is None:
        return None
    if isinstance(av_encoder, Run):
        return av_encoder.best
    path = Path(av_encoder)
    return path / "best" if (path / "run.json").is_file() else path


def _description(
    kind: str,
    preset: Preset,
    seed: int,
    data: DatasetDict,
    where: str | None,
    av_encoder: Path | None,
    lm: PreTrainedModel | None,
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
        "lm_digest": _lm_digest(preset.lm.name, lm) if registered_model(kind).reads_text else None,
        "versions": versions(),
    }


@contextmanager
def _writing(out: Path, main: bool) -> Iterator[None]:
    """Hold a run's folder while it is trained; of several processes that train it together, the main one does.

    Raises:
        DeepMLFError: another process trains there, or `out` is no folder.
    """
    if out.exists() and not out.is_dir():
        raise DeepMLFError(f"{out} is a file, but a run is a folder: choose another name.")
    if not main or _read_only(out):
        yield
        return
    try:
        with sole_writer(out, out / _LOCK):
            remove_temporary_files(out)
            yield
    finally:
        with suppress(OSError):
            out.rmdir()  # nothing was written


def _read_only(out: Path) -> bool:
    return out.is_dir() and not os.access(out, os.W_OK)


def _lm_digest(name: str, lm: PreTrainedModel | None) -> str | None:
    """Digest of an LM in memory or in a local folder; None for one that its name and revision determine."""
    if lm is not None:
        return text_cache.weights_digest(lm)
    return folder_hash(name) if Path(name).is_dir() else None


def _open_folder(out: Path, description: dict[str, Any], overwrite: bool, main: bool) -> Run:
    with processes().main_process_first():
        run = Run(out, description)
        there = (out / "run.json").exists()
        if there and not (overwrite and main):
            run = Run.open(out)
            run.check_same(description)
            return run
        if not there and (others := foreign(out, ())):
            raise DeepMLFError(
                f"{out} exists and holds no run (but {', '.join(others[:3])}): choose another folder for this one, or empty "
                "it."
            )
        if main:
            if there:
                _remove_checkpoints(run)  # first, so that a kill never leaves them to the new run
                run.save()
                remove_known(out, RESULT_FILES)
            run.save()
        return run


def _remove_checkpoints(run: Run) -> None:
    with suppress(OSError):
        remove_known(run.path, [name for name in RESULT_FILES if name.startswith("checkpoints/")])


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
        try:
            model.cache_text_states(cache_folder() / "text-states", recipe.keep_text)
        except CacheError as error:  # an optional cache
            _log.warning("text states are not cached: %s", error)
    if recipe.compile:
        compile_layers(model)
    return model, tokenizer


def _preprocessing(preset: Preset, data: DatasetDict) -> dict[str, Any]:
    how = preset.data.normalize
    normalizer = None if how == "none" else Normalizer.fit(data["train"], relative_audio=how == "clip")
    return {
        "lm": preset.lm.name,
        "max_text_tokens": preset.data.max_text_tokens,
        "long_texts": preset.data.long_texts,
        "full_stop": preset.data.full_stop,
        "normalizer": normalizer.to_dict() if normalizer else None,
        "recipe": recipe_of(data),
    }


def _text_lengths(data: DatasetDict, collator: Collator) -> dict[str, list[int]]:
    """How many tokens each text has, by split."""
    return {
        split: collator.lengths(list(part.with_format(None).select_columns(["text"])["text"]))
        for split, part in data.items()
    }


def _write_predictions(run: Run, table: pd.DataFrame) -> None:
    with replacing(run.path / "predictions.csv") as temporary:
        table.to_csv(temporary, index=False)


def _write_tables(run: Run, split: str, utterances: int) -> None:
    metrics = run.metrics
    write_json(run.path / "table.json", {"split": split, "utterances": utterances, "metrics": metrics})
    table = metric_table({run.path.name: metrics}, digits=4).markdown()
    settings = f"preset {run.preset.name}, seed {run.info['seed']}"
    write_text(
        run.path / "table.md",
        f"{table}\nBest checkpoint on the {split} split ({utterances} utterances), {settings}.\n",
    )


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
