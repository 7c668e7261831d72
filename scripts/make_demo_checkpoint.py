"""Train the demo checkpoint on the sample set and write it into the package (`deepmlf_kit/assets/demo`).

    python scripts/make_demo_checkpoint.py

It must stay small: together with the embedded language model at most 10 MB. The MM Blocks' feed-forwards are
therefore trained by LoRA, and the weights stored in half precision. Stopped and called again, the trainings go on
where they stopped. With `--run` a finished run is exported instead of training one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from people_checkpoint.export import check_half_precision, export, predictions, write_info

from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.model.lm_loading import EMBEDDED_LM
from deepmlf_kit.predict.bundled import DEMO
from deepmlf_kit.rendering.tables import Table, number

LIMIT = 10_000_000  # bytes, with the language model
SMALL = {"fusion.ffw": "lora", "fusion.lora_r": 16, "fusion.lora_alpha": 32, "fusion.lora_dropout": 0.05}


def main(
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint.")] = DEMO,
    work: Annotated[Path, typer.Option(help="Folder of the dataset and the two runs.")] = Path(
        "runs/demo-checkpoint"
    ),
    run: Annotated[Path | None, typer.Option(help="Export this finished run instead of training.")] = None,
    utterances: Annotated[int, typer.Option(help="Of the sample set, to train on.")] = 2400,
    seed: int = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting of the preset.")
    ] = None,
) -> None:
    """Train, export in half precision, compare with full precision, write the model card."""
    from deepmlf_kit.training import Run

    finished = Run.open(run) if run is not None else _train(work, utterances, seed, settings or [])
    export(finished, out)
    if _total(out) > LIMIT:
        raise DeepMLFError(
            f"The checkpoint and the language model take {_total(out) / 1e6:.1f} MB: lower fusion.lora_r."
        )
    _check(finished, out)
    (out / "README.md").write_text(_card(json.loads((out / "run.json").read_text())))
    print(
        f"Written to {out}: {_bytes(out) / 1e6:.2f} MB, with the language model {_total(out) / 1e6:.2f} MB."
    )


def _train(work: Path, utterances: int, seed: int, settings: list[str]) -> Any:
    from deepmlf_kit.data import schema
    from deepmlf_kit.data.sample import make_sample
    from deepmlf_kit.training import train
    from deepmlf_kit.training.presets import load_preset

    preset = load_preset("sample", SMALL).with_overrides(settings)
    data = work / "data"
    if not (data / "dataset_dict.json").is_file():
        schema.save(make_sample(seed, train=utterances, valid=max(50, utterances // 8)), data)
    av = train(preset, data, work / "av", model="av", seed=seed)
    return train(preset, data, work / "fused", av_encoder=av, seed=seed)


def _check(run: Any, out: Path) -> None:
    """Compare the stored checkpoint with the run on fresh utterances, and note its scores on them."""
    import numpy as np

    from deepmlf_kit.data.sample import make_sample
    from deepmlf_kit.training.metrics import score

    fresh = make_sample(run.info["seed"] + 1000, train=1, valid=1, test=400)["test"]
    labels = np.asarray(fresh["label"])
    difference = check_half_precision(run, out, fresh)
    scores = {
        name: score(values if values.ndim == 1 else values.mean(axis=1), labels, run.preset.data.scale)
        for name, values in predictions(out, fresh).items()
    }
    print(f"Half against full precision: at most {difference:.4f} apart. MAE {scores['task']['MAE']:.3f}.")
    info = json.loads((out / "run.json").read_text())
    info["fresh"] = {
        "utterances": len(fresh),
        "half_precision_difference": difference,
        "scores": {name: {key: values[key] for key in ("MAE", "Corr")} for name, values in scores.items()},
    }
    write_info(out, info)


def _card(info: dict[str, Any]) -> str:
    fresh, preset = info["fresh"], info["preset"]
    names = {
        "task": "DeepMLF",
        "text": "its text head",
        "av": "its voice-and-face head",
        "fusion": "its fusion tokens",
    }
    scores = Table(
        ["", "MAE", "Corr"],
        [
            [title, *(number(fresh["scores"][name][key]) for key in ("MAE", "Corr"))]
            for name, title in names.items()
        ],
    )
    layers = ", ".join(map(str, preset["fusion"]["layers"]))
    difference = fresh["half_precision_difference"]
    facts = Table(
        ["", ""],
        [
            ["language model", "the kit's embedded one, frozen"],
            [
                "fusion",
                f"{preset['fusion']['tokens']} fusion tokens, MM Blocks after layers {layers}, feed-forward: "
                f"{preset['fusion']['ffw']}",
            ],
            [
                "trained on",
                f"{info['dataset']['rows']['train']} utterances of the sample set, seed {info['seed']}",
            ],
            [
                "weights",
                f"half precision; predictions differ from full precision by at most {difference:.4f}",
            ],
            ["scale", "-3 (strongly negative) to +3 (strongly positive)"],
        ],
    )
    return f"""---
license: apache-2.0
tags: [multimodal, sentiment-analysis, deepmlf, synthetic-data]
---

# DeepMLF demo checkpoint

What `deepmlf app` and `deepmlf predict` use when no other run is named. It shows how the model works.

**Trained on synthetic data. Not for judging people.** Sentences of a small grammar, voice and face *features* made
by rule from statistics of a minute of real clips; it never saw a labelled person. It may not be used for decisions
about anybody: hiring, grading, policing, diagnosis, lie detection, advertising. Expressions differ between people
and cultures, and it was checked on none of them.

{facts.markdown()}
On {fresh["utterances"]} fresh synthetic utterances (they say nothing about real speech):

{scores.markdown()}
Made by `python scripts/make_demo_checkpoint.py`.
"""


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _total(out: Path) -> int:
    return _bytes(out) + _bytes(EMBEDDED_LM)


if __name__ == "__main__":
    typer.run(main)
