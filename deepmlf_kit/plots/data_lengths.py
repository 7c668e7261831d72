"""Lengths of a dataset's utterances: words, seconds (or frames) of voice and of face."""

from __future__ import annotations

import plotly.graph_objects as go
from datasets import DatasetDict
from plotly.subplots import make_subplots

from .style import COLOURS, SERIES, figure


def plot_lengths(dataset: DatasetDict) -> go.Figure:
    """Distribution of lengths by split: one box each for words, voice and face.

    Voice and face are in seconds where the frames carry times, in frames where not. The mean is dashed.
    """
    timed = any(len(times) for part in dataset.values() for times in _column(part, "audio_times", 50))
    unit = "seconds" if timed else "frames"
    titles = ("Words", f"Voice ({unit})", f"Face ({unit})")
    base = figure(
        "Lengths",
        subtitle="What exceeds the model's text tokens is cut; voice and face are pooled to K steps.",
    )
    made = make_subplots(1, 3, subplot_titles=titles, horizontal_spacing=0.09)
    made.update_layout(base.layout)
    # make_subplots' titles are annotations; they keep the page's grey.
    for colour, (split, part) in zip(SERIES, dataset.items(), strict=False):
        words: list[float] = [
            len(text.split()) if " " in text or text.isascii() else len(text)
            for text in part.with_format(None)["text"]
        ]
        series = [words]
        for modality in ("audio", "vision"):
            if timed:
                series.append([_seconds(times) for times in _column(part, f"{modality}_times")])
            else:
                series.append([len(frames) for frames in _column(part, modality)])
        for number, values in enumerate(series, 1):
            made.add_trace(
                go.Box(
                    y=values,
                    name=split,
                    boxmean=True,
                    boxpoints="outliers",
                    marker={"color": colour, "size": 3},
                    line={"width": 1.5},
                    legendgroup=split,
                    showlegend=False,
                ),
                row=1,
                col=number,
            )
    made.update_yaxes(rangemode="tozero")
    made.update_yaxes(title_text="words", col=1)
    made.update_yaxes(title_text=unit, col=2)
    made.update_yaxes(title_text=unit, col=3)
    made.update_xaxes(title_text="split")
    for annotation, colour in zip(made.layout.annotations, ("text", "audio", "vision"), strict=True):
        annotation.font.color = COLOURS[colour]
    made.update_layout(margin={"t": 112})
    return made


def _column(part, name: str, first: int | None = None):
    """Values of one column, a batch at a time."""
    view = part.with_format("numpy", columns=[name])
    stop = len(view) if first is None else min(first, len(view))
    for start in range(0, stop, 64):
        for row in view.__getitems__(list(range(start, min(start + 64, stop)))):
            yield row[name]


def _seconds(times) -> float:
    """From the first frame's start to the last one's end."""
    return float(times[-1] - times[0] + (times[1] - times[0])) if len(times) > 1 else 0.0
