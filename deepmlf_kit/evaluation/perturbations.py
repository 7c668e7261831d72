"""Robustness: the same utterances with a missing modality, noise, shuffled words or shifted time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import DatasetDict
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.donors import draw_donors
from ..data.schema import for_batches
from ..model.modalities import BUILT_IN
from ..training.run_folder import Run
from .evaluate import open_scorer

Row = dict[str, Any]
#: All rows of a split -> perturbed copies, in the same order.
Perturbation = Callable[[Sequence[Row], np.random.Generator], list[Row]]


def perturbations(
    noise: float = 1.0, shift: float = 0.5, modalities: Sequence[str] = BUILT_IN
) -> dict[str, Perturbation]:
    """The perturbations by name; the first changes nothing.

    Args:
        noise: standard deviation of Gaussian noise on every valid frame, relative to that of the feature within the
            utterance.
        shift: frames are rolled in time by this fraction of the utterance, so that words and frames are no longer
            aligned.
        modalities: names of those that are read beside the text.
    """

    def each(change: Callable[[Row, np.random.Generator], Row]) -> Perturbation:
        return lambda rows, random: [{**row, **change(row, random)} for row in rows]

    def frames(change: Callable[[np.ndarray, np.random.Generator], np.ndarray], *names: str) -> Perturbation:
        return each(lambda row, random: {name: change(np.asarray(row[name]), random) for name in names})

    def missing(frames: np.ndarray, random: np.random.Generator) -> np.ndarray:
        return frames[:0]

    def noisy(frames: np.ndarray, random: np.random.Generator) -> np.ndarray:
        return _noisy(frames, noise, random)

    def rolled(frames: np.ndarray, random: np.random.Generator) -> np.ndarray:
        return np.roll(frames, round(shift * len(frames)), axis=0)

    return {
        "unperturbed": each(lambda row, random: {}),
        "no text": each(lambda row, random: {"text": ""}),
        **{f"no {name}": frames(missing, name) for name in modalities},
        "text only": frames(missing, *modalities),
        **{f"noisy {name}": frames(noisy, name) for name in modalities},
        "shuffled words": each(lambda row, random: {"text": _shuffled(row["text"], random)}),
        "misaligned time": frames(rolled, *modalities),
        f"{' and '.join(modalities)} of another": partial(_of_another, modalities),
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
    for name, perturb in perturbations(noise, shift, scorer.modalities).items():
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


def _of_another(modalities: Sequence[str], rows: Sequence[Row], random: np.random.Generator) -> list[Row]:
    """Every row with the frames, and their times, of an utterance of another video, where there is one."""
    others, _ = draw_donors([str(row.get("id", i)) for i, row in enumerate(rows)], random)
    columns = [f"{name}{end}" for name in modalities for end in ("", "_times")]
    return [
        {**row, **{name: rows[other][name] for name in columns if name in rows[other]}}
        for row, other in zip(rows, others.tolist(), strict=True)
    ]
