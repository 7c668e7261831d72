"""`deepmlf pretrain-av`: train the audio-visual encoder alone, for a fused model to start from."""

from pathlib import Path
from typing import Annotated

import typer

from .output import JsonOption, print_run, stdout_reserved_for_json
from .train import DatasetArgument, OverwriteOption, PresetOption, SeedOption, SetOption


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
    from ..training import train
    from ..training.presets import load_preset

    with stdout_reserved_for_json(as_json):
        chosen = load_preset(preset, settings or ())
        folder = out or Path("runs") / f"{chosen.name}-av"
        run = train(chosen, dataset, folder, model="av", seed=seed, overwrite=overwrite)
    print_run(run, as_json, after=f"Next: deepmlf train {dataset} --preset {preset} --av-encoder {run.path}")
