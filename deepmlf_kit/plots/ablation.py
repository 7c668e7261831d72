"""An ablation: a score against one setting, one dot per seed, mean and standard deviation as a line with a band."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from pandas.api.types import is_numeric_dtype

from .style import COLOURS, figure


def ablation_curve(
    table: pd.DataFrame, setting: str, metric: str = "MAE", title: str = "", axis: str | None = None
) -> go.Figure:
    """Draw one sweep.

    Args:
        table: one row per run, with the columns `setting` and `metric`; runs of one setting are its seeds.
        setting: the column that was varied; numbers or names, drawn in the table's order.
        metric: the column on the other axis.
        title, axis: of the figure and of the setting's axis; by default the column's name.

    Numbers are joined by a line, names are not.

    Bands show the spread, not whether settings differ: those are compared seed by seed (`sweep.verdicts`).
    """
    groups = table.groupby(setting, sort=False)[metric]
    names = [str(name) for name in groups.groups]
    mean = groups.mean().reindex(groups.groups.keys()).to_numpy()
    spread = groups.std().fillna(0.0).reindex(groups.groups.keys()).to_numpy()
    seeds = int(groups.size().min())
    joined = is_numeric_dtype(table[setting])
    made = figure(
        title or f"{metric} by {setting}",
        setting if axis is None else axis,
        f"{metric} (lower is better)" if metric == "MAE" else metric,
        subtitle=f"dots: single runs; {'line and band' if joined else 'large dot and whiskers'}: mean and "
        f"standard deviation of {seeds} seeds",
    )
    if joined:
        made.add_trace(
            go.Scatter(
                x=[*names, *names[::-1]],
                y=np.concatenate([mean + spread, (mean - spread)[::-1]]),
                mode="lines",
                fill="toself",
                fillcolor="rgba(164,94,229,0.18)",
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
            )
        )
    made.add_trace(
        go.Scatter(
            x=names,
            y=mean,
            mode="lines+markers" if joined else "markers",
            name="mean",
            line={"color": COLOURS["fusion"], "width": 3},
            marker={"size": 9 if joined else 12, "color": COLOURS["fusion"]},
            error_y=None if joined else {"array": spread, "color": COLOURS["fusion"], "width": 8},
            customdata=spread,
            hovertemplate="%{x}: %{y:.3f} ± %{customdata:.3f}<extra></extra>",
        )
    )
    made.add_trace(
        go.Scatter(
            x=[str(value) for value in table[setting]],
            y=table[metric],
            mode="markers",
            name="runs",
            marker={"color": COLOURS["label"], "size": 6, "opacity": 0.8},
            hovertemplate="%{x}: %{y:.3f}<extra>one run</extra>",
        )
    )
    made.update_xaxes(type="category")
    made.update_layout(showlegend=False)
    return made
