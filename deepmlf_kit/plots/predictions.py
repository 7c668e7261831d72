"""Predicted against true sentiment: one dot per utterance, or a confusion matrix for models of classes."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from sklearn import metrics

from .style import COLOURS, SERIES, confusion_map, figure


def predicted_vs_true(
    predictions: pd.DataFrame,
    texts: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    title: str = "Predicted against true sentiment",
) -> go.Figure:
    """Scatter of predictions; on the line they are right.

    Args:
        predictions: `run.predictions()`: columns `id`, `label`, `prediction` and, where there are, other heads.
        texts: the words of each utterance, shown on hover.
        groups: a name for each utterance; groups are drawn in colours of their own and can be switched off.
    """
    table = predictions.reset_index(drop=True)
    limit = float(np.ceil(max(1.0, table["label"].abs().max(), table["prediction"].abs().max())))
    fig = figure(
        title,
        "true sentiment (label)",
        "predicted sentiment",
        subtitle="On the line a prediction is right; in the shaded quarters it has the wrong sign.",
        height=460,
    )
    for x, y in (((-limit, 0), (0, limit)), ((0, limit), (-limit, 0))):
        fig.add_shape(
            type="rect",
            x0=x[0],
            x1=x[1],
            y0=y[0],
            y1=y[1],
            fillcolor="rgba(214,69,80,0.08)",
            line_width=0,
            layer="below",
        )
    fig.add_trace(
        go.Scatter(
            x=[-limit, limit],
            y=[-limit, limit],
            mode="lines",
            line={"color": COLOURS["label"], "dash": "dash", "width": 1},
            hoverinfo="skip",
            showlegend=False,
        )
    )
    group_of = np.asarray(groups) if groups is not None else np.full(len(table), "utterances")
    heads = [name for name in ("text", "av", "fusion") if name in table]
    for i, group in enumerate(dict.fromkeys(group_of)):
        rows = np.flatnonzero(group_of == group).tolist()
        part = table.loc[rows]
        hover = [
            "<br>".join(
                [
                    f"<b>{html.escape(str(table['id'][row]))}</b>",
                    *([html.escape(texts[row])] if texts is not None else []),
                    f"true {table['label'][row]:.2f}, predicted {table['prediction'][row]:.2f}",
                    *(f"{head} head {table[head][row]:.2f}" for head in heads),
                ]
            )
            for row in rows
        ]
        fig.add_trace(
            go.Scatter(
                x=part["label"],
                y=part["prediction"],
                mode="markers",
                name=f"{group} ({len(rows)})",
                marker={"color": SERIES[i % len(SERIES)], "size": 7, "opacity": 0.7},
                hovertext=hover,
                hoverinfo="text",
            )
        )
    fig.update_xaxes(range=[-limit * 1.05, limit * 1.05])
    fig.update_yaxes(range=[-limit * 1.05, limit * 1.05])
    fig.update_layout(showlegend=groups is not None, legend={"orientation": "h", "y": -0.2})
    return fig


def confusion_matrix(
    predictions: pd.DataFrame, names: Sequence[str], title: str = "Predicted against true class"
) -> go.Figure:
    """Heat map of how many utterances of each true class (row) are predicted as each class (column).

    Args:
        predictions: `run.predictions()` of a model of classes: `label` and `prediction` are class indices; utterances
            without a label are left out.
        names: of the classes, in the order of their indices.
    """
    table = predictions.dropna(subset=["label"])
    pairs = table[["label", "prediction"]].to_numpy().round().astype(int)
    counts = metrics.confusion_matrix(pairs[:, 0], pairs[:, 1], labels=range(len(names)))
    fig = figure(
        title,
        "predicted class",
        "true class (label)",
        subtitle="On the diagonal a prediction is right; colours are shares of the true class.",
        height=160 + 70 * len(names),
    )
    fig.add_trace(confusion_map(counts, names, "%{y}, predicted %{x}: %{text} (%{z:.0%})"))
    fig.update_yaxes(autorange="reversed")
    return fig
