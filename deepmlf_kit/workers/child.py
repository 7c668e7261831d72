"""A worker's own end: read the settings and messages, report back (the protocol: `parent.py`)."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any


class Channel:
    """The line to the process that started this one; make it before anything is printed.

    Attributes:
        settings: the first line that was sent.
    """

    def __init__(self) -> None:
        # Libraries print where they like; the reports keep the real stdout to themselves.
        self._reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self.settings: dict[str, Any] = json.loads(sys.stdin.readline())

    def messages(self) -> Iterator[dict[str, Any]]:
        """Each message as it comes, until stdin ends."""
        for line in sys.stdin:
            yield json.loads(line)

    def report(self, **values: Any) -> None:
        """Send one report."""
        self._reports.write(json.dumps(values) + "\n")
        self._reports.flush()

    def end_with_parent(self, grace: float) -> None:
        """From now on, end when stdin does: SIGTERM, and an exit after `grace` seconds. Excludes `messages`."""
        threading.Thread(target=_end_with_stdin, args=(grace,), daemon=True).start()


def _end_with_stdin(grace: float) -> None:
    # Not through sys.stdin, whose lock would be held at the interpreter's end.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    os._exit(128 + signal.SIGTERM)
