"""A process that extracts clips, from the side of the one that asks: a damaged clip may crash or hang it, and nothing else.

    ExtractionProcess   one process, one clip at a time; `extraction_pool` runs several over a folder of clips
    ClipExtractor       single clips for `predict` and the app; its processes stay warm from clip to clip
    download_model      a model that such a process misses: it has no network, so that nothing of a clip goes anywhere

The other end is `extraction_worker`.
"""

from __future__ import annotations

import os
import queue
import signal
import tempfile
import threading
import weakref
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..errors import DeepMLFError
from ..features.cache import FeatureCache
from ..features.clip import ClipFeatures, Progress
from ..features.container import ClipError
from ..features.face_model import FaceModelMissing
from ..features.media import MediaInfo, allowed_threads
from ..features.recipe import FeatureRecipe, RecipeError
from ..features.transcript import SpeechModelMissing
from ..workers.cancel import Cancelled, CancelToken
from ..workers.network import NO_NETWORK
from ..workers.parent import Reports, WorkerProcess, thread_limits

WORKER = "deepmlf_kit.data.extraction_worker"
"""Module that a worker process runs."""

_TICK = 1.0  # seconds between two looks at a silent worker
_ERRORS = {error.__name__: error for error in (ClipError, FaceModelMissing, SpeechModelMissing, RecipeError)}
_MISSING = {"FaceModelMissing", "SpeechModelMissing", "EncoderError"}  # by name: encoders need torch


