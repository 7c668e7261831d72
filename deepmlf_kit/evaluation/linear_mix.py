"""Linear mix: does a head say more than a weighted sum of the other heads of the same model?

A head that fuses answers to how words, voice and face go together, which no weighted sum of what the text head and the AV
head say can. So a head that such a sum explains has not fused, however small its error; and the rival of a fused model is
late fusion of its own heads, not a worse model trained apart.

    found = linear_mix(run.predictions(), "fusion")
    found.r2, found.low, found.high        # explained on held-out utterances, 95 % interval
    found.errors                           # head against late fusion, overall and by kind of utterance
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..data.sample import kind_of
from ..errors import DeepMLFError
from .intervals import groups_of, percentile_interval, resamples

#: A head's column in a table of predictions.
_COLUMNS = {"task": "prediction"}


@dataclass(frozen=True)
class LinearMix:
    """How much of a head a linear mix of others explains, and what late fusion of the others is worth.

    Attributes:
        head, others: names of the heads.
        r2: explained share of the head's variance on held-out utterances (cross-fitted); at or below 0: nothing.
        low, high: its 95 % interval over utterances (bootstrap of the held-out predictions).
        weights: of the others, and the `intercept`, fitted on all utterances.
        errors: mean absolute errors, one row for `all` utterances and one for each kind: `kind`, `utterances`, `head`,
            `mean` (late fusion by the mean of the others), `mix` (by the linear mix that fits the labels best, held out),
            `gain` (`mix` minus `head`: what the head is worth beyond late fusion) with its interval `low`, `high`.
        left_out: utterances without a label or without a prediction of one of the heads (no voice and no face).
    """

    head: str
    others: tuple[str, ...]
    r2: float
    low: float
    high: float
    weights: Mapping[str, float]
    errors: pd.DataFrame
    left_out: int

    def __str__(self) -> str:
        mixed = " and ".join(self.others)
        return (
            f"A linear mix of the {mixed} heads explains {self.r2:.0%} of the {self.head} head "
            f"(95 % interval {self.low:.0%} to {self.high:.0%}, held out)."
        )


def linear_mix(
    predictions: pd.DataFrame,
    head: str = "task",
    others: Sequence[str] = ("text", "av"),
    *,
    kinds: Sequence[str] | None = None,
    folds: int = 5,
    draws: int = 1000,
    seed: int = 0,
) -> LinearMix:
    """Explain a head by a linear mix of others, by cross-fitting: each utterance by a mix fitted on the other folds.

    Clips of one video stay in one fold, and are drawn together by the bootstrap.

    Args:
        predictions: one row per utterance: `id`, `label` and the heads' predictions, as `Evaluation.predictions` or
            `Run.predictions()` holds them.
        head: what is explained: `task`, `fusion`, or another column.
        others: what it is explained by.
        kinds: of the utterances, by which errors are broken down; None: those of the sample set's ids (`sincere`,
            `ironic`, `neutral`), of another dataset none.
        folds: of the cross-fitting.
        draws: of the bootstrap.
        seed: of folds and bootstrap.

    Raises:
        DeepMLFError: a head has no column, the model is one of classes, or there are too few utterances or videos.
    """
    columns = {name: _COLUMNS.get(name, name) for name in (head, *others)}
    if missing := [name for name, column in columns.items() if column not in predictions]:
        raise DeepMLFError(
            f"The table has no predictions of {', '.join(missing)}; its columns are {', '.join(predictions)}."
        )
    if "probability_0" in predictions:
        raise DeepMLFError(
            "The predictions are class indices, of which no linear mix makes sense: use a model of sentiment numbers "
            "(heads.classes 0)."
        )
    found = pd.Series(
        [kind_of(str(id)) for id in predictions["id"]] if kinds is None else list(kinds),
        index=predictions.index,
    )
    known = predictions[["label", *columns.values()]].notna().all(axis=1)
    table, kind = predictions[known], found[known].to_numpy()
    groups = groups_of(table["id"])
    if len(groups) < folds or len(table) < 2 * (len(others) + 1) * folds:
        raise DeepMLFError(
            f"{len(table)} utterances of {len(groups)} videos are too few for {folds} folds: use a larger split, or fewer "
            "folds."
        )
    target = table[columns[head]].to_numpy(float)
    inputs = table[[columns[name] for name in others]].to_numpy(float)  # [N, heads]
    label = table["label"].to_numpy(float)
    parts = [np.concatenate(part) for part in _deal(groups, folds, seed)]
    explained, fused = (_held_out(inputs, wanted, parts) for wanted in (target, label))

    def r2(rows: np.ndarray) -> float:
        spread = ((target[rows] - target[rows].mean()) ** 2).sum()
        return float(1 - ((target - explained)[rows] ** 2).sum() / spread) if spread > 0 else float("nan")

    low, high = percentile_interval(np.array([r2(rows) for rows in resamples(groups, draws, seed)]))
    errors = np.abs(np.stack([target, inputs.mean(axis=1), fused], axis=1) - label[:, None])  # [N, 3]
    chosen = {"all": np.ones(len(table), bool)} | {name: kind == name for name in sorted(set(kind) - {""})}
    return LinearMix(
        head=head,
        others=tuple(others),
        r2=r2(np.arange(len(table))),
        low=float(low),
        high=float(high),
        weights=dict(zip((*others, "intercept"), _fit(inputs, target).tolist(), strict=True)),
        errors=pd.DataFrame(
            [_errors(name, table["id"][rows], errors[rows], draws, seed) for name, rows in chosen.items()]
        ),
        left_out=int((~known).sum()),
    )


def _deal(groups: list[np.ndarray], folds: int, seed: int) -> Iterator[list[np.ndarray]]:
    order = np.random.default_rng(seed).permutation(len(groups))
    for fold in range(folds):
        yield [groups[i] for i in order[fold::folds]]


def _fit(inputs: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares weights and intercept [heads + 1]."""
    return np.linalg.lstsq(np.c_[inputs, np.ones(len(inputs))], target, rcond=None)[0]


def _held_out(inputs: np.ndarray, target: np.ndarray, parts: list[np.ndarray]) -> np.ndarray:
    """The target [N] as a mix fitted on the other folds predicts it."""
    predicted = np.empty_like(target)
    for rows in parts:
        rest = np.setdiff1d(np.arange(len(target)), rows)
        predicted[rows] = np.c_[inputs[rows], np.ones(len(rows))] @ _fit(inputs[rest], target[rest])
    return predicted


def _errors(kind: str, ids: pd.Series, errors: np.ndarray, draws: int, seed: int) -> dict[str, object]:
    gains = errors[:, 2] - errors[:, 0]
    low, high = percentile_interval(
        np.array([gains[rows].mean() for rows in resamples(groups_of(ids), draws, seed)])
    )
    head, mean, mix = errors.mean(axis=0)
    return {
        "kind": kind,
        "utterances": len(errors),
        "head": head,
        "mean": mean,
        "mix": mix,
        "gain": mix - head,
        "low": float(low),
        "high": float(high),
    }
