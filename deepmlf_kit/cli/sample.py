"""`deepmlf sample`: make the sample set."""

from pathlib import Path
from typing import Annotated

import typer

from .output import JsonOption, print_json, stdout_kept_for_json


def command(
    out: Annotated[Path, typer.Argument(help="Folder to write the dataset to.")] = Path("data/sample"),
    seed: Annotated[int, typer.Option(help="The same seed gives the same set.")] = 0,
    train: Annotated[int, typer.Option(help="Utterances to train on.")] = 1200,
    valid: Annotated[int, typer.Option(help="Utterances to select the best checkpoint on.")] = 200,
    test: Annotated[int, typer.Option(help="Utterances to report on.")] = 400,
    as_json: JsonOption = False,
) -> None:
    """Make the sample set: synthetic utterances whose sentiment needs words, voice and face together."""
    from ..data.sample import make_sample
    from ..data.schema import save

    with stdout_kept_for_json(as_json):
        dataset = make_sample(seed, train, valid, test)
        folder = save(dataset, out)
    rows = {split: part.num_rows for split, part in dataset.items()}
    if as_json:
        print_json({"dataset": folder, "rows": rows, "seed": seed, "synthetic": True})
    else:
        counts = ", ".join(f"{count} {split}" for split, count in rows.items())
        print(f"Wrote {folder}: {counts} utterances (synthetic).")
        print(f"Next: deepmlf inspect {folder}, or deepmlf train {folder}")
