"""Train a shipped checkpoint on people and write it into the package.

    python -m scripts.people_checkpoint.told PEOPLE told.csv
    python -m scripts.people_checkpoint.make PEOPLE embedded --share 0.5 --told told.csv
    python -m scripts.people_checkpoint.make PEOPLE smollm2 --share 0.35

The AV encoder is pretrained once for both.

PEOPLE is the folder of labelled words, faces and voices; its `score.py` measures what came out, and the model card prints it.
Stopped and called again, the trainings go on where they stopped.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from datasets import DatasetDict

from deepmlf_kit.data import schema
from deepmlf_kit.training import Run, train
from deepmlf_kit.training.presets import load_preset

from . import card, export
from .rows import make_dataset

HERE = Path(__file__).parent
PACKAGE = Path(__file__).parents[2] / "deepmlf_kit" / "assets"


def main(
    people: Annotated[Path, typer.Argument(help="Folder of the labelled people.")],
    lm: Annotated[
        str, typer.Argument(help="embedded or smollm2; the settings are in the YAML file of that name.")
    ] = "embedded",
    out: Annotated[Path | None, typer.Option(help="Folder of the checkpoint; None: the package's.")] = None,
    work: Annotated[Path, typer.Option(help="Folder of the dataset and the runs.")] = Path("runs/people"),
    share: Annotated[float, typer.Option(help="Of the rows, for a quick look.")] = 1.0,
    rated_by_model: Annotated[
        Path | None, typer.Option("--told", help="CSV of `told.py`: further words to train on.")
    ] = None,
    seed: int = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting.")
    ] = None,
) -> None:
    """Make the dataset, pretrain the AV encoder, train, export, measure, write the model card."""
    data = _dataset(
        people, work / f"data-{share:g}-{seed}{'-told' * bool(rated_by_model)}", share, seed, rated_by_model
    )
    av = _pretrain(data, work / "av", seed)
    run = train(load_preset(HERE / f"{lm}.yaml", settings or []), data, work / lm, av_encoder=av, seed=seed)
    out = out or PACKAGE / ("people" if lm == "embedded" else f"people-{lm}")
    export.export(run, out)
    moved = export.check_half_precision(run, out, data["test"].select(range(min(200, len(data["test"])))))
    scores = _measure(people, out)
    (out / "README.md").write_text(card.card(run, moved, scores))
    print((out / "README.md").read_text())


def _dataset(people: Path, folder: Path, share: float, seed: int, rated_by_model: Path | None) -> DatasetDict:
    if not (folder / "dataset_dict.json").is_file():
        schema.save(make_dataset(people, seed, share, rated_by_model), folder)
    return schema.load(folder)


def _pretrain(data: DatasetDict, folder: Path, seed: int) -> Run:
    """The AV encoder, on what voice and face show by themselves."""
    if (folder / "run.json").is_file() and (done := Run.open(folder)).finished:
        return done
    shown = data.filter(lambda name: "$_$plain_" in name or "$_$face" in name, input_columns="id")
    return train(load_preset(HERE / "embedded.yaml"), shown, folder, model="av", seed=seed)


def _measure(people: Path, out: Path) -> dict[str, dict[str, float]]:
    done = subprocess.run(
        [sys.executable, str(people / "score.py"), str(out), "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


if __name__ == "__main__":
    typer.run(main)
