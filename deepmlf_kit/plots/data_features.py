"""Ranges of a dataset's feature dimensions, with constant and extreme ones marked, and the effect of normalisation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..data.inspect import DatasetReport
from .style import COLOURS, GREY, figure, line

_FLAGGED = "#d64577"


def plot_ranges(report: DatasetReport, modality: str, most: int = 80) -> go.Figure:
    """Each dimension's range in its own standard deviations: 1st to 99th percentile as a bar, extremes as dots.

    Args:
        modality: `audio` or `vision`.
        most: largest number of dimensions to draw: those with a remark first, then those of the widest range.
    """
    table = report.features.loc[modality]
    scale = table["std"].replace(0, np.nan) if "std" in table else None
    made = figure(
        f"Ranges of the {len(table)} {modality} dimensions",
        "distance from the mean (standard deviations of the dimension)",
        subtitle="Bar: 1st to 99th percentile. Dots: smallest and largest. Pink: constant, outliers, or nearly always 0.",
        height=140 + 17 * min(len(table), most),
    )
    if scale is None or scale.isna().all():
        made.add_annotation(text="no dimension varies", showarrow=False, font_color=GREY)
        return made
    reach = ((table[["min", "max"]].sub(table["mean"], axis=0)).abs().max(axis=1) / scale).fillna(0)
    chosen = table.assign(reach=reach, flagged=table["remark"] != "").sort_values(
        ["flagged", "reach"], ascending=False
    )[:most]
    chosen = table.loc[[name for name in table.index if name in set(chosen.index)]][::-1]
    scale = chosen["std"].replace(0, np.nan)
    part = {
        c: ((chosen[c] - chosen["mean"]) / scale).fillna(0) for c in ("min", "1 %", "median", "99 %", "max")
    }
    colours = [_FLAGGED if remark else COLOURS[modality] for remark in chosen["remark"]]
    labels = [str(name) for name in chosen.index]
    hover = np.stack(
        [
            *(chosen[c] for c in ("mean", "std", "min", "1 %", "median", "99 %", "max")),
            chosen["remark"].replace("", "none"),
        ],
        -1,
    )
    made.add_trace(
        go.Bar(
            y=labels,
            x=part["99 %"] - part["1 %"],
            base=part["1 %"],
            orientation="h",
            marker={"color": colours, "opacity": 0.75},
            customdata=hover,
            hovertemplate="<b>%{y}</b><br>mean %{customdata[0]:.4g}, standard deviation %{customdata[1]:.4g}"
            "<br>1 % %{customdata[3]:.4g}, median %{customdata[4]:.4g}, 99 % %{customdata[5]:.4g}"
            "<br>from %{customdata[2]:.4g} to %{customdata[6]:.4g}<br>remark: %{customdata[7]}<extra></extra>",
            showlegend=False,
        )
    )
    for end in ("min", "max"):
        made.add_trace(
            go.Scatter(
                x=part[end],
                y=labels,
                mode="markers",
                marker={"color": colours, "size": 6},
                hoverinfo="skip",
                showlegend=False,
            )
        )
    made.update_yaxes(type="category", tickfont_size=10, showgrid=False)
    return made


def plot_normalization(table: pd.DataFrame, modality: str, normalize: str) -> go.Figure:
    """Standard deviation of each dimension before and after `normalize=` (a `normalization_report`), largest first."""
    part = table.loc[modality]
    part = part[part["std"] > 0].sort_values("std", ascending=False)
    made = figure(
        f"What normalize={normalize} does to {modality}",
        "dimension, widest first",
        "standard deviation (log scale)",
        subtitle="A linear layer sees mostly the widest dimensions; after normalisation it sees all alike.",
    )
    for column, name, colour in (
        ("std", "as it is", GREY),
        ("std after", f"normalize={normalize}", COLOURS[modality]),
    ):
        made.add_trace(
            line(
                [str(i) for i in part.index],
                part[column],
                name,
                colour,
                "%{x}: %{y:.3g}",
                width=1,
                mode="lines+markers",
                marker_size=5,
            )
        )
    made.update_yaxes(type="log")
    made.update_xaxes(tickangle=-60, tickfont_size=9)
    made.update_layout(height=520)
    return made
