"""Paired tests of two runs on the same utterances: bootstrap interval and permutation test of each metric."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..errors import DeepMLFError
from ..training.metrics import HEADINGS, score
from .intervals import groups_of, percentile_interval, resamples


@dataclass(frozen=True)
class Comparison:
    """One metric of two models on the same utterances.

    Attributes:
        one, other: the metric of each.
        difference: one minus other.
        low, high: 95 % interval of the difference (paired bootstrap).
        p: two-sided p value of a paired permutation test, in which each utterance's two predictions are swapped at
            random.

    Where the metric of either is undefined (Corr of constant predictions), difference, interval and p are NaN.
    """

    metric: str
    one: float
    other: float
    difference: float
    low: float
    high: float
    p: float

    def why_undecided(self, one: str = "one", other: str = "other") -> str:
        """Why the comparison is undecidable, with the models by these names; empty where it is not."""
        undefined = [name for name, value in ((one, self.one), (other, self.other)) if math.isnan(value)]
        if not undefined:
            return ""
        return (
            f"{HEADINGS[self.metric][0]} is not defined for {' and '.join(undefined)} (all predictions equal, or no label "
            "that counts)"
        )

    @property
    def better(self) -> str:
        """`one`, `other`, `neither` where p is 0.05 or more, or `cannot tell` where p is NaN (`why_undecided`)."""
        if math.isnan(self.p):
            return "cannot tell"
        if not self.p < 0.05 or self.difference == 0:
            return "neither"
        more = HEADINGS[self.metric][1]
        return "one" if (self.difference > 0) == more else "other"


def compare(
    one: pd.DataFrame,
    other: pd.DataFrame,
    scale: str = "mosi",
    metrics: tuple[str, ...] | None = None,
    draws: int = 1000,
    seed: int = 0,
    classes: int = 0,
) -> dict[str, Comparison]:
    """Compare two tables of predictions on the same utterances (clips of one video are kept together).

    Args:
        one, other: `id`, `label`, `prediction`; the same utterances, in any order.
        scale: rules of the metrics (`mosi`, `mosei`, `sims`).
        metrics: which; None: all of the scale but F1, which is slow to compute thousands of times.
        draws: of the bootstrap, and of the permutation test.
        seed: of both.
        classes: of models of classes, how many; 0 for sentiment numbers.

    Raises:
        DeepMLFError: the tables hold different utterances or labels.
    """
    one = one[one["label"].notna()]
    both = one.merge(other, on="id", suffixes=("", "_other"), validate="one_to_one")
    if len(both) != len(one) or len(both) != int(other["label"].notna().sum()):
        raise DeepMLFError(
            f"The two runs predict different utterances: {len(one)} and {len(other)}, of which {len(both)} are common. "
            "Evaluate both on one dataset and split."
        )
    if not np.allclose(both["label"], both["label_other"], atol=1e-6):
        raise DeepMLFError(
            "The two runs were scored against different labels: evaluate both on one dataset, and compare numbers with "
            "numbers, classes with the same classes."
        )
    a, b = both["prediction"].to_numpy(), both["prediction_other"].to_numpy()
    true = both["label"].to_numpy()
    all_names = score(a, true, scale, classes=classes)
    names = metrics or tuple(name for name in all_names if "F1" not in name)
    groups = groups_of(both["id"])

    def scores(predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        return score(predicted, labels, scale, classes=classes, only=names)

    def differences(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> np.ndarray:
        mine, theirs = scores(first, labels), scores(second, labels)
        return np.array([mine[name] - theirs[name] for name in names])

    seen = differences(a, b, true)
    drawn = np.array([differences(a[r], b[r], true[r]) for r in resamples(groups, draws, seed)])
    random = np.random.default_rng(seed + 1)
    group_of_row = np.empty(len(a), int)
    for number, rows in enumerate(groups):
        group_of_row[rows] = number
    swapped = []
    for _ in range(draws):
        swap = random.integers(2, size=len(groups)).astype(bool)[group_of_row]
        swapped.append(differences(np.where(swap, b, a), np.where(swap, a, b), true))
    # A permutation in which the metric is undefined may have been as large: it counts against the difference.
    as_large = (~(np.abs(np.array(swapped)) < np.abs(seen) - 1e-12)).sum(axis=0)
    p = np.where(np.isnan(seen), np.nan, (as_large + 1) / (draws + 1))
    low, high = percentile_interval(drawn)
    first, second = scores(a, true), scores(b, true)
    return {
        name: Comparison(
            name,
            first[name],
            second[name],
            float(seen[i]),
            float(low[i]),
            float(high[i]),
            float(p[i]),
        )
        for i, name in enumerate(names)
    }
