"""`deepmlf pretrain-av`: train the audio-visual encoder alone, for a fused model to start from."""

from pathlib import Path
from typing import Annotated

import typer

from .output import JsonOption, print_run
from .train import DatasetArgument, OverwriteOption, PresetOption, SeedOption, SetOption, train_preset


def command(
    dataset: DatasetArgument,
    preset: PresetOption = "sample",
    out: Annotated[Path | None, typer.Option(help="Run folder; without it, runs/PRESET-av.")] = None,
    settings: SetOption = None,
    seed: SeedOption = 0,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Pretrain the audio-visual encoder: the first half of the fusion curriculum, and the AV-only baseline."""
    from ..training.presets import load_preset

    chosen = load_preset(preset, settings or ())
    run = train_preset(chosen, dataset, out, "av", as_json, seed=seed, overwrite=overwrite)
    print_run(run, as_json, after=f"Next: deepmlf train {dataset} --preset {preset} --av-encoder {run.path}")
