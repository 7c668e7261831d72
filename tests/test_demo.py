"""The demo: the whole path in one call, here on a tiny set, with a tiny language model."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent))
from training_fixtures import TINY, tiny_lm, tiny_sample

from deepmlf_kit.evaluation.evaluate import evaluate
from deepmlf_kit.experiments import demo
from deepmlf_kit.experiments.demo import run_demo
from deepmlf_kit.experiments.modality_table import modality_table as experiment


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A tiny set and settings, and a language model for its words."""
    monkeypatch.setattr(demo, "_QUICK_SIZES", {"train": 40, "valid": 16, "test": 16})
    lm, tokenizer = tiny_lm(tiny_sample()["train"]["text"])
    return {
        "overrides": {**TINY, "training.epochs": 1, "pretraining.epochs": 1},
        "lm": lm,
        "tokenizer": tokenizer,
    }


def test_the_demo_prints_the_table_writes_the_report_and_says_what_is_next(
    small: dict[str, Any], tmp_path: Path
) -> None:
    said = io.StringIO()
    console = Console(file=said, width=120)
    result = run_demo(tmp_path / "demo", quick=True, console=console, **small)
    text = said.getvalue()
    assert list(result.rows) == [
        "Text only",
        "Voice and face only",
        "Late fusion (mean of both)",
        "DeepMLF, 2 fusion layers",
    ]
    for row in (*result.rows, "MAE", "Acc-7", "report.html", "deepmlf predict", "notebooks/"):
        assert row in text
    assert result.report.is_file() and result.fused.finished
    again = run_demo(tmp_path / "demo", quick=True, console=console, **small)
    assert again.rows == result.rows

    # What it left can be scored again, and gives the same
    scored = evaluate(tmp_path / "demo" / "fused", lm=small["lm"], tokenizer=small["tokenizer"])
    assert scored.metrics["MAE"] == pytest.approx(result.fused.metrics["MAE"], abs=1e-6)
    on_train = evaluate(result.fused, split="train", lm=small["lm"], tokenizer=small["tokenizer"])
    assert len(on_train.predictions) == 40 and "| train |" in on_train.to_markdown()
    with pytest.raises(demo_error(), match="no split 'dev'"):
        evaluate(result.fused, split="dev")


def demo_error() -> type[Exception]:
    from deepmlf_kit.errors import DeepMLFError

    return DeepMLFError


@pytest.mark.parametrize(
    ("fused", "words"), [(0.75, "25% less error than voice and face only"), (2.0, "more error")]
)
def test_the_verdict_says_what_came_out(fused: float, words: str) -> None:
    rows = {"Text only": {"MAE": 1.5}, "Voice and face only": {"MAE": 1.0}, "DeepMLF, 5": {"MAE": fused}}
    assert words in demo._verdict(rows)


def test_the_table_over_seeds_has_mean_and_deviation(small: dict[str, Any], tmp_path: Path) -> None:
    lines: list[str] = []
    table = experiment(
        (0, 1), tmp_path, tiny_sample(), one_layer=[2], progress=False, tell=lines.append, **small
    )
    assert list(table.summary) == [
        "Text only",
        "Voice and face only",
        "Late fusion",
        "DeepMLF, 1 fusion layer",
        "DeepMLF, 2 fusion layers",
    ]
    assert len(lines) == 10 and (tmp_path / "table.json").is_file()
    mean, deviation = table.summary["DeepMLF, 2 fusion layers"]["MAE"]
    values = [scores["MAE"] for scores in table.by_seed["DeepMLF, 2 fusion layers"]]
    assert mean == pytest.approx(sum(values) / 2) and deviation > 0
    best = min(table.summary[name]["MAE"][0] for name in ("Text only", "Voice and face only"))
    assert table.gain == pytest.approx(1 - mean / best)
