"""The clip over time: what the fusion tokens read, voice, face and words, on one time axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..features import feature_names
from ..plots.style import COLOURS, GREY, SEQUENTIAL, figure, template

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from ..features.clip import ClipFeatures
    from ..features.recipe import FeatureRecipe
    from .reasons import Reasons

_TRACKS = (
    ("voice", "Loudness", ("Loudness_sma3",), "audio"),
    ("voice", "Pitch", ("F0semitoneFrom27.5Hz_sma3nz",), "audio"),
    ("face", "Smile", ("mouthSmileLeft", "mouthSmileRight"), "vision"),
    ("face", "Lowered brows", ("browDownLeft", "browDownRight"), "vision"),
)


def tracks(features: ClipFeatures, recipe: FeatureRecipe) -> dict[str, tuple[str, np.ndarray, np.ndarray]]:
    """Tracks that a person can read: name -> (stream, seconds [n], values [n]); none for encoders' features."""
    names = dict(zip(("audio", "vision"), feature_names(recipe), strict=True))
    found = {}
    for _, title, columns, stream in _TRACKS:
        known = names[stream] or ()
        values, times = getattr(features, stream), getattr(features, f"{stream}_times")
        if len(values) and all(column in known for column in columns):
            track = values[:, [known.index(column) for column in columns]].mean(axis=1)
            there = values.any(axis=1) & ((track > 0) if title == "Pitch" else True)
            found[title] = (stream, times, np.where(there, track, np.nan))
    return found


def clip_timeline(
    features: ClipFeatures, recipe: FeatureRecipe, reasons: Reasons, seconds: float
) -> go.Figure:
    """Attention of fusion tokens, effect of moments, voice, face and words over the seconds of a clip."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    shown = tracks(features, recipe)
    rows = []
    if reasons.attention is not None and np.isfinite(reasons.times).any():
        rows.append("attention")
    if reasons.moments:
        rows.append("effect")
    rows += [s for s in ("audio", "vision") if any(stream == s for stream, _, _ in shown.values())]
    if reasons.timed_words:
        rows.append("words")
    heights = {"attention": 1.6, "effect": 0.9, "audio": 1.0, "vision": 1.0, "words": 0.55}
    fig = make_subplots(
        max(1, len(rows)),
        1,
        shared_xaxes=True,
        vertical_spacing=0.045,
        row_heights=[heights[r] for r in rows] or [1],
    )
    title = figure(
        "The clip over time", subtitle="Brighter: the fusion token reads this moment more"
    ).layout.title
    fig.update_layout(
        template=template(),
        title=title,
        height=110 + round(105 * sum(heights[r] for r in rows)),
        showlegend=True,
        legend={"orientation": "h", "y": -0.12, "x": 0},
        margin={"l": 56, "r": 16, "t": 70, "b": 40},
        hovermode="x",
    )
    for number, row in enumerate(rows, start=1):
        place = {"row": number, "col": 1}
        if row == "attention":
            known = np.isfinite(reasons.times)
            fig.add_trace(
                go.Heatmap(
                    x=reasons.times[known].tolist(),
                    y=[str(i) for i in range(len(reasons.attention))],
                    z=reasons.attention[:, known].tolist(),
                    colorscale=SEQUENTIAL,
                    showscale=False,
                    hovertemplate="token %{y}, %{x:.2f} s: %{z:.3f}<extra></extra>",
                ),
                **place,
            )
            fig.update_yaxes(title_text="Fusion token", autorange="reversed", **place)
        elif row == "effect":
            middle = [
                (m["start"] + m["end"]) / 2 if m["start"] is not None else None for m in reasons.moments
            ]
            fig.add_trace(
                go.Bar(
                    x=middle,
                    y=[m["effect"] for m in reasons.moments],
                    width=[
                        0.92 * (m["end"] - m["start"]) if m["start"] is not None else None
                        for m in reasons.moments
                    ],
                    marker={
                        "color": [COLOURS["text"] if m["effect"] > 0 else "#d64550" for m in reasons.moments]
                    },
                    name="Effect of a moment",
                    showlegend=False,
                    hovertemplate="%{x:.1f} s: %{y:+.2f}<extra>effect</extra>",
                ),
                **place,
            )
            fig.update_yaxes(title_text="Effect", **place)
        elif row == "words":
            words = reasons.timed_words
            fig.add_trace(
                go.Scatter(
                    x=[(w["start"] + w["end"]) / 2 for w in words],
                    y=[i % 2 for i in range(len(words))],
                    text=[w["word"] for w in words],
                    mode="text",
                    textfont={"color": GREY},
                    showlegend=False,
                    hovertemplate="%{text}, %{x:.2f} s<extra></extra>",
                ),
                **place,
            )
            fig.update_yaxes(
                title_text="Words", showticklabels=False, ticks="", range=[-0.7, 1.7], showgrid=False, **place
            )
        else:
            lines = [(n, t, v) for n, (stream, t, v) in shown.items() if stream == row]
            for index, (name, times, values) in enumerate(lines):
                fig.add_trace(
                    go.Scatter(
                        x=times.tolist(),
                        y=[None if np.isnan(v) else float(v) for v in _scaled(name, values)],
                        name=name,
                        line={"color": COLOURS[row], "width": 1.8, "dash": "solid" if index == 0 else "dot"},
                        hovertemplate="%{x:.2f} s: %{y:.2f}<extra>" + name + "</extra>",
                    ),
                    **place,
                )
            fig.update_yaxes(title_text="Voice" if row == "audio" else "Face", range=[-0.05, 1.05], **place)
    fig.update_xaxes(range=[0, max(seconds, 0.1)])
    fig.update_xaxes(title_text="Time (s)", row=max(1, len(rows)), col=1)
    if not rows:
        fig.add_annotation(text="Neither voice nor face is in use", showarrow=False, font={"color": GREY})
    return fig


def _scaled(name: str, values: np.ndarray) -> np.ndarray:
    """Into 0 to 1: blendshapes as they are, loudness and pitch by their own largest and smallest."""
    if name in ("Smile", "Lowered brows") or not np.isfinite(values).any():
        return values
    low, high = (0.0 if name == "Loudness" else np.nanmin(values)), np.nanmax(values)
    return (values - low) / max(high - low, 1e-6)


def live_curve(
    points: list[tuple[float, float]], words: list[dict[str, Any]], scale: float, span: float = 60.0
) -> go.Figure:
    """The sentiment of the last `span` seconds of a live session, with the words as they came."""
    import plotly.graph_objects as go

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
