"""Errors with MM Blocks silenced: each alone, the first n together, the last n together."""

from __future__ import annotations

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..explain import CumulativeAblation
from .style import SERIES, figure, line

_PANELS = {"alone": "one alone", "first": "the first n together", "last": "the last n together"}
_BRANCH = {"cross_attention": "cross-attention", "feed_forward": "feed-forward", "both": "both branches"}


def layer_ablation(found: CumulativeAblation, metric: str = "MAE") -> go.Figure:
    """One panel each for blocks silenced alone, from the front and from the back; one line a kind of utterance.

    Args:
        found: `Lens.cumulative_ablation()`.
        metric: `MAE`, or `wrong sign`.
    """
    table = found.table
    kinds = list(dict.fromkeys(table["kind"]))
    made = make_subplots(
        1, 3, shared_yaxes=True, subplot_titles=list(_PANELS.values()), horizontal_spacing=0.04
    )
    whole = table[table["order"] == "none"].set_index("kind")
    base = figure(
        f"Error with {_BRANCH[found.branch]} silenced, layer by layer",
        subtitle="dotted: nothing silenced; whiskers: 95 % interval of the change; blocks that stand in for each other "
        "show only together",
        height=440,
    )
    made.update_layout(base.layout)
    made.update_layout(margin_t=base.layout.margin.t + 28)
    for column, order in enumerate(_PANELS, start=1):
        for number, kind in enumerate(kinds):
            rows = table[(table["order"] == order) & (table["kind"] == kind)]
            colour = SERIES[number % len(SERIES)]
            labels = [_span(layers) for layers in rows["layers"]]
            drawn = line(
                labels,
                rows[metric],
                f"{kind} ({rows['utterances'].iloc[0]})",
                colour,
                "silenced after layers %{customdata}: %{y:.3f}",
                mode="markers" if order == "alone" else "lines+markers",
                marker_size=8,
                customdata=rows["layers"],
                legendgroup=kind,
                showlegend=column == 1,
            )
            if metric == "MAE":
                above, below = rows["high"] - rows["change"], rows["change"] - rows["low"]
                drawn.error_y = {"array": above, "arrayminus": below, "thickness": 1, "width": 4}
            made.add_trace(drawn, row=1, col=column)
            made.add_hline(
                y=whole.loc[kind, metric],
                line={"color": colour, "dash": "dot", "width": 1},
                row=1,
                col=column,
            )
        made.update_xaxes(title_text="silenced (LM layers)", type="category", row=1, col=column)
    title = "mean absolute error" if metric == "MAE" else "share of wrong signs"
    made.update_yaxes(title_text=title, row=1, col=1)
    made.update_yaxes(rangemode="tozero")
    made.update_layout(legend={"orientation": "h", "y": -0.25})
    return made


def _span(layers: str) -> str:
    """The first and the last of layers given as text: 3–5."""
    every = layers.split(", ")
    return "–".join(dict.fromkeys((every[0], every[-1])))
