"""An utterance over time: what the fusion tokens attend to, above the words, the voice and the face.

Draws what `Lens.read` and `Lens.gradients` measured.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..errors import DeepMLFError
from ..explain import Attributions, Reading
from ..explain.reading import times_uniform
from .style import COLOURS, GREY, TIMES_UNIFORM, add_absent, figure, line, modality_label, shortened
from .tracks import TRACK_COLOURS, tracks_of


def clip_timeline(reading: Reading, layer: int | None = None, head: int | None = None) -> go.Figure:
    """Attention of every fusion token over the clip, above its words, voice and face, on one time axis.

    Args:
        reading: with `cross_attention`.
        layer: the LM layer whose MM Block is shown; None: the mean of all.
        head: one attention head; None: the mean of all.

    Blue means that the token looked there more than an even spread would (blank), not that it mattered: see `effect_bars`
    and `attention_effect`.
    """
    weights, where = select_attention(reading, layer, head)  # [F, K]
    multiple = times_uniform(weights, reading.get("av_mask"))
    made = _stacked(
        reading,
        f"“{shortened(reading.text, 96)}”",
        f"{_prediction_and_label(reading)}. Above: attention of fusion tokens over voice and face, {where}; it shows where they look, "
        "not what matters",
    )
    steps = reading.steps
    near = [_word_at(reading, t) for t in steps]
    frames = _frames_named(reading)
    made.add_trace(
        go.Heatmap(
            z=multiple,
            x=steps,
            y=[f"token {i}" for i in range(len(weights))],
            colorscale=TIMES_UNIFORM["colorscale"],
            zmin=TIMES_UNIFORM["cmin"],
            zmax=TIMES_UNIFORM["cmax"],
            colorbar={**TIMES_UNIFORM["colorbar"], "len": 0.4, "y": 1, "yanchor": "top", "thickness": 12},
            customdata=np.broadcast_to(
                np.stack([near, frames, np.arange(len(steps)).astype(str)], axis=-1), (*weights.shape, 3)
            ),
            hovertemplate="%{y}, %{x:.2f} s (step %{customdata[2]})<br>word: %{customdata[0]}<br>%{customdata[1]}"
            "<br>attention %{z:.2f} times even<extra></extra>",
        ),
        row=1,
        col=1,
    )
    made.update_layout(margin_r=110)
    made.update_yaxes(title_text="fusion token", autorange="reversed", row=1, col=1)
    return made


def gradient_timeline(reading: Reading, attributions: Attributions) -> go.Figure:
    """Integrated gradients over the clip: the contribution of each word and each moment of voice and face.

    Args:
        reading: of the same utterance.
        attributions: `Lens.gradients(...)`. Blue pushes the sentiment up, red down.
    """
    parts = attributions.by_modality
    made = _stacked(
        reading,
        f"“{shortened(reading.text, 96)}”",
        f"Attributions of {attributions.prediction:+.2f} (from {attributions.baseline_prediction:+.2f}): words "
        f"{parts['text']:+.2f}, voice {parts['audio']:+.2f}, face {parts['vision']:+.2f}; integrated gradients from "
        f"{attributions.baselines}",
    )
    for modality in ("audio", "vision"):
        name = modality_label(modality)
        values = getattr(attributions, modality).sum(axis=1)
        times = reading.frame_times(modality)
        count = min(len(values), len(times))
        if not count or not np.any(values):
            continue
        made.add_trace(
            line(
                times[:count],
                np.cumsum(values[:count]),
                f"{name}, summed up to here",
                COLOURS[modality],
                "%{x:.2f} s: %{y:+.3f} so far (this frame %{customdata:+.4f})",
                width=2.2,
                customdata=values[:count],
            ),
            row=1,
            col=1,
        )
    by_word = reading.words.sum_over_words(attributions.text[: len(reading.words.tokens)])
    limit = float(np.abs(by_word).max()) if len(by_word) else 1.0
    for shape, value in zip(_words_drawn(made), by_word[np.isfinite(reading.words.start)], strict=False):
        shape.fillcolor = _signed(value / (limit or 1))
        shape.opacity = 1
    made.update_yaxes(title_text="attribution (label's units)", row=1, col=1)
    return made


def select_attention(reading: Reading, layer: int | None, head: int | None) -> tuple[np.ndarray, str]:
    """Cross-attention [F, K] of one MM Block and head, or its mean over them, and a caption that says which.

    Raises:
        DeepMLFError: no MM Block stands after that layer, or there is no such head.
    """
    weights = reading.get("cross_attention")  # [M, heads, F, K]
    where = []
    if layer is None:
        weights, where = weights.mean(axis=0), ["mean of all MM Blocks"]
    elif layer in reading.fusion_layers:
        weights, where = weights[reading.fusion_layers.index(layer)], [f"MM Block after layer {layer}"]
    else:
        raise DeepMLFError(
            f"No MM Block stands after layer {layer}: choose from {', '.join(map(str, reading.fusion_layers))}."
        )
    if head is None:
        return weights.mean(axis=0), ", ".join([*where, "mean of heads"])
    if not 0 <= head < len(weights):
        raise DeepMLFError(f"There is no head {head}: choose from 0 to {len(weights) - 1}.")
    return weights[head], ", ".join([*where, f"head {head}"])


def _stacked(reading: Reading, title: str, subtitle: str) -> go.Figure:
    """Four rows with one time axis; the first is left empty for the caller."""
    made = make_subplots(
        rows=4,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.035,
        row_heights=[0.40, 0.12, 0.24, 0.24],
        specs=[[{}], [{}], [{"secondary_y": True}], [{}]],
    )
    made.update_layout(figure(title, subtitle=subtitle, height=680).layout)
    _draw_words(made, reading)
    for row, modality, what in ((3, "audio", "voice"), (4, "vision", "face")):
        tracks = tracks_of(reading.row, modality, reading.frame_times(modality))
        for number, track in enumerate(tracks):
            right = modality == "audio" and number == 1
            made.add_trace(
                line(
                    track.times,
                    track.values,
                    track.name,
                    TRACK_COLOURS.get(track.name, COLOURS[modality]),
                    f"%{{x:.2f}}: %{{y:.2f}} {track.unit}<br>frame %{{customdata[0]}}, word: %{{customdata[1]}}",
                    width=1.8 if number < 2 else 1.2,
                    customdata=[[str(i), _word_at(reading, t)] for i, t in enumerate(track.times)],
                ),
                row=row,
                col=1,
                secondary_y=right if row == 3 else None,
            )
        if tracks:
            title_text = f"{tracks[0].name} ({tracks[0].unit})" if row == 3 else f"{what} ({tracks[0].unit})"
            made.update_yaxes(
                title_text=title_text, row=row, col=1, **({"secondary_y": False} if row == 3 else {})
            )
            if row == 3 and len(tracks) > 1:
                made.update_yaxes(
                    title_text=f"{tracks[1].name} ({tracks[1].unit})",
                    showgrid=False,
                    tickmode="auto",
                    nticks=4,
                    row=3,
                    col=1,
                    secondary_y=True,
                )
        else:
            add_absent(made, f"no {what}", row, "y3" if row == 3 else "y5")
            made.update_yaxes(showticklabels=False, ticks="", row=row, col=1)
    made.update_xaxes(title_text=reading.time_axis, row=4, col=1)
    made.update_layout(legend={"orientation": "h", "y": -0.12, "x": 0}, margin={"l": 90, "r": 80, "b": 90})
    return made


def _draw_words(made: go.Figure, reading: Reading) -> None:
    words = reading.words
    known = np.isfinite(words.start)
    if known.any():
        start, end = words.start[known], words.end[known]
    else:  # no times: the words in order, evenly
        edges = np.linspace(reading.steps[0], reading.steps[-1], len(words.words) + 1)
        start, end, known = edges[:-1], edges[1:], np.ones(len(words.words), bool)
    names = [word for word, is_known in zip(words.words, known, strict=True) if is_known]
    for a, b in zip(start, end, strict=True):
        made.add_shape(
            type="rect",
            name="word",
            x0=a,
            x1=b,
            y0=0,
            y1=1,
            fillcolor=COLOURS["text"],
            opacity=0.22,
            line={"width": 0},
            row=2,
            col=1,
        )
    middle = (np.asarray(start) + np.asarray(end)) / 2
    made.add_trace(
        go.Scatter(
            x=middle,
            y=[0.5] * len(names) if len(names) <= 12 else [0.7 - 0.4 * (i % 2) for i in range(len(names))],
            text=names,
            mode="text",
            textfont={"color": GREY, "size": 12},
            showlegend=False,
            customdata=np.stack([start, end], axis=-1) if len(names) else None,
            hovertemplate="%{text}: %{customdata[0]:.2f} to %{customdata[1]:.2f}<extra></extra>",
        ),
        row=2,
        col=1,
    )
    made.update_yaxes(
        title_text="words", range=[0, 1], showticklabels=False, showgrid=False, ticks="", row=2, col=1
    )


def _words_drawn(made: go.Figure) -> list[Any]:
    return [shape for shape in made.layout.shapes if shape.name == "word"]


def _signed(value: float) -> str:
    colour = "47,128,237" if value >= 0 else "214,69,80"
    return f"rgba({colour},{0.06 + 0.26 * min(abs(value), 1):.2f})"


def _prediction_and_label(reading: Reading) -> str:
    label = "" if np.isnan(reading.label) else f", labelled {reading.label:+.2f}"
    return f"predicted {reading.sentiment:+.2f}{label}"


def _word_at(reading: Reading, time: float) -> str:
    if not reading.timed:
        return "–"
    inside = np.flatnonzero((reading.words.start <= time) & (time < reading.words.end))
    return reading.words.words[int(inside[0])] if len(inside) else "–"


def _frames_named(reading: Reading) -> list[str]:
    """The frames of voice and face that each AV step averages, in words [K]."""
    parts: list[list[str]] = [[] for _ in reading.steps]
    for modality in ("audio", "vision"):
        name = modality_label(modality)
        for step, averaged in enumerate(reading.frames_of_steps(modality)):
            frames = np.flatnonzero(averaged)
            if len(frames) == 1:
                parts[step].append(f"{name} frame {frames[0]}")
            elif len(frames):
                parts[step].append(f"{name} frames {frames[0]} to {frames[-1]}")
    return [", ".join(of_step) for of_step in parts]
