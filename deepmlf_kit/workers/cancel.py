"""Stop work that nobody waits for: a token goes with the work, whoever started it cancels."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import DeepMLFError


class Cancelled(DeepMLFError):
    """The work was stopped on request."""


class CancelToken:
    """Handed down with a piece of work; `cancel` may be called from any thread, any number of times."""

    def __init__(self) -> None:
        self._cancelled = False
        self._stops: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled

    def cancel(self) -> None:
        """Stop the work: what runs inside `stopping` now, and whatever comes to `check` later."""
        with self._lock:
            self._cancelled = True
            stops, self._stops = self._stops, []
        for stop in stops:
            stop()

    def check(self) -> None:
        """Go on, or end here.

        Raises:
            Cancelled: `cancel` was called.
        """
        if self._cancelled:
            raise Cancelled("Cancelled.")

    @contextmanager
    def stopping(self, stop: Callable[[], None]) -> Iterator[None]:
        """While inside, `cancel` calls `stop`; at the end as `check`, in place of what `stop` has made fail.

        Raises:
            Cancelled: `cancel` was called before or meanwhile.
        """
        with self._lock:
            self.check()
            self._stops.append(stop)
        try:
            yield
        except Exception:
            self.check()
            raise
        finally:
            with self._lock:
                if stop in self._stops:
                    self._stops.remove(stop)
        self.check()
