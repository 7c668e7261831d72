"""Published claims against the results of a sweep, by statistical tests.

Settings are paired by seed: the same seed gives every setting the same pretraining and order of batches. So two settings
are compared by their differences per seed, with a paired t-test.

The best setting is chosen on the validation split and scored on the test split. Choice and score come from the same
trainings, so a lucky training is good on both splits, and the best of many settings looks better than it is. To account
for this, the p value of a claim is corrected (Holm) over every comparison that could have been chosen, of all claims of
one report: under the null hypothesis, at most one report in twenty holds a verdict other than `cannot tell`, whatever the
settings and claims.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student_t

from ..training.metrics import HEADINGS
from .plan import Claim, SweepPlan

VERDICTS = ("agrees", "does not agree", "cannot tell")
LEVEL = 0.05
"""Significance level, after correction, of a verdict other than `cannot tell`: the family-wise error rate of a report."""

VALIDATION = "valid"
"""Column of a sweep's table: the validation metric that selected the best checkpoint; lower is better."""


@dataclass(frozen=True)
class Finding:
    """One claim against the numbers.

    Attributes:
        verdict: one of `VERDICTS`.
        text: the numbers behind it.
        p: of the paired t-test, corrected over all comparisons of the report; NaN where there is none.
        test: the best favoured setting minus the best of the others, not corrected; None where one of them is missing.
        comparisons: how many the report corrects for.
    """

    claim: Claim
    verdict: str
    text: str
    p: float = math.nan
    test: PairedTest | None = None
    comparisons: int = 0


@dataclass(frozen=True)
class PairedTest:
    """Paired t-test of one setting minus another, over their common seeds.

    Attributes:
        difference: mean over the seeds.
        low, high: 95 % interval of the difference (Student's t, seeds - 1 degrees of freedom).
        p: two-sided.
        seeds: number of common seeds.

    Interval and p are NaN where they are undefined: with fewer than two seeds, where a value is NaN, and where the
    difference is the same in every seed, which says nothing about its spread.
    """

    difference: float
    low: float
    high: float
    p: float
    seeds: int

    @property
    def why_undecided(self) -> str:
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
    """Mean and sample standard deviation of a metric over seeds, by setting, in the table's order: axes, mean, std, seeds.

    Where the metric of one training is NaN (a collapsed model has no correlation), both are NaN: the mean of the others
    would overrate the setting.
    """
    groups = table.groupby(axes, sort=False, dropna=False)[metric]
    return groups.agg(
        mean=lambda values: values.mean(skipna=False),
        std=lambda values: values.std(skipna=False),
        seeds="size",
    ).reset_index()


def best_setting(table: pd.DataFrame, axes: list[str]) -> Any:
    """Index, in `summary(table, axes)`, of the setting with the lowest mean validation metric; None without one.

    Settings with a training whose validation metric is NaN are not chosen.
    """
    if VALIDATION not in table:
        return None
    means = summary(table, axes, VALIDATION)["mean"]
    return means.idxmin() if means.notna().any() else None


def paired_test(table: pd.DataFrame, axis: str, one: Any, other: Any, metric: str = "MAE") -> PairedTest:
    """Compare two settings of an axis, paired by seed; several trainings of one seed are averaged."""
    groups = table.groupby([axis, "seed"])[metric]
    values = groups.agg(lambda values: values.mean(skipna=False)).unstack("seed")
    trained = groups.size().unstack("seed").loc[[one, other]].notna().all()  # common seeds
    difference = (values.loc[one] - values.loc[other])[trained].to_numpy(float)
    n = len(difference)
    mean = float(difference.mean()) if n else math.nan
    error = float(difference.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    if not error > 1e-9 * abs(mean):  # also NaN
        return PairedTest(mean, math.nan, math.nan, math.nan, n)
    reach = float(student_t.ppf(0.975, n - 1)) * error
    return PairedTest(mean, mean - reach, mean + reach, 2 * float(student_t.sf(abs(mean) / error, n - 1)), n)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for multiple comparisons (Holm 1979), in their order; NaN is kept and counts as a comparison."""
    p = np.asarray(p_values, float)
    order = np.argsort(p)  # NaN last
    factors = np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1.0, np.fmax.accumulate(p[order] * factors))
    corrected[np.isnan(p)] = math.nan
    return corrected.tolist()


def findings(table: pd.DataFrame, plan: SweepPlan, metric: str = "MAE") -> list[Finding]:
    """Every claim of the plan whose axis was varied, tested on the table; see `joint_findings`."""
    return joint_findings([(table, plan)], metric)


def joint_findings(sweeps: Sequence[tuple[pd.DataFrame, SweepPlan]], metric: str = "MAE") -> list[Finding]:
    """Every claim of several sweeps in one report.

    Among the settings that a claim favours, the best on the validation split is compared with the best of the others. The
    claim agrees where the favoured one is better on the test split and the corrected p value is below 0.05, does not
    agree where it is worse and p is below 0.05, and otherwise the verdict is `cannot tell`.

    Args:
        sweeps: tables and their plans; in a table without validation metrics the best is chosen on the test split, which
            the correction over all comparisons accounts for.
        metric: of the comparison.
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
    """A claim with all its comparisons: each favoured setting against each other one."""

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
        """The verdict, given the corrected p values of `tests` and the number of comparisons corrected for."""
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
        if test.why_undecided:
            text = f"{numbers}; {test.why_undecided}"
            return Finding(self.claim, "cannot tell", text, test=test, comparisons=comparisons)
        text = (
            f"{numbers}; difference {test.difference:+.3f}, 95 % interval {test.low:+.3f} to {test.high:+.3f} over "
            f"{test.seeds} seeds (paired t-test), p {_shown(test.p)}, corrected for {comparisons} "
            f"{'comparison' if comparisons == 1 else 'comparisons'} {_shown(p)}"
        )
        verdict = "cannot tell"
        if p < LEVEL:
            verdict = "agrees" if self._sign * test.difference > 0 else "does not agree"
        return Finding(self.claim, verdict, text, p, test, comparisons)

    @property
    def _sign(self) -> int:
        return 1 if HEADINGS[self.metric][1] else -1

    def _best(self, settings: Sequence[Any]) -> Any:
        worse = self.worse[settings].dropna()
        return worse.idxmin() if len(worse) else None


def _shown(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "below 0.001"
