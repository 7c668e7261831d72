"""`deepmlf train`: train a fused model on a prepared dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import DeepMLFError
from .output import JsonOption, print_json, print_run, stdout_reserved_for_json

if TYPE_CHECKING:
    from ..training import Run
    from ..training.presets import Preset

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
    dataset: Annotated[
        Path | None, typer.Argument(help="Dataset folder, as `deepmlf sample` or `deepmlf prepare` wrote it.")
    ] = None,
    preset: PresetOption = "sample",
    out: Annotated[Path | None, typer.Option(help="Run folder; without it, runs/PRESET.")] = None,
    settings: SetOption = None,
    av_encoder: Annotated[
        Path | None, typer.Option(help="Run of `deepmlf pretrain-av` to start the AV encoder from.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="fused, or a baseline on the same features and LM: text, prefix or flamingo.")
    ] = "fused",
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Only print the fused model: layers, weights, memory, time. Loads no LM."
        ),
    ] = False,
    seed: SeedOption = 0,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a fused model. A run that was stopped goes on where it stopped when the command is repeated."""
    from ..training.presets import load_preset

    chosen = load_preset(preset, settings or ())
    if dry_run:
        _tell_plan(chosen, as_json)
        return
    if dataset is None:
        raise DeepMLFError(
            "Training needs a dataset folder: make one with `deepmlf sample` or `deepmlf prepare`."
        )
    options = {"av_encoder": av_encoder, "seed": seed, "overwrite": overwrite}
    run = train_preset(chosen, dataset, out, model, as_json, **options)
    print_run(run, as_json, after=f"Next: deepmlf evaluate {run.path}")


def train_preset(
    preset: Preset, dataset: Path, out: Path | None, model: str, as_json: bool, **options: Any
) -> Run:
    """Train a registered model, by default into runs/PRESET or, if it is not the fused one, runs/PRESET-MODEL."""
    from ..training import train

    folder = out or Path("runs") / (preset.name if model == "fused" else f"{preset.name}-{model}")
    with stdout_reserved_for_json(as_json):
        return train(preset, dataset, folder, model=model, **options)


def _tell_plan(preset: Preset, as_json: bool) -> None:
    from ..training.dry_run import measured_rate, plan_model

    with stdout_reserved_for_json(as_json):
        plan, rate = plan_model(preset), measured_rate()
    if as_json:
        print_json({"preset": preset.name, "plan": plan, "seconds_per_1000": plan.seconds(1000, rate)})
    else:
        print(plan.to_text(rate))
