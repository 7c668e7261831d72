"""Training curves: losses and validation errors by epoch, with the best epoch marked."""

from __future__ import annotations

import plotly.graph_objects as go

from ..training import Run
from .style import COLOURS, figure

_TERMS = {
    "train_loss_task": ("task", "task"),
    "train_loss_fusion": ("fusion tokens", "fusion"),
    "train_loss_av": ("voice and face", "av"),
    "train_loss_text": ("text", "text"),
    "train_loss_lm": ("next token", "label"),
}
_ERRORS = {
    "valid_MAE": ("task head", "task"),
    "valid_fusion_MAE": ("fusion head", "fusion"),
    "valid_av_MAE": ("AV head", "av"),
    "valid_text_MAE": ("text head", "text"),
}
_ONLY_HEAD = {"av": ("voice and face", "av"), "text": ("text", "text")}


def training_losses(run: Run) -> go.Figure:
    """The loss terms on the training split, by epoch; their weighted sum for models with one term."""
    history = run.history()
    terms = {name: style for name, style in _TERMS.items() if name in history[0]}
    terms = terms or {"train_loss": ("L1", "task")}
    return _curves(
        run,
        terms,
        "Training loss by term",
        "loss, unweighted (label units)",
        "Lower is better.",
    )


def validation_errors(run: Run) -> go.Figure:
    """Mean absolute error of every head on the validation split, by epoch."""
    errors = {name: style for name, style in _ERRORS.items() if name in run.history()[0]}
    title = "Validation error by head"
    if len(errors) == 1:  # a model with one head: the name of a stream, not of DeepMLF's task head
        errors, title = {"valid_MAE": _ONLY_HEAD.get(run.kind, _ERRORS["valid_MAE"])}, "Validation error"
    return _curves(run, errors, title, "MAE (label units)", _kept(run))


def _kept(run: Run) -> str:
    best = run.info.get("best")
    return f"The weights of epoch {best['epoch']} were kept." if best else "Lower is better."


def _curves(run: Run, lines: dict[str, tuple[str, str]], title: str, y: str, subtitle: str) -> go.Figure:
    history = run.history()
    fig = figure(title, "epoch", y, subtitle=subtitle, height=380)
    epochs = [row["epoch"] for row in history]
    for name, (label, colour) in lines.items():
        fig.add_trace(
            go.Scatter(
                x=epochs,
                y=[row.get(name) for row in history],
                name=label,
                mode="lines+markers",
                line={"color": COLOURS[colour], "width": 2},
                marker={"size": 5},
                hovertemplate="epoch %{x}: %{y:.3f}<extra>" + label + "</extra>",
            )
        )
    best = run.info.get("best")
    if best:
        fig.add_vline(x=best["epoch"], line={"color": COLOURS["label"], "dash": "dot", "width": 1})
    fig.update_xaxes(dtick=max(1, len(epochs) // 12))
    fig.update_yaxes(rangemode="tozero")
    fig.update_layout(showlegend=True, legend={"orientation": "h", "y": -0.25})
    return fig
