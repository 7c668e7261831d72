"""Attention maps: every MM Block and fusion token at a glance, and the fusion tokens' attention to the words."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..errors import DeepMLFError
from ..explain import Reading
from ..explain.reading import times_uniform
from .style import DIVERGING, SEQUENTIAL, TIMES_UNIFORM, figure, heatmap, shortened

MEASURES = {
    "update": "norm of what cross-attention adds, relative to the token's state",
    "focus": "how narrow the attention is (0: even over all steps, 1: one step)",
    "time": "where the attention's centre lies",
    "sentiment": "the fusion head applied to the token there",
}


def layer_token_map(reading: Reading, measure: str = "update") -> go.Figure:
    """One number for every MM Block and fusion token.

    Args:
        reading: with `cross_attention`, `norms` or `depth`, as the measure needs.
        measure: `update`: norm of what cross-attention adds to the token, relative to its state; `focus`: 1 minus
            the attention's entropy over that of an even spread, mean of heads; `time`: the centre of its
            attention; `sentiment`: its own sentiment after the block.
    """
    if measure not in MEASURES:
        raise DeepMLFError(f"measure={measure!r} is not known: choose from {', '.join(MEASURES)}.")
    scale: dict[str, object] = {"colorscale": SEQUENTIAL}
    if measure == "update":
        values = reading.get("cross_attention_norms") / np.maximum(reading.get("state_norms"), 1e-9)
    elif measure == "focus":
        weights = reading.get("cross_attention")  # [M, heads, F, K]
        entropy = -(weights * np.log(np.maximum(weights, 1e-12))).sum(axis=-1)
        readable = max(int(reading.get("av_mask").sum()), 2)
        values = (1 - entropy / np.log(readable)).mean(axis=1)
    elif measure == "time":
        values = (reading.get("cross_attention").mean(axis=1) * reading.steps).sum(axis=-1)
    else:
        values = reading.get("fusion_sentiment")[[layer + 1 for layer in reading.fusion_layers]]
        limit = float(np.abs(values).max()) or 1.0
        scale = {"colorscale": DIVERGING, "zmin": -limit, "zmax": limit}
    made = figure(
        f"{measure.capitalize()} of every fusion token in every MM Block",
        "fusion token",
        "MM Block (after LM layer)",
        subtitle=f"{MEASURES[measure]}; “{shortened(reading.text, 70)}”",
        height=130 + 46 * len(values),
    )
    made.add_trace(
        heatmap(
            values,
            [str(i) for i in range(values.shape[1])],
            [str(layer) for layer in reading.fusion_layers],
            "seconds" if measure == "time" and reading.timed else measure,
            "layer %{y}, token %{x}: %{z:.3f}",
            **scale,
        )
    )
    made.update_yaxes(type="category", showgrid=False)
    made.update_xaxes(type="category", showgrid=False)
    return made


def attention_maps(reading: Reading, head: int | None = None) -> go.Figure:
    """One attention map [fusion token, time] for each MM Block, as a multiple of an even spread, in order of depth.

    Args:
        reading: with `cross_attention`.
        head: one head; None: the mean of all.
    """
    weights = reading.get("cross_attention")
    weights = weights.mean(axis=1) if head is None else weights[:, head]  # [M, F, K]
    weights = times_uniform(weights, reading.get("av_mask"))
    columns = min(5 if len(weights) == 5 else 4, len(weights))
    rows = -(-len(weights) // columns)
    made = make_subplots(
        rows,
        columns,
        shared_xaxes="all",
        shared_yaxes="all",
        subplot_titles=[f"after layer {layer}" for layer in reading.fusion_layers],
        horizontal_spacing=0.03,
        vertical_spacing=0.18 / rows,
    )
    which = "mean of heads" if head is None else f"head {head}"
    base = figure(
        "Where fusion tokens look, block by block",
        subtitle=f"attention over voice and face, {which}; “{shortened(reading.text, 70)}”",
        height=186 + 200 * rows,
    )
    made.update_layout(base.layout)
    made.update_layout(margin_t=base.layout.margin.t + 28)
    for index, values in enumerate(weights):
        made.add_trace(
            go.Heatmap(
                z=values,
                x=reading.steps,
                coloraxis="coloraxis",
                hovertemplate="token %{y}, %{x:.2f}: %{z:.2f} times even<extra>layer "
                + str(reading.fusion_layers[index])
                + "</extra>",
            ),
            row=index // columns + 1,
            col=index % columns + 1,
        )
    made.update_layout(coloraxis=TIMES_UNIFORM)
    made.update_yaxes(autorange="reversed")
    for column in range(1, columns + 1):
        last = rows if (rows - 1) * columns + column <= len(weights) else rows - 1
        made.update_xaxes(title_text=reading.time_axis, nticks=4, showticklabels=True, row=last, col=column)
    for row in range(1, rows + 1):
        made.update_yaxes(title_text="fusion token", row=row, col=1)
    return made


def attention_to_words(reading: Reading, layer: int | None = None, head: int | None = None) -> go.Figure:
    """Self-attention of fusion tokens to the words, inside the LM.

    Args:
        reading: with `self_attention`.
        layer: one LM layer; None: the mean of all. head: likewise.

    A fusion token also attends to itself and to earlier fusion tokens, so a row does not sum to 1. Language
    models park attention on the first token where they have nothing to read ("attention sink", Xiao et al.,
    2023): a bright first word says little.
    """
    weights = reading.attention_to_words()  # [N, heads, F, W]
    weights = weights.mean(axis=0) if layer is None else weights[layer]
    weights = weights.mean(axis=0) if head is None else weights[head]
    where = "mean of LM layers" if layer is None else f"LM layer {layer}"
    which = "mean of heads" if head is None else f"head {head}"
    made = figure(
        "What fusion tokens read of the words",
        "word",
        "fusion token",
        subtitle=f"self-attention inside the LM, {where}, {which}; predicted {reading.sentiment:+.2f}",
        height=160 + 28 * len(weights),
    )
    made.add_trace(
        heatmap(
            weights,
            reading.words.labels,
            [f"token {i}" for i in range(len(weights))],
            "attention",
            "%{y} to “%{x}”: %{z:.3f}",
            colorscale=SEQUENTIAL,
        )
    )
    made.update_yaxes(autorange="reversed")
    made.update_xaxes(tickangle=-40)
    return made
