"""Views of a whole split: specialisation of tokens, calibration, confusion, worst errors."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from ..errors import DeepMLFError
from ..explain import Survey
from .style import COLOURS, GREY, LINE, confusion_map, figure, modality_label, shortened


def specialisation(survey: Survey) -> go.Figure:
    """How far each fusion token's own sentiment moves when words, voice or face are replaced.

    Args:
        survey: `Lens.survey()`. A token that moves most for the voice depends on the voice; where all rows look
            alike, the tokens do not specialise.
    """
    if survey.specialisation is None:
        raise DeepMLFError("This survey left the specialisation out: make one with specialise=True.")
    made = figure(
        "What each fusion token depends on",
        "fusion token",
        "mean change (label's units)",
        subtitle=f"one modality replaced by that of {survey.replacement}; mean of {len(survey.table)} utterances",
    )
    for modality, values in zip(survey.modalities, survey.specialisation.T, strict=True):
        name = modality_label(modality)
        made.add_trace(
            go.Bar(
                x=[str(i) for i in range(len(values))],
                y=values,
                name=name,
                marker={"color": COLOURS.get(modality, GREY)},
                hovertemplate="token %{x}: %{y:.3f}<extra>" + name + "</extra>",
            )
        )
    made.update_layout(barmode="group", legend={"orientation": "h", "y": -0.24})
    made.update_xaxes(type="category")
    return made


def calibration(survey: Survey, bins: int = 8) -> go.Figure:
    """Mean label against mean prediction, in bins of equal count.

    Args:
        survey: of a split with labels.
        bins: at most; each holds as many utterances as the others.

    On the diagonal, a prediction means what it says; a flatter line is a model that exaggerates, a steeper one
    a model that is too careful.
    """
    table = _labelled(survey).sort_values("prediction")
    groups = [g for g in np.array_split(np.arange(len(table)), min(bins, max(len(table) // 3, 1))) if len(g)]
    predicted = np.array([table["prediction"].iloc[g].mean() for g in groups])
    actual = np.array([table["label"].iloc[g].mean() for g in groups])
    error = np.array([table["label"].iloc[g].std(ddof=0) / np.sqrt(len(g)) for g in groups])
    made = figure(
        "Does a prediction mean what it says?",
        "predicted sentiment (mean of a bin)",
        "label (mean of the bin)",
        subtitle=f"{len(groups)} bins of {len(groups[0])} utterances; whiskers: standard error",
    )
    reach = survey.scale
    made.add_trace(
        go.Scatter(
            x=[-reach, reach],
            y=[-reach, reach],
            mode="lines",
            name="calibrated",
            line={"color": LINE, "dash": "dash"},
            hoverinfo="skip",
        )
    )
    made.add_trace(
        go.Scatter(
            x=predicted,
            y=actual,
            mode="lines+markers",
            name="this model",
            line={"color": COLOURS["task"], "width": 2},
            marker={"size": 9},
            error_y={"array": error, "color": GREY},
            customdata=[len(g) for g in groups],
            hovertemplate="predicted %{x:+.2f}, label %{y:+.2f} (%{customdata} utterances)<extra></extra>",
        )
    )
    made.update_layout(legend={"orientation": "h", "y": -0.24})
    return made


def confusion(survey: Survey, classes: int = 7) -> go.Figure:
    """Labels against predictions, both rounded to classes as the field does.

    Args:
        survey: of a split with labels.
        classes: 7 (each whole number from -3 to 3, on a scale of 1 thirds of it), 5, or 3 (negative, neutral,
            positive).
    """
    if classes not in (3, 5, 7):
        raise DeepMLFError(f"classes={classes} is not known: choose 3, 5 or 7.")
    half = classes // 2
    table = _labelled(survey)
    rounded = {}
    for name in ("label", "prediction"):
        value = table[name].to_numpy() * (half / survey.scale if classes == 7 else 1.0)
        if classes == 5:
            value = table[name].to_numpy() * (1 if survey.scale >= 2 else half / survey.scale)
        if classes == 3:
            value = np.sign(np.where(np.abs(table[name]) < 0.5 * survey.scale / 3, 0, table[name]))
        rounded[name] = np.clip(np.round(value), -half, half).astype(int)
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (rounded["label"] + half, rounded["prediction"] + half), 1)
    names = (
        ["negative", "neutral", "positive"]
        if classes == 3
        else [f"{c:+d}" if c else "0" for c in range(-half, half + 1)]
    )
    right = np.trace(counts) / max(counts.sum(), 1)
    made = figure(
        "Which classes are taken for which",
        "predicted class",
        "labelled class",
        subtitle=f"share of each labelled class, counts inside; {right:.0%} of {counts.sum()} on the diagonal",
        height=480,
    )
    made.add_trace(confusion_map(counts, names, "labelled %{y}, predicted %{x}: %{text} (%{z:.0%})"))
    made.update_xaxes(type="category")
    made.update_yaxes(type="category")
    return made


def worst_errors(survey: Survey, count: int = 12) -> go.Figure:
    """The utterances with the largest errors: label, prediction, and the predictions of the text and AV heads.

    Args:
        survey: of a split with labels.
        count: how many.
    """
    worst = survey.worst(count).iloc[::-1]
    names = [
        f"{shortened(text, 46)}  [{index}]" for text, index in zip(worst["text"], worst["index"], strict=True)
    ]
    made = figure(
        "The worst errors",
        "sentiment (label's units)",
        subtitle="what was labelled, what was predicted, and what words alone and voice and face alone say; "
        "[number in the split]",
        height=150 + 34 * len(worst),
    )
    for label, prediction, name in zip(worst["label"], worst["prediction"], names, strict=True):
        made.add_shape(
            type="line", x0=label, x1=prediction, y0=name, y1=name, line={"color": LINE, "width": 2}
        )
    for column, shown, colour, symbol in (
        ("label", "label", COLOURS["label"], "diamond"),
        ("prediction", "prediction", COLOURS["task"], "circle"),
        ("text_head", "text head", COLOURS["text"], "line-ns-open"),
        ("av_head", "AV head", COLOURS["av"], "line-ns-open"),
    ):
        made.add_trace(
            go.Scatter(
                x=worst[column],
                y=names,
                mode="markers",
                name=shown,
                marker={"color": colour, "size": 12, "symbol": symbol, "line": {"width": 2, "color": colour}},
                customdata=worst[["id", "text"]],
                hovertemplate=shown + " %{x:+.2f}<br>%{customdata[1]}<br>%{customdata[0]}<extra></extra>",
            )
        )
    made.add_vline(x=0, line={"color": LINE, "width": 1})
    made.update_layout(legend={"orientation": "h", "y": -0.12})
    return made


def _labelled(survey: Survey):
    table = survey.table.dropna(subset=["label"])
    if not len(table):
        raise DeepMLFError("No utterance of this split has a label: this figure needs them.")
    return table
