"""What a sweep found, beside what was claimed: computed from the table, never asserted.

Seeds pair the settings: the same seed starts every setting from the same pretraining and the same order of batches.
So two settings are compared by their differences, seed by seed, with a paired t-test.

The best setting is chosen on the validation split and its score read on the test split. The choice and the score come
from the same trainings, so a lucky training is good on both splits, and the best of many settings looks better than it
is. That is paid for: the p value of a claim is corrected (Holm) over every comparison that could have been chosen, of
all claims of one report. So where nothing differs, at most one report in twenty holds a verdict other than
`cannot tell`, however settings and claims are cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..training.metrics import HEADINGS
from .plan import Claim, SweepPlan

if TYPE_CHECKING:
    import pandas as pd

VERDICTS = ("agrees", "does not agree", "cannot tell")
LEVEL = 0.05
"""Largest corrected p value of a verdict other than `cannot tell`: the share of reports that err where nothing differs."""

VALIDATION = "valid"
"""Column of a sweep's table: the validation value that chose a training's best checkpoint; smaller is better."""


@dataclass(frozen=True)
class Finding:
    """One claim against the numbers.

    Attributes:
        verdict: one of `VERDICTS`.
        text: from which numbers.
        p: of the paired t-test, corrected over all comparisons of the report; NaN where nothing was compared.
    """

    claim: Claim
    verdict: str
    text: str
    p: float = math.nan


@dataclass(frozen=True)
class PairedTest:
    """One setting minus another over the seeds that both have: a paired t-test.

    Attributes:
        difference: mean over the seeds.
        low, high: 95 % interval of the difference (Student's t, seeds - 1 degrees of freedom).
        p: two-sided.
        seeds: how many.

    Interval and p are NaN where they cannot be known: below two seeds, where a value is NaN, and where the difference
    is the same in every seed, which says nothing about its spread.
    """

    difference: float
    low: float
    high: float
    p: float
    seeds: int

    @property
    def why_not(self) -> str:
        """Why there is no p value; empty where there is one."""
        if not math.isnan(self.p):
            return ""
        if math.isnan(self.difference) and self.seeds:
            return "the metric is not defined in every training"
        if self.seeds < 2:
            return (
                f"{self.seeds} common {'seed says' if self.seeds == 1 else 'seeds say'} nothing about spread"
            )
        return "the difference is the same in every seed, which says nothing about its spread"


def summary(table: pd.DataFrame, axes: list[str], metric: str = "MAE") -> pd.DataFrame:
    """Mean and sample deviation of a metric over seeds, by setting, in the table's order: axes, mean, std, seeds.

    Where a metric of one training is NaN (a collapsed model has no correlation), so are mean and deviation: the mean
    of the rest would flatter the setting.
    """
    groups = table.groupby(axes, sort=False, dropna=False)[metric]
    return groups.agg(
        mean=lambda values: values.mean(skipna=False),
        std=lambda values: values.std(skipna=False),
        seeds="size",
    ).reset_index()


def best_setting(table: pd.DataFrame, axes: list[str]) -> Any:
    """Index, in `summary(table, axes)`, of the setting with the smallest mean validation value; None without one.

    Settings with a training whose validation value is NaN are not chosen.
    """
    if VALIDATION not in table:
        return None
    means = summary(table, axes, VALIDATION)["mean"]
    return means.idxmin() if means.notna().any() else None


def paired_test(table: pd.DataFrame, axis: str, one: Any, other: Any, metric: str = "MAE") -> PairedTest:
    """Compare two settings of an axis, seed by seed; of several trainings a seed, by their mean."""
    from scipy.stats import t as student_t

    groups = table.groupby([axis, "seed"])[metric]
    values = groups.agg(lambda values: values.mean(skipna=False)).unstack("seed")
    trained = groups.size().unstack("seed").loc[[one, other]].notna().all()  # seeds that both settings have
    difference = (values.loc[one] - values.loc[other])[trained].to_numpy(float)
    n = len(difference)
    mean = float(difference.mean()) if n else math.nan
    error = float(difference.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    if not error > 1e-9 * abs(mean):  # also NaN
        return PairedTest(mean, math.nan, math.nan, math.nan, n)
    reach = float(student_t.ppf(0.975, n - 1)) * error
    return PairedTest(mean, mean - reach, mean + reach, 2 * float(student_t.sf(abs(mean) / error, n - 1)), n)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for being several (Holm 1979), in their order; NaN stays and counts as a comparison."""
    p = np.asarray(p_values, float)
    order = np.argsort(p)  # NaN last
    factors = np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1.0, np.fmax.accumulate(p[order] * factors))
    corrected[np.isnan(p)] = math.nan
    return corrected.tolist()


