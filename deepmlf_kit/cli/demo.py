"""`deepmlf demo`: the whole path on the sample set, in one command."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    out: Annotated[Path, typer.Option(help="Folder for the dataset, the runs and the report.")] = Path(
        "runs/demo"
    ),
    seed: Annotated[int, typer.Option(help="The same seed gives the same numbers on CPU.")] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="A small set and two epochs, to see that everything works.")
    ] = False,
) -> None:
    """Make the sample set, train text only, voice and face only and DeepMLF, print what each is worth.

    Takes minutes on two cores and needs no network. Stopped and called again, it goes on.
    """
    from ..experiments.demo import run_demo

    run_demo(out, seed, quick)
