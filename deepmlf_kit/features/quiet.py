"""Keep native libraries from writing start-up log lines to the terminal.

MediaPipe's C++ logs warnings straight to file descriptor 2, where no Python setting reaches them. They are
filtered line by line; anything else that was written meanwhile is passed on.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

_STARTUP_LOG = re.compile(
    rb"^(W0000 |I0000 |WARNING: Logging before InitGoogle|INFO: Created TensorFlow Lite|WARNING: All log messages before)"
)
_lock = threading.Lock()
_users = 0
_kept: tuple[int, IO[bytes]] | None = None


@contextmanager
def without_startup_logs() -> Iterator[None]:
    """Hold back what is written to stderr inside, and pass on at the end all but MediaPipe's start-up log lines."""
    _hold()
    try:
        yield
    finally:
        _release()


def _hold() -> None:
    global _users, _kept
    with _lock:
        _users += 1
        if _users > 1:
            return
        try:
            sys.stderr.flush()
            held = tempfile.TemporaryFile()  # noqa: SIM115 - closed in _release
            _kept = (os.dup(2), held)
            os.dup2(held.fileno(), 2)
        except (OSError, ValueError, AttributeError):
            _kept = None  # no stderr (a service, a notebook's kernel that closed it): nothing to keep clean


def _release() -> None:
    global _users, _kept
    with _lock:
        _users -= 1
        if _users or _kept is None:
            return
        original, held = _kept
        _kept = None
        os.dup2(original, 2)
        os.close(original)
        with held:
            held.seek(0)
            rest = b"".join(line for line in held if not _STARTUP_LOG.match(line))
        if rest:
            os.write(2, rest)
