"""AV pretraining, the first step of the fusion curriculum: the AV encoder alone, with a linear head and L1."""

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


def pretrain_av(
    preset: str | Path | Preset,
    dataset: DatasetDict | str | Path,
    out: str | Path,
    *,
    overrides: Sequence[str] | dict[str, Any] = (),
    seed: int = 0,
    tokenizer: PreTrainedTokenizerBase | None = None,
    overwrite: bool = False,
    progress: bool = True,
    tensorboard: bool = True,
) -> Run:
    """Pretrain the AV encoder by the preset's `pretraining` recipe and leave a run folder.

    `train(..., av_encoder=run)` starts a fused model from it. The run is also the AV-only baseline.

    Args:
        tokenizer: in place of the preset's language model's (the texts of a batch are tokenised, not read).
        preset, dataset, out, overrides, seed, overwrite, progress, tensorboard: as in `train`.

    Raises:
        DeepMLFError: as in `train`.
    """
    preset = load_preset(preset, overrides)

    def build() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        from ..model.av_encoder import AVSentimentModel
        from ..model.lm_loading import load_tokenizer

        config = preset.model_config()
        config.av_trainable = True
        return AVSentimentModel(config), tokenizer or load_tokenizer(config)

    return run_training(
        "av",
        build,
        preset,
        preset.pretraining,
        dataset,
        out,
        seed=seed,
        overwrite=overwrite,
        progress=progress,
        tensorboard=tensorboard,
        read_text=False,
    )
