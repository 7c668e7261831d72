"""Many clips at once, each in a worker process that may crash or hang without harm to the rest.

Between `folder.prepare_folder`, which says what to extract, and `extraction_worker`, which does it. One thread
here looks after each worker: it sends a clip, waits for the answer, and starts a new worker where the old one
died or said nothing for too long.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import DeepMLFError
from ..features.recipe import FeatureRecipe
from ..workers.parent import Reports, WorkerProcess, end_all, thread_limits

WORKER = "deepmlf_kit.data.extraction_worker"
"""Module that a worker process runs."""

_TICK = 1.0  # seconds between two looks at a silent worker


@dataclass(frozen=True)
class Job:
    """A clip to extract; `text` None means that its words are to be transcribed."""

    path: str
    text: str | None


class ExtractionError(DeepMLFError):
    """Nothing can be extracted at all, for one reason: a model is missing, the disk is full, ..."""


def extract_all(
    jobs: Sequence[Job],
    recipe: FeatureRecipe,
    cache_folder: Path,
    *,
    workers: int = 1,
    face_model: str | Path | None = None,
    timeout: float = 600.0,
    finished: Callable[[int, str], None] = lambda index, problem: None,
) -> None:
    """Extract clips into the cache.

    Args:
        workers: number of processes; the machine's cores are shared out among them.
        timeout: seconds without any progress after which a clip is given up. Starting a worker and loading
            models do not count.
        finished: called with a job's index and why it failed (empty where it did not), as each comes to its
            end.

    Raises:
        ExtractionError: a model that is needed is missing, or the cache cannot be written to. What was done
            by then is kept.
    """
    if not jobs:
        return
    settings = {
        "recipe": asdict(recipe),
        "cache": str(cache_folder),
        "face_model": str(face_model) if face_model is not None else None,
        "speech": any(job.text is None for job in jobs) and recipe.transcribe,
    }
    _Pool(jobs, settings, min(workers, len(jobs)), timeout, finished).run()


class _Pool:
    def __init__(self, jobs, settings, workers, timeout, finished) -> None:
        self.settings: dict[str, Any] = settings
        self.workers: int = workers
        self.timeout: float = timeout
        self.todo: queue.SimpleQueue[tuple[int, Job]] = queue.SimpleQueue()
        for numbered in enumerate(jobs):
            self.todo.put(numbered)
        # Reports are passed on by the thread that called, so that `finished` needs no lock.
        self.reports: queue.SimpleQueue[tuple[int, str] | BaseException | None] = queue.SimpleQueue()
        self.stopped = threading.Event()
        self.live: list[_Worker] = []
        self.live_lock = threading.Lock()
        self.finished = finished

    def run(self) -> None:
        threads = [
            threading.Thread(target=self._look_after, args=(n,), daemon=True) for n in range(self.workers)
        ]
        self.first_ready = threading.Event()
        for thread in threads:
            thread.start()
        running = len(threads)
        try:
            while running:
                report = self.reports.get()
                if report is None:
                    running -= 1
                elif isinstance(report, BaseException):
                    raise report
                else:
                    self.finished(*report)
        finally:  # done, a fatal error, or the user's Ctrl-C: no process stays behind
            self.stopped.set()
            with self.live_lock:
                end_all([worker.process for worker in self.live if worker.alive], patience=0)
            for thread in threads:
                thread.join(timeout=10)

    def _look_after(self, number: int) -> None:
        """One worker's life: what a thread of the pool does until no job is left."""
        worker: _Worker | None = None
        try:
            if number:  # the first one downloads what is missing; the others find it
                self.first_ready.wait()
            while not self.stopped.is_set():
                try:
                    index, job = self.todo.get_nowait()
                except queue.Empty:
                    return
                if worker is None:
                    worker = self._start()
                problem = worker.extract(job)
                if self.stopped.is_set():
                    return
                self.reports.put((index, problem))
                if not worker.alive:
                    worker = None
        except BaseException as error:
            if not self.stopped.is_set():
                self.reports.put(error)
        finally:
            self.first_ready.set()
            if worker is not None:
                worker.close()
            self.reports.put(None)

    def _start(self) -> _Worker:
        worker = _Worker(self.settings, max(1, (os.cpu_count() or 1) // self.workers), self.timeout)
        with self.live_lock:
            self.live = [other for other in self.live if other.alive] + [worker]
        if self.stopped.is_set():
            worker.kill()
        worker.wait_until_ready()
        self.first_ready.set()
        return worker


class _Worker:
    """A worker process that extracts clips, one at a time."""

    def __init__(self, settings: dict[str, Any], threads: int, timeout: float) -> None:
        self.timeout = timeout
        self.alive = True
        self._reports: Reports = queue.SimpleQueue()
        self.process = WorkerProcess(
            WORKER,
            settings,
            self._reports,
            environment=thread_limits(threads),
            own_session=True,  # Ctrl-C is this side's to handle
        )

    def wait_until_ready(self) -> None:
        """Until its models are loaded.

        Raises:
            ExtractionError: they cannot be, or the process cannot start.
        """
        answer = self._answer(None)
        if answer is None:
            self.kill()
            raise ExtractionError(
                f"extraction: a worker process ended before its first clip ({self._last_words()})."
            )
        if "fatal" in answer:
            self.kill()
            raise ExtractionError(answer["fatal"])

    def extract(self, job: Job) -> str:
        """Why a clip failed; empty where it did not. The process may be gone afterwards (`alive`)."""
        self.process.send(asdict(job))
        while True:
            answer = self._answer(self.timeout)
            if answer is None:
                self.kill()
                if self._timed_out:
                    return f"{job.path}: no progress for {self.timeout:.0f} s, the file is probably damaged; given up."
                return (
                    f"{job.path}: crashed the decoder ({self._last_words()}); the file is probably damaged."
                )
            if "fatal" in answer:
                self.kill()
                raise ExtractionError(answer["fatal"])
            if "done" in answer or "failed" in answer:
                return answer.get("failed", "")

    def close(self) -> None:
        """Let the process end by itself."""
        self.alive = False
        self.process.finish()

    def kill(self) -> None:
        """End the process now."""
        self.alive = False
        self.process.kill()

    def _answer(self, timeout: float | None) -> dict[str, Any] | None:
        """Its next report; None where the process ended, or reported nothing for `timeout` seconds.

        Counted in ticks, so that a stretch in which this process was stopped (Ctrl-Z) counts as one tick.
        """
        self._timed_out = False
        silent = 0.0
        while True:
            try:
                return self._reports.get(timeout=_TICK)[1]
            except queue.Empty:
                silent += _TICK
            if timeout is not None and silent >= timeout:
                self._timed_out = True
                return None

    def _last_words(self) -> str:
        """How the process ended, and the last line that it printed."""
        last = self.process.last_line[:200]
        return f"exit code {self.process.exit_code}{f': {last}' if last else ''}"
