"""Feature cache on disk: a second run or a second recipe computes only what is new.

An entry is keyed by a clip's content (not its name) and by the part of the recipe that determines it: audio, vision and
transcript are separate entries. Entries are written atomically; one that cannot be read is computed again. `trim` bounds
their size: the least recently used go first.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..downloads.cache import CacheError, cache_folder


def cache_limit() -> float:
    """Largest size of all cached features in bytes: DEEPMLF_CACHE_GB (10^9 bytes; `inf`: no limit), else 20 GB.

    Raises:
        CacheError: the variable holds something else than a number from 0 up.
    """
    given = os.environ.get("DEEPMLF_CACHE_GB", "").strip() or "20"
    try:
        limit = float(given)
    except ValueError:
        limit = -1.0
    if not limit >= 0:
        raise CacheError(
            f"cache: found DEEPMLF_CACHE_GB={given!r}, expected a number of gigabytes from 0 up, or inf for no limit."
        )
    return limit * 1e9


class FeatureCache:
    """Arrays and JSON metadata, cached by clip content and recipe part.

    Args:
        folder: of the entries; by default `features` under `cache_folder()`.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = Path(folder) if folder is not None else cache_folder() / "features"

    def load(self, clip: str, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Arrays and metadata of a clip (`clip_hash`) under a name, or None where there are none."""
        try:
            with np.load(self._path(clip, name), allow_pickle=False) as entry:
                arrays = {key: entry[key] for key in entry.files}
            self._touch(clip, name)
            metadata = json.loads(bytes(arrays.pop("notes")).decode())
        # Damaged by a full disk, a kill or a faulty copy, it raises whatever zip, NumPy's header and JSON have for that:
        # the answer is to compute again.
        except Exception:
            return None
        return (arrays, metadata) if isinstance(metadata, dict) else None

    def save(self, clip: str, name: str, arrays: dict[str, np.ndarray], metadata: dict[str, Any]) -> None:
        """Store arrays and metadata (JSON values).

        Raises:
            CacheError: the folder cannot be written to.
        """
        path = self._path(clip, name)
        text = np.frombuffer(json.dumps(metadata, ensure_ascii=False).encode(), np.uint8)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
                try:
                    np.savez(file, allow_pickle=False, notes=text, **arrays)
                except BaseException:
                    os.unlink(file.name)
                    raise
            os.replace(file.name, path)
        except OSError as error:
            raise CacheError(
                f"cache: cannot write to {path.parent} ({error.strerror or error}), expected a folder with space; "
                f"free some, or name another one in the environment variable DEEPMLF_CACHE."
            ) from error

    def is_writable(self) -> bool:
        """Whether entries can be stored."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                return True
        except OSError:
            return False

    def holds(self, clip: str, name: str) -> bool:
        """Whether there is an entry, by its table of contents; `load` reads all of it."""
        try:
            with np.load(self._path(clip, name), allow_pickle=False) as entry:
                return "notes" in entry.files
        except Exception:  # as in `load`
            return False

    def remove(self, clip: str, name: str) -> None:
        """Remove an entry, if there is one."""
        self._path(clip, name).unlink(missing_ok=True)

    def trim(self, limit: float | None = None) -> int:
        """Remove the least recently used entries until the rest is within the limit.

        To be called when a run is done, not between computing its features and reading them.

        Args:
            limit: bytes of all entries together; `cache_limit()` by default.

        Returns:
            How many entries were removed.
        """
        limit = cache_limit() if limit is None else limit
        entries = []
        for path in self.folder.glob("*/*/*.npz"):
            try:
                stat = path.stat()
            except OSError:
                continue  # another run's trimming was faster
            entries.append((stat.st_mtime_ns, stat.st_size, path))
        total, removed = sum(size for _, size, _ in entries), 0
        for _, size, path in sorted(entries, key=lambda entry: entry[0]):
            if total <= limit:
                break
            total -= size
            with suppress(OSError):
                path.unlink()
                removed += 1
                path.parent.rmdir()  # the last entry of its clip
        return removed

    def _touch(self, clip: str, name: str) -> None:
        with suppress(OSError):  # a cache that others own can be read all the same
            os.utime(self._path(clip, name))

    def _path(self, clip: str, name: str) -> Path:
        return self.folder / clip[:2] / clip / f"{name}.npz"


def clip_hash(path: str | Path) -> str:
    """Hash of a file's content, 32 hex digits; memoised while its size and modification time stay the same."""
    stat = Path(path).stat()
    return _clip_hash(str(path), stat.st_size, stat.st_mtime_ns)


def folder_hash(path: str | Path) -> str:
    """Hash of a model folder, 32 hex digits: the names and contents of its files, without its model card."""
    files = [file for file in sorted(Path(path).iterdir()) if file.is_file()]
    listed = [
        f"{file.name} {clip_hash(file)}"
        for file in files
        if not file.name.startswith(".") and file.suffix != ".md"
    ]
    return hashlib.blake2b("\n".join(listed).encode(), digest_size=16).hexdigest()


@lru_cache(maxsize=4096)
def _clip_hash(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
