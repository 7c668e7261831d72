"""The app's two figures: a clip over time (the kit's `clip_timeline`, fitted to the page), and live mode's curve."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from .. import explain, plots
from ..plots.style import COLOURS, GREY, figure
from .reasons import Reasons, grouped, numbered
from .views import LIVE_SPAN

_ALIKE = 0.35  # times uniform: fusion tokens whose attention differs by less, on average, look at the same
_LETTER = 0.024  # width of a letter as a share of the plot's, on a phone
_LANES = 4


def timeline(reasons: Reasons) -> go.Figure:
    """Attention of fusion tokens above words, voice and face, narrow enough for a phone.

    Attention is in times uniform: 1 is what a token gives to each moment where it gives all the same. Tokens that look at
    the same share a row.
    """
    reading = reasons.reading
    assert reading is not None
    made = plots.clip_timeline(reading)
    relative = _relative(reasons)
    groups = _alike(relative)
    heatmap = next(trace for trace in made.data if trace.type == "heatmap")
    heatmap.update(
        z=np.stack([relative[group].mean(axis=0) for group in groups]),
        y=[numbered(group) for group in groups],
        customdata=heatmap.customdata[: len(groups)],
        colorbar={"thickness": 8, "len": 0.36},
    )
    head = figure(
        "The clip over time",
        subtitle="Blue: a fusion token looks there more than on average; not that it matters",
    ).layout.title
    known = bool(np.isfinite(reading.words.start).any()) or not reading.words.words
    made.update_layout(
        title=head,
        height=540,
        margin={"l": 64, "r": 48, "t": 76, "b": 70},
        legend={"y": -0.1, "font": {"size": 11}},
    )
    made.update_yaxes(title_font_size=11)
    made.update_yaxes(title_text="tokens", tickfont_size=10, row=1, col=1)
    made.update_yaxes(title_text="words" if known else "words, times<br>not known", row=2, col=1)
    words = next(trace for trace in made.data if trace.mode == "text")
    said = [] if words.text is None else list(words.text)
    middle = np.asarray([] if words.x is None else words.x, float)
    span = float(reading.steps[-1] - reading.steps[0]) or 1.0
    words.update(y=_in_lanes(middle, said, span), text=[w if known else f"≈{w}" for w in said])
    return made


def _relative(reasons: Reasons) -> np.ndarray:
    """Attention of each fusion token to each AV step, mean over MM Blocks and heads, in times uniform [F, K]."""
    reading = reasons.reading
    assert reading is not None
    weights = reading.get("cross_attention").mean(axis=(0, 1))
    return np.nan_to_num(explain.times_uniform(weights, reading.get("av_mask")))


def timeline_said(reasons: Reasons) -> str:
    """What the timeline shows, in words: where the fusion tokens look most."""
    reading = reasons.reading
    assert reading is not None
    relative, steps = _relative(reasons), reading.steps
    parts = []
    for group in _alike(relative)[:3]:
        mean = relative[group].mean(axis=0)
        most = int(mean.argmax())
        words = reading.words
        said = [
            word
            for word, start, end in zip(words.words, words.start, words.end, strict=True)
            if start <= steps[most] < end
        ]
        at = f", at “{said[0]}”" if said else ""
        where = f"{steps[most]:.1f} s" if reading.timed else f"step {most}"
        name = numbered(group)
        parts.append(
            f"{name[0].upper()}{name[1:]} look{'s' if len(group) == 1 else ''} most at {where}{at}: {mean[most]:.1f} times as "
            "much as with equal attention to every moment."
        )
    return " ".join(parts)


def _alike(relative: np.ndarray) -> list[list[int]]:
    """Fusion tokens that look at the same [groups]."""
    return grouped(
        len(relative), lambda one, other: bool(np.abs(relative[one] - relative[other]).mean() < _ALIKE)
    )


def _in_lanes(middle: np.ndarray, words: Any, span: float) -> list[float]:
    """Heights from 0 to 1 at which words stand beside each other without overlapping, as far as lanes suffice."""
    ends = [-np.inf] * _LANES
    heights = []
    for x, word in zip(middle, words, strict=True):
        half = (len(word) + 1) * _LETTER * span / 2
        lane = next((n for n in range(_LANES) if ends[n] <= x - half), int(np.argmin(ends)))
        ends[lane] = x + half
        heights.append(1 - (lane + 0.5) / _LANES)
    return heights


def live_curve(
    points: list[tuple[float, float]],
    words: list[dict[str, Any]],
    scale: float,
    span: float = LIVE_SPAN,
    zone: float | None = None,
) -> go.Figure:
    """The sentiment of the last `span` seconds of a live session, with the words as they came.

    Args:
        zone: answers nearer to 0 have no verdict.
    """
    now = points[-1][0] if points else 0.0
    first = max(0.0, now - span)
    fig = figure("The last 30 seconds", "Time (s)", "Sentiment", subtitle="Each point reads 6 s", height=340)
    kept = [(t, v) for t, v in points if t >= first]
    fig.add_hline(y=0, line={"color": GREY, "width": 1, "dash": "dot"})
    if zone:
        fig.add_hrect(y0=-zone, y1=zone, fillcolor=GREY, opacity=0.18, line_width=0)
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
    heights = _in_lanes(np.array([w["start"] for w in recent]), [w["word"] for w in recent], span)
    fig.add_trace(
        go.Scatter(
            x=[w["start"] for w in recent],
            y=[scale * (-1.9 + 0.8 * height) for height in heights],
            text=[w["word"] for w in recent],
            mode="text",
            textfont={"color": GREY, "size": 12},
            showlegend=False,
            hoverinfo="skip",
        )
    )
    fig.update_xaxes(range=[first, max(now + 1, first + span)])
    ticks = [n * scale / 3 for n in (-3, -2, -1, 0, 1, 2, 3)]
    fig.update_yaxes(range=[-scale * 1.9, scale * 1.1], tickvals=ticks)
    fig.update_layout(margin={"l": 56, "r": 16, "t": 70, "b": 48}, uirevision="live")
    return fig
