"""The shared style of every figure: readable on a light and on a dark page.

Every module of `plots` makes its figures through `figure`. The paper is transparent and text and
axes are a mid grey, so that a figure takes on the page's background; a modality has the same colour everywhere.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from ..model.modalities import modality, registered_modalities

#: One colour a stream, in every figure, readable on white and on black; those drawn in one panel (text, fusion and task;
#: smile and brows in `tracks`) are told apart by colour-blind readers, too.
COLOURS = {
    "text": "#3b82f6",
    "audio": "#e0701a",
    "vision": "#2f9e5b",
    "av": "#8f9a27",
    "fusion": "#a21caf",
    "task": "#d64577",
    "label": "#7b828c",
}
#: For series without a stream of their own.
SERIES = ("#3b82f6", "#e0701a", "#2f9e5b", "#a21caf", "#d64577", "#8f9a27", "#17a2b8", "#b07d48")
#: Text: a contrast of 4 on white and on JupyterLab's dark page alike.
GREY = "#777e88"
GRID, LINE = "rgba(133,140,150,0.22)", "rgba(133,140,150,0.6)"
#: Shares and weights, from nothing to most.
SEQUENTIAL = "Viridis"
#: Cross-attention as a multiple of an even spread's, on one scale in every figure: the page's background where it is even,
#: orange where a step is passed over, blue where it is looked at more.
TIMES_UNIFORM: dict[str, Any] = {
    "colorscale": [
        [0.0, "rgba(224,112,26,0.75)"],
        [0.25, "rgba(133,140,150,0.06)"],
        [0.5, "rgba(47,128,237,0.5)"],
        [1.0, "rgba(20,80,200,1)"],
    ],
    "cmin": 0,
    "cmax": 4,
    "colorbar": {
        "title": {"text": "attention, times even", "side": "right"},
        "tickvals": [0, 1, 2, 3, 4],
        "ticktext": ["0", "1 (even)", "2", "3", "4 or more"],
    },
}
#: Negative to positive; the middle is the page's own background.
DIVERGING = [
    [0.0, "rgba(214,69,80,1)"],
    [0.25, "rgba(214,69,80,0.55)"],
    [0.5, "rgba(133,140,150,0.10)"],
    [0.75, "rgba(47,128,237,0.55)"],
    [1.0, "rgba(47,128,237,1)"],
]


def faint(colour: str, opacity: float = 0.18) -> str:
    """A colour given as `#rrggbb`, see-through: for bands."""
    return f"rgba({int(colour[1:3], 16)},{int(colour[3:5], 16)},{int(colour[5:7], 16)},{opacity})"


def template() -> Any:
    """The plotly template of all figures: transparent paper, mid-grey text and axes."""
    axis = {
        "gridcolor": GRID,
        "zerolinecolor": LINE,
        "linecolor": LINE,
        "tickcolor": LINE,
        "ticks": "outside",
        "automargin": True,
        "title": {"standoff": 8, "font": {"size": 13}},
    }
    return go.layout.Template(
        layout={
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"color": GREY, "size": 13},
            "title": {"x": 0.01, "xref": "container", "xanchor": "left", "font": {"size": 16}},
            "colorway": list(SERIES),
            "xaxis": axis,
            "yaxis": axis,
            "legend": {"bgcolor": "rgba(0,0,0,0)"},
            "margin": {"l": 60, "r": 24, "t": 64, "b": 56},
            "hoverlabel": {"bgcolor": "#2b3038", "bordercolor": GREY, "font": {"color": "#f3f4f6"}},
        }
    )


def figure(title: str, x: str = "", y: str = "", *, subtitle: str = "", height: int = 420) -> go.Figure:
    """An empty figure in the shared style.

    Args:
        title: what the figure shows.
        x, y: names of the axes, with their units.
        subtitle: how to read it, in a sentence; broken into lines where it is long.
        height: pixels.
    """
    made = go.Figure(layout={"template": template(), "height": height})
    head: dict[str, Any] = {"text": title}
    if subtitle:
        lines = textwrap.wrap(subtitle, 108)
        head["subtitle"] = {"text": "<br>".join(lines), "font": {"color": GREY, "size": 12}}
        made.update_layout(margin_t=64 + 16 * len(lines))
    made.update_layout(title=head)
    if x:
        made.update_xaxes(title_text=x)
    if y:
        made.update_yaxes(title_text=y)
    return made


def line(
    x: Any, y: Any, name: str, colour: str, hover: str, *, width: float = 2, mode: str = "lines", **more: Any
) -> go.Scatter:
    """A curve.

    Args:
        x, y: [n].
        name: in the legend and beside what shows on hover.
        hover: plotly's hover template.
        more: further arguments of `go.Scatter`.
    """
    stroke = {"color": colour, "width": width}
    shown = f"{hover}<extra>{name}</extra>"
    return go.Scatter(x=x, y=y, name=name, mode=mode, line=stroke, hovertemplate=shown, **more)


def add_absent(made: go.Figure, text: str, row: int, axis: str) -> None:
    """Say in a row of subplots that it has nothing to show.

    Args:
        axis: name of the row's first axis, such as `y3`.
    """
    made.add_trace(go.Scatter(x=[None], y=[None], showlegend=False, hoverinfo="skip"), row=row, col=1)
    font = {"color": GREY, "size": 15}
    made.add_annotation(
        text=text, showarrow=False, font=font, xref="paper", x=0.5, yref=f"{axis} domain", y=0.5
    )


def heatmap(
    values: np.ndarray, x: Sequence[str] | None, y: Sequence[str] | None, name: str, hover: str, **more: Any
) -> go.Heatmap:
    """A heat map of a few cells, with gaps between them and a colour bar.

    Args:
        values: [len(y), len(x)].
        x, y: names of the columns and rows; None: their numbers.
        name: title of the colour bar.
        hover: plotly's hover template.
        more: further arguments of `go.Heatmap`.
    """
    bar = {"title": {"text": name}}
    return go.Heatmap(
        z=values, x=x, y=y, xgap=1, ygap=1, colorbar=bar, hovertemplate=f"{hover}<extra></extra>", **more
    )


def confusion_map(counts: np.ndarray, names: Sequence[str], hover: str) -> go.Heatmap:
    """Shares of each true class (row) by predicted class (column), with the counts written in.

    Args:
        counts: [classes, classes].
        names: of the classes.
        hover: plotly's hover template.
    """
    share = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    more = {"text": counts, "texttemplate": "%{text}", "colorscale": SEQUENTIAL, "zmin": 0, "zmax": 1}
    return heatmap(share, list(names), list(names), "share", hover, **more)


def shortened(text: str, most: int) -> str:
    """A text for a title, cut to `most` characters."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def modality_label(name: str) -> str:
    """What figures and pages call a modality, or several joined by "and"; any other name as it is."""
    registered = registered_modalities()
    parts = [modality(part).label if part in registered else part for part in name.split(" and ")]
    return " and ".join("words" if part == "text" else part for part in parts)
