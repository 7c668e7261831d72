"""Many clips at once, each in a worker process that may crash or hang without harm to the rest.

Between `folder.prepare_folder`, which says what to extract, and `extraction_process`, which has it done. One thread
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

from ..features.cache import FeatureCache
from ..features.clip import remember_lost
from ..features.container import may_hold_pictures
from ..features.recipe import FeatureRecipe
from ..workers.parent import end_all, thread_limits
from .extraction_process import ExtractionProcess, LostClip, ModelMissing, download_model


@dataclass(frozen=True)
class Job:
    """A clip to extract; `text` None means that its words are to be transcribed."""

    path: str
    text: str | None


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
        "pictures": any(may_hold_pictures(Path(job.path)) for job in jobs),
    }
    _Pool(
        jobs, recipe, FeatureCache(cache_folder), settings, min(workers, len(jobs)), timeout, finished
    ).run()


class _Pool:
    def __init__(self, jobs, recipe, cache, settings, workers, timeout, finished) -> None:
        self.recipe: FeatureRecipe = recipe
        self.cache: FeatureCache = cache
        self.second_try: set[int] = set()
        self.settings: dict[str, Any] = settings
        self.workers: int = workers
        self.timeout: float = timeout
        self.todo: queue.SimpleQueue[tuple[int, Job]] = queue.SimpleQueue()
        for numbered in enumerate(jobs):
            self.todo.put(numbered)
        # Reports are passed on by the thread that called, so that `finished` needs no lock.
        self.reports: queue.SimpleQueue[tuple[int, str] | BaseException | None] = queue.SimpleQueue()
        self.stopped = threading.Event()
        self.live: list[ExtractionProcess] = []
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
        worker: ExtractionProcess | None = None
        try:
            if number:  # the first one notices what is missing and has it downloaded; the others find it
                self.first_ready.wait()
            while not self.stopped.is_set():
                try:
                    index, job = self.todo.get_nowait()
                except queue.Empty:
                    return
                if worker is None:
                    worker = self._start()
                problem = self._extract(worker, index, job)
                if self.stopped.is_set():
                    return
                if problem is not None:
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

    def _extract(self, worker: ExtractionProcess, index: int, job: Job) -> str | None:
        """Why a clip failed; empty where it did not, None where it is to be tried once more."""
        try:
            return worker.ask(asdict(job)).get("failed", "")
        except LostClip as error:
            if self.stopped.is_set():
                return None
            if not error.outside:
                remember_lost(self.cache, job.path, self.recipe, str(error))
            elif index not in self.second_try:
                self.second_try.add(index)  # at the end, when others have freed their memory
                self.todo.put((index, job))
                return None
            return str(error)

    def _start(self) -> ExtractionProcess:
        downloaded = set()
        while True:
            try:
                return self._started()
            except ModelMissing as missing:
                if missing.kind in downloaded:
                    raise
                download_model(self.settings, missing.kind)
                downloaded.add(missing.kind)

    def _started(self) -> ExtractionProcess:
        threads = max(1, (os.cpu_count() or 1) // self.workers)
        worker = ExtractionProcess(self.settings, thread_limits(threads), self.timeout)
        with self.live_lock:
            self.live = [other for other in self.live if other.alive] + [worker]
        if self.stopped.is_set():
            worker.kill()
        worker.wait_until_ready()
        self.first_ready.set()
        return worker
