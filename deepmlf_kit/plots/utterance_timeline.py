"""One utterance over time: its words, its voice and its face on one time axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .style import COLOURS, LINE, SERIES, add_absent, figure, line, shortened
from .tracks import NAMED, TRACK_COLOURS


def plot_utterance(row: Mapping[str, Any], names: Mapping[str, list[str]] | None = None) -> go.Figure:
    """Timeline of one row of a dataset.

    Args:
        row: a row of the schema (any format). Without frame times, the axis is the position in the
            utterance, 0 to 1.
        names: names of the dimensions, `data.inspect.dimension_names(dataset)`. Features without names are drawn by
            their largest principal components.

    Returns:
        Three tracks with a shared axis: words at their times; voice (loudness, and pitch in semitones on the
        right where it is voiced); face (smile, brows, ...), with gaps where no face was found.
    """
    names = names or {}
    audio, vision = (np.asarray(row[m], float) for m in ("audio", "vision"))
    audio, audio_times, timed_audio = _with_times(audio, row["audio_times"])
    vision, vision_times, timed_vision = _with_times(vision, row["vision_times"])
    timed = (timed_audio or not len(audio)) and (timed_vision or not len(vision))
    unit = "seconds" if timed else "share of the utterance"

    label = float(row["label"])
    text = str(row["text"])
    base = figure(
        shortened(text.strip() or "(no text)", 90),
        subtitle=f"{row['id']}, labelled {label:+.2f}" if np.isfinite(label) else f"{row['id']}, no label",
        height=560,
    )
    made = make_subplots(
        3,
        1,
        shared_xaxes=True,
        row_heights=[0.16, 0.4, 0.44],
        vertical_spacing=0.05,
        specs=[[{}], [{"secondary_y": True}], [{}]],
    )
    made.update_layout(base.layout)
    _draw_words(made, [dict(word) for word in row["words"]], timed)
    voice = _curves(audio, names.get("audio"), NAMED["audio"], "voice")
    for number, (name, values) in enumerate(voice.items()):
        right = name == "pitch"
        if right:
            values = np.where(values > 0, values, np.nan)
        made.add_trace(
            line(
                audio_times,
                values,
                f"{name} (semitones above 27.5 Hz)"
                if right and "F0semitoneFrom27.5Hz_sma3nz" in names["audio"]
                else name,
                COLOURS["fusion"] if right else COLOURS["audio"],
                "%{x:.2f}: %{y:.2f}",
                width=1.6,
                opacity=1.0 if number < 2 else 0.5,
                legend="legend",
            ),
            row=2,
            col=1,
            secondary_y=right,
        )
    missing = ~vision.any(axis=1) if len(vision) else np.zeros(0, bool)
    others = (COLOURS["vision"], SERIES[6], SERIES[7])  # of features without names
    for number, (name, values) in enumerate(
        _curves(vision, names.get("vision"), NAMED["vision"], "face").items()
    ):
        made.add_trace(
            line(
                vision_times,
                np.where(missing, np.nan, values),
                name,
                TRACK_COLOURS.get(name, others[number % len(others)]),
                "%{x:.2f}: %{y:.2f}",
                width=2 if name in ("smile", "brows down") else 1.3,
                legend="legend2",
            ),
            row=3,
            col=1,
        )
    heard = bool(audio.size and audio.any())
    seen = bool(len(missing) and not missing.all())
    for track, axis, there, what in ((2, "y2", heard, "no voice"), (3, "y4", seen, "no face")):
        if not there:
            add_absent(made, what, track, axis)
    made.update_yaxes(
        title_text="words", visible=True, showticklabels=False, showgrid=False, ticks="", row=1, col=1
    )
    made.update_yaxes(
        title_text="voice" if "loudness" not in voice else "loudness (eGeMAPS)",
        row=2,
        col=1,
        secondary_y=False,
    )
    if "pitch" in voice:
        made.update_yaxes(
            title_text="pitch", showgrid=False, tickmode="auto", nticks=5, row=2, col=1, secondary_y=True
        )
    face_unit = (
        "face (0 to 1)"
        if "smile" in _curves(vision[:1], names.get("vision"), NAMED["vision"], "face")
        else "face"
    )
    made.update_yaxes(title_text=face_unit, row=3, col=1)
    made.update_xaxes(title_text=f"time ({unit})" if timed else unit, row=3, col=1)
    legend = {"orientation": "v", "x": 1.07, "xanchor": "left", "font": {"size": 11}}
    made.update_layout(
        legend={**legend, "y": 0.82, "yanchor": "top"},
        legend2={**legend, "y": 0.4, "yanchor": "top", "bgcolor": "rgba(0,0,0,0)"},
        hovermode="x",
        margin={"r": 190, "t": 84},
    )
    return made


def _draw_words(made: go.Figure, words: list[dict[str, Any]], timed: bool) -> None:
    """Each word as a block from its start to its end; every second one lower, so that short ones keep their room."""
    if not words or not timed:
        add_absent(made, "" if words else "the words' times are not known", 1, "y")
        made.update_yaxes(range=[0, 2], row=1, col=1)
        return
    for number, word in enumerate(words):
        low = 1 - number % 2
        start, end = float(word["start"]), float(word["end"])
        made.add_shape(
            type="rect",
            x0=start,
            x1=end,
            y0=low + 0.06,
            y1=low + 0.94,
            fillcolor=COLOURS["text"],
            opacity=0.22,
            line={"color": LINE, "width": 1},
            row=1,
            col=1,
        )
    made.add_trace(
        go.Scatter(
            x=[(float(w["start"]) + float(w["end"])) / 2 for w in words],
            y=[1.5 - n % 2 for n in range(len(words))],
            text=[str(w["word"]) for w in words],
            mode="text",
            textfont={"color": COLOURS["text"], "size": 12},
            customdata=[[float(w["start"]), float(w["end"])] for w in words],
            hovertemplate="%{text}, %{customdata[0]:.2f} to %{customdata[1]:.2f} s<extra></extra>",
            showlegend=False,
        ),
        row=1,
        col=1,
    )
    made.update_yaxes(range=[0, 2], row=1, col=1)


def _with_times(frames: np.ndarray, times: Any) -> tuple[np.ndarray, np.ndarray, bool]:
    """[n, d] frames and [n] their times, or their place in the utterance (0 to 1) where times are not known."""
    frames = frames if frames.ndim == 2 else frames.reshape(len(frames), 0)
    times = np.asarray(times, float)
    if len(times) == len(frames) and len(frames):
        return frames, times, True
    return frames, (np.arange(len(frames)) + 0.5) / max(len(frames), 1), False


def _curves(
    frames: np.ndarray, names: list[str] | None, wanted: dict[str, tuple[str, ...]], what: str
) -> dict[str, np.ndarray]:
    """The wanted curves by name; where the dimensions have other names, three principal components."""
    column = {name: i for i, name in enumerate(names or [])}
    curves = {}
    for curve, dims in wanted.items():
        there = [column[dim] for dim in dims if dim in column]
        if there:
            curves[curve] = frames[:, there].mean(1) if len(frames) else np.zeros(0)
    if curves or not len(frames):
        return curves
    centred = np.nan_to_num(frames - frames.mean(0))
    spread = centred.std(0)
    centred = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)
    _, weight, axes = np.linalg.svd(centred, full_matrices=False)
    share = weight**2 / max((weight**2).sum(), 1e-12)
    return {
        f"{what}, component {i + 1} ({share[i]:.0%})": centred @ axes[i] for i in range(min(3, len(axes)))
    }
