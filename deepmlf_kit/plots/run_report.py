"""The report of a run: one HTML file that works offline, with everything worth a first look.

`write_report` reads run folders and a dataset, draws with `plots` and writes a page that
carries its own scripts.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.labels import class_names, probability_columns
from ..errors import DeepMLFError
from ..explain import Lens, Reading
from ..rendering.html_page import figure_html, page
from ..storage.files import write_text
from ..training import Run
from ..training.dataset import open_dataset, scored_split
from ..training.metric_table import metric_table
from .fusion_attention import fusion_attention
from .modalities import modality_errors
from .predictions import confusion_matrix, predicted_vs_true
from .tracks import tracks_of
from .training_curves import training_losses, validation_errors

#: Tracks drawn under the attention maps where the dataset's features have them.
_TRACKS = ("loudness", "smile", "brows down")


def write_report(
    run: Run,
    dataset: DatasetDict | str | Path | None = None,
    path: str | Path | None = None,
    *,
    rows: Mapping[str, Mapping[str, float]] | None = None,
    title: str | None = None,
    next_steps: Sequence[str] = (),
    utterance: str | None = None,
    lm: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Path:
    """Write the report of a finished fused run.

    Args:
        run: what `train` gave.
        dataset: what it was trained on; None: from the path that the run remembers.
        path: the file; None: `report.html` in the run's folder.
        rows: models to set beside each other (name -> metrics on the test split); the run alone if None.
        next_steps: commands or notebooks to try next, one line each.
        utterance: id of the utterance whose attention is shown; None: one where text alone is misled and the
            fused model is not.
        lm, tokenizer: where the run was made with a language model in memory.

    Returns:
        The file written.

    Raises:
        DeepMLFError: the run is not finished, or its dataset or the utterance cannot be found.
    """
    if not run.finished:
        raise DeepMLFError(f"The run {run.path} is not finished: run the same training again, it goes on.")
    where = dataset if dataset is not None else run.info["dataset"]["path"]
    if where is None:
        raise DeepMLFError(f"The run {run.path} was trained on a dataset in memory: pass it as dataset=...")
    data, _ = open_dataset(where)
    split = scored_split(data)
    rows = rows or {run.path.name: run.metrics}
    parts = _metrics_part(rows, split)
    if len(rows) > 1 and all("MAE" in metrics for metrics in rows.values()):
        parts.append(
            figure_html(modality_errors({name: (m["MAE"], None) for name, m in rows.items()}, split))
        )
    parts += _training_part(run)
    parts += _predictions_part(run, data[split])
    if run.kind == "fused":
        parts += _attention_part(run, data[split], utterance, lm, tokenizer)
    if next_steps:
        items = "".join(f"<li>{step}</li>" for step in next_steps)
        parts.append(f"<h2>What to open next</h2><ul>{items}</ul>")
    path = Path(path) if path is not None else run.path / "report.html"
    write_text(path, page(title or f"Run {run.path.name}", _about(run), parts))
    return path


def choose_utterance(run: Run) -> str:
    """Id of a test utterance that shows fusion at work: the text head is far off, the prediction is close.

    Of a model of classes: the text head is wrong, the prediction right.
    """
    table = run.predictions()
    error = (table["prediction"] - table["label"]).abs()
    text_error = (table["text"] - table["label"]).abs() if "text" in table else error * 0
    if probability_columns(1)[0] in table:
        error, text_error = error.clip(upper=1), text_error.clip(upper=1)
    return str(table["id"][(text_error - 2 * error).idxmax()])


def _training_part(run: Run) -> list[str]:
    seconds = run.info.get("seconds", 0)
    parameters = run.info["parameters"]
    text = (
        f"{parameters['trained']:,} weights were trained and {parameters['frozen']:,} of the language model were left "
        f"as they are, in {seconds:.0f} seconds. Every head is asked the same question from what it sees: the text "
        "head from the words, the AV head from voice and face, the fusion head from the fusion tokens, and the task "
        "head, whose answer is the model's, from all three."
    )
    return [
        "<h2>How training went</h2>",
        f"<p>{text}</p>",
        figure_html(validation_errors(run)),
        figure_html(training_losses(run)),
    ]


def _predictions_part(run: Run, split: Dataset) -> list[str]:
    table = run.predictions()
    if classes := run.preset.heads.classes:
        return [
            "<h2>What it predicts</h2>",
            "<p>How many utterances of each class are taken for which.</p>",
            figure_html(confusion_matrix(table, class_names(classes))),
        ]
    texts = dict(zip(split["id"], split["text"], strict=True))
    kinds = [str(i).rsplit("_", 1)[-1] for i in table["id"]]
    named = set(kinds) <= {"sincere", "ironic", "neutral"}  # the sample set says what each utterance is
    note = (
        "The sample set says how each utterance was meant. Ironic ones mean the opposite of their words, and only "
        "voice and face tell."
        if named
        else "Hover over a dot to read the utterance."
    )
    return [
        "<h2>What it predicts</h2>",
        f"<p>{note}</p>",
        figure_html(predicted_vs_true(table, [texts[i] for i in table["id"]], kinds if named else None)),
    ]


def _attention_part(
    run: Run,
    split: Dataset,
    utterance: str | None,
    lm: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase | None,
) -> list[str]:
    wanted = utterance or choose_utterance(run)
    ids = list(split["id"])
    if wanted not in ids:
        raise DeepMLFError(f"There is no utterance {wanted!r} in the split; its ids look like {ids[0]!r}.")
    model = run.load_model(lm=lm, tokenizer=tokenizer)
    collator = run.collator(model.tokenizer)
    reading = Lens(model, DatasetDict({"test": split}), "test", collator).read(wanted, "cross_attention")
    weights = reading.get("cross_attention").mean(axis=1)  # [M, F, K]
    fig = fusion_attention(
        dict(zip(reading.fusion_layers, weights, strict=True)),
        reading.steps,
        reading.row["words"] if reading.timed else (),
        _tracks(reading),
        title=f"“{reading.text}”",
        axis=reading.time_axis,
    )
    label = collator([reading.row])["labels"].item()
    sentence = ", ".join(f"{who} {what}" for who, what in _in_words(reading, label).items())
    return [
        "<h2>What the fusion tokens look at</h2>",
        f"<p>Utterance <code>{html.escape(wanted)}</code>: {sentence}. Attention is where the tokens read, not yet "
        "why the model answers as it does; notebook 06 sets the two beside each other.</p>",
        figure_html(fig),
    ]


def _in_words(reading: Reading, label: float) -> dict[str, str]:
    """The heads' predictions for an utterance, and its label, in words."""
    output = reading.seen.output
    heads = {
        "the text head says": output.text_prediction,
        "the AV head": output.av_prediction,
        "the model": output.prediction,
    }
    heads = {
        who: scores for who, scores in heads.items() if not scores.isnan().any()
    }  # its stream is missing
    if not reading.classes:
        words = {who: f"{value.item():+.2f}" for who, value in heads.items()}
        return words | {"the label is": "unknown" if np.isnan(label) else f"{label:+.2f}"}
    names = class_names(reading.classes)
    words = {}
    for who, scores in heads.items():
        probability, index = scores[0].softmax(dim=-1).max(dim=-1)
        words[who] = f"{names[int(index)]} ({float(probability):.0%})"
    return words | {"the label is": "unknown" if np.isnan(label) else names[int(label)]}


def _tracks(reading: Reading) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Loudness, smile and brows of an utterance, where its features have these names."""
    tracks = {}
    for modality in ("audio", "vision"):
        for track in tracks_of(reading.row, modality, reading.frame_times(modality)):
            known = np.isfinite(track.values)
            if track.name in _TRACKS and known.any():
                tracks[track.name] = (track.times[known], track.values[known])
    return tracks


def _metrics_part(rows: Mapping[str, Mapping[str, float]], split: str) -> list[str]:
    note = "Shares: higher is better."
    if any("MAE" in metrics for metrics in rows.values()):
        note = "MAE: mean absolute error, lower is better; all others are shares or correlations, higher is better."
    return [f"<h2>Results on the {split} split</h2>", f"<p>{note}</p>", metric_table(rows).html()]


def _about(run: Run) -> str:
    preset = run.preset
    return (
        f"Preset <code>{html.escape(preset.name)}</code>, language model <code>{html.escape(preset.lm.name)}</code>, fusion "
        f"layers {preset.fusion.layers}, {preset.fusion.tokens} fusion tokens, seed {run.info['seed']}."
    )
