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
_LETTER = 0.025  # width of a letter as a share of the plot's, on a phone
_LANES = 8  # of words above each other; further ones are left out of the picture
_LANE = 14  # pixels
_GAP = 14  # pixels between the parts of the timeline


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
        y=[numbered(group).replace(", ", ",<br>") for group in groups],
        customdata=heatmap.customdata[: len(groups)],
        colorbar={
            "orientation": "h",
            "thickness": 8,
            "len": 0.85,
            "x": 0,
            "xanchor": "left",
            "xpad": 0,
            "y": 1,
            "yanchor": "bottom",
            "ypad": 4,
            "tickfont": {"size": 10},
            "title": {"text": ""},
            "ticktext": ["0", "even", "2", "3", "4 or more"],
            "ticklabeloverflow": "allow",
        },
    )
    known = bool(np.isfinite(reading.words.start).any()) or not reading.words.words
    words = next(trace for trace in made.data if trace.mode == "text")
    said = [] if words.text is None else list(words.text)
    middle = np.asarray([] if words.x is None else words.x, float)
    lanes = _lanes(middle, said, float(reading.steps[-1] - reading.steps[0]) or 1.0)
    used = 1 + max((lane for lane in lanes if lane is not None), default=0)
    words.update(
        y=[None if lane is None else 1 - (lane + 0.5) / used for lane in lanes],
        text=[w if known else f"≈{w}" for w in said],
        textfont={"size": 10},
        cliponaxis=False,
    )
    heights = [max(40, 24 * len(groups)), max(24, _LANE * used), 95, 110]  # of the four rows, pixels
    inner = sum(heights) + _GAP * (len(heights) - 1)
    titles = ("", "words" if known else "words, times<br>not known", "voice", "face")
    top = 1.0
    for row, (height, title) in enumerate(zip(heights, titles, strict=True), start=1):
        domain = [max(0.0, top - height / inner), top]
        made.update_yaxes(
            domain=domain,
            title={"text": title, "font": {"size": 11}},
            tickfont_size=10,
            automargin=False,
            row=row,
            col=1,
        )
        top = domain[0] - _GAP / inner
    made.update_yaxes(
        title_text="", showticklabels=False, ticks="", secondary_y=True
    )  # pitch: see the hover text
    margin = {"l": 80, "r": 14, "t": 112, "b": 112}
    made.update_layout(
        title={
            "text": "The clip over time",
            "subtitle": {
                "text": "Blue: fusion tokens look there more than evenly;<br>orange: less. Looking is not mattering.",
                "font": {"size": 12},
            },
            "yref": "container",
            "y": 0.97,
            "yanchor": "top",
        },
        height=inner + margin["t"] + margin["b"],
        margin=margin,
        legend={
            "orientation": "h",
            "yref": "container",
            "y": 0,
            "yanchor": "bottom",
            "x": 0,
            "font": {"size": 11},
        },
    )
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


def _lanes(middle: np.ndarray, words: Any, span: float) -> list[int | None]:
    """The lane in which each word overlaps with none before it; None where all are taken."""
    ends = [-np.inf] * _LANES
    found: list[int | None] = []
    for x, word in zip(middle, words, strict=True):
        half = (len(word) + 1) * _LETTER * span / 2
        lane = next((n for n in range(_LANES) if ends[n] <= x - half), None)
        if lane is not None:
            ends[lane] = x + half
        found.append(lane)
    return found


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
    used = _LANES if words else 1  # no empty rows where nobody speaks
    inner, below, margin = 210, _LANE * used, {"l": 56, "r": 16, "t": 70, "b": 48}
    height = inner + below + margin["t"] + margin["b"]
    subtitle = "Each point reads 6 s." + (" Grey: I cannot tell." if zone else "")
    fig = figure("The last 30 seconds", "Time (s)", "Sentiment", subtitle=subtitle, height=height)
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
    middle = np.array([(w["start"] + w["end"]) / 2 for w in recent])
    lanes = _lanes(middle, [w["word"] for w in recent], span)
    fig.add_trace(
        go.Scatter(
            x=middle,
            y=[None if lane is None else -lane for lane in lanes],
            yaxis="y2",
            text=[w["word"] for w in recent],
            mode="text",
            textfont={"color": GREY, "size": 10},
            cliponaxis=False,
            showlegend=False,
            hoverinfo="skip",
        )
    )
    share = below / (inner + below)
    ticks = [n * scale / 3 for n in (-3, -2, -1, 0, 1, 2, 3)]
    fig.update_xaxes(range=[first, max(now + 1, first + span)], anchor="y2")
    fig.update_layout(
        yaxis={"range": [-scale * 1.1, scale * 1.1], "tickvals": ticks, "domain": [share, 1]},
        yaxis2={"range": [0.5 - used, 0.5], "domain": [0, share], "visible": False},
        margin=margin,
        uirevision="live",
    )
    return fig
