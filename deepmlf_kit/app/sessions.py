"""State of one user (one browser tab), deleted when the tab closes.

Features, answers and files belong to a session and are reached by its id alone, which the browser tab draws at
random: two users at once do not mix.
"""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from ..features.clip import ClipFeatures
from ..predict.predictor import Prediction
from .live import LiveSession
from .reasons import Reasons


@dataclass
class Session:
    """One user's clip, its features and prediction, and a folder for the files to download."""

    id: str
    folder: Path
    clip: Path | None = None
    features: ClipFeatures | None = None
    prediction: Prediction | None = None
    reasons: Reasons | None = None
    live: LiveSession | None = None
    uploads: set[Path] = field(default_factory=set)
    used: float = field(default_factory=time.monotonic)

    def forget_clip(self) -> None:
        """Drop the features and prediction of the last clip; its file stays until the session ends."""
        self.clip = self.features = self.prediction = self.reasons = None
        for file in self.folder.glob("*"):
            file.unlink(missing_ok=True)


class Sessions:
    """All users of one app.

    Args:
        root: folder of the app's files; uploads outside it (an example's file) are never deleted.
        idle_seconds: sessions unused for longer are closed.
    """

    def __init__(self, root: str | Path, idle_seconds: float = 7200) -> None:
        self.root, self.idle_seconds = Path(root).resolve(), idle_seconds
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def get(self, id: str | None) -> Session:
        """The session of this id; a new one where there is none.

        Raises:
            ValueError: no id: a request that belongs to no tab.
        """
        if not id:
            raise ValueError("a request without a session")
        self._close_idle()
        with self._lock:
            if id not in self._sessions:
                folder = self.root / "sessions" / f"{len(self._sessions)}-{time.monotonic_ns()}"
                folder.mkdir(parents=True)
                self._sessions[id] = Session(id, folder)
            session = self._sessions[id]
            session.used = time.monotonic()
            return session

    def find(self, id: str | None) -> Session | None:
        """The session of this id, where there is one."""
        with self._lock:
            return self._sessions.get(id or "")

    def add_upload(self, session: Session, path: Path) -> None:
        """Remember that a session uses an uploaded file (the same content from two users is one file)."""
        path = path.resolve()
        if path.is_relative_to(self.root):
            with self._lock:
                session.uploads.add(path)

    def close(self, id: str | None) -> None:
        """End a session: live mode stops, its files are deleted, its features forgotten."""
        with self._lock:
            session = self._sessions.pop(id or "", None)
            if session is None:
                return
            still_used = {path for other in self._sessions.values() for path in other.uploads}
            for path in session.uploads - still_used:
                path.unlink(missing_ok=True)
                if path.parent != self.root and not any(path.parent.iterdir()):
                    path.parent.rmdir()
        if session.live is not None:
            session.live.stop()
        shutil.rmtree(session.folder, ignore_errors=True)

    def close_all(self) -> None:
        """End every session."""
        for id in list(self._sessions):
            self.close(id)

    def __len__(self) -> int:
        return len(self._sessions)

    def _close_idle(self) -> None:
        limit = time.monotonic() - self.idle_seconds
        with self._lock:
            idle = [session.id for session in self._sessions.values() if session.used < limit]
        for id in idle:
            self.close(id)
