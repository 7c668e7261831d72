"""The language stream on real texts: `python benchmarks/text_only.py DATASET --out runs/texts`.

DATASET is what `deepmlf prepare TEXTS.csv --out DATASET` wrote. Trains DeepMLF on the embedded LM and on SmolLM2-135M (after
`deepmlf fetch smollm2`), with and without the MM Blocks' feed-forward on text; stopped and called again, it resumes.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deepmlf_kit.experiments.text_benchmark import PRESETS, text_benchmark


def main(
    dataset: Annotated[Path, typer.Argument(help="Dataset folder.")],
    out: Annotated[Path, typer.Option(help="Folder of the runs and the table.")] = Path("runs/texts"),
    preset: Annotated[list[str] | None, typer.Option(help="One for each language model; repeatable.")] = None,
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = 3,
    rows: Annotated[int | None, typer.Option(help="Only so many utterances of each split.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE")] = None,
) -> None:
    table = text_benchmark(
        dataset, out, presets=preset or PRESETS, seeds=range(seeds), rows=rows, overrides=settings or ()
    )
    Console().print(table.terminal())


if __name__ == "__main__":
    typer.run(main)
