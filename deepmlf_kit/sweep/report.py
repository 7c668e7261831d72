"""The report of a sweep: table, curves with error bars, and each claim with its verdict."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ..plots.ablation import ablation_curve
from ..rendering.html_page import figure_html, page
from ..rendering.tables import Table
from ..storage.files import write_text
from ..training.metric_table import cell_text, heading
from ..training.metrics import HEADINGS
from .plan import ARM, SweepPlan
from .results import failures, ordered
from .verdicts import best_setting, findings, summary

#: Metrics in the table, of those that the sweep has.
SHOWN = ("MAE", "Corr", "Has0_acc_2", "Mult_acc_7", "Mult_acc_2", "Mult_acc_3", "Acc_3", "F1_score_3")
AXIS_NAMES = {
    "depth": "fusion depth (LM layers with an MM Block)",
    "place": "placement of the fusion layers",
    "curriculum": "initialisation of the AV encoder",
    "fusion.tokens": "fusion tokens",
    "fusion.gating": "gate",
    ARM: "variant",
}


def main_metric(table: pd.DataFrame) -> str:
    """The metric of curves and verdicts: MAE, or the first that the table has."""
    return next(name for name in ("MAE", *HEADINGS) if name in table)


def figures(table: pd.DataFrame, plan: SweepPlan) -> list[go.Figure]:
    """One curve over the first axis for each setting of the other axes."""
    metric, axes = main_metric(table), [axis for axis in plan.axes if axis in table]
    made = []
    others = axes[1:] if not plan.search else []
    groups: Sequence[Any] = [((), table)] if not others else list(table.groupby(others, sort=False))
    for axis in axes if plan.search else axes[:1]:
        for names, part in groups:
            fixed = ", ".join(f"{key} {value}" for key, value in zip(others, names, strict=True))
            title = f"{metric} by {AXIS_NAMES.get(axis, axis)}" + (f", {fixed}" if fixed else "")
            if plan.search:
                part = part.sort_values(axis)
            made.append(ablation_curve(part, axis, metric, title=title, axis=AXIS_NAMES.get(axis, axis)))
    return made


def write_report(out: str | Path, plan: SweepPlan, table: pd.DataFrame) -> Path:
    """Write `report.md` and `report.html` into the sweep's folder.

    Args:
        out: the sweep's folder.
        plan: of the sweep.
        table: as `gather` returns it, one row per finished trial.

    Returns:
        The HTML page.
    """
    out = Path(out)
    axes = [axis for axis in plan.axes if axis in table]
    for axis in reversed(axes):
        values = list(plan.arms) if axis == ARM else plan.grid.get(axis)
        table = ordered(table, axis, list(values)) if values else table
    metric = main_metric(table)
    results = _summary_table(table, axes)
    found = findings(table, plan, metric)
    failed = failures(out)
    lead = _lead(plan, table)
    best = _best_setting_text(table, axes)
    markdown = [f"# Sweep: {plan.name}\n", f"{lead}\n", "## Results\n", f"{best}\n", results.markdown()]
    parts = ["<h2>Results</h2>", f"<p>{html.escape(best)}</p>", results.html()]
    parts += [figure_html(figure) for figure in figures(table, plan)]
    if found:
        told = [(f.claim.text, f.claim.source, f.verdict, f.text) for f in found]
        markdown.append("## Beside what was claimed\n")
        markdown.append("".join(f"- **{v}**: “{t}” ({s}). Here: {n}.\n" for t, s, v, n in told))
        markdown.append(f"{_CAUTION}\n")
        items = "".join(
            f"<li><b>{html.escape(v)}</b>: “{html.escape(t)}” ({html.escape(s)}). Here: {html.escape(n)}.</li>"
            for t, s, v, n in told
        )
        parts += ["<h2>Beside what was claimed</h2>", f"<ul>{items}</ul>", f"<p>{html.escape(_CAUTION)}</p>"]
    if failed:
        markdown.append("## Failed trials\n")
        markdown.append("".join(f"- `{name}`: {reason}\n" for name, reason in failed.items()))
        items = "".join(
            f"<li><code>{html.escape(n)}</code>: {html.escape(r)}</li>" for n, r in failed.items()
        )
        parts += ["<h2>Failed trials</h2>", f"<ul>{items}</ul>"]
    write_text(out / "report.md", "\n".join(markdown))
    path = out / "report.html"
    write_text(path, page(f"Sweep: {plan.name}", html.escape(lead), parts))
    return path


_CAUTION = (
    "The best setting is chosen on the validation split, its score is that on the test split. A claim agrees where the "
    "best setting that it favours is better than the best other, and does not agree where it is worse, by a paired t-test "
    "over the seeds whose p value, corrected (Holm) over all comparisons of this report, is below 0.05: where nothing "
    "differs, at most one report in twenty says so. The claims are about other data and other language models than these, "
    "unless the sweep was run on those."
)


def _lead(plan: SweepPlan, table: pd.DataFrame) -> str:
    seeds = sorted(int(seed) for seed in table["seed"].unique())
    minutes = table["seconds"].sum() / 60
    return (
        f"{plan.description or 'A sweep'}. Preset {plan.preset}, {len(table)} trainings, seeds "
        f"{', '.join(map(str, seeds))}, {minutes:.1f} minutes of training in all."
    )


def _best_setting_text(table: pd.DataFrame, axes: list[str]) -> str:
    metric = main_metric(table)
    means = summary(table, axes, metric)
    scores = "Mean ± standard deviation over the seeds, test split."
    row = best_setting(table, axes)
    if row is None:
        return f"No best setting: the trainings have no validation metric. {scores}"
    where = ", ".join(f"{axis} {means[axis][row]}" for axis in axes)
    best = cell_text((means["mean"][row], means["std"][row]))
    return (
        f"Best on the validation split: {where}, with a mean {metric} of {best} on the test split. {scores}"
    )


def _summary_table(table: pd.DataFrame, axes: list[str]) -> Table:
    """One row per setting: the axes, mean and standard deviation of each metric, seeds, seconds per training."""
    metrics = [name for name in SHOWN if name in table]
    by = {name: summary(table, axes, name) for name in [*metrics, "seconds"]}
    seconds, rows = by["seconds"], []
    for i in seconds.index:
        scores = [cell_text((by[name]["mean"][i], by[name]["std"][i])) for name in metrics]
        settings = [seconds[axis][i] for axis in axes]
        rows.append([*settings, *scores, seconds["seeds"][i], f"{seconds['mean'][i]:.0f}"])
    return Table([*axes, *map(heading, metrics), "seeds", "seconds per training"], rows)
