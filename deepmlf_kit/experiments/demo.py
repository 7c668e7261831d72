"""Demo: the whole pipeline on the sample set, in one call.

Makes the sample set, pretrains the AV encoder, trains the text baseline and the fused model on the embedded language
model, prints the scores of each modality and writes a report, all through calls that notebooks use too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data import schema
from ..data.sample import make_sample
from ..errors import DeepMLFError
from ..evaluation.late_fusion import late_fusion
from ..plots.run_report import write_report
from ..training import Run, train
from ..training.metric_table import metric_table
from ..training.metrics import score
from ..training.presets import load_preset

#: Columns of the modality table.
COLUMNS = ("MAE", "Corr", "Has0_acc_2", "Mult_acc_7")
_QUICK_SIZES = {"train": 160, "valid": 48, "test": 64}
_QUICK = {
    "training.epochs": 2,
    "pretraining.epochs": 2,
}
DATASET, AV, TEXT, FUSED = "data", "av", "text", "fused"


@dataclass(frozen=True)
class DemoResult:
    """Results of the demo: `rows` are the modality table, `report` the page to open."""

    out: Path
    dataset: Path
    fused: Run
    rows: dict[str, dict[str, float]]
    report: Path
    seconds: float


def run_demo(
    out: str | Path = "runs/demo",
    seed: int = 0,
    quick: bool = False,
    *,
    overrides: Mapping[str, Any] | None = None,
    lm: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    console: Console | None = None,
) -> DemoResult:
    """Sample set, AV pretraining, text baseline, fused training, table and report: minutes on two cores, no network.

    Called again after an interruption, it resumes.

    Args:
        out: folder for the dataset (`data`), the runs (`av`, `text`, `fused`) and `report.html`.
        seed: of the sample set and of the trainings.
        quick: a small set and two epochs, as a smoke test; the scores mean nothing.
        overrides: settings of the `sample` preset to change.
        lm, tokenizer: in place of the embedded language model.
        console: to print to.

    Raises:
        DeepMLFError: `overrides` ask for a model of classes.
    """
    console = console or Console()
    started = time.perf_counter()
    out = Path(out)
    preset = load_preset("sample", {**(_QUICK if quick else {}), **(overrides or {})})
    if preset.heads.classes:
        raise DeepMLFError(
            "The demo compares mean absolute errors of sentiment numbers: leave heads.classes at 0."
        )
    sizes = _QUICK_SIZES if quick else {}

    console.print("[bold]1/5[/] The sample set: synthetic utterances, some of them ironic")
    data = out / DATASET
    if not (data / "dataset_dict.json").is_file():
        schema.save(make_sample(seed, **sizes), data)
    console.print("[bold]2/5[/] AV pretraining: voice and face alone")
    common: dict[str, Any] = {"seed": seed, "lm": lm, "tokenizer": tokenizer}
    av = train(preset, data, out / AV, model="av", **common)
    console.print("[bold]3/5[/] Text alone, on the frozen language model")
    text = train(preset, data, out / TEXT, model="text", **common)
    console.print("[bold]4/5[/] DeepMLF: fusion tokens in the frozen language model")
    fused = train(preset, data, out / FUSED, av_encoder=av, **common)

    mean = late_fusion(text, av)
    rows = {
        "Text only": text.metrics,
        "Voice and face only": av.metrics,
        "Late fusion (mean of both)": score(mean["prediction"], mean["label"], preset.data.scale),
        f"DeepMLF, {len(preset.fusion.layers)} fusion layers": fused.metrics,
    }
    console.print("[bold]5/5[/] The report")
    report = write_report(
        fused,
        data,
        out / "report.html",
        rows=rows,
        title="DeepMLF demo: words, voice and face",
        next_steps=_NEXT_IN_REPORT,
        lm=lm,
        tokenizer=tokenizer,
    )
    seconds = time.perf_counter() - started
    title = "What each modality is worth (test split, synthetic sample set)"
    console.print(metric_table(rows, COLUMNS).terminal(title))
    console.print(_verdict(rows))
    console.print(f"Done in {seconds:.0f} s. Open next:")
    console.print(
        f"  {report}  (in a browser: curves, predictions, attention of the fusion tokens)", soft_wrap=True
    )
    console.print(f"  deepmlf predict CLIP --checkpoint {out / FUSED}  (a clip of yours)", soft_wrap=True)
    console.print("  notebooks/00_five_minutes.ipynb  (the same, step by step: make lab)", soft_wrap=True)
    return DemoResult(out, data, fused, rows, report, seconds)


def _verdict(rows: Mapping[str, Mapping[str, float]]) -> str:
    """The table's result in a sentence, whichever way it went."""
    errors = {name: row["MAE"] for name, row in rows.items()}
    fused = next(name for name in errors if name.startswith("DeepMLF"))
    single = min(("Text only", "Voice and face only"), key=errors.__getitem__)
    change = 1 - errors[fused] / errors[single]
    if change > 0:
        return f"Fusion makes {change:.0%} less error than {single.lower()}, the better of the two alone."
    return f"Fusion makes {-change:.0%} more error than {single.lower()} here; train longer or on more utterances."


_NEXT_IN_REPORT = (
    "<code>deepmlf predict CLIP --checkpoint runs/demo/fused</code>: the sentiment of a clip of yours",
    "<code>deepmlf app</code>: the same with your webcam",
    "<code>make lab</code>, then <code>notebooks/00_five_minutes.ipynb</code>: this page, step by step",
    "<code>notebooks/06_inside.ipynb</code>: what the fusion tokens listen to, and whether it matters",
)
