"""Lock files, by which several processes coordinate: who writes a folder, who trains a trial.

The operating system releases a lock when its process ends, however it ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import DeepMLFError


@contextmanager
def held(path: Path, wait: bool) -> Iterator[bool]:
    """Hold a lock file; yields False where another process holds it and `wait` is false."""
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


@contextmanager
def sole_writer(folder: Path, lock: Path) -> Iterator[bool]:
    """Hold an output folder for as long as this process writes to it; yields False where it held it already.

    Args:
        folder: for the message.
        lock: its lock file, removed at the end. This thread may hold it already.

    Raises:
        DeepMLFError: another process holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    file = FileLock(lock, is_singleton=True)  # one object for a path: a writer may call another
    try:
        file.acquire(timeout=0)
    except Timeout as error:
        raise DeepMLFError(
            f"{folder} is being written by another process: wait until it has ended, or choose another folder."
        ) from error
    try:
        yield file.lock_counter == 1
    finally:
        if file.lock_counter == 1:
            with suppress(OSError):
                lock.unlink()
        file.release()
