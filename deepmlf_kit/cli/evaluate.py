"""`deepmlf evaluate`: score a finished run."""

from pathlib import Path
from typing import Annotated

import typer

from .output import JsonOption, print_json, print_metrics, stdout_kept_for_json


def command(
    run: Annotated[Path, typer.Argument(help="Run folder, as `deepmlf train` left it.")],
    dataset: Annotated[
        Path | None, typer.Option(help="Dataset folder; without it, the one the run was trained on.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    save: Annotated[
        Path | None, typer.Option(help="Write the predictions of every head to this CSV file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score a run's best checkpoint: the metrics of its field, on one split."""
    from ..evaluate import evaluate

    with stdout_kept_for_json(as_json):
        result = evaluate(run, dataset, split)
        if save is not None:
            save.parent.mkdir(parents=True, exist_ok=True)
            result.predictions.to_csv(save, index=False)
    if as_json:
        print_json(
            {"run": run, "split": split, "utterances": len(result.predictions), "metrics": result.metrics}
        )
        return
    print_metrics(result.metrics, f"{split} ({len(result.predictions)} utterances)")
    if save is not None:
        print(f"Predictions: {save}")
