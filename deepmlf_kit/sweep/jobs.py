"""One sweep on a whole machine: worker processes share its trials, this one starts them and passes on what they say.

Between `running.run_sweep`, which opens the folder and writes the report, and `worker.py`, which each process runs.
The locks of the folder (`locks.py`) say who is at which trial; a worker that dies leaves its trial to the others.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DeepMLFError
from ..training.processes import processes

if TYPE_CHECKING:
    from datasets import DatasetDict

    from .trials import Trials

WORKER = "deepmlf_kit.sweep.worker"
"""Module that a worker process runs."""

_PATIENCE = 15.0  # seconds for a worker to end by itself


def how_many(jobs: int | str) -> int:
    """The number of processes meant; `auto`: one for each GPU, or for each core where there is none.

    Raises:
        DeepMLFError: it is no such number, or this process is one of several that share every training.
    """
    text = str(jobs).strip()
    if text == "auto":
        count = len(_gpus()) or _cores()
    elif text.isdecimal() and int(text) >= 1:
        count = int(text)
    else:
        raise DeepMLFError(
            f"jobs is {jobs!r}, but must be a whole number from 1, or auto (a process for each GPU, or for each core where "
            "there is none): for example --jobs 2."
        )
    if count > 1 and (together := processes().num_processes) > 1:
        raise DeepMLFError(
            f"jobs is {jobs}, but {together} processes of `accelerate launch` share every training already: start the "
            "command without `accelerate launch` for several trainings at once, or without --jobs."
        )
    return count


def share_out(
    trials: Trials, dataset: DatasetDict | str | Path | None, shard: tuple[int, int], count: int
) -> str | None:
    """Have workers train all trials, and wait for them.

    Args:
        dataset: the folder, or None for the sample set in the sweep's folder.
        count: processes; fewer are started where there are fewer trials.

    Returns:
        None, or what to tell the user where every worker died.
    """
    if trials.plan.search:
        from .searching import draws_left

        ended = total = 0
        left, count = draws_left(trials.plan, trials.out), min(count, trials.plan.samples)
    else:
        mine = trials.grid(shard)
        trials.forget_failures(mine)
        ended, total = trials.tell_finished(mine), len(mine)
        left, count = total - ended, min(count, total)
    settings = {
        "out": str(trials.out),
        "dataset": str(dataset) if dataset is not None else None,
        "shard": shard,
    }
    # The shares depend on what was asked for, not on what is left: a resumed sweep computes as a whole one does.
    environments = shares(count)[:left]
    reports: queue.SimpleQueue[tuple[_Worker, str | None]] = queue.SimpleQueue()
    workers: list[_Worker] = []
    died = []
    try:
        for number, environment in enumerate(environments, start=1):
            log = trials.out / "logs" / f"worker-{number}.log"
            workers.append(_Worker(number, settings, environment, log, reports))
        running = len(workers)
        while running:
            worker, line = reports.get()
            if line is not None:
                ended += 1
                trials.tell(f"{ended}/{total} {line}" if total else line)
                continue
            running -= 1
            if how := worker.how_it_died():
                died.append(how)
                trials.tell(f"{how}{'; the others take its trial' if running else ''}.")
    finally:  # done, an error, or the user's Ctrl-C: no process stays behind
        for worker in workers:
            worker.stop()
        for worker in workers:
            worker.wait()
    if workers and len(died) == len(workers):
        return f"No worker is left: {'; '.join(died)}. Put that right and repeat the command: it goes on."
    return None


def shares(count: int) -> list[dict[str, str]]:
    """The environment variables of each of `count` processes: an even share of the cores and, in turn, one GPU.

    A smaller OMP_NUM_THREADS of the user's own stays.
    """
    threads = max(1, _cores() // count)
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdecimal() and int(given) >= 1:
        threads = min(threads, int(given))
    share = {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")}
    gpus = _gpus()
    if not gpus:
        return [share] * count
    return [{**share, "CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(count)]


class _Worker:
    """A worker process, from this side; its lines go to `reports`, and None when it ended."""

    def __init__(
        self,
        number: int,
        settings: dict[str, Any],
        environment: dict[str, str],
        log: Path,
        reports: queue.SimpleQueue[tuple[_Worker, str | None]],
    ) -> None:
        self.number, self._log = number, log
        log.parent.mkdir(exist_ok=True)
        package = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
        with log.open("w") as said:
            # In our own process group: whatever ends the group ends all of us.
            self._process = subprocess.Popen(
                [sys.executable, "-m", WORKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                env={**os.environ, **environment, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
                encoding="utf-8",
                errors="replace",
            )
        self._listener = threading.Thread(target=self._listen, args=(settings, reports), daemon=True)
        self._listener.start()

    def how_it_died(self) -> str | None:
        """Its exit code and last words; None where it did its work."""
        code = self._process.wait()
        if code == 0:
            return None
        try:
            name = signal.Signals(-code).name
            how = f"was killed by {name}"
            if name == "SIGKILL":
                how += " (where memory ran out, fewer jobs help)"
        except ValueError:
            how = f"ended with exit code {code}"
        lines = [line.strip() for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        said = f": {lines[-1][:300].rstrip('.')}" if lines else ""
        return f"worker {self.number} {how}{said} (log: {self._log})"

    def stop(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def wait(self) -> None:
        """Until it has ended."""
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join(timeout=_PATIENCE)

    def _listen(
        self, settings: dict[str, Any], reports: queue.SimpleQueue[tuple[_Worker, str | None]]
    ) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            with self._process.stdout as lines, self._process.stdin as questions:
                questions.write(json.dumps(settings) + "\n")
                questions.flush()
                for line in lines:
                    reports.put((self, line.strip()))
                self._process.wait()  # before stdin ends, which ends it
        except (OSError, ValueError):
            pass  # it is dead: its exit code says so
        reports.put((self, None))


def _cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpus() -> Sequence[str]:
    """The GPUs that this process sees, by the names that CUDA_VISIBLE_DEVICES takes."""
    import torch

    count = torch.cuda.device_count()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in given.split(",")] if given else [str(i) for i in range(count)]
    return names[:count]
