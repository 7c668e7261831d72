"""The cache folder: downloads, cached features, cached text states."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

from ..errors import DeepMLFError


class CacheError(DeepMLFError):
    """The cache folder cannot be written to."""


def cache_folder() -> Path:
    """Folder of downloads and cached features: the environment variable DEEPMLF_CACHE, else ~/.cache/deepmlf_kit.

    Raises:
        CacheError: this user has no home.
    """
    try:
        return Path(os.environ.get("DEEPMLF_CACHE") or Path.home() / ".cache" / "deepmlf_kit").expanduser()
    except RuntimeError as error:
        raise CacheError(
            "cache: this user has no home folder; name a folder in the environment variable DEEPMLF_CACHE."
        ) from error


def checksum(path: str | Path) -> str:
    """SHA-256 of a file, memoised while its size and modification time stay the same."""
    stat = Path(path).stat()
    return _checksum(str(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=16)
def _checksum(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
