"""How long the app takes to answer: an 8-second clip cold and warm, stage by stage; other words; live mode.

    python benchmarks/app_latency.py [CLIP] [--checkpoint RUN] [--repeats 5]

Without a clip, 8 seconds are made of the bundled examples. Set OMP_NUM_THREADS to the cores that count.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer


def main(
    clip: Annotated[Path | None, typer.Argument(help="A clip of about 8 s.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="A run; default: the bundled one.")] = None,
    text: Annotated[str | None, typer.Option(help="Words; default: transcribed where possible.")] = None,
    repeats: int = 5,
) -> None:
    from rich.console import Console
    from rich.table import Table

    from deepmlf_kit.app.answering import Answer, read_clip
    from deepmlf_kit.app.models import Models
    from deepmlf_kit.app.settings import Settings

    console = Console()
    began = time.perf_counter()
    models = Models(checkpoint)
    models.start()
    recipe = models.recipe(patience=600)
    loading = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        clip = clip or eight_seconds(Path(folder) / "clip.mp4")
        runs = []
        for _ in range(repeats + 1):
            began, cpu = time.perf_counter(), time.process_time()
            words = text if text is not None or recipe.transcribe else "I will tell you about it now"
            *_, last = read_clip(models, Settings(), clip, words or "")
            assert isinstance(last, Answer)
            runs.append((time.perf_counter() - began, time.process_time() - cpu, last))
    seconds = runs[0][2].features.found.seconds
    table = Table(
        "stage", "first (s)", "warm, median (s)", "warm, slowest (s)", title=f"A clip of {seconds:.1f} s"
    )
    for stage in runs[0][2].seconds:
        warm = [run[2].seconds.get(stage, 0.0) for run in runs[1:]]
        table.add_row(
            stage, f"{runs[0][2].seconds[stage]:.2f}", f"{statistics.median(warm):.2f}", f"{max(warm):.2f}"
        )
    for name, column in (("all, wall clock", 0), ("all, processor time", 1)):
        warm = [run[column] for run in runs[1:]]
        table.add_row(name, f"{runs[0][column]:.2f}", f"{statistics.median(warm):.2f}", f"{max(warm):.2f}")
    console.print(table)

    features = runs[-1][2].features
    console.print(other_words(models, features, recipe, repeats))
    console.print(f"Live, one answer about 6 s: {live_answer(models, recipe):.2f} s (one is due every 2 s)")
    loads = ", ".join(f"{name} {took:.1f} s" for name, took in models.seconds.items())
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    console.print(f"Models loaded in {loading:.1f} s ({loads}). {os.cpu_count()} processors, load {load}.")


def other_words(models, features, recipe, repeats: int) -> str:
    """How long an answer to other words takes, and how much processor time is saved by computing what its passes share
    once: both ways take turns."""
    from deepmlf_kit.app.answering import answers
    from deepmlf_kit.app.streams import without_span
    from deepmlf_kit.explain.words import word_spans

    predictor = models.predictor

    def first(text: str) -> None:
        next(answers(models, features, recipe, text))

    def apart(text: str) -> None:
        """The answer, its eight choices of streams and each word left out, every row with its own text."""
        predictor.rows([predictor.row(features, text)])
        rows = [
            predictor.row(features, words, audio=audio, vision=vision)
            for words in (text, "")
            for audio in (True, False)
            for vision in (True, False)
        ]
        rows += [predictor.row(features, without_span(text, span)) for span in word_spans(text)]
        predictor.rows(rows)

    took: dict[str, list[float]] = {}
    for n in range(repeats):
        text = f"it is number {n}"
        for name, answer in (
            ("first", first),
            ("apart", apart),
            ("all", lambda text: list(answers(models, features, recipe, text))),
        ):
            wall, cpu = time.perf_counter(), time.process_time()
            answer(text)
            took.setdefault(name, []).append(time.perf_counter() - wall)
            took.setdefault(f"{name} cpu", []).append(time.process_time() - cpu)
    median = {name: statistics.median(times) for name, times in took.items()}
    return (
        f"Other words, until the answer stands: {median['first']:.2f} s ({median['first cpu']:.2f} s of processor time, "
        f"{median['first cpu'] / median['apart cpu']:.2f} of what it takes with each row apart and the words' effects first); "
        f"with all reasons {median['all']:.2f} s"
    )


def live_answer(models, recipe) -> float:
    """Seconds that one live answer takes, median of five, on a hummed voice (no pictures: those are looked at as
    they come)."""
    import base64

    from deepmlf_kit.app.examples import examples
    from deepmlf_kit.app.live import LiveSession
    from deepmlf_kit.app.settings import Settings
    from deepmlf_kit.features.media import read_audio

    sound = read_audio(examples()[0].path).samples
    live = LiveSession(models.predictor, replace(recipe, vision="none"), Settings(), text="it is now")
    took = []
    try:
        for n in range(5):
            part = (sound[:32000] * 32767).astype("<i2").tobytes()
            live.push({"sound": base64.b64encode(part).decode(), "sound_end": 2.0 * (n + 1)})
            state = next(s for s in live.states() if s.answers > n)
            took.append(state.took)
    finally:
        live.stop()
    return statistics.median(took)


def eight_seconds(path: Path) -> Path:
    """The bundled examples in a row, until 8 seconds are full."""
    import numpy as np

    sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
    from example_clips.make import FPS, write_mp4

    from deepmlf_kit.app.examples import examples
    from deepmlf_kit.features.media import read_audio, read_frames

    frames, sounds = [], []
    while len(frames) < 8 * FPS:
        for example in examples():
            frames += [frame.image for frame in read_frames(example.path, FPS)]
            sounds.append(read_audio(example.path).samples)
    sound = np.concatenate(sounds)[: 8 * 16000]
    write_mp4(path, frames[: 8 * FPS], FPS, sound)
    return path


if __name__ == "__main__":
    typer.run(main)
