"""Effects of ablations on the prediction, alone and against attention."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from ..explain import AttentionVsEffect, DeletionCurve, Effects, Patching
from ..explain.patching import PLACES
from .style import COLOURS, DIVERGING, GREY, LINE, figure, heatmap, line, modality_label

_PARTS = {
    "modalities": "modality",
    "time": "stretch of time",
    "words": "word",
    "tokens": "fusion token",
    "blocks": "part of an MM Block",
}
UP, DOWN = "#2f80ed", "#d64550"
_PATCHED = {
    "tokens": "fusion token",
    "words": "word",
    "cross_attention": "fusion token",
    "time": "stretch of time",
}


def effect_bars(effects: Effects) -> go.Figure:
    """Change of the prediction when each part is ablated, in the order of the utterance or the model.

    Args:
        effects: `Lens.effects(...)`. Blue pushed the sentiment up, red pushed it down; whiskers are the spread
            over draws where something was resampled.
    """
    value = effects.effect
    made = figure(
        f"What each {_PARTS[effects.of]} does to the prediction ({effects.prediction:+.2f})",
        _PARTS[effects.of],
        "with minus without (label's units)",
        subtitle=f"ablated: {effects.replacement}"
        + (
            f" ({effects.draws}; whiskers: their standard deviation)"
            if effects.ablation == "resampled"
            else ""
        ),
    )
    made.add_trace(
        go.Bar(
            x=[modality_label(name) for name in effects.names],
            y=value,
            marker={"color": np.where(value >= 0, UP, DOWN), "opacity": 0.85},
            error_y={"array": effects.spread, "color": GREY, "thickness": 1.2}
            if effects.ablation == "resampled"
            else None,
            customdata=effects.prediction - value,
            hovertemplate="%{x}<br>effect %{y:+.3f}<br>without it: %{customdata:+.2f}<extra></extra>",
        )
    )
    made.add_hline(y=0, line={"color": LINE, "width": 1})
    made.update_xaxes(type="category", tickangle=-35 if len(effects.names) > 4 else 0)
    return made


def attention_effect(found: AttentionVsEffect) -> go.Figure:
    """Attention against effect, one dot per word or stretch of time, with their rank correlation.

    Args:
        found: `Lens.compare(...)`. Dots on a rising line: attention shows what matters. A cloud: do not
            take the map for an explanation.
    """
    if np.isnan(found.rank_correlation):
        verdict = "one of them does not vary"
    else:
        verdict = f"rank correlation {found.rank_correlation:+.2f} (p = {found.p_value:.2g}, n = {len(found.names)}): "
        if found.misleading:
            verdict += "where it looks most is not what moves it most"
        else:
            verdict += "it looks most where it is moved most"
        if found.p_value > 0.05:
            verdict += ", as far as so few can tell"
    made = figure(
        f"Attention against effect, over {'time' if found.of == 'time' else 'words'}",
        "share of attention",
        "size of the effect (label's units)",
        subtitle=f"{verdict}; ablated: {found.replacement}",
    )
    made.add_trace(
        go.Scatter(
            x=found.attention,
            y=np.abs(found.effect),
            text=found.names,
            mode="markers+text" if found.of == "words" else "markers",
            textposition="top center",
            textfont={"size": 11},
            marker={
                "size": 11,
                "color": np.where(found.effect >= 0, UP, DOWN),
                "line": {"color": COLOURS["label"], "width": 1},
            },
            customdata=found.effect,
            hovertemplate="%{text}<br>attention %{x:.3f}<br>effect %{customdata:+.3f}<extra></extra>",
        )
    )
    made.update_yaxes(rangemode="tozero")
    return made


def patching_map(found: Patching) -> go.Figure:
    """How much of a pair's difference each patch recovers, on a scale that is the same in every figure.

    Args:
        found: `Lens.patch(...)`. 1: the patch alone makes the corrupted utterance's prediction the clean one's; 0: nothing.
    """
    made = figure(
        f"Where the difference is carried (clean {found.clean:+.2f}, corrupted {found.corrupted:+.2f})",
        _PATCHED[found.of],
        "read by" if found.of == "time" else "MM Block" if found.of == "cross_attention" else "LM layer",
        subtitle=f"recovered share of the difference; patched from the clean run: {PLACES[found.of]}",
        height=180 + 34 * len(found.rows),
    )
    scale = {"colorscale": DIVERGING, "zmin": -1, "zmax": 1}
    hover = "%{y}, %{x}: %{z:.2f} recovered"
    made.add_trace(heatmap(found.recovered, found.columns, found.rows, "recovered", hover, **scale))
    made.update_xaxes(type="category", showgrid=False, tickangle=-35)
    made.update_yaxes(type="category", showgrid=False, autorange="reversed")
    return made


def deletion_curve(found: DeletionCurve) -> go.Figure:
    """The change of the prediction as parts are deleted, in the order of a ranking and along random orders.

    Args:
        found: `Lens.deletion(...)`. Far above the grey band: the ranking finds what matters.
    """
    count = np.arange(len(found.change))
    low, high = np.quantile(found.random, [0.05, 0.95], axis=0)
    by = f" by {found.ranking}" if found.ranking else ""
    made = figure(
        f"Deleting {'moments' if found.of == 'time' else 'words'}{by}, most important first",
        f"{'stretches of time' if found.of == 'time' else 'words'} deleted",
        "change of the prediction (label's units)",
        subtitle=f"area above random order {found.area:+.2f} (p = {found.p_value:.2g}, {len(found.random)} random orders; "
        "band: 90 % of them)",
    )
    made.add_trace(
        go.Scatter(
            x=[*count, *count[::-1]],
            y=[*high, *low[::-1]],
            fill="toself",
            fillcolor="rgba(133,140,150,0.22)",
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
        )
    )
    shown = "%{x} deleted: %{y:.3f}"
    made.add_trace(line(count, found.random.mean(axis=0), "random order, mean", COLOURS["label"], shown))
    last = [f"last: {name}" for name in ("nothing", *found.names)]
    made.add_trace(
        line(
            count,
            found.change,
            "most important first",
            COLOURS["task"],
            shown + " (%{customdata})",
            width=3,
            mode="lines+markers",
            customdata=last,
        )
    )
    made.update_yaxes(rangemode="tozero")
    made.update_layout(legend={"orientation": "h", "y": -0.22})
    return made
