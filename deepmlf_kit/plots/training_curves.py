"""Training curves: losses and validation errors by epoch, with the best epoch marked."""

from __future__ import annotations

import plotly.graph_objects as go

from ..training import Run
from .style import COLOURS, figure, line

_TERMS = {
    "train_loss_task": ("task", "task"),
    "train_loss_fusion": ("fusion tokens", "fusion"),
    "train_loss_av": ("voice and face", "av"),
    "train_loss_text": ("text", "text"),
    "train_loss_lm": ("next token", "label"),
}
_HEADS = {
    "valid_": ("task head", "task"),
    "valid_fusion_": ("fusion head", "fusion"),
    "valid_av_": ("AV head", "av"),
    "valid_text_": ("text head", "text"),
}
_ONLY_HEAD = {"av": ("voice and face", "av"), "text": ("text", "text")}


def training_losses(run: Run) -> go.Figure:
    """The loss terms on the training split, by epoch; their weighted sum for models with one term."""
    history = run.history()
    terms = {name: style for name, style in _TERMS.items() if name in history[0]}
    classes = run.preset.heads.classes
    terms = terms or {"train_loss": ("cross-entropy" if classes else "L1", "task")}
    unit = "cross-entropy" if classes else "label units"
    return _curves(run, terms, "Training loss by term", f"loss, unweighted ({unit})", "Lower is better.")


def validation_errors(run: Run) -> go.Figure:
    """Mean absolute error (of models of classes: accuracy) of every head on the validation split, by epoch."""
    classes = run.preset.heads.classes
    metric, what, y = (
        (f"Acc_{classes}", "accuracy", "share of right classes")
        if classes
        else ("MAE", "error", "MAE (label units)")
    )
    first = run.history()[0]
    heads = {f"{head}{metric}": style for head, style in _HEADS.items() if f"{head}{metric}" in first}
    title = f"Validation {what} by head"
    if len(heads) == 1:  # a model with one head: the name of a stream, not of DeepMLF's task head
        name = next(iter(heads))
        heads, title = {name: _ONLY_HEAD.get(run.kind, heads[name])}, f"Validation {what}"
    return _curves(run, heads, title, y, _best_epoch(run))


def _best_epoch(run: Run) -> str:
    best = run.info.get("best")
    return f"The weights of epoch {best['epoch']} were kept." if best else "Lower is better."


def _curves(run: Run, lines: dict[str, tuple[str, str]], title: str, y: str, subtitle: str) -> go.Figure:
    history = run.history()
    fig = figure(title, "epoch", y, subtitle=subtitle, height=380)
    epochs = [row["epoch"] for row in history]
    for name, (label, colour) in lines.items():
        fig.add_trace(
            line(
                epochs,
                [row.get(name) for row in history],
                label,
                COLOURS[colour],
                "epoch %{x}: %{y:.3f}",
                mode="lines+markers",
                marker_size=5,
            )
        )
    best = run.info.get("best")
    if best:
        fig.add_vline(x=best["epoch"], line={"color": COLOURS["label"], "dash": "dot", "width": 1})
    fig.update_xaxes(dtick=max(1, len(epochs) // 12))
    fig.update_yaxes(rangemode="tozero")
    fig.update_layout(showlegend=True, legend={"orientation": "h", "y": -0.25})
    return fig
