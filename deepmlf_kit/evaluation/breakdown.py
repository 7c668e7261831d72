"""Where the errors are: by the label, and by the length of the text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..metrics import SCALES

if TYPE_CHECKING:
    import pandas as pd


def by_bin(predictions: pd.DataFrame, scale: str = "mosi", bins: int = 7) -> pd.DataFrame:
    """Errors by the true label, in bins of equal width over the scale.

    Returns:
        A row a bin: `bin` (its bounds), `utterances`, `MAE`, `bias` (mean prediction minus mean label), `mean
        prediction`. Empty bins are kept, with NaN.
    """
    low, high = SCALES[scale]
    edges = np.linspace(low, high, bins + 1)
    known = predictions[predictions["label"].notna()]
    index = np.clip(np.searchsorted(edges, known["label"].clip(low, high), side="right") - 1, 0, bins - 1)
    names = [f"{edges[i]:+.2f} to {edges[i + 1]:+.2f}" for i in range(bins)]
    return _table(known, index, names, "label")


def by_length(
    predictions: pd.DataFrame, texts: Sequence[str], edges: Sequence[int] = (5, 10, 20, 40)
) -> pd.DataFrame:
    """Errors by the length of the text in words (split at spaces).

    Args:
        predictions: one row an utterance, in the order of `texts`.
        edges: the longest of each bin but the last.

    Returns:
        As `by_bin`.
    """
    lengths = np.array([len(text.split()) for text in texts])
    known = predictions["label"].notna().to_numpy()
    bounds = [0, *edges]
    names = [f"{a + 1 if a else 0} to {b} words" for a, b in zip(bounds, edges, strict=False)]
    index = np.searchsorted(edges, lengths, side="left")
    return _table(predictions[known], index[known], [*names, f"over {edges[-1]} words"], "length")


def _table(known: pd.DataFrame, index: np.ndarray, names: list[str], head: str) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for i, name in enumerate(names):
        part = known[index == i]
        error = part["prediction"] - part["label"]
        rows.append(
            {
                head: name,
                "utterances": len(part),
                "MAE": error.abs().mean(),
                "bias": error.mean(),
                "mean prediction": part["prediction"].mean(),
            }
        )
    return pd.DataFrame(rows)
