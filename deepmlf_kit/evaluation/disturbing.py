"""What breaks a model: the same utterances with a modality missing, noise, shuffled words or shifted time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.donors import draw_donors

if TYPE_CHECKING:
    import pandas as pd
    from datasets import DatasetDict
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ..training import Run

Row = dict[str, Any]
_STREAMS = ("audio", "audio_times", "vision", "vision_times")
#: All rows of a split -> changed copies, in the same order.
Disturbance = Callable[[Sequence[Row], np.random.Generator], list[Row]]


def disturbances(noise: float = 1.0, shift: float = 0.5) -> dict[str, Disturbance]:
    """The disturbances by name; the first changes nothing.

    Args:
        noise: Gaussian noise on every valid frame, in standard deviations of that feature within the utterance.
        shift: audio and vision are moved in time by this share of the utterance (what runs over comes back at the
            start), so that words and frames no longer belong together.
    """

    def each(change: Callable[[Row, np.random.Generator], Row]) -> Disturbance:
        return lambda rows, random: [{**row, **change(row, random)} for row in rows]

    def moved(frames: np.ndarray) -> np.ndarray:
        return np.roll(frames, round(shift * len(frames)), axis=0)

    return {
        "as it is": each(lambda row, _: {}),
        "no text": each(lambda row, _: {"text": ""}),
        "no audio": each(lambda row, _: {"audio": row["audio"][:0]}),
        "no vision": each(lambda row, _: {"vision": row["vision"][:0]}),
        "text only": each(lambda row, _: {"audio": row["audio"][:0], "vision": row["vision"][:0]}),
        "noisy audio": each(lambda row, random: {"audio": _noisy(row["audio"], noise, random)}),
        "noisy vision": each(lambda row, random: {"vision": _noisy(row["vision"], noise, random)}),
        "shuffled words": each(lambda row, random: {"text": _shuffled(row["text"], random)}),
        "misaligned time": each(
            lambda row, _: {"audio": moved(row["audio"]), "vision": moved(row["vision"])}
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
    """Score a run's best checkpoint on a split under every disturbance.

    Args:
        run, dataset, split, lm, tokenizer: as in `evaluate`.
        noise, shift: as in `disturbances`.

    Returns:
        A row a disturbance: its name (`disturbance`) and the metrics; the first row is the split as it is.
    """
    import pandas as pd

    from ..data.schema import for_batches
    from .evaluate import scorer

    scored = scorer(run, dataset, split, lm=lm, tokenizer=tokenizer)
    ids = scored.rows["id"]
    rows = [{**row, "id": id} for row, id in zip(for_batches(scored.rows), ids, strict=True)]
    table = []
    for name, disturb in disturbances(noise, shift).items():
        metrics, _ = scored.predict(disturb(rows, np.random.default_rng(seed)))
        table.append({"disturbance": name, **metrics})
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
