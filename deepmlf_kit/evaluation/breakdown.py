"""Error breakdowns: by label or class, and by text length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..data.labels import CLASS_NAMES
from ..training.scales import SCALES


def by_bin(predictions: pd.DataFrame, scale: str = "mosi", bins: int = 7) -> pd.DataFrame:
    """Errors by true label, in bins of equal width over the scale.

    Args:
        predictions: one row per utterance: `label`, `prediction`.
        scale: `mosi`, `mosei` or `sims`: the range of the labels.
        bins: how many.

    Returns:
        One row per bin: `label` (its bounds), `utterances`, `MAE`, `bias` (mean prediction minus mean label), `mean
        prediction`. Empty bins are kept, with NaN.
    """
    low, high = SCALES[scale]
    edges = np.linspace(low, high, bins + 1)
    known = predictions[predictions["label"].notna()]
    index = np.clip(np.searchsorted(edges, known["label"].clip(low, high), side="right") - 1, 0, bins - 1)
    names = [f"{edges[i]:+.2f} to {edges[i + 1]:+.2f}" for i in range(bins)]
    return _table(known, index, names, "label")


def by_class(predictions: pd.DataFrame, classes: int) -> pd.DataFrame:
    """Confusion matrix of a model of classes, with the recall of each class.

    Args:
        predictions: one row per utterance: `label`, `prediction`, as class indices.
        classes: how many.

    Returns:
        One row per true class: `class`, `utterances`, `recall` (NaN without utterances), and how many were predicted to
        be of each class, `predicted NAME`.
    """
    names = CLASS_NAMES.get(classes, tuple(str(i) for i in range(classes)))
    known = predictions[predictions["label"].notna()]
    rows = []
    for i, name in enumerate(names):
        predicted = known.loc[known["label"] == i, "prediction"]
        counts = {f"predicted {other}": int((predicted == j).sum()) for j, other in enumerate(names)}
        rows.append(
            {"class": name, "utterances": len(predicted), "recall": (predicted == i).mean(), **counts}
        )
    return pd.DataFrame(rows)


def by_length(
    predictions: pd.DataFrame,
    texts: Sequence[str],
    edges: Sequence[int] = (5, 10, 20, 40),
    classes: int = 0,
) -> pd.DataFrame:
    """Errors by text length in words (split at spaces).

    Args:
        predictions: one row per utterance, in the order of `texts`.
        texts: the transcripts.
        edges: the longest text of each bin but the last.
        classes: of a model of classes, how many; 0 for a sentiment number.

    Returns:
        As `by_bin`, with `length` in place of `label`; of classes, `length`, `utterances` and `accuracy`.
    """
    lengths = np.array([len(text.split()) for text in texts])
    known = predictions["label"].notna().to_numpy()
    bounds = [0, *edges]
    names = [f"{a + 1 if a else 0} to {b} words" for a, b in zip(bounds, edges, strict=False)]
    index = np.searchsorted(edges, lengths, side="left")
    names.append(f"over {edges[-1]} words")
    table = _table(predictions[known], index[known], names, "length")
    if not classes:
        return table
    right = (predictions["prediction"] == predictions["label"])[known]
    accuracies = [right[index[known] == i].mean() for i in range(len(names))]
    return table[["length", "utterances"]].assign(accuracy=accuracies)


def _table(known: pd.DataFrame, index: np.ndarray, names: list[str], head: str) -> pd.DataFrame:
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
