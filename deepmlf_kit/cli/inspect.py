"""`deepmlf inspect`: look at a dataset before training on it."""

from pathlib import Path
from typing import Annotated

import typer

from .output import JsonOption, print_json, stdout_reserved_for_json


def command(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder.")],
    all_dims: Annotated[
        bool, typer.Option("--all-dims", help="Every feature dimension, not only the suspicious ones.")
    ] = False,
    normalize: Annotated[
        str | None,
        typer.Option(
            help="Show what this choice does to the features: none, train, clip, or batchnorm (av_encoder.batchnorm)."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show labels, lengths, what is missing, and which feature dimensions are constant or have outliers."""
    from ..data.inspect import inspect_dataset, normalization_report, print_normalization, print_report
    from ..data.schema import load

    with stdout_reserved_for_json(as_json):
        opened = load(dataset)
        report = inspect_dataset(opened)
        changed = normalization_report(opened, normalize) if normalize else None
    if as_json:
        tables = {
            name: getattr(report, name) for name in ("splits", "labels", "classes", "lengths", "missing")
        }
        tables["features"] = report.features if all_dims else report.suspicious
        if changed is not None:
            tables["normalization"] = changed
        rows = {
            name: table.reset_index().to_dict("records") if len(table) else []
            for name, table in tables.items()
        }
        print_json({"dataset": dataset, "recipe": report.recipe, **rows})
        return
    print_report(report, all_dims=all_dims)
    if changed is not None and normalize is not None:
        print_normalization(changed, normalize)
