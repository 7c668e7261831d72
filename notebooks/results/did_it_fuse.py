"""Several trainings, each put to the tests of notebook 05: makes notebooks/results/did_it_fuse.csv.

    python notebooks/results/did_it_fuse.py                      # the sample set, seeds 0 to 2
    python notebooks/results/did_it_fuse.py --dataset data/mosi --preset mosi --out mine.csv

Trains, for each seed, the AV encoder, a model of the words alone and the fused model, all on the same data. Stopped and
called again, it goes on; what it trains lies in `--runs`. One row of the table is one answer to one kind of utterance:

    seed, kind     ironic, sincere, neutral or all
    answer         task head, fusion head, text head, AV head; own heads, mean / mix: late fusion of the text and the AV
                   head (`linear_mix`); two models, mean: late fusion of the two models trained apart (`late_fusion`);
                   silenced LAYERS: the task head with the cross-attention after these LM layers silenced
    MAE            mean absolute error on the test split
    explained      share of this head's variance that a linear mix of the text and the AV head explains (kind all only)
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from deepmlf_kit.data import schema
from deepmlf_kit.data.sample import kind_of, make_sample
from deepmlf_kit.evaluation import linear_mix
from deepmlf_kit.evaluation.late_fusion import late_fusion
from deepmlf_kit.explain import Lens
from deepmlf_kit.training import train
from deepmlf_kit.training.presets import load_preset

COLUMNS = ["seed", "answer", "kind", "MAE", "explained"]
HEADS = {"task head": "prediction", "fusion head": "fusion", "text head": "text", "AV head": "av"}


def main(
    out: Annotated[Path, typer.Option(help="The table.")] = Path(__file__).with_suffix(".csv"),
    runs: Annotated[Path, typer.Option(help="Folder of the trainings.")] = Path("runs/did-it-fuse"),
    dataset: Annotated[Path | None, typer.Option(help="Prepared dataset; without it, the sample set.")] = None,
    preset: Annotated[str, typer.Option(help="Name of a preset, or a YAML file.")] = "sample",
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE")] = None,
    seeds: Annotated[str, typer.Option(help="Of the trainings.")] = "0,1,2",
) -> None:
    """Train with several seeds and write what each model's answers are worth."""
    data = schema.load(dataset) if dataset else make_sample(seed=0)
    asked = load_preset(preset, settings or [])
    tables = []
    for seed in map(int, seeds.split(",")):
        folder = runs / f"seed-{seed}"
        options = {"seed": seed, "tensorboard": False}
        av = train(asked, data, folder / "av", model="av", **options)
        text = train(asked, data, folder / "text", model="text", **options)
        fused = train(asked, data, folder / "fused", av_encoder=av, **options)
        answers = [*_of_heads(fused), *_of_late_fusion(fused, text, av), *_silenced(fused, data)]
        tables.append(pd.DataFrame(answers).assign(seed=seed)[COLUMNS])
        pd.concat(tables).round(4).to_csv(out, index=False, lineterminator="\n")
        print(f"seed {seed}: MAE {fused.metrics['MAE']:.3f}, written to {out}", flush=True)


def _by_kind(answer, ids, predicted, label):
    """Errors of one answer, over all utterances and by kind."""
    error = (predicted - label).abs()
    means = error.groupby([kind_of(name) for name in ids]).mean()
    kinds = {"all": error.mean(), **{kind: value for kind, value in means.items() if kind}}
    return [{"answer": answer, "kind": kind, "MAE": value} for kind, value in kinds.items()]


def _of_heads(fused):
    table = fused.predictions()
    for answer, column in HEADS.items():
        found = _by_kind(answer, table["id"], table[column], table["label"])
        if answer in ("task head", "fusion head"):
            found[0]["explained"] = linear_mix(table, answer.split()[0]).r2
        yield from found


def _of_late_fusion(fused, text, av):
    for row in linear_mix(fused.predictions(), "fusion").errors.to_dict("records"):
        for how in ("mean", "mix"):
            yield {"answer": f"own heads, {how}", "kind": row["kind"], "MAE": row[how]}
    apart = late_fusion(text, av)
    yield from _by_kind("two models, mean", apart["id"], apart["prediction"], apart["label"])


def _silenced(fused, data):
    table = Lens(fused, data).cumulative_ablation().table
    table = table[table["order"] != "none"].drop_duplicates(["layers", "kind"])
    for row in table.to_dict("records"):
        yield {"answer": f"silenced {row['layers']}", "kind": row["kind"], "MAE": row["MAE"]}


if __name__ == "__main__":
    typer.run(main)
