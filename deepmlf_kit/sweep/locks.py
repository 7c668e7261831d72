"""Lock files in a sweep's folder, by which several processes coordinate.

The operating system releases a lock when its process ends, however it ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..training.processes import processes


@contextmanager
def held(path: Path, wait: bool) -> Iterator[bool]:
    """Hold a lock file; yields False where another process holds it and `wait` is false.

    Under `accelerate launch` with several processes, all of them train every trial together, without locks.
    """
    if processes().num_processes > 1:
        yield True
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
