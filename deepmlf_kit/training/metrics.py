"""The field's metrics: what papers on MOSI, MOSEI and CH-SIMS report, by the names they use.

Stands after the model: `score` takes predicted and true sentiment and returns one flat dict. Training calls it on
the validation split after every epoch, `evaluate` on the test split of the best checkpoint.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..errors import DeepMLFError
from .scales import SCALES

#: Metrics in the order of the tables: the name in a table's header, and whether higher is better.
HEADINGS: dict[str, tuple[str, bool]] = {
    "MAE": ("MAE", False),
    "Corr": ("Corr", True),
    "Has0_acc_2": ("Acc-2 (neg/non-neg)", True),
    "Has0_F1_score": ("F1 (neg/non-neg)", True),
    "Non0_acc_2": ("Acc-2 (neg/pos)", True),
    "Non0_F1_score": ("F1 (neg/pos)", True),
    "Mult_acc_2": ("Acc-2", True),
    "Mult_acc_3": ("Acc-3", True),
    "Mult_acc_5": ("Acc-5", True),
    "Mult_acc_7": ("Acc-7", True),
    "F1_score": ("F1", True),
    **{f"Acc_{n}": (f"Acc, {n} classes", True) for n in range(2, 8)},
    **{f"F1_score_{n}": (f"F1, {n} classes", True) for n in range(2, 8)},
}

_SIMS_EDGES = {
    "Mult_acc_2": (-1.01, 0.0, 1.01),
    "Mult_acc_3": (-1.01, -0.1, 0.1, 1.01),
    "Mult_acc_5": (-1.01, -0.7, -0.1, 0.1, 0.7, 1.01),
}


def score(
    predictions: Any,
    labels: Any,
    dataset: str = "mosi",
    classes: int = 0,
    only: Sequence[str] | None = None,
) -> dict[str, float]:
    """Score predictions as the field does.

    MOSI and MOSEI: Acc-7 and Acc-5 clip to [-3, 3] and [-2, 2] and round half to even; `Has0_*` sets negative
    against non-negative, `Non0_*` negative against positive without the utterances labelled exactly 0; MAE and
    Corr take the values as they are. CH-SIMS: everything is computed on values clipped to [-1, 1], classes are
    left-open, right-closed intervals. F1 is weighted by the support of the true classes.

    Args:
        predictions: [N] predicted sentiment, array, tensor or list, on the dataset's scale.
        labels: [N] true sentiment; utterances whose label is NaN (unknown) are left out.
        dataset: `mosi`, `mosei` or `sims`: which rules apply.
        classes: for a model of classes, how many; predictions and labels are then class indices (`data.labels`) and
            the metrics `Acc_3` and `F1_score_3` (weighted by support), the names of MMSA's classification.
        only: compute just these metrics (resampling needs thousands of scores); None: all.

    Returns:
        MOSI/MOSEI: `Has0_acc_2`, `Has0_F1_score`, `Non0_acc_2`, `Non0_F1_score`, `Mult_acc_5`, `Mult_acc_7`,
        `MAE`, `Corr`. SIMS: `Mult_acc_2`, `Mult_acc_3`, `Mult_acc_5`, `F1_score`, `MAE`, `Corr`. Accuracies, F1 and
        Corr are fractions (0.85, not 85 %). An undefined value (Corr of a constant, `Non0_*` where every label is 0)
        is NaN.

    Raises:
        DeepMLFError: unknown dataset, lengths that differ, nothing labelled, or a prediction that is not finite.
    """
    predicted, true = _vectors(predictions, labels)
    if classes:
        known = _class_metrics(predicted.round(), true.round(), classes)
    elif dataset in ("mosi", "mosei"):
        known = _mosi_metrics(predicted, true)
    elif dataset == "sims":
        known = _sims_metrics(predicted.clip(-1, 1), true.clip(-1, 1))
    else:
        raise DeepMLFError(
            f"Metrics for dataset {dataset!r} are not known; choose one of {', '.join(SCALES)}."
        )
    return {name: compute() for name, compute in known.items() if only is None or name in only}


def mean_and_deviation(scores: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Mean and sample standard deviation (n - 1) of each metric over several seeds; of one seed, the latter is NaN.

    Raises:
        DeepMLFError: there are no scores.
    """
    if not scores:
        raise DeepMLFError("There are no scores to average: give at least one run.")
    table = {}
    for name in scores[0]:
        values = np.array([s[name] for s in scores], dtype=np.float64)
        deviation = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
        table[name] = (float(values.mean()), deviation)
    return table


