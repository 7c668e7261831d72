"""A worker of a sweep whose trainings take no time; the environment's FATE says what goes wrong.

Run in place of `deepmlf_kit.sweep.worker` by tests/test_sweep_jobs.py. What takes seconds to import, and what nothing
here needs, is replaced before it is imported.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.storage.files import write_json

FATE = os.environ.get("FATE", "")


class Run:
    """A run's folder, as far as a sweep reads it."""

    def __init__(self, path: Path, info: dict[str, Any]) -> None:
        self.path, self.info = path, info
        self.metrics = info["test"]
        self.finished = True

    @classmethod
    def open(cls, path: Path) -> Run:
        return cls(path, json.loads((path / "run.json").read_text()))

    def history(self) -> list[Any]:
        return []


def train(preset: Any, dataset: Any, out: Path, *, seed: int, model: str = "fused", **_: Any) -> Run | None:
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
    info: dict[str, Any] = {"format": 1, "kind": "fused", "state": "finished", "seed": seed}
    info |= {"preset": preset.to_dict(), "best": {"value": 1.0}, "seconds": 0.0}
    info |= {"parameters": {"trained": 1, "frozen": 1}, "test": {"MAE": 1.0}, "versions": {}}
    info |= {"dataset": {"path": None, "rows": {}, "digest": "the same", "audio_dim": 1, "vision_dim": 1}}
    info |= {"preprocessing": {"max_text_tokens": 1, "normalizer": None}}
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "run.json", info)
    return Run(out, info)


class Replacement(ModuleType):
    """A module with some names of ours; any other name is an empty class."""

    def __init__(self, name: str, **ours: Any) -> None:
        super().__init__(name)
        self.__dict__.update(ours)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Exception,), {})


alone = SimpleNamespace(num_processes=1, is_main_process=True, main_process_first=contextlib.nullcontext)
for module in ("torch", "transformers", "datasets"):
    sys.modules[module] = Replacement(module)
for module, ours in {
    "data.schema": {},
    "data.sample": {},
    "model.lm_loading": {},
    "training.dataset": {},
    "training.driver": {"train": train},
    "training.run_folder": {"Run": Run},
    "training.processes": {"processes": lambda: alone},
}.items():
    sys.modules[f"deepmlf_kit.{module}"] = Replacement(f"deepmlf_kit.{module}", **ours)

from deepmlf_kit.sweep import trials, worker  # noqa: E402

trials._layers_of = lambda *_: 8  # type: ignore[assignment]

if __name__ == "__main__":
    worker.main()
