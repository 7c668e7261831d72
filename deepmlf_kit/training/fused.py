"""Fused training: fusion tokens, MM Blocks, AV encoder and heads on a frozen language model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .driver import run_training
from .presets import Preset, load_preset
from .run_folder import Run

if TYPE_CHECKING:
    from datasets import DatasetDict
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def train(
    preset: str | Path | Preset,
    dataset: DatasetDict | str | Path,
    out: str | Path,
    *,
    overrides: Sequence[str] | dict[str, Any] = (),
    av_encoder: Run | str | Path | None = None,
    seed: int = 0,
    lm: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    overwrite: bool = False,
    progress: bool = True,
    tensorboard: bool = True,
) -> Run:
    """Train a fused model and leave a run folder.

    The same call on a folder whose training was stopped goes on where it stopped and ends with the weights of a
    run that was not; on a folder whose training is finished it returns the result.

    Args:
        preset: a name (`deepmlf presets` lists them), a YAML file or a `Preset`.
        dataset: a `DatasetDict` of the kit's schema, or its folder.
        out: the run's folder, for example `runs/first`.
        overrides: settings to change, `["fusion.tokens=12"]` or `{"fusion.tokens": 12}`.
        av_encoder: the run (or folder) of an AV pretraining to start the AV encoder from; None: random weights.
        seed: of weights, dropout, SeqAug and the order of batches. Two runs of one seed are equal on CPU.
        lm, tokenizer: a language model in memory, in place of the preset's `lm.name`.
        overwrite: start anew where `out` holds a run.
        progress: show a bar.
        tensorboard: write logs for TensorBoard.

    Returns:
        The finished run: `run.metrics` (test split), `run.history()`, `run.predictions()`, `run.load_model()`.

    Raises:
        DeepMLFError: a setting is wrong, the dataset does not fit, the folder holds a run with other settings, or
            training diverges.
    """
    preset = load_preset(preset, overrides)
    start = av_folder(av_encoder)

    def build() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        from ..model.deepmlf import DeepMLFModel

        model = DeepMLFModel(preset.model_config(), lm=lm, tokenizer=tokenizer)
        if start is not None:
            model.load_av_encoder(start)
        return model, model.tokenizer

    return run_training(
        "fused",
        build,
        preset,
        preset.training,
        dataset,
        out,
        seed=seed,
        overwrite=overwrite,
        progress=progress,
        tensorboard=tensorboard,
        av_encoder=start,
    )


def av_folder(av_encoder: Run | str | Path | None) -> Path | None:
    """The checkpoint inside an AV pretraining's run, or the folder as given."""
    if av_encoder is None:
        return None
    if isinstance(av_encoder, Run):
        return av_encoder.best
    path = Path(av_encoder)
    return path / "best" if (path / "run.json").is_file() else path
