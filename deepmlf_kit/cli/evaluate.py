"""`deepmlf evaluate`: score a finished run, say how sure that is, and set it beside others."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import JsonOption, print_json, print_metrics, stdout_reserved_for_json

if TYPE_CHECKING:
    import pandas as pd

    from ..evaluation import Comparison


def command(
    run: Annotated[Path, typer.Argument(help="Run folder, as `deepmlf train` left it.")],
    dataset: Annotated[
        Path | None, typer.Option(help="Dataset folder; without it, the one the run was trained on.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    save: Annotated[
        Path | None, typer.Option(help="Write the predictions of every head to this CSV file.")
    ] = None,
    intervals: Annotated[
        int, typer.Option(help="Draws of the bootstrap for 95 % confidence intervals; 0: none.")
    ] = 0,
    details: Annotated[
        bool, typer.Option("--details", help="Errors by label and by length of the text.")
    ] = False,
    robustness: Annotated[
        bool,
        typer.Option(
            "--robustness", help="Also without a modality, with noise, shuffled words, shifted time."
        ),
    ] = False,
    compare: Annotated[
        Path | None,
        typer.Option(help="Another run: are the two different? Paired bootstrap and permutation test."),
    ] = None,
    peers: Annotated[
        str | None,
        typer.Option(help="Set published numbers on mosi, mosei or sims beside, marked as theirs."),
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the table to this Markdown file.")] = None,
    latex: Annotated[Path | None, typer.Option(help="Write the table to this LaTeX file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Score a run's best checkpoint: the metrics of its field on one split, and how far to trust them."""
    from .. import evaluation
    from ..evaluation.evaluate import evaluate
    from ..storage.files import replacing, write_text
    from ..training import Run

    answer: dict[str, Any] = {}
    with stdout_reserved_for_json(as_json):
        opened = Run.open(run)
        preset = opened.preset
        scale, classes = preset.data.scale, preset.heads.classes
        result = evaluate(opened, dataset, split)
        rows: dict[str, Any] = {opened.path.name: _shown(result.metrics)}
        if intervals:
            answer["intervals"] = evaluation.bootstrap(result.predictions, scale, intervals, classes=classes)
            rows[opened.path.name] = answer["intervals"]
        if details:
            texts = _texts(opened, dataset, split)
            said = result.predictions
            answer["by_label"] = (
                evaluation.by_class(said, classes) if classes else evaluation.by_bin(said, scale)
            )
            answer["by_length"] = evaluation.by_length(said, texts, classes=classes)
        if robustness:
            answer["robustness"] = evaluation.robustness(opened, dataset, split)
        if compare is not None:
            other = evaluate(compare, dataset, split)
            rows[_other_name(opened.path, compare)] = _shown(other.metrics)
            answer["comparison"] = evaluation.compare(
                result.predictions, other.predictions, scale, classes=classes
            )
        theirs = {}
        for peer in evaluation.published(peers) if peers is not None else ():
            rows[peer.model] = peer.metrics
            theirs[peer.model] = f"{peer.source}. {peer.note}"
        tables = {markdown: evaluation.markdown, latex: evaluation.latex}
        for path, make in tables.items():
            if path is not None:
                write_text(path, make(rows, theirs))
        if save is not None:
            with replacing(save) as file:
                result.predictions.to_csv(file, index=False)
    if as_json:
        tables_as_rows = {k: v.to_dict("records") if hasattr(v, "to_dict") else v for k, v in answer.items()}
        print_json(
            {
                "run": run,
                "split": split,
                "utterances": len(result.predictions),
                "metrics": result.metrics,
                **tables_as_rows,
            }
        )
        return
    print_metrics(result.metrics, f"{split} ({len(result.predictions)} utterances)")
    if len(rows) > 1 or intervals:
        print(f"\n{evaluation.markdown(rows, theirs)}", end="")
    for name in ("by_label", "by_length", "robustness"):
        if name in answer:
            print(f"\n{_as_markdown(answer[name])}", end="")
    if compare is not None:
        print(
            f"\n{_comparison(answer['comparison'], opened.path.name, _other_name(opened.path, compare))}",
            end="",
        )
    for path in (save, markdown, latex):
        if path is not None:
            print(f"Wrote {path}")


def _shown(metrics: dict[str, float]) -> dict[str, float]:
    from ..training.metrics import HEADINGS

    return {name: value for name, value in metrics.items() if name in HEADINGS}


def _other_name(run: Path, other: Path) -> str:
    return other.name if other.name != run.name else str(other)


def _texts(run: Any, dataset: Path | None, split: str) -> list[str]:
    from ..training.dataset import open_dataset

    data, _ = open_dataset(dataset if dataset is not None else run.info["dataset"]["path"])
    return list(data[split]["text"])


def _comparison(found: dict[str, Comparison], one: str, other: str) -> str:
    from ..rendering.tables import Table
    from ..training.metrics import HEADINGS

    names = {"one": one, "other": other}

    def shown(value: float, how: str) -> str:
        return "?" if math.isnan(value) else format(value, how)

    rows = [
        [
            HEADINGS[name][0],
            f"{shown(result.difference, '+.3f')} [{shown(result.low, '+.3f')}, {shown(result.high, '+.3f')}]",
            shown(result.p, ".3f"),
            names.get(result.better, result.better),
        ]
        for name, result in found.items()
    ]
    reasons = filter(None, (result.why_undecided(one, other) for result in found.values()))
    notes = [f"Cannot tell: {reason}." for reason in reasons]
    return Table(["metric", f"{one} minus {other}", "p", "better"], rows, notes=notes).markdown()


def _as_markdown(table: pd.DataFrame) -> str:
    from ..rendering.tables import Table, number
    from ..training.metrics import HEADINGS

    # Of the robustness table the metrics alone, without the loss terms.
    extra = ("utterances", "bias", "mean prediction", "recall", "accuracy")
    names = [
        name
        for i, name in enumerate(table)
        if i == 0 or name in HEADINGS or name in extra or name.startswith("predicted ")
    ]
    heads = [HEADINGS[name][0] if name in HEADINGS else name for name in names]
    rows = table[names].itertuples(index=False)
    return Table(heads, [[number(v) if isinstance(v, float) else v for v in row] for row in rows]).markdown()
