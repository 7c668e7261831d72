"""Locks in a sweep's folder, by which several processes share its trials."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..storage import locks
from ..training.processes import processes


@contextmanager
def held(path: Path, wait: bool) -> Iterator[bool]:
    """Hold a lock file; yields False where another process holds it and `wait` is false.

    Under `accelerate launch` with several processes, all of them train every trial together, without locks.
    """
    if processes().num_processes > 1:
        yield True
        return
    with locks.held(path, wait) as mine:
        yield mine
