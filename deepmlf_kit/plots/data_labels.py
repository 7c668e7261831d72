"""Distribution of a dataset's labels, split by split."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from ..data.inspect import DatasetReport
from .style import SERIES, figure


def plot_labels(report: DatasetReport) -> go.Figure:
    """Fraction of each split's utterances in each bin of the label.

    Fractions rather than counts, so that splits of different size compare; the count is on hover.
    """
    made = figure(
        "Labels",
        "sentiment (the dataset's scale)",
        "share of the split's utterances",
        subtitle="The splits should look alike; a bin that is nearly empty cannot be learnt.",
    )
    bins = list(report.labels.index)
    for colour, split in zip(SERIES, report.labels.columns, strict=False):
        counts = report.labels[split].to_numpy()
        share = counts / max(counts.sum(), 1)
        made.add_trace(
            go.Bar(
                x=bins,
                y=share,
                name=f"{split} ({counts.sum()})",
                marker_color=colour,
                customdata=np.stack([counts], -1),
                hovertemplate="%{x}<br>%{y:.1%} of " + split + ", %{customdata[0]} utterances<extra></extra>",
            )
        )
    made.update_layout(barmode="group", bargap=0.25)
    made.update_yaxes(tickformat=".0%")
    return made
