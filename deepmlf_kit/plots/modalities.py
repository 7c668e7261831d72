"""What each modality is worth: errors of text only, voice and face only, and their fusions, side by side."""

from __future__ import annotations

import re
from collections.abc import Mapping

import plotly.graph_objects as go

from .style import COLOURS, SERIES, figure


def modality_errors(errors: Mapping[str, tuple[float, float | None]], split: str = "test") -> go.Figure:
    """Bars of mean absolute error.

    Args:
        errors: for each model its error and, over several seeds, its standard deviation (else None).
        split: name of the split.
    """
    fig = figure(
        "Error by modality",
        f"mean absolute error on the {split} split (units of the label; lower is better)",
        height=110 + 50 * len(errors),
    )
    names = list(errors)
    deviations = [errors[name][1] or 0.0 for name in names]
    fig.add_trace(
        go.Bar(
            y=names,
            x=[errors[name][0] for name in names],
            error_x={
                "type": "data",
                "array": deviations,
                "color": COLOURS["label"],
                "visible": any(deviations),
            },
            text=[f"{errors[name][0]:.2f}" for name in names],
            textposition="inside",
            insidetextfont={"color": "white"},
            orientation="h",
            marker={"color": [_colour(name) for name in names]},
            hovertemplate="%{y}: %{x:.3f}<extra></extra>",
        )
    )
    fig.update_yaxes(autorange="reversed", ticks="outside", tickcolor="rgba(0,0,0,0)")
    return fig


def _colour(name: str) -> str:
    """The colour of the streams that a model's name speaks of."""
    words = set(re.findall(r"[a-z]+", name.lower()))
    if words & {"deepmlf", "fused"}:
        return COLOURS["fusion"]
    if words & {"late", "neither", "none", "median"}:
        return COLOURS["label"]
    if "av" in words or words >= {"voice", "face"}:
        return COLOURS["av"]
    for word, stream in (("voice", "audio"), ("face", "vision"), ("text", "text"), ("words", "text")):
        if word in words:
            return COLOURS[stream]
    return SERIES[-1]
