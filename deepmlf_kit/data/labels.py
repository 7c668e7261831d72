"""Sentiment classes: a dataset's labels as targets of a classifier.

Three classes are MMSA's: negative, neutral, positive; the annotated class where the dataset has one (`label_class`),
else the sign of the label. Two are negative and non-negative, by the label. Any other number of
classes takes the dataset's labels as class indices, as they are.
"""

from __future__ import annotations

import numpy as np

from .schema import DatasetError

CLASS_NAMES = {2: ("negative", "non-negative"), 3: ("negative", "neutral", "positive")}


def probability_columns(classes: int) -> list[str]:
    """Columns of a run's `predictions.csv` with the task head's probability of each class."""
    return [f"probability_{index}" for index in range(classes)]


def class_names(classes: int) -> list[str]:
    """Names of the classes; `class 0` and so on where they are neither two nor three."""
    return list(CLASS_NAMES.get(classes, [f"class {index}" for index in range(classes)]))


def class_index(name: str) -> float:
    """Index of one of the three classes by its name (`Negative`, `neutral`, ...); NaN for anything else."""
    name = name.strip().lower()
    return float(CLASS_NAMES[3].index(name)) if name in CLASS_NAMES[3] else float("nan")


def class_labels(labels: np.ndarray, classes: int, annotated: np.ndarray | None = None) -> np.ndarray:
    """Sentiments -> class indices, from 0; NaN (unknown) stays NaN.

    Args:
        labels: [N] on the dataset's scale.
        classes: how many.
        annotated: [N] index of the annotated class, of three classes; NaN where there is none.

    Raises:
        DatasetError: an annotated class that is none of the three; with more than three classes, a label that is no class
            index.
    """
    labels = np.asarray(labels, np.float32)
    if classes == 3:
        if annotated is not None:
            _check_indices(annotated, 3, "label_class")
        signs = np.sign(labels) + 1
        return (
            signs if annotated is None else np.where(np.isnan(annotated), signs, annotated).astype(np.float32)
        )
    if classes == 2:
        return np.where(np.isnan(labels), np.nan, labels >= 0).astype(np.float32)
    _check_indices(labels, classes, "label")
    return labels


def _check_indices(values: np.ndarray, classes: int, column: str) -> None:
    known = values[~np.isnan(values)]
    wrong = known[(known != known.round()) | (known < 0) | (known >= classes)]
    if len(wrong):
        raise DatasetError(
            f"found the {column} {wrong[0]:g}, expected a class index from 0 to {classes - 1}: set heads.classes to 3 for "
            "negative, neutral and positive, or to 0 for a sentiment number"
        )
