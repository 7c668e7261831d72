"""Robustness: the same utterances with a missing modality, noise, shuffled words or shifted time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import DatasetDict
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.donors import draw_donors
from ..data.schema import for_batches
from ..training.run_folder import Run
from .evaluate import open_scorer

Row = dict[str, Any]
_STREAMS = ("audio", "audio_times", "vision", "vision_times")
#: All rows of a split -> perturbed copies, in the same order.
Perturbation = Callable[[Sequence[Row], np.random.Generator], list[Row]]


def perturbations(noise: float = 1.0, shift: float = 0.5) -> dict[str, Perturbation]:
    """The perturbations by name; the first changes nothing.

    Args:
        noise: standard deviation of Gaussian noise on every valid frame, relative to that of the feature within the
            utterance.
        shift: audio and vision are rolled in time by this fraction of the utterance, so that words and frames are no
            longer aligned.
    """

    def each(change: Callable[[Row, np.random.Generator], Row]) -> Perturbation:
        return lambda rows, random: [{**row, **change(row, random)} for row in rows]

    def rolled(frames: np.ndarray) -> np.ndarray:
        return np.roll(frames, round(shift * len(frames)), axis=0)

    return {
        "unperturbed": each(lambda row, _: {}),
        "no text": each(lambda row, _: {"text": ""}),
        "no audio": each(lambda row, _: {"audio": row["audio"][:0]}),
        "no vision": each(lambda row, _: {"vision": row["vision"][:0]}),
        "text only": each(lambda row, _: {"audio": row["audio"][:0], "vision": row["vision"][:0]}),
        "noisy audio": each(lambda row, random: {"audio": _noisy(row["audio"], noise, random)}),
        "noisy vision": each(lambda row, random: {"vision": _noisy(row["vision"], noise, random)}),
        "shuffled words": each(lambda row, random: {"text": _shuffled(row["text"], random)}),
        "misaligned time": each(
            lambda row, _: {"audio": rolled(row["audio"]), "vision": rolled(row["vision"])}
        ),
        "audio and vision of another": _of_another,
    }


def robustness(
    run: Run | str | Path,
    dataset: DatasetDict | str | Path | None = None,
    split: str = "test",
    *,
    noise: float = 1.0,
    shift: float = 0.5,
    seed: int = 0,
    lm: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> pd.DataFrame:
    """Score a run's best checkpoint on a split under every perturbation.

    Args:
        run, dataset, split, lm, tokenizer: as in `evaluate`.
        noise, shift: as in `perturbations`.
        seed: of the noise, the order of shuffled words and the swapped utterances.

    Returns:
        One row per perturbation: its name (`perturbation`) and the metrics; the first row is the unperturbed split.

    Raises:
        DeepMLFError: as in `evaluate`.
    """
    scorer = open_scorer(run, dataset, split, lm=lm, tokenizer=tokenizer)
    ids = scorer.rows["id"]
    rows = [{**row, "id": id} for row, id in zip(for_batches(scorer.rows), ids, strict=True)]
    table = []
    for name, perturb in perturbations(noise, shift).items():
        metrics, _ = scorer.predict(perturb(rows, np.random.default_rng(seed)))
        table.append({"perturbation": name, **metrics})
    return pd.DataFrame(table)


def _noisy(frames: np.ndarray, noise: float, random: np.random.Generator) -> np.ndarray:
    frames = np.asarray(frames, np.float32)
    valid = np.asarray(frames.any(axis=1))  # [frames]
    if not valid.any():
        return frames
    spread = frames[valid].std(axis=0)
    return (
        frames + (noise * spread * random.standard_normal(frames.shape)).astype(np.float32) * valid[:, None]
    )


def _shuffled(text: str, random: np.random.Generator) -> str:
    words = text.split()
    return " ".join(words[i] for i in random.permutation(len(words)))


def _of_another(rows: Sequence[Row], random: np.random.Generator) -> list[Row]:
    """Every row with the audio and vision, and their times, of an utterance of another video, where there is one."""
    others, _ = draw_donors([str(row.get("id", i)) for i, row in enumerate(rows)], random)
    return [
        {**row, **{name: rows[other][name] for name in _STREAMS if name in rows[other]}}
        for row, other in zip(rows, others.tolist(), strict=True)
    ]
