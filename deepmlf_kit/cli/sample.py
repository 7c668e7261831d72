"""`deepmlf sample`: make the sample set."""

from pathlib import Path
from typing import Annotated

import typer

from .output import JsonOption, print_json, stdout_reserved_for_json


def command(
    out: Annotated[Path, typer.Option(help="Folder to write the dataset to.")] = Path("data/sample"),
    seed: Annotated[int, typer.Option(help="The same seed gives the same set.")] = 0,
    train: Annotated[int, typer.Option(help="Utterances to train on.")] = 1200,
    valid: Annotated[int, typer.Option(help="Utterances to select the best checkpoint on.")] = 200,
    test: Annotated[int, typer.Option(help="Utterances to report on.")] = 400,
    table: Annotated[
        bool,
        typer.Option(
            "--table",
            help="Instead, train text only, voice and face only and DeepMLF on sample sets of three seeds (from "
            "--seed on) and print what each modality is worth; takes a quarter of an hour or more.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make the sample set: synthetic utterances whose sentiment needs words, voice and face together."""
    if table:
        _table(seed, as_json)
        return
    from ..data.sample import make_sample
    from ..data.schema import save

    with stdout_reserved_for_json(as_json):
        dataset = make_sample(seed, train, valid, test)
        folder = save(dataset, out)
    rows = {split: part.num_rows for split, part in dataset.items()}
    if as_json:
        print_json({"dataset": folder, "rows": rows, "seed": seed, "synthetic": True})
    else:
        counts = ", ".join(f"{count} {split}" for split, count in rows.items())
        print(f"Wrote {folder}: {counts} utterances (synthetic).")
        print(f"Next: deepmlf inspect {folder}, or deepmlf train {folder}")


def _table(seed: int, as_json: bool) -> None:
    from rich.console import Console

    from ..experiments.demo import COLUMNS
    from ..experiments.modality_table import modality_table
    from ..training.metric_table import metric_table

    folder = Path("runs/modalities")
    with stdout_reserved_for_json(as_json):
        result = modality_table((seed, seed + 1, seed + 2), folder)
    if as_json:
        print_json({"runs": folder, "summary": result.summary, "gain": result.gain})
        return
    title = "Sample set (synthetic), test split: mean ± standard deviation over 3 seeds"
    Console().print(metric_table(result.summary, COLUMNS).terminal(title))
    print(
        f"DeepMLF with most layers makes {result.gain:.0%} less error than the better of text and voice and face alone."
    )
    print(f"Runs: {folder}")
