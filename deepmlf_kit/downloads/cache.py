"""The cache folder: downloads, cached features, cached text states."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path


def cache_folder() -> Path:
    """Folder of downloads and cached features: the environment variable DEEPMLF_CACHE, else ~/.cache/deepmlf_kit."""
    return Path(os.environ.get("DEEPMLF_CACHE") or Path.home() / ".cache" / "deepmlf_kit").expanduser()


def checksum(path: str | Path) -> str:
    """SHA-256 of a file, memoised while its size and modification time stay the same."""
    stat = Path(path).stat()
    return _checksum(str(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=16)
def _checksum(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