def findings(table: pd.DataFrame, plan: SweepPlan, metric: str = "MAE") -> list[Finding]:
    """Every claim of the plan whose axis was varied, against the table; see `joint_findings`."""
    return joint_findings([(table, plan)], metric)


def joint_findings(sweeps: Sequence[tuple[pd.DataFrame, SweepPlan]], metric: str = "MAE") -> list[Finding]:
    """Every claim of several sweeps that one report tells of.

    Of the settings that a claim favours the best on the validation split is set against the best of the others. The
    claim agrees where the favoured is better on the test split and the corrected p value is below 0.05, does not agree
    where it is worse and p is below 0.05, and else nothing can be told.

    Args:
        sweeps: tables and their plans; in a table without validation values the best is chosen on the test split, which
            the correction over all comparisons covers.
    """
    compared = [
        _Compared(claim, table, metric)
        for table, plan in sweeps
        for claim in plan.claims
        if claim.axis in table
    ]
    p_values = holm([test.p for comparison in compared for test in comparison.tests.values()])
    found, start = [], 0
    for comparison in compared:
        end = start + len(comparison.tests)
        found.append(comparison.finding(p_values[start:end], len(p_values)))
        start = end
    return found


class _Compared:
    """A claim with all its comparisons: each setting that it favours against each that it does not."""

    def __init__(self, claim: Claim, table: pd.DataFrame, metric: str) -> None:
        self.claim, self.metric = claim, metric
        self.means = summary(table, [claim.axis], metric).set_index(claim.axis)["mean"]
        self.chosen_on = "validation" if VALIDATION in table else "test"
        if self.chosen_on == "validation":
            self.worse = summary(table, [claim.axis], VALIDATION).set_index(claim.axis)["mean"]
        else:
            self.worse = -self._sign * self.means
        wanted = {str(value) for value in claim.favoured}
        self.favoured = [value for value in self.means.index if str(value) in wanted]
        self.others = [value for value in self.means.index if str(value) not in wanted]
        self.tests = {
            (one, other): paired_test(table, claim.axis, one, other, metric)
            for one in self.favoured
            for other in self.others
        }

    def finding(self, p_values: Sequence[float], comparisons: int) -> Finding:
        """The verdict, given the corrected p values of `tests` and how many were corrected for."""
        if not self.tests:
            missing = "that it favours" if self.others else "outside it"
            return Finding(self.claim, "cannot tell", f"no setting {missing} was trained")
        one, other = self._best(self.favoured), self._best(self.others)
        if one is None or other is None:
            return Finding(
                self.claim, "cannot tell", f"no best setting: the {self.chosen_on} values are not all numbers"
            )
        test = self.tests[one, other]
        p = dict(zip(self.tests, p_values, strict=True))[one, other]
        numbers = (
            f"{self.metric} {self.means[one]:.3f} at {self.claim.axis} {one} (the best on {self.chosen_on} that the "
            f"claim favours) against {self.means[other]:.3f} at {other} (the best of the others)"
        )
        if test.why_not:
            return Finding(self.claim, "cannot tell", f"{numbers}; {test.why_not}")
        text = (
            f"{numbers}; difference {test.difference:+.3f}, 95 % interval {test.low:+.3f} to {test.high:+.3f} over "
            f"{test.seeds} seeds (paired t-test), p {_shown(test.p)}, corrected for {comparisons} "
            f"{'comparison' if comparisons == 1 else 'comparisons'} {_shown(p)}"
        )
        if not p < LEVEL:
            return Finding(self.claim, "cannot tell", text, p)
        return Finding(
            self.claim, "agrees" if self._sign * test.difference > 0 else "does not agree", text, p
        )

    @property
    def _sign(self) -> int:
        return 1 if HEADINGS[self.metric][1] else -1

    def _best(self, settings: Sequence[Any]) -> Any:
        worse = self.worse[settings].dropna()
        return worse.idxmin() if len(worse) else None


def _shown(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "below 0.001"
