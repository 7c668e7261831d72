"""One sweep on a whole machine: worker processes share its trials, this one starts them and relays their reports.

Between `running.run_sweep`, which opens the folder and writes the report, and `worker.py`, which each process runs.
The lock files (`locks.py`) say who trains which trial; a worker that dies leaves its trial to the others.
"""

from __future__ import annotations

import os
import queue
import signal
from collections.abc import Sequence
from pathlib import Path

import torch

from ..errors import DeepMLFError
from ..training.processes import processes
from ..workers.parent import Reports, WorkerProcess, end_all, thread_limits
from .searching import draws_left
from .trials import Trials

WORKER = "deepmlf_kit.sweep.worker"
"""Module that a worker process runs."""

_PATIENCE = 15.0  # seconds for a stopped worker to end


def job_count(jobs: int | str) -> int:
    """The number of processes; `auto`: one per GPU, or per core where there is none.

    Raises:
        DeepMLFError: it is not a number, or this process is one of several that share every training.
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


def train_in_workers(
    trials: Trials, dataset: str | Path | None, shard: tuple[int, int], count: int
) -> str | None:
    """Train all trials in worker processes, and wait for them.

    Args:
        trials: of the sweep.
        dataset: the folder, or None for the sample set in the sweep's folder.
        shard: as in `run_sweep`.
        count: number of processes; fewer are started where there are fewer trials.

    Returns:
        None, or a message for the user where every worker died.
    """
    if trials.plan.search:
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
    # The shares depend on the number of jobs, not on what is left: a resumed sweep computes as an uninterrupted one.
    environments = shares(count)[:left]
    reports: Reports = queue.SimpleQueue()
    workers: dict[WorkerProcess, tuple[int, Path]] = {}
    died = []
    try:
        for number, environment in enumerate(environments, start=1):
            log = trials.out / "logs" / f"worker-{number}.log"
            log.parent.mkdir(exist_ok=True)
            # In our own process group: whatever ends the group ends all of us.
            worker = WorkerProcess(WORKER, settings, reports, environment=environment, log=log)
            workers[worker] = number, log
        running = len(workers)
        while running:
            worker, report = reports.get()
            if report is not None:
                ended += 1
                trials.tell(f"{ended}/{total} {report['line']}" if total else report["line"])
                continue
            running -= 1
            if reason := _reason_of_death(worker, *workers[worker]):
                died.append(reason)
                trials.tell(f"{reason}{'; the others take its trial' if running else ''}.")
    finally:  # done, an error, or the user's Ctrl-C
        end_all(list(workers), _PATIENCE)
    if workers and len(died) == len(workers):
        return f"No worker is left: {'; '.join(died)}. Put that right and repeat the command: it goes on."
    return None


def shares(count: int) -> list[dict[str, str]]:
    """Environment variables of each of `count` processes: an equal share of the cores and, in turn, one GPU.

    A smaller OMP_NUM_THREADS set by the user is kept.
    """
    threads = max(1, _cores() // count)
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdecimal() and int(given) >= 1:
        threads = min(threads, int(given))
    share = thread_limits(threads)
    gpus = _gpus()
    if not gpus:
        return [share] * count
    return [{**share, "CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(count)]


def _reason_of_death(worker: WorkerProcess, number: int, log: Path) -> str | None:
    """Exit code and last line of a worker that died; None where it did its work."""
    code = worker.exit_code
    if code == 0:
        return None
    try:
        name = signal.Signals(-code).name
        how = f"was killed by {name}"
        if name == "SIGKILL":
            how += " (where memory ran out, fewer jobs help)"
    except ValueError:
        how = f"ended with exit code {code}"
    last = worker.last_line[:300].rstrip(".")
    return f"worker {number} {how}{f': {last}' if last else ''} (log: {log})"


def _cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpus() -> Sequence[str]:
    """The GPUs visible to this process, by their names in CUDA_VISIBLE_DEVICES."""
    count = torch.cuda.device_count()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in given.split(",")] if given else [str(i) for i in range(count)]
    return names[:count]
