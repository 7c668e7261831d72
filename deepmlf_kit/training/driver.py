"""The one road every training takes: open the run folder, train or take up again, write the final table.

`train` (fused.py), `pretrain_av` and the baselines each say which model and which recipe; the rest is here.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DeepMLFError
from ..features.cache import cache_folder
from .dataset_fit import misfits
from .metrics import HEADINGS
from .model_card import write_card
from .presets import Preset
from .processes import processes
from .quiet import quiet_bars
from .recipe import Recipe
from .run_folder import FORMAT, Run, digest_of, versions, weights_digest, write_json

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: A split smaller than this is held in memory; a larger one is read from its Arrow file row by row.
IN_MEMORY_BYTES = 2**30


def run_training(
    kind: str,
    build: Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]],
    preset: Preset,
    recipe: Recipe,
    dataset: DatasetDict | str | Path,
    out: str | Path,
    *,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = True,
    tensorboard: bool = True,
    av_encoder: Path | None = None,
    read_text: bool = True,
) -> Run:
    """Train a model by a recipe and leave a run folder (its layout: `run_folder.py`).

    A folder with an unfinished run of the same settings is taken up where it stopped; with a finished one it is
    returned as it is.

    Args:
        kind: `fused`, `av`, `text`, `prefix` or `flamingo`.
        build: makes the model and its tokenizer; called after the seed is set.
        dataset: with the splits `train`, `valid` and `test` (without `test` the final table is the validation's).
        av_encoder: folder of the checkpoint that the AV encoder starts from.
        read_text: the texts' lengths matter (`training.group_by_length`).

    Raises:
        DeepMLFError: the dataset does not fit the preset, or `out` holds a run with other settings.
    """
    from transformers import set_seed

    from .compiling import compile_layers
    from .scoring import predict_split
    from .trainer import SentimentTrainer

    main = processes().is_main_process
    data, where = open_dataset(dataset)
    _check_dataset(data, preset)
    out = Path(out).resolve()
    wanted = _describe(kind, preset, seed, data, where, av_encoder)
    run = _open_folder(out, wanted, overwrite, main)
    if run.finished:
        return run

    set_seed(seed)
    with quiet_bars():
        model, tokenizer = build()
    if recipe.keep_text and hasattr(model, "cache_text_states"):
        model.cache_text_states(cache_folder() / "text-states", recipe.keep_text)
    if recipe.compile:
        compile_layers(model)
    run.info["preprocessing"] = run.info.get("preprocessing") or _preprocessing(preset, data)
    run.info["parameters"] = {
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "frozen": sum(_weights(p) for p in model.parameters() if not p.requires_grad),
    }
    if main:
        run.save()
    rows = {name: rows_of(part) for name, part in data.items()}
    lengths = (
        _text_lengths(data["train"], tokenizer, preset) if read_text and recipe.group_by_length else None
    )
    started = time.perf_counter()
    trainer = SentimentTrainer(
        model,
        recipe,
        out,
        run.collator(tokenizer),
        rows["train"],
        rows["valid"],
        lengths=lengths,
        scale=preset.data.scale,
        seed=seed,
        title=f"{_TITLES[kind]} ({preset.name})" if progress else None,
        tensorboard=out / "tensorboard" if tensorboard else None,
    )
    try:
        trainer.train_or_resume()
    finally:
        if main:
            run.info["seconds"] = round(run.info.get("seconds", 0.0) + time.perf_counter() - started, 1)
            run.save()
    trainer.save_model(str(run.best))
    split = "test" if "test" in rows else "valid"
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


def open_dataset(dataset: DatasetDict | str | Path) -> tuple[DatasetDict, str | None]:
    """A dataset in memory or on disk, and its path where it has one.

    Raises:
        DeepMLFError: there is none, or it does not fit the schema.
    """
    from ..data import schema

    if isinstance(dataset, (str, Path)):
        return schema.load(dataset), str(Path(dataset).resolve())
    schema.check(dataset)
    return dataset, None


def rows_of(split: Dataset) -> Sequence[dict[str, Any]]:
    """The rows of a split as the collator takes them: a list where they fit in memory, else read one by one."""
    from ..data.schema import for_batches

    rows = for_batches(split)
    return list(rows) if split.data.nbytes < IN_MEMORY_BYTES else rows


def markdown_table(metrics: dict[str, float], title: str) -> str:
    """The field's metrics as a Markdown table of one row."""
    shown = [name for name in HEADINGS if name in metrics]
    head = " | ".join(["", *(HEADINGS[name][0] for name in shown)])
    values = " | ".join([title, *(f"{metrics[name]:.4f}" for name in shown)])
    return f"|{head} |\n|{' --- |' * (len(shown) + 1)}\n| {values} |\n"


_TITLES = {
    "fused": "Training",
    "av": "Pretraining the AV encoder",
    "text": "Training the text baseline",
    "prefix": "Training the soft prompt baseline",
    "flamingo": "Training the cross-attention baseline",
}


def _describe(
    kind: str, preset: Preset, seed: int, data: DatasetDict, where: str | None, av_encoder: Path | None
) -> dict[str, Any]:
    from ..data.schema import dims_of

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


def _open_folder(out: Path, wanted: dict[str, Any], overwrite: bool, main: bool) -> Run:
    with processes().main_process_first():
        if overwrite and main and (out / "run.json").exists():
            shutil.rmtree(out)
        if (out / "run.json").exists():
            run = Run.open(out)
            run.check_same(wanted)
            return run
        if out.exists() and any(out.iterdir()):
            raise DeepMLFError(
                f"{out} exists and holds no run: choose another folder for this one, or empty it."
            )
        run = Run(out, wanted)
        if main:
            run.save()
        return run


def _check_dataset(data: DatasetDict, preset: Preset) -> None:
    for split in ("train", "valid"):
        if split not in data or len(data[split]) == 0:
            found = ", ".join(f"{name} ({len(part)})" for name, part in data.items())
            raise DeepMLFError(f"Training needs utterances in the split {split!r}; the dataset has {found}.")
    if wrong := misfits(data, preset):
        raise DeepMLFError(
            f"The dataset has {' and '.join(misfit.what for misfit in wrong)}: set "
            f"{' and '.join(misfit.setting for misfit in wrong)} (with --set before each on the command line), or "
            "prepare the dataset with other features or another label_scale."
        )


def _preprocessing(preset: Preset, data: DatasetDict) -> dict[str, Any]:
    from ..data.normalize import Normalizer
    from ..data.schema import recipe_of

    normalizer = Normalizer.fit(data["train"]) if preset.data.normalize == "train" else None
    return {
        "lm": preset.lm.name,
        "max_text_tokens": preset.data.max_text_tokens,
        "normalizer": normalizer.to_dict() if normalizer else None,
        "recipe": recipe_of(data),
    }


def _text_lengths(split: Dataset, tokenizer: PreTrainedTokenizerBase, preset: Preset) -> list[int]:
    longest = preset.data.max_text_tokens
    texts = list(split.with_format(None).select_columns(["text"])["text"])
    return [len(ids) for ids in tokenizer(texts, truncation=True, max_length=longest)["input_ids"]]


def _write_tables(run: Run, split: str, metrics: dict[str, float], utterances: int) -> None:
    preset = run.preset
    write_json(run.path / "table.json", {"split": split, "utterances": utterances, "metrics": metrics})
    note = f"Best checkpoint on the {split} split ({utterances} utterances), preset {preset.name}, seed {run.info['seed']}."
    (run.path / "table.md").write_text(f"{markdown_table(metrics, run.path.name)}\n{note}\n")
    run.info["test"] = metrics


def _weights(parameter: Tensor) -> int:
    """How many weights a parameter holds; bitsandbytes packs two 4-bit weights into one number."""
    packed = getattr(parameter, "quant_state", None)
    return math.prod(packed.shape) if packed is not None else parameter.numel()


def _best(trainer: Any, recipe: Recipe) -> dict[str, Any]:
    state = trainer.state
    steps_an_epoch = max(1, round(state.max_steps / recipe.epochs))
    return {
        "epoch": round((state.best_global_step or 0) / steps_an_epoch),
        "step": state.best_global_step,
        "metric": f"valid_{trainer.args.metric_for_best_model}",
        "value": state.best_metric,
    }
