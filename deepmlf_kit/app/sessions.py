"""State of one user (one browser tab), deleted when the tab closes; and the room that all users' files have together.

Features, answers and files belong to a session and are reached by its id alone, which the browser tab draws at
random: two users at once do not mix. Of one session's requests the newest counts: it has the older ones stopped, and
what they come to afterwards is dropped.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..errors import DeepMLFError
from ..features.clip import ClipFeatures
from ..predict.prediction import Prediction
from ..workers.cancel import CancelToken
from .live import LiveSession
from .reasons import Reasons

_RETURN = 5.0  # seconds within which a tab that was cut off may come back
_UNTOUCHED = 1800.0  # seconds after which a file that no session uses is deleted
_KEPT = 4  # uploads of a session that are needed
_ARRIVING = 60.0  # seconds that it has in any case: the page tells of an upload after it has come


class DiskFull(DeepMLFError):
    """There is no room for another upload."""


class Ticket(CancelToken):
    """One request of a session: give it to the work as its `cancel`; it is cancelled when a newer one begins.

    Attributes:
        number: counts the session's requests from 1.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


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
    uploads: dict[Path, None] = field(default_factory=dict)  # the newest last
    used: float = field(default_factory=time.monotonic)
    _ticket: Ticket = field(default_factory=lambda: Ticket(0))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self) -> Ticket:
        """Begin a request; the one before, if it still runs, is stopped."""
        with self._lock:
            before, ticket = self._ticket, Ticket(self._ticket.number + 1)
            self._ticket = ticket
        before.cancel()
        return ticket

    @property
    def untouched(self) -> bool:
        """Whether nothing was asked yet."""
        return self._ticket.number == 0

    def cancel(self) -> None:
        """Stop the request that runs, if any."""
        self._ticket.cancel()

    def keep(
        self,
        ticket: Ticket,
        clip: Path | None,
        features: ClipFeatures,
        prediction: Prediction,
        reasons: Reasons,
    ) -> bool:
        """Keep what a request has come to; False, and nothing kept, where a newer one has begun or it was stopped."""
        with self._lock:
            if ticket is not self._ticket or ticket.cancelled:
                return False
            self.clip, self.features, self.prediction, self.reasons = clip, features, prediction, reasons
            return True

    def forget_clip(self) -> None:
        """Stop the request that runs and drop what was kept; the clip's file stays until the session ends."""
        self.begin()
        with self._lock:
            self.clip = self.features = self.prediction = self.reasons = None
        for file in self.folder.glob("*"):
            file.unlink(missing_ok=True)


class _File(NamedTuple):
    changed: float  # seconds since the epoch
    size: int
    path: Path


class Sessions:
    """All users of one app.

    Args:
        root: folder of the app's files; uploads outside it (an example's file) are never deleted.
        idle_seconds: sessions unused for longer are closed.
        max_bytes: all files in `root` together.
    """

    def __init__(self, root: str | Path, idle_seconds: float = 7200, max_bytes: float = 1e9) -> None:
        self.root, self.idle_seconds, self.max_bytes = Path(root).resolve(), idle_seconds, max_bytes
        self._present: Counter[str] = Counter()  # connections that open tabs hold, by session
        self._arriving = 0.0  # bytes of uploads under way
        self._permanent: set[Path] = set()
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
                session.uploads.pop(path, None)
                session.uploads[path] = None

    @contextlib.contextmanager
    def present(self, id: str) -> Iterator[None]:
        """While a tab holds its connection; the session is closed when the last one has ended and none comes back soon."""
        with self._lock:
            self._present[id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._present[id] -= 1
            leaving = threading.Timer(_RETURN, self._close_if_left, [id])
            leaving.daemon = True
            leaving.start()

    def _close_if_left(self, id: str) -> None:
        with self._lock:
            if self._present[id] > 0:
                return
            del self._present[id]
        self.close(id)

    def close(self, id: str | None) -> None:
        """End a session: its work and live mode stop, its files are deleted, its features forgotten."""
        with self._lock:
            session = self._sessions.pop(id or "", None)
            if session is None:
                return
            still_used = {path for other in self._sessions.values() for path in other.uploads}
            for path in session.uploads.keys() - still_used:
                _delete(path, self.root)
        session.cancel()
        if session.live is not None:
            session.live.stop()
        shutil.rmtree(session.folder, ignore_errors=True)

    def close_all(self) -> None:
        """End every session."""
        for id in list(self._sessions):
            self.close(id)

    def __len__(self) -> int:
        return len(self._sessions)

    # Room on the disk ----------------------------------------------------------------------------------------

    def keep_present(self) -> None:
        """The files that are there now are the page's own: they stay until the app ends."""
        self._permanent = {file.path for file in _files(self.root)}

    def tidy(self, untouched: float = _UNTOUCHED) -> None:
        """Close idle sessions; delete files that no session uses and nobody touched for so many seconds."""
        self._close_idle()
        limit = time.time() - untouched
        with self._lock:
            for file in self._unneeded():
                if file.changed < limit:
                    _delete(file.path, self.root)

    @contextlib.contextmanager
    def room_for(self, size: float) -> Iterator[None]:
        """Room for an upload of so many bytes while it comes; files that no session uses make way, the oldest first.

        Raises:
            DiskFull: the files that are in use leave none.
        """
        with self._lock:
            excess = sum(file.size for file in _files(self.root)) + self._arriving + size - self.max_bytes
            for file in sorted(self._unneeded()):
                if excess <= 0 or file.changed > time.time() - _ARRIVING:
                    break
                _delete(file.path, self.root)
                excess -= file.size
            if excess > 0:
                raise DiskFull("There is no room for another clip at the moment; try again in some minutes.")
            self._arriving += size
        try:
            yield
        finally:
            with self._lock:
                self._arriving -= size

    def _unneeded(self) -> list[_File]:
        """Files that no session needs: it may go back to its last uploads."""
        used = {path for session in self._sessions.values() for path in [*session.uploads][-_KEPT:]}
        folders = {session.folder for session in self._sessions.values()}
        used |= self._permanent
        return [f for f in _files(self.root) if f.path not in used and folders.isdisjoint(f.path.parents)]

    def _close_idle(self) -> None:
        limit = time.monotonic() - self.idle_seconds
        with self._lock:
            idle = [session.id for session in self._sessions.values() if session.used < limit]
        for id in idle:
            self.close(id)


def _files(root: Path) -> Iterator[_File]:
    for path in root.rglob("*"):
        with contextlib.suppress(OSError):  # gone meanwhile
            if path.is_file():
                found = path.stat()
                yield _File(found.st_mtime, found.st_size, path)


def _delete(path: Path, root: Path) -> None:
    """Delete a file, and its folder where that is then empty."""
    with contextlib.suppress(OSError):  # gone meanwhile, or another file has come
        path.unlink(missing_ok=True)
        if path.parent != root:
            path.parent.rmdir()
