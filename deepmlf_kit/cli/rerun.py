"""`deepmlf rerun`: repeat a run from its folder, and compare the results."""

from pathlib import Path
from typing import Annotated

import typer

from .output import JsonOption, print_json, print_metrics, stdout_reserved_for_json


def command(
    run: Annotated[Path, typer.Argument(help="Run folder of a finished training.")],
    out: Annotated[Path | None, typer.Option(help="The new run's folder; without it, RUN-again.")] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="Where the run's dataset lies now; without it, where it lay.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train again with a run's own settings, seed and data, and compare."""
    from ..experiments.rerun import rerun

    with stdout_reserved_for_json(as_json):
        result = rerun(run, out, dataset)
    if as_json:
        print_json(
            {
                "run": result.run.path,
                "same": result.same,
                "differing": result.differing,
                "versions": result.versions,
                "metrics": result.run.metrics,
            }
        )
        return
    print_metrics(result.run.metrics, result.run.path.name)
    if result.same:
        print("Every metric is bitwise the same.")
    for name, (value, new_value) in result.differing.items():
        print(f"{name}: {value:.6f} before, {new_value:.6f} now")
    for name, (version, new_version) in result.versions.items():
        print(f"{name}: {version} before, {new_version} now")
    print(f"Run folder: {result.run.path}")
