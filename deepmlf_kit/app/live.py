"""Live mode: frames and sound stream in while they are recorded; every two seconds a prediction goes out.

The browser (`live.js`) sends packets to `push`. The session's own thread extracts each frame as it arrives and, at
every tick, predicts from the last six seconds. It never falls behind: frames that come too fast are dropped and
counted.
"""

from __future__ import annotations

import base64
import io
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..features.audio_egemaps import RATE
from ..features.clip import ClipFeatures, ClipFound
from ..features.extractors import extract_audio
from ..features.media import Frame, Sound
from ..features.recipe import FeatureRecipe
from ..features.transcript import transcribe
from ..features.vision_blendshapes import FaceTracker
from ..predict.prediction import Prediction
from ..storage.optional import optional
from .settings import Settings

if TYPE_CHECKING:
    from ..predict import Predictor

Image = optional("PIL.Image")

_log = logging.getLogger(__name__)
_PACKET_TIMEOUT = 10.0  # seconds without a packet after which the tab is taken to be gone
_LARGEST_PACKET = 3_000_000  # characters
_EDGE = 1.0  # seconds at a window's beginning whose words are left to the window before


@dataclass
class LiveState:
    """What a live session has to show.

    Attributes:
        seconds: since its start.
        prediction: the latest.
        points: (seconds, sentiment) of all predictions.
        words: {word, start, end} in the order they came.
        answers: number of predictions.
        frames: number of frames extracted.
        dropped: number of frames dropped.
        took: seconds that the last prediction took.
        ended: why the session ended; empty while it runs.
    """

    seconds: float = 0.0
    prediction: Prediction | None = None
    points: list[tuple[float, float]] = field(default_factory=list)
    words: list[dict[str, Any]] = field(default_factory=list)
    answers: int = 0
    frames: int = 0
    dropped: int = 0
    took: float = 0.0
    ended: str = ""


