"""The app's two figures: a clip over time (the kit's `clip_timeline`, fitted to the page), and live mode's curve."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from ..plots import clip_timeline
from ..plots.style import COLOURS, GREY, figure
from .reasons import Reasons


def timeline(reasons: Reasons) -> go.Figure:
    """Attention of fusion tokens above words, voice and face, narrow enough for a phone."""
    made = clip_timeline(reasons.reading)
    head = figure(
        "The clip over time",
        subtitle="Blue: a fusion token looks there more than on average; not that it matters",
    ).layout.title
    made.update_layout(
        title=head,
        height=620,
        margin={"l": 64, "r": 48, "t": 76, "b": 70},
        legend={"y": -0.1, "font": {"size": 11}},
    )
    made.update_traces(showscale=False, selector={"type": "heatmap"})
    made.update_yaxes(title_font_size=11)
    return made


def live_curve(
    points: list[tuple[float, float]], words: list[dict[str, Any]], scale: float, span: float = 60.0
) -> go.Figure:
    """The sentiment of the last `span` seconds of a live session, with the words as they came."""
    now = points[-1][0] if points else 0.0
    first = max(0.0, now - span)
    fig = figure(
        "Sentiment, live", "Time (s)", "Sentiment", subtitle="Each point reads the last 6 s", height=320
    )
    kept = [(t, v) for t, v in points if t >= first]
    fig.add_hline(y=0, line={"color": GREY, "width": 1, "dash": "dot"})
    fig.add_trace(
        go.Scatter(
            x=[t for t, _ in kept],
            y=[v for _, v in kept],
            mode="lines+markers",
            line={"color": COLOURS["task"], "width": 3, "shape": "spline", "smoothing": 0.6},
            name="Sentiment",
            showlegend=False,
            hovertemplate="%{x:.0f} s: %{y:+.2f}<extra></extra>",
        )
    )
    recent = [w for w in words if w["start"] >= first]
    fig.add_trace(
        go.Scatter(
            x=[w["start"] for w in recent],
            y=[-scale * (0.99 - 0.12 * (i % 3)) for i in range(len(recent))],
            text=[w["word"] for w in recent],
            mode="text",
            textfont={"color": COLOURS["text"], "size": 12},
            showlegend=False,
            hoverinfo="skip",
        )
    )
    fig.update_xaxes(range=[first, max(now + 1, first + 20)])
    fig.update_yaxes(range=[-scale * 1.1, scale * 1.1])
    fig.update_layout(margin={"l": 56, "r": 16, "t": 70, "b": 48}, uirevision="live")
    return fig