# Exit codes of a process that somebody ended; a crash has others.
_ENDED = {-getattr(signal, name, 9) for name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")}


class ExtractionError(DeepMLFError):
    """Nothing can be extracted at all, for one reason: a model is missing, the disk is full, ..."""


class ModelMissing(ExtractionError):
    """A model is not at hand, and `download_model` may get it.

    Attributes:
        kind: name of the extractor's own error.
    """

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class LostClip(ClipError):
    """A clip that took its process with it.

    Attributes:
        outside: whether somebody ended the process, as the system does where memory runs out: not the clip's fault.
    """

    def __init__(self, message: str, outside: bool = False) -> None:
        super().__init__(message)
        self.outside = outside


class ExtractionProcess:
    """A worker process that extracts clips, one at a time. It has no network, unless it is there to download.

    Args:
        settings: see `extraction_worker`.
        environment: variables to set, beside those of this process.
        timeout: seconds without any progress after which a clip is given up.
    """

    def __init__(self, settings: Mapping[str, Any], environment: Mapping[str, str], timeout: float) -> None:
        self.timeout = timeout
        self.alive = True
        self.ready = False
        self._reports: Reports = queue.SimpleQueue()
        self.process = WorkerProcess(
            WORKER,
            settings,
            self._reports,
            environment=environment if settings.get("download") else {**NO_NETWORK, **environment},
            own_session=True,  # Ctrl-C is this side's to handle
        )

    def wait_until_ready(self) -> None:
        """Until its models are loaded.

        Raises:
            ModelMissing: one of them is not at hand.
            ExtractionError: they cannot be loaded, or the process cannot start.
        """
        answer = self._answer(None)
        if answer is None:
            self.alive = False
            self.process.wait(5.0)
            raise ExtractionError(
                f"extraction: a worker process ended before its first clip ({self._last_words()})."
            )
        if "fatal" in answer:
            self.kill()
            if answer.get("kind") in _MISSING:
                raise ModelMissing(answer["fatal"], answer["kind"])
            raise ExtractionError(answer["fatal"])
        self.ready = True

    def ask(self, job: Mapping[str, Any], progress: Progress | None = None) -> dict[str, Any]:
        """Send a job and wait for its last report. The process may be gone afterwards (`alive`).

        Raises:
            LostClip: it crashed, or said nothing for too long.
            ExtractionError: it cannot extract anything.
        """
        self.process.send(job)
        while True:
            answer = self._answer(self.timeout)
            if answer is None:
                raise self._lost(job["path"])
            if "fatal" in answer:
                self.kill()
                raise ExtractionError(answer["fatal"])
            if "done" in answer or "failed" in answer:
                return answer
            if progress is not None and "stage" in answer:
                progress(answer["stage"], answer["share"])

    def close(self) -> None:
        """Let the process end by itself."""
        self.alive = False
        self.process.finish()

    def kill(self) -> None:
        """End the process now."""
        self.alive = False
        self.process.kill()

    def _lost(self, path: str) -> LostClip:
        if self._timed_out:
            self.kill()
            return LostClip(
                f"{path}: no progress for {self.timeout:.0f} s, the file is probably damaged; given up."
            )
        self.alive = False
        self.process.wait(5.0)
        code = self.process.exit_code
        if code in _ENDED:
            return LostClip(
                f"{path}: the process that read it was ended from outside (signal {-code}), most likely because memory ran "
                f"out; close other programs, or let fewer clips be read at the same time (--workers 1).",
                outside=True,
            )
        return LostClip(f"{path}: crashed the decoder ({self._last_words()}); the file is probably damaged.")

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


def download_model(settings: Mapping[str, Any], kind: str) -> None:
    """Have a model downloaded, by a process that reads no clip.

    Args:
        settings: `recipe` and `face_model` of `extraction_worker`.
        kind: the error that says which (`ModelMissing.kind`).

    Raises:
        ModelMissing: it cannot be had.
    """
    process = ExtractionProcess({**_ON_DEMAND, **settings, "download": kind}, _limits(), timeout=0)
    try:
        process.wait_until_ready()
    finally:
        process.kill()


class ClipExtractor:
    """`extract_clip` and `probe` in processes of their own, which stay warm. Several threads may share it.

    Args:
        timeout: seconds without any progress after which a clip is given up.
    """

    def __init__(self, timeout: float = 300.0) -> None:
        self._timeout = timeout
        self._idle: list[tuple[dict[str, str], ExtractionProcess]] = []
        self._lock = threading.Lock()
        self.close = weakref.finalize(self, _close_all, self._idle, self._lock)

    def warm_up(self) -> None:
        """Start a process, so that the first clip need not wait for it; returns at once."""
        environment = _environment()
        self._give_back(environment, ExtractionProcess(_ON_DEMAND, _limits(), self._timeout))

    def extract(
        self,
        path: str | Path,
        recipe: FeatureRecipe,
        *,
        text: str | None = None,
        face_model: str | Path | None = None,
        progress: Progress | None = None,
        cache: FeatureCache | None = None,
        cancel: CancelToken | None = None,
    ) -> ClipFeatures:
        """As `features.extract_clip`, which it calls there.

        Args:
            cancel: stops the extraction, by ending its process.

        Raises:
            ClipError, FaceModelMissing, SpeechModelMissing: as there.
            LostClip: the clip crashed or hung the process.
            Cancelled: on request.
        """
        with tempfile.TemporaryDirectory(prefix="deepmlf-") as folder:
            into = Path(folder) / "features.npz"
            job = {
                "text": text,
                "recipe": asdict(recipe),
                "face_model": None if face_model is None else str(Path(face_model).absolute()),
                "cache": None if cache is None else str(cache.folder.absolute()),
                "into": str(into),
            }
            try:
                try:
                    self._ask(path, job, progress, cancel)
                except ModelMissing as missing:
                    download_model(job, missing.kind)
                    self._ask(path, job, progress, cancel)
            except ModelMissing as missing:
                raise _ERRORS.get(missing.kind, DeepMLFError)(str(missing)) from None
            return ClipFeatures.load(into)

    def extract_at_hand(
        self, path: str | Path, recipe: FeatureRecipe, *, face_model: str | Path | None = None, **others: Any
    ) -> ClipFeatures:
        """As `extract`; where nobody named a face model, none is here and none can be fetched, the face is left out, with a note.

        Raises:
            ClipError, FaceModelMissing, SpeechModelMissing, LostClip, Cancelled: as there.
        """
        try:
            return self.extract(path, recipe, face_model=face_model, **others)
        except FaceModelMissing:
            if face_model or os.environ.get("DEEPMLF_FACE_MODEL"):
                raise
        features = self.extract(path, replace(recipe, vision="none", face_crop=False), **others)
        features.found.notes.append(
            "the face is left out: MediaPipe's face model is not here and could not be fetched (`deepmlf fetch face`, once, with "
            "a network)"
        )
        return features

    def probe(self, path: str | Path, cancel: CancelToken | None = None) -> MediaInfo:
        """As `features.media.probe`, without a limit to the length."""
        return MediaInfo(**self._ask(path, {"probe": True}, cancel=cancel)["done"])

    def peak_memory(self) -> float:
        """Most memory in MB that one of the warm processes has taken so far."""
        with self._lock:
            return max((process.process.peak_memory for _, process in self._idle), default=0.0)

    def _ask(
        self,
        path: str | Path,
        job: dict[str, Any],
        progress: Progress | None = None,
        cancel: CancelToken | None = None,
    ) -> dict[str, Any]:
        here = str(Path(path).absolute())
        environment = _environment()
        cancel = cancel or CancelToken()
        cancel.check()
        process = self._take(environment)
        try:
            with cancel.stopping(process.kill):
                answer = process.ask({"path": here, **job}, progress)
        except LostClip as error:
            raise LostClip(str(error).replace(here, str(path)), error.outside) from None
        except Cancelled:
            process.kill()
            self.warm_up()
            raise
        except BaseException:
            process.kill()
            raise
        self._give_back(environment, process)
        if "failed" in answer:
            kind, message = answer["kind"], answer["failed"].replace(here, str(path))
            if kind in _MISSING:
                raise ModelMissing(message, kind)
            raise _ERRORS.get(kind, DeepMLFError)(message)
        return answer

    def _take(self, environment: dict[str, str]) -> ExtractionProcess:
        """A warm process of the same environment, or a new one."""
        with self._lock:
            fitting = [(env, p) for env, p in self._idle if env == environment and p.process.running]
            others = [p for env, p in self._idle if not (env == environment and p.process.running)]
            process = fitting.pop()[1] if fitting else None
            self._idle[:] = fitting
        for other in others:
            other.kill()
        if process is None:
            process = ExtractionProcess(_ON_DEMAND, _limits(), self._timeout)
        if not process.ready:
            process.wait_until_ready()
        return process

    def _give_back(self, environment: dict[str, str], process: ExtractionProcess) -> None:
        with self._lock:
            self._idle.append((environment, process))


_ON_DEMAND = {"recipe": None, "cache": None, "face_model": None, "speech": False}  # each job brings its own


def _environment() -> dict[str, str]:
    """What a process took from this one's environment when it started, as far as extraction reads it."""
    return {name: value for name, value in os.environ.items() if name.startswith(("DEEPMLF_", "HF_", "OMP_"))}


def _limits() -> dict[str, str]:
    """As many threads as this process may use."""
    threads = allowed_threads()
    return thread_limits(threads) if threads else {}


def _close_all(idle: list[tuple[dict[str, str], ExtractionProcess]], lock: Any) -> None:
    with lock:
        while idle:
            idle.pop()[1].kill()