class LiveSession:
    """One user's live session: receives packets, yields states. Ends by `stop`, or when no more packets come.

    Args:
        predictor: the sentiment model.
        recipe: how features are made; only eGeMAPS or MFCC voices and blendshapes can be live.
        face_model: None leaves the face out.
        text: words to use where nothing is transcribed.
    """

    def __init__(
        self,
        predictor: Predictor,
        recipe: FeatureRecipe,
        settings: Settings,
        *,
        face_model: Path | None = None,
        text: str = "",
    ) -> None:
        self.predictor, self.recipe, self.settings, self.text = predictor, recipe, settings, text
        self._face_model = face_model if recipe.vision == "blendshapes" else None
        self._pending: deque[tuple[float, bytes]] = deque()
        self._most_pending = round(settings.live_fps * settings.live_every)
        self._sound = np.zeros(0, np.float32)  # the last `live_window` seconds
        self._sound_end = 0.0  # seconds, of its last sample
        self._rows: deque[tuple[float, np.ndarray]] = deque()
        self._state, self._version = LiveState(), 0
        self._changed = threading.Condition()
        self._stopped = False
        self._last_packet = time.monotonic()
        self.thread = threading.Thread(target=self._run, name="live", daemon=True)
        self.thread.start()

    # From the browser ----------------------------------------------------------------------------------------

    def push(self, packet: dict[str, Any]) -> dict[str, Any]:
        """Receive frames and sound.

        Args:
            packet: `frames`: [[seconds, JPEG as base64], ...]; `sound`: mono int16 at 16 kHz as base64;
                `sound_end`: seconds of its end; `dropped`: frames that the browser dropped.

        Returns:
            `go`: whether to send more.
        """
        sound = np.frombuffer(base64.b64decode(str(packet.get("sound") or "")[:_LARGEST_PACKET]), "<i2")
        frames = [
            (float(at), base64.b64decode(str(data)[:_LARGEST_PACKET]))
            for at, data in list(packet.get("frames") or [])[:60]
        ]
        with self._changed:
            if self._stopped:
                return {"go": False}
            self._last_packet = time.monotonic()
            self._state.dropped += max(0, int(packet.get("dropped") or 0))
            if len(sound):
                most = round(self.settings.live_window * RATE)
                self._sound = np.concatenate([self._sound, sound.astype(np.float32) / 32768])[-most:]
                self._sound_end = max(self._sound_end, float(packet.get("sound_end") or 0.0))
            self._pending.extend(frames)
            while len(self._pending) > self._most_pending:
                self._pending.popleft()
                self._state.dropped += 1
            now = max(self._sound_end, frames[-1][0] if frames else 0.0)
            self._state.seconds = max(self._state.seconds, now)
            self._changed.notify_all()
        return {"go": True}

    def stop(self, why: str = "Stopped.") -> None:
        """End the session; its thread ends within moments."""
        with self._changed:
            if not self._stopped:
                self._stopped, self._state.ended = True, why
                self._version += 1
            self._changed.notify_all()

    @property
    def stopped(self) -> bool:
        return self._stopped

    # To the page ---------------------------------------------------------------------------------------------

    def states(self) -> Iterator[LiveState]:
        """States as they change, until the session has ended; before the first answer, every second."""
        seen = -1
        while True:
            with self._changed:
                self._changed.wait_for(partial(self._is_news, seen), timeout=1.0)
                if time.monotonic() - self._last_packet > _PACKET_TIMEOUT and not self._stopped:
                    self._stopped, self._state.ended = True, "Stopped: nothing came from the camera."
                if self._version == seen and not self._stopped and self._state.answers:
                    continue
                seen = self._version
                state = replace(self._state, points=list(self._state.points), words=list(self._state.words))
                ended = self._stopped
            yield state
            if ended:
                return

    # The session's own thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            if self._face_model is None:
                self._work(None)
            else:
                with FaceTracker(self._face_model) as tracker:
                    self._work(tracker)
        except Exception as error:
            _log.exception("live mode failed")
            self.stop(f"Stopped by an error: {error}")

    def _is_news(self, seen: int) -> bool:
        return self._version != seen or self._stopped

    def _is_work(self, due: float) -> bool:
        return bool(self._stopped or self._pending or self._state.seconds >= due)

    def _work(self, tracker: Any) -> None:
        due = self.settings.live_every
        while True:
            with self._changed:
                self._changed.wait_for(partial(self._is_work, due), timeout=1.0)
                if time.monotonic() - self._last_packet > _PACKET_TIMEOUT:
                    self._stopped = True
                    self._state.ended = self._state.ended or "Stopped: nothing came from the camera."
                    self._version += 1
                    self._changed.notify_all()
                if self._stopped:
                    return
                waiting = [self._pending.popleft() for _ in range(len(self._pending))]
                now = self._state.seconds
            for at, data in waiting:
                self._look(tracker, at, data)
            if now >= due:
                self._answer(now)
                due = max(due + self.settings.live_every, now + 0.5)  # late: skip, never queue up

    def _look(self, tracker: Any, at: float, data: bytes) -> None:
        if tracker is None:
            return
        try:
            with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
                if max(picture.size) > 1920:
                    return
                image = np.ascontiguousarray(picture.convert("RGB"))
        except (OSError, ValueError):
            with self._changed:
                self._state.dropped += 1
            return
        self._rows.append((at, tracker.row(Frame(image, at))))
        with self._changed:
            self._state.frames += 1

    def _answer(self, now: float) -> None:
        began = time.perf_counter()
        features = self._window(now)
        if not len(features.audio) and not len(features.vision):
            return
        prediction = self.predictor.features(features)
        with self._changed:
            state = self._state
            state.prediction, state.answers = prediction, state.answers + 1
            state.points = [*state.points, (now, prediction.sentiment)][-600:]
            start = max(0.0, now - self.settings.live_window)
            state.words = merged_words(state.words, features.words, start)
            state.took = time.perf_counter() - began
            self._version += 1
            self._changed.notify_all()

    def _window(self, now: float) -> ClipFeatures:
        """Features of the last seconds, their times counted from the window's start; words on the session's clock."""
        start = max(0.0, now - self.settings.live_window)
        with self._changed:
            samples, end = self._sound.copy(), self._sound_end
        while self._rows and self._rows[0][0] < start:
            self._rows.popleft()
        recipe, dims = self.recipe, self.predictor.collator.dims
        audio, audio_times, voiced = (
            np.zeros((0, dims["audio"] or 0), np.float32),
            np.zeros(0, np.float32),
            None,
        )
        words: list[dict[str, Any]] = []
        text, source = self.text, "given" if self.text.strip() else "none"
        if len(samples) >= RATE // 4:
            first = end - len(samples) / RATE
            audio, audio_times, voiced = extract_audio(Sound(samples, RATE, max(0.0, first - start)), recipe)
            if recipe.transcribe:
                heard = transcribe(samples, recipe.speech_model, recipe.language, first)
                text, words, source = heard.text, heard.words, "transcribed"
        vision, vision_times = np.zeros((0, dims["vision"] or 0), np.float32), np.zeros(0, np.float32)
        if self._rows:
            vision = np.stack([row for _, row in self._rows])
            vision_times = np.asarray([at - start for at, _ in self._rows], np.float32)
        found = ClipFound(
            seconds=round(now - start, 2),
            has_audio=len(audio) > 0,
            has_video=len(vision) > 0,
            face_share=float(vision.any(axis=1).mean()) if len(vision) else None,
            voiced_share=voiced,
        )
        return ClipFeatures(audio, audio_times, vision, vision_times, text, words, source, found, {})


def merged_words(
    words: list[dict[str, Any]], heard: list[dict[str, Any]], start: float
) -> list[dict[str, Any]]:
    """The words so far with those of a window that begins at `start` seconds.

    Windows overlap. The newest hearing counts, as it has heard what follows; but a window may begin in the middle
    of a word, so that its first second is left to the hearing before it.
    """
    settled = start + _EDGE if words and start > 0 else start
    kept = [word for word in words if word["start"] < settled]
    last = kept[-1]["end"] if kept else -1.0
    return [*kept, *(word for word in heard if word["start"] >= settled and word["end"] > last)][-400:]
