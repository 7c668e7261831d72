"""An ablation: a score against one setting, one dot per seed, mean and standard deviation as a line with a band."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from pandas.api.types import is_numeric_dtype

from .style import COLOURS, SERIES, faint, figure


def ablation_curve(
    table: pd.DataFrame,
    setting: str,
    metric: str = "MAE",
    title: str = "",
    axis: str | None = None,
    by: str | None = None,
) -> go.Figure:
    """Draw one sweep.

    Args:
        table: one row per run, with the columns `setting` and `metric`; runs of one setting are its seeds.
        setting: the column that was varied; numbers or names, drawn in the table's order.
        metric: the column on the other axis.
        title, axis: of the figure and of the setting's axis; by default the column's name.
        by: a second column that was varied, crossed with the first (`depth` by `place`): one curve for each of its values.

    Numbers are joined by a line, names are not.

    Bands show the spread, not whether settings differ: those are compared seed by seed (`sweep.verdicts`).
    """
    joined = is_numeric_dtype(table[setting])
    seeds = int(table.groupby([setting] if by is None else [setting, by]).size().min())
    made = figure(
        title or f"{metric} by {setting}" + (f" and {by}" if by else ""),
        setting if axis is None else axis,
        f"{metric} (lower is better)" if metric == "MAE" else metric,
        subtitle=f"dots: single runs; {'line and band' if joined else 'large dot and whiskers'}: mean and "
        f"standard deviation of {seeds} seeds",
    )
    curves = [("mean", table)] if by is None else list(table.groupby(by, sort=False))
    for number, (name, runs) in enumerate(curves):
        colour = COLOURS["fusion"] if by is None else SERIES[number % len(SERIES)]
        _add_curve(made, runs, setting, metric, str(name), colour, joined)
        made.add_trace(
            go.Scatter(
                x=[str(value) for value in runs[setting]],
                y=runs[metric],
                mode="markers",
                name="runs",
                marker={"color": COLOURS["label"] if by is None else colour, "size": 6, "opacity": 0.8},
                hovertemplate=f"%{{x}}: %{{y:.3f}}<extra>one run{'' if by is None else f', {name}'}</extra>",
                showlegend=False,
            )
        )
    made.update_xaxes(type="category")
    made.update_layout(showlegend=by is not None, legend={"orientation": "h", "y": -0.22})
    return made


def _add_curve(
    made: go.Figure, runs: pd.DataFrame, setting: str, metric: str, name: str, colour: str, joined: bool
) -> None:
    """Mean over the seeds of each setting, and its standard deviation as a band or as whiskers."""
    groups = runs.groupby(setting, sort=False)[metric]
    x = [str(value) for value in groups.groups]
    mean = groups.mean().reindex(groups.groups.keys()).to_numpy()
    spread = groups.std().fillna(0.0).reindex(groups.groups.keys()).to_numpy()
    if joined:
        made.add_trace(
            go.Scatter(
                x=[*x, *x[::-1]],
                y=np.concatenate([mean + spread, (mean - spread)[::-1]]),
                mode="lines",
                fill="toself",
                fillcolor=faint(colour),
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
            )
        )
    made.add_trace(
        go.Scatter(
            x=x,
            y=mean,
            mode="lines+markers" if joined else "markers",
            name=name,
            line={"color": colour, "width": 3},
            marker={"size": 9 if joined else 12, "color": colour},
            error_y=None if joined else {"array": spread, "color": colour, "width": 8},
            customdata=spread,
            hovertemplate="%{x}: %{y:.3f} ± %{customdata:.3f}<extra></extra>",
        )
    )