def _vectors(predictions: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both as float32 [N]: the precision in which the published rules compare with the class edges."""
    predicted, true = (np.asarray(_to_numpy(x), dtype=np.float32).reshape(-1) for x in (predictions, labels))
    if predicted.shape != true.shape:
        raise DeepMLFError(
            f"{len(predicted)} predictions cannot be scored against {len(true)} labels; give one of each an utterance."
        )
    known = ~np.isnan(true)
    if not known.any():
        raise DeepMLFError(f"None of the {len(true)} utterances has a label, so there is nothing to score.")
    predicted, true = predicted[known], true[known]
    if not np.isfinite(predicted).all():
        bad = int((~np.isfinite(predicted)).sum())
        raise DeepMLFError(
            f"{bad} of {len(predicted)} predictions are NaN or infinite; the training has diverged (try a smaller "
            "learning rate) or the features hold such values."
        )
    return predicted, true


def _to_numpy(values: Any) -> Any:
    return values.detach().cpu().float().numpy() if hasattr(values, "detach") else values


def _mosi_metrics(predicted: np.ndarray, true: np.ndarray) -> dict[str, Callable[[], float]]:
    def same_class(limit: float) -> float:
        # numpy rounds half to even, as the published evaluation does
        return float((np.round(predicted.clip(-limit, limit)) == np.round(true.clip(-limit, limit))).mean())

    nonzero = true != 0
    has0 = true >= 0, predicted >= 0
    non0 = true[nonzero] > 0, predicted[nonzero] > 0
    return {
        "Has0_acc_2": lambda: _accuracy(*has0),
        "Has0_F1_score": lambda: _f1(*has0),
        "Non0_acc_2": lambda: _accuracy(*non0),
        "Non0_F1_score": lambda: _f1(*non0),
        "Mult_acc_5": lambda: same_class(2.0),
        "Mult_acc_7": lambda: same_class(3.0),
        "MAE": lambda: _mae(true, predicted),
        "Corr": lambda: _correlation(predicted, true),
    }


def _sims_metrics(predicted: np.ndarray, true: np.ndarray) -> dict[str, Callable[[], float]]:
    def same_interval(edges: tuple[float, ...]) -> float:
        edges32 = np.asarray(edges, dtype=np.float32)  # 0.1 is in (-0.1, 0.1] in float32 but not in float64
        return _accuracy(_interval(true, edges32), _interval(predicted, edges32))

    return {
        **{name: partial(same_interval, edges) for name, edges in _SIMS_EDGES.items()},
        "F1_score": lambda: _f1(true > 0, predicted > 0),
        "MAE": lambda: _mae(true, predicted),
        "Corr": lambda: _correlation(predicted, true),
    }


def _class_metrics(predicted: np.ndarray, true: np.ndarray, classes: int) -> dict[str, Callable[[], float]]:
    return {
        f"Acc_{classes}": lambda: _accuracy(true, predicted),
        f"F1_score_{classes}": lambda: _f1(true, predicted),
    }


def _interval(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Index of the left-open, right-closed interval each value falls in."""
    return np.searchsorted(edges, values, side="left")


def _accuracy(true: np.ndarray, predicted: np.ndarray) -> float:
    return float(np.mean(true == predicted)) if len(true) else float("nan")


def _f1(true: np.ndarray, predicted: np.ndarray) -> float:
    """Weighted by the support of the true classes."""
    if not len(true):
        return float("nan")
    from sklearn.metrics import f1_score

    return float(f1_score(true, predicted, average="weighted", zero_division=0.0))


def _mae(true: np.ndarray, predicted: np.ndarray) -> float:
    return float(np.mean(np.abs(true.astype(np.float64) - predicted.astype(np.float64))))


def _correlation(predicted: np.ndarray, true: np.ndarray) -> float:
    if len(true) < 2 or np.ptp(predicted) == 0 or np.ptp(true) == 0:  # a deviation may round to above 0
        return float("nan")
    return float(np.corrcoef(predicted.astype(np.float64), true.astype(np.float64))[0, 1])
