"""What an answer costs: one clip cold and warm, a batch, and how the cost grows with each size.

    python benchmarks/inference.py [--lm embedded] [--clip CLIP] [--plot runs/inference.html]

A forward pass on random inputs is timed while one size changes and the others stay (text 18 tokens, 50 frames of
voice and face, 8 fusion tokens, 5 fusion layers, batch 8). Beside the time stand the operations (matrix products
and attention): where the time grows faster than they do, something else is slow; where it grows slower, the pass
is too small to be bound by them. All values of one size are timed in turns, so that a busy machine is busy for all.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode
from train_step import SETUPS, heads_for
from transformers import AutoModelForCausalLM

from deepmlf_kit import DeepMLFConfig, DeepMLFModel
from deepmlf_kit.model.lm_loading import fuse_gelu

#: size -> its name on the axis, its values.
SIZES: dict[str, tuple[str, list[int]]] = {
    "text": ("text length (tokens)", [5, 10, 20, 40]),
    "frames": ("voice and face (frames each)", [50, 200, 800, 3200]),
    "tokens": ("fusion tokens", [2, 4, 8, 16, 32]),
    "depth": ("fusion layers (the last n)", [1, 2, 4, 6, 8]),
    "batch": ("batch (utterances)", [1, 2, 4, 8, 16, 32]),
}
USUAL = {"text": 18, "frames": 50, "tokens": 8, "depth": 5, "batch": 8}
#: Whose sizes an LM takes (see train_step.py); weights are random.
LMS = {"embedded": "embedded", "gpt2": "mosei-base", "smollm2-135m": "mosi-135m"}


class Pass:
    """One forward pass at given sizes."""

    def __init__(self, lm: str, sizes: dict[str, int]) -> None:
        torch.manual_seed(0)
        make_config, settings = SETUPS[LMS[lm]]
        lm_config = make_config()
        layers = lm_config.num_hidden_layers
        model = AutoModelForCausalLM.from_config(lm_config, attn_implementation="sdpa")
        fuse_gelu(model)
        self.model = DeepMLFModel(
            DeepMLFConfig(
                fusion_layers=list(range(layers - sizes["depth"], layers)),
                fusion_tokens=sizes["tokens"],
                cross_attention_heads=heads_for(lm_config),
                audio_dim=settings.get("audio_dim", 25),
                vision_dim=settings.get("vision_dim", 58),
                pad_token_id=0,
            ),
            lm=model,
        ).eval()
        batch, config = sizes["batch"], self.model.config
        self.inputs = {
            "input_ids": torch.randint(3, 1000, (batch, sizes["text"])),
            "audio": torch.randn(batch, sizes["frames"], config.audio_dim),
            "vision": torch.randn(batch, sizes["frames"], config.vision_dim),
        }

    @torch.inference_mode()
    def seconds(self) -> float:
        began = time.perf_counter()
        self.model(**self.inputs)
        return time.perf_counter() - began

    @torch.inference_mode()
    def operations(self) -> int:
        with FlopCounterMode(display=False) as counter:
            self.model(**self.inputs)
        return counter.get_total_flops()


def growth(lm: str, size: str, repeats: int) -> list[dict[str, Any]]:
    """Time and operations at every value of one size."""
    passes = {value: Pass(lm, USUAL | {size: value}) for value in SIZES[size][1]}
    found = {
        value: {"value": value, "operations": run.operations(), "seconds": []}
        for value, run in passes.items()
    }
    for _ in range(repeats):
        for value, run in passes.items():
            found[value]["seconds"].append(run.seconds())
    return list(found.values())


def show(size: str, rows: list[dict[str, Any]], console: Console) -> None:
    table = Table(title=f"A forward pass by {SIZES[size][0]}")
    for heading in ("value", "ms (median)", "spread", "x first", "operations", "x first"):
        table.add_column(heading, justify="right")
    first = rows[0]
    for row in rows:
        times = sorted(1e3 * s for s in row["seconds"])
        row["ms"] = statistics.median(times)
        table.add_row(
            str(row["value"]),
            f"{row['ms']:.1f}",
            f"{times[0]:.1f} to {times[-1]:.1f}",
            f"{row['ms'] / first['ms']:.2f}",
            f"{row['operations'] / 1e9:.3f} G",
            f"{row['operations'] / first['operations']:.2f}",
        )
    console.print(table)


def draw(measured: dict[str, list[dict[str, Any]]], lm: str, path: Path) -> None:
    """Time and operations over each size, both against their first value."""
    from deepmlf_kit.plots.style import COLOURS, figure
    from deepmlf_kit.rendering.html_page import figure_html, page

    parts = []
    for size, rows in measured.items():
        name = SIZES[size][0]
        fig = figure(f"Cost of a forward pass by {name}", name, "times the first value", height=360)
        x = [row["value"] for row in rows]
        for key, title, colour, dash in (
            ("ms", "time", COLOURS["fusion"], "solid"),
            ("operations", "operations", COLOURS["label"], "dash"),
        ):
            y = [row[key] / rows[0][key] for row in rows]
            text = [f"{row['ms']:.1f} ms, {row['operations'] / 1e9:.3f} G operations" for row in rows]
            fig.add_scatter(x=x, y=y, text=text, name=title, line={"color": colour, "dash": dash})
        parts.append(figure_html(fig))
    path.parent.mkdir(parents=True, exist_ok=True)
    lead = f"Language model: {lm}, {torch.get_num_threads()} threads. Where the solid line runs above the dashed one, "
    path.write_text(
        page("What an answer costs", lead + "the time grows faster than the work.", parts), encoding="utf-8"
    )


def predict_once(clip: Path | None, repeats: int, console: Console) -> None:
    """`deepmlf predict` from a fresh process, and the same question to a loaded Predictor."""
    from deepmlf_kit.predict.predictor import Predictor

    with tempfile.TemporaryDirectory() as folder:
        if clip is None:
            from app_latency import eight_seconds

            clip = eight_seconds(Path(folder) / "clip.mp4")
        words = "I will tell you about it now"
        cold = []
        for _ in range(3):
            began = time.perf_counter()
            command = [Path(sys.executable).with_name("deepmlf"), "predict", clip, "--text", words, "--json"]
            subprocess.run(command, check=True, capture_output=True)
            cold.append(time.perf_counter() - began)
        predictor = Predictor()
        predictor.clip(clip, words)
        warm, model = [], []
        for _ in range(repeats):
            began = time.perf_counter()
            found = predictor.clip(clip, words)
            warm.append(time.perf_counter() - began)
            model.append(found.timings["model"])
    table = Table("", "seconds (median)", "fastest", "slowest", title="One clip, words given")
    for name, values in (
        ("a fresh process", cold),
        ("models loaded", warm),
        ("of that, the model", model),
    ):
        table.add_row(
            name, *(f"{value:.3f}" for value in (statistics.median(values), min(values), max(values)))
        )
    console.print(table)


def main(
    lm: Annotated[str, typer.Option(help=f"Sizes of the language model: {', '.join(LMS)}.")] = "embedded",
    clip: Annotated[Path | None, typer.Option(help="Default: made of the bundled examples.")] = None,
    repeats: int = 15,
    threads: int = 2,
    plot: Annotated[Path, typer.Option(help="Where the page with the curves goes.")] = Path(
        "runs/inference.html"
    ),
) -> None:
    """What an answer costs, and how the cost grows."""
    torch.set_num_threads(threads)
    console = Console(width=110)
    console.print(f"{lm}, CPU, {threads} threads, torch {torch.__version__}")
    measured = {size: growth(lm, size, repeats) for size in SIZES}
    for size, rows in measured.items():
        show(size, rows, console)
    draw(measured, lm, plot)
    console.print(f"Curves: {plot}")
    predict_once(clip, repeats, console)


if __name__ == "__main__":
    typer.run(main)
