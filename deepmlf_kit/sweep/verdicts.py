"""What a sweep found, beside what was claimed: computed from the table, never asserted.

Seeds pair the settings: the same seed starts every setting from the same pretraining and the same order of batches.
So two settings are compared by their differences, seed by seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..training.metrics import HEADINGS
from .plan import Claim, SweepPlan

if TYPE_CHECKING:
    import pandas as pd

VERDICTS = ("agrees", "does not agree", "cannot tell")


@dataclass(frozen=True)
class Finding:
    """One claim against the numbers: `verdict` is one of `VERDICTS`, `text` says from which numbers."""

    claim: Claim
    verdict: str
    text: str


def summary(table: pd.DataFrame, axes: list[str], metric: str = "MAE") -> pd.DataFrame:
    """Mean and sample deviation of a metric over seeds, by setting, in the table's order: axes, mean, std, seeds."""
    groups = table.groupby(axes, sort=False, dropna=False)[metric]
    return groups.agg(mean="mean", std="std", seeds="count").reset_index()


def paired_difference(
    table: pd.DataFrame, axis: str, one: Any, other: Any, metric: str
) -> tuple[float, float, int]:
    """`one` minus `other` over the seeds that both have: mean, standard error (NaN below 2 seeds), seeds."""
    values = table.groupby([axis, "seed"])[metric].mean().unstack("seed")
    difference = (values.loc[one] - values.loc[other]).dropna()
    n = len(difference)
    error = float(difference.std(ddof=1) / math.sqrt(n)) if n > 1 else float("nan")
    return float(difference.mean()) if n else float("nan"), error, n


def findings(table: pd.DataFrame, plan: SweepPlan, metric: str = "MAE") -> list[Finding]:
    """Every claim of the plan whose axis was varied, against the table.

    The best setting that the claim favours is set against the best that it does not. The claim agrees where the
    favoured is better by more than twice the standard error of the paired difference, does not agree where it is
    worse by as much, and else nothing can be told.
    """
    return [_against(claim, table, metric) for claim in plan.claims if claim.axis in table]


def _against(claim: Claim, table: pd.DataFrame, metric: str) -> Finding:
    from scipy.stats import t as student_t

    sign = 1 if HEADINGS[metric][1] else -1
    means = table.groupby(claim.axis, sort=False)[metric].mean()
    wanted = {str(value) for value in claim.favoured}
    favoured = means[[str(value) in wanted for value in means.index]]
    rest = means[[str(value) not in wanted for value in means.index]]
    if favoured.empty or rest.empty:
        missing = "outside it" if rest.empty else "that it favours"
        return Finding(claim, "cannot tell", f"no setting {missing} was trained")
    one, other = (sign * favoured).idxmax(), (sign * rest).idxmax()
    difference, error, seeds = paired_difference(table, claim.axis, one, other, metric)
    numbers = (
        f"{metric} {means[one]:.3f} at {claim.axis} {one} (the best that the claim favours) against {means[other]:.3f} "
        f"at {other} (the best of the others)"
    )
    if seeds < 2:
        return Finding(claim, "cannot tell", f"{numbers}; {seeds} common seed says nothing about spread")
    p = 2 * float(student_t.sf(abs(difference) / error, seeds - 1)) if error > 0 else float(difference == 0)
    text = f"{numbers}; difference {difference:+.3f}, standard error {error:.3f} over {seeds} seeds (paired t-test p {p:.3f})"
    better = sign * difference
    if better > 2 * error:
        return Finding(claim, "agrees", text)
    return Finding(claim, "does not agree" if better < -2 * error else "cannot tell", text)
