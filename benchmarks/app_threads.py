"""How many torch threads one answer should use: one against several, on this machine as it is and with every core busy.

    python benchmarks/app_threads.py [--checkpoint RUN] [--threads 2] [--repeats 7]

Both counts take turns in one run, so that the ratio holds whatever else the machine does meanwhile. `busy` adds one process
a core that computes all the time, as a training or another clip does. Set no OMP_NUM_THREADS: it counts as the limit.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer


def main(
    checkpoint: Annotated[Path | None, typer.Option(help="A run; default: the bundled one.")] = None,
    threads: Annotated[int, typer.Option(help="Compared with one.")] = os.cpu_count() or 2,
    repeats: int = 7,
) -> None:
    import torch

    from deepmlf_kit.app.examples import examples
    from deepmlf_kit.app.reasons import find_reasons
    from deepmlf_kit.predict.predictor import Predictor

    predictor = Predictor(checkpoint)
    example = examples()[0]
    recipe = replace(predictor.recipe, transcribe=False, vision="none")
    features = predictor.extractor.extract(example.path, recipe, text=example.text)

    def answered(count: int) -> float:
        torch.set_num_threads(count)
        began = time.perf_counter()
        prediction = predictor.features(features)
        find_reasons(predictor, features, recipe, prediction.text)
        return time.perf_counter() - began

    for count in (1, threads):
        answered(count)
    for load in ("as it is", "busy"):
        burning = [
            multiprocessing.get_context("spawn").Process(target=burn, daemon=True)
            for _ in range(os.cpu_count() or 1 if load == "busy" else 0)
        ]
        for process in burning:
            process.start()
        try:
            if burning:
                time.sleep(2)  # until they are under way
            took: dict[int, list[float]] = {1: [], threads: []}
            for _ in range(repeats):
                for count, times in took.items():
                    times.append(answered(count))
        finally:
            for process in burning:
                process.kill()
        one, several = took[1], took[threads]
        print(
            f"{load:9} 1 thread: median {statistics.median(one):.3f} s, slowest {max(one):.3f} s;  {threads} threads: "
            f"median {statistics.median(several):.3f} s, slowest {max(several):.3f} s;  "
            f"ratio of medians {statistics.median(several) / statistics.median(one):.2f}, "
            f"of the slowest {max(several) / max(one):.2f}"
        )
    print(f"{os.cpu_count()} cores, {predictor.model.num_parameters() / 1e6:.1f} million parameters")


def burn() -> None:
    """Compute until killed."""
    while True:
        sum(n * n for n in range(10000))


if __name__ == "__main__":
    typer.run(main)
