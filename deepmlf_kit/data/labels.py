"""Classes of sentiment: what becomes of a dataset's number where a model answers with a class.

Three classes are MMSA's: negative, neutral, positive, by the sign of the label; two are negative and non-negative. Any
other number of classes takes the dataset's labels as class indices, as they are.
"""

from __future__ import annotations

import numpy as np

from .schema import DatasetError

CLASS_NAMES = {2: ("negative", "non-negative"), 3: ("negative", "neutral", "positive")}


def class_labels(labels: np.ndarray, classes: int) -> np.ndarray:
    """Sentiments -> class indices, from 0; NaN (unknown) stays NaN.

    Args:
        labels: [N] on the dataset's scale.
        classes: how many.

    Raises:
        DatasetError: with more than three classes, a label that is no class index.
    """
    labels = np.asarray(labels, np.float32)
    if classes == 3:
        return np.sign(labels) + 1
    if classes == 2:
        return np.where(np.isnan(labels), np.nan, labels >= 0).astype(np.float32)
    known = labels[~np.isnan(labels)]
    wrong = known[(known != known.round()) | (known < 0) | (known >= classes)]
    if len(wrong):
        raise DatasetError(
            f"found the label {wrong[0]:g}, expected a class index from 0 to {classes - 1}: set heads.classes to 3 for "
            "negative, neutral and positive, or to 0 for a sentiment number"
        )
    return labels
