"""How long a fresh process takes: imports alone, `deepmlf predict` of an 8-second clip, `deepmlf app` to its first page.

    python benchmarks/start_up.py [CLIP] [--checkpoint RUN] [--repeats 3]

All take turns, so that a busy machine is busy for all. Beside the seconds on the clock stand those of the processor (user
time, worker processes included): they hold on a busy machine, too.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import psutil
import typer
from app_latency import eight_seconds
from rich.console import Console
from rich.table import Table

WORDS = "I will tell you about it now"
_PYTHON = (sys.executable, "-c")
_KIT = (sys.executable, "-m", "deepmlf_kit")


def finished(*command: str) -> tuple[float, float]:
    """Seconds that a command takes, and user seconds of all its processes."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    took = time.perf_counter() - began
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"failed: {' '.join(command)}")
    return took, used.ru_utime


def served(*command: str) -> tuple[float, float]:
    """Seconds until the app has answered with its page, and user seconds of all its processes until then."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = next(found[0] for line in process.stdout if (found := re.search(r"http://\S+", line)))
        with urllib.request.urlopen(address) as page:
            page.read()
        took = time.perf_counter() - began
        tree = [psutil.Process(process.pid)]
        tree += tree[0].children(recursive=True)
        used = sum(each.cpu_times().user for each in tree)
        process.terminate()
    return took, used


def main(
    clip: Annotated[Path | None, typer.Argument(help="Default: 8 seconds of the bundled examples.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="A run; default: the best at hand.")] = None,
    repeats: int = 3,
) -> None:
    """Print what a fresh process takes."""
    chosen = ["--checkpoint", str(checkpoint)] if checkpoint else []
    with tempfile.TemporaryDirectory() as folder:
        clip = clip or eight_seconds(Path(folder) / "clip.mp4")
        predicting = [*_KIT, "predict", str(clip), "--text", WORDS, "--json", *chosen]
        measured: dict[str, Callable[[], tuple[float, float]]] = {
            "deepmlf --help": lambda: finished(*_KIT, "--help"),
            "import torch": lambda: finished(*_PYTHON, "import torch"),
            "from transformers import PreTrainedModel": lambda: finished(
                *_PYTHON, "from transformers import PreTrainedModel"
            ),
            "from deepmlf_kit import Predictor": lambda: finished(
                *_PYTHON, "from deepmlf_kit import Predictor"
            ),
            "deepmlf predict CLIP --text ...": lambda: finished(*predicting),
            "import gradio": lambda: finished(*_PYTHON, "import gradio"),
            "deepmlf app, to its first page": lambda: served(*_KIT, "app", "--no-open", *chosen),
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in measured}
        for _ in range(repeats):
            for name, measure in measured.items():
                found[name].append(measure())
    table = Table("a fresh process", "seconds (median)", "fastest", "slowest", "processor (median)")
    for name, pairs in found.items():
        took, used = zip(*pairs, strict=True)
        table.add_row(
            name,
            *(
                f"{value:.2f}"
                for value in (statistics.median(took), min(took), max(took), statistics.median(used))
            ),
        )
    console = Console(width=110)
    console.print(table)
    console.print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    typer.run(main)
