"""Bootstrap confidence intervals: how much a metric would vary over other utterances of the same kind.

Utterances are resampled with replacement; those of one video are drawn together where ids name videos
(`video$_$clip`), since clips of one speaker are not independent. The interval says nothing about other seeds: train
several for that.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from ..training.metrics import score


def bootstrap(
    predictions: pd.DataFrame,
    scale: str = "mosi",
    draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    classes: int = 0,
) -> dict[str, tuple[float, float, float]]:
    """Value and percentile interval of every metric.

    Args:
        predictions: one row per utterance: `id`, `label`, `prediction`.
        scale: rules of the metrics (`mosi`, `mosei`, `sims`).
        draws: number of bootstrap samples.
        confidence: level of the interval.
        seed: of the resampling.
        classes: of a model of classes, how many; 0 for a sentiment number.

    Returns:
        metric -> (value, low, high). A metric that is undefined (Corr of a constant) is NaN with its interval; so is a
        bound where it is undefined in too many draws (`percentile_interval`).
    """
    known = predictions[predictions["label"].notna()]
    predicted, true = known["prediction"].to_numpy(), known["label"].to_numpy()
    value = score(predicted, true, scale, classes=classes)
    found: dict[str, list[float]] = {name: [] for name in value}
    for rows in resamples(groups_of(known["id"]), draws, seed):
        for name, drawn in score(predicted[rows], true[rows], scale, classes=classes).items():
            found[name].append(drawn)
    bounds = {name: percentile_interval(np.array(drawn), confidence) for name, drawn in found.items()}
    return {name: (value[name], float(low), float(high)) for name, (low, high) in bounds.items()}


def percentile_interval(drawn: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bound over the draws, [draws, ...] -> ([...], [...]).

    A draw in which the metric is undefined (NaN) may have been anything, so it counts beyond both bounds; a bound that
    falls among such draws is NaN. Leaving them out would narrow the interval to the draws that went well.
    """
    tail = 100 * (1 - confidence) / 2
    undefined = np.isnan(drawn)
    with np.errstate(invalid="ignore"):  # between two infinities lies no number
        low = np.percentile(np.where(undefined, -np.inf, drawn), tail, axis=0)
        high = np.percentile(np.where(undefined, np.inf, drawn), 100 - tail, axis=0)
    return np.where(np.isfinite(low), low, np.nan), np.where(np.isfinite(high), high, np.nan)


def groups_of(ids: pd.Series) -> list[np.ndarray]:
    """Row numbers of the utterances that are drawn together: one group per video, or per utterance."""
    videos = ids.astype(str).str.split("$_$", regex=False).str[0].to_numpy()
    _, inverse = np.unique(videos, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(inverse[order])) + 1)


def resamples(groups: list[np.ndarray], draws: int, seed: int) -> Iterator[np.ndarray]:
    """Row numbers of each bootstrap sample: as many groups as there are, drawn with replacement."""
    random = np.random.default_rng(seed)
    for _ in range(draws):
        yield np.concatenate([groups[i] for i in random.integers(len(groups), size=len(groups))])
