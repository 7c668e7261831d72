"""`deepmlf train`: train a fused model on a prepared dataset."""

from pathlib import Path
from typing import Annotated

import typer

from .output import JsonOption, stdout_kept_for_json, tell_run

DatasetArgument = Annotated[
    Path, typer.Argument(help="Dataset folder, as `deepmlf sample` or `deepmlf prepare` wrote it.")
]
PresetOption = Annotated[str, typer.Option(help="A preset's name (`deepmlf presets`) or a YAML file.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting, e.g. fusion.tokens=12; repeatable."),
]
SeedOption = Annotated[int, typer.Option(help="Two runs of one seed are equal on CPU.")]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Start anew where the folder holds a run.")
]


def command(
    dataset: DatasetArgument,
    preset: PresetOption = "sample",
    out: Annotated[Path | None, typer.Option(help="Run folder; without it, runs/PRESET.")] = None,
    settings: SetOption = None,
    av_encoder: Annotated[
        Path | None, typer.Option(help="Run of `deepmlf pretrain-av` to start the AV encoder from.")
    ] = None,
    seed: SeedOption = 0,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a fused model. A run that was stopped goes on where it stopped when the command is repeated."""
    from ..presets import load_preset
    from ..training import train

    with stdout_kept_for_json(as_json):
        chosen = load_preset(preset, settings or ())
        run = train(
            chosen,
            dataset,
            out or Path("runs") / chosen.name,
            av_encoder=av_encoder,
            seed=seed,
            overwrite=overwrite,
        )
    tell_run(run, as_json, after=f"Next: deepmlf evaluate {run.path}")
