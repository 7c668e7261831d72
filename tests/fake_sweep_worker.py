"""A worker of a sweep whose trainings take no time; the environment's FATE says what goes wrong.

Run in place of `deepmlf_kit.sweep.worker` by tests/test_sweep_jobs.py.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.sweep import locks, trials, worker
from deepmlf_kit.training import Run
from deepmlf_kit.training.dataset import open_dataset
from deepmlf_kit.training.presets import Preset
from deepmlf_kit.training.run_folder import digest_of

FATE = os.environ.get("FATE", "")


def train(
    preset: Preset, dataset: Any, out: Path, *, seed: int, model: str = "fused", **_: Any
) -> Run | None:
    """Leave what `gather` reads of a finished run."""
    if model == "av":
        return None
    if ids := os.environ.get("PROCESS_IDS"):
        (Path(ids) / str(os.getpid())).touch()
    if (
        FATE == "first is killed"
        and preset.fusion.tokens == 1
        and not (marker := out.with_suffix(".met")).exists()
    ):
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if FATE == "all fail":
        print("out of luck", file=sys.stderr, flush=True)
        os._exit(3)
    if FATE == "trial 2 fails" and preset.fusion.tokens == 2:
        raise DeepMLFError("bad\nluck")
    if FATE == "trial 2 hangs" and preset.fusion.tokens == 2:
        time.sleep(600)
    print("a library's greeting")
    run = Run(
        out, {"format": 1, "kind": "fused", "state": "finished", "seed": seed, "preset": preset.to_dict()}
    )
    run.info["dataset"] = {"digest": digest_of(open_dataset(dataset)[0])}
    run.info |= {"best": {"value": 1.0}, "seconds": 0.0, "parameters": {"trained": 1}, "test": {"MAE": 1.0}}
    run.save()
    return run


trials.processes = locks.processes = lambda: SimpleNamespace(
    num_processes=1, is_main_process=True, main_process_first=contextlib.nullcontext
)
trials._layers_of = lambda *_: 8
trials.train = train  # type: ignore[assignment]

if __name__ == "__main__":
    worker.main()
