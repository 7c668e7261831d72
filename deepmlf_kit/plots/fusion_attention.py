"""Attention of the fusion tokens over time, one map per fusion layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..explain.reading import times_uniform
from .style import COLOURS, TIMES_UNIFORM, figure, line, template


def fusion_attention(
    attention: Mapping[int, np.ndarray],
    times: np.ndarray,
    words: Sequence[Mapping[str, Any]] = (),
    tracks: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    title: str = "What the fusion tokens attend to",
    axis: str = "time (seconds)",
) -> go.Figure:
    """Maps fusion token x time, one per fusion layer, above the clip's own tracks on the same time axis.

    Args:
        attention: fusion layer -> weights [F, K] (mean over heads); each row sums to 1.
        times: seconds of the K AV steps (`data.clock.step_times`); of those that are NaN nothing is drawn.
        words: mappings with `word`, `start`, `end` in seconds, written under the maps.
        tracks: name -> (seconds [n], values [n]), e.g. loudness and smile; each is drawn scaled to its own range.
        axis: title of the time axis, where `times` are not seconds.
    """
    layers = sorted(attention)
    rows = len(layers) + 1
    known = ~np.isnan(times)
    heights = [1.0] * len(layers) + [1.6]
    fig = make_subplots(rows, 1, shared_xaxes=True, vertical_spacing=0.02, row_heights=heights)
    head = figure(
        title,
        subtitle="Blue: a fusion token (row) reads this moment more than an even spread would (blank); orange: less. "
        "Above: one map a fusion layer; below: the clip.",
    )
    fig.update_layout(template=template(), title=head.layout.title, height=120 + 110 * len(layers) + 180)
    readable = np.any([attention[layer] > 0 for layer in layers], axis=(0, 1))  # [K]
    for i, layer in enumerate(layers, start=1):
        tokens = [str(token) for token in range(attention[layer].shape[0])]
        fig.add_trace(
            go.Heatmap(
                x=times[known],
                y=tokens,
                z=times_uniform(attention[layer], readable)[:, known],
                coloraxis="coloraxis",
                hovertemplate="layer "
                + str(layer)
                + ", token %{y}, %{x:.2f} s: %{z:.2f} times even<extra></extra>",
            ),
            row=i,
            col=1,
        )
        fig.update_yaxes(
            title_text=f"layer {layer}<br>token", row=i, col=1, autorange="reversed", showgrid=False
        )
    palette = (COLOURS["audio"], COLOURS["vision"], COLOURS["task"], COLOURS["text"])
    for (name, (seconds, values)), colour in zip((tracks or {}).items(), palette, strict=False):
        low, high = float(np.min(values)), float(np.max(values))
        fig.add_trace(
            line(
                seconds,
                (np.asarray(values) - low) / ((high - low) or 1.0),
                name,
                colour,
                "%{x:.2f} s: %{customdata:.3g}",
                width=1.6,
                customdata=np.asarray(values),
            ),
            row=rows,
            col=1,
        )
    for word in words:
        fig.add_vrect(
            x0=word["start"], x1=word["end"], fillcolor="rgba(59,130,246,0.10)", line_width=0, row=rows, col=1
        )
        fig.add_annotation(
            x=(word["start"] + word["end"]) / 2,
            y=1.32,
            text=str(word["word"]),
            showarrow=False,
            textangle=-35,
            font={"size": 11, "color": COLOURS["text"]},
            row=rows,
            col=1,
        )
    fig.update_yaxes(
        title_text="voice, face<br>(scaled)", range=[-0.1, 1.65], showticklabels=False, row=rows, col=1
    )
    fig.update_xaxes(title_text=axis, row=rows, col=1)
    fig.update_layout(
        coloraxis={
            **TIMES_UNIFORM,
            "colorbar": {**TIMES_UNIFORM["colorbar"], "len": 0.6, "y": 0.7, "thickness": 12},
        },
        legend={"orientation": "h", "y": -0.12},
    )
    return fig
