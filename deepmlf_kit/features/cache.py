"""Features kept on disk, so that a second run or a second recipe computes only what is new.

An entry belongs to a clip's content (not its name) and to the part of the recipe that decides it: audio, vision
and transcript are kept apart. Entries are written whole or not at all; one that cannot be read is made again.
`trim` bounds their size: those that were not used for longest go first.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DeepMLFError


class CacheError(DeepMLFError):
    """The cache folder cannot be written to."""


def cache_folder() -> Path:
    """Folder of downloads and kept features: the environment variable DEEPMLF_CACHE, else ~/.cache/deepmlf_kit."""
    return Path(os.environ.get("DEEPMLF_CACHE") or Path.home() / ".cache" / "deepmlf_kit").expanduser()


def cache_limit() -> float:
    """Largest size of all kept features in bytes: DEEPMLF_CACHE_GB (10^9 bytes; `inf`: no limit), else 20 GB.

    Raises
    ------
    CacheError
        The variable holds something else than a number from 0 up.
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
    """Arrays and their notes, kept by clip content and recipe part.

    Parameters
    ----------
    folder
        Where entries lie; `features` under `cache_folder()` where not given.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = Path(folder) if folder is not None else cache_folder() / "features"

    def load(self, clip: str, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Arrays and notes kept for a clip (`clip_hash`) under a name, or None where there are none."""
        try:
            with np.load(self._path(clip, name), allow_pickle=False) as entry:
                arrays = {key: entry[key] for key in entry.files}
            self._used(clip, name)
            return arrays, json.loads(bytes(arrays.pop("notes")).decode())
        except FileNotFoundError:
            return None
        # Damaged by a full disk, a kill or a faulty copy: whatever it is, the answer is to compute again.
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def save(self, clip: str, name: str, arrays: dict[str, np.ndarray], notes: dict[str, Any]) -> None:
        """Keep arrays and notes (what JSON can hold).

        Raises
        ------
        CacheError
            The folder cannot be written to.
        """
        path = self._path(clip, name)
        text = np.frombuffer(json.dumps(notes, ensure_ascii=False).encode(), np.uint8)
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

    def holds(self, clip: str, name: str) -> bool:
        """Whether there is an entry; `load` finds out whether it can be read."""
        return self._path(clip, name).is_file()

    def trim(self, limit: float | None = None) -> int:
        """Remove the entries that were not used for longest, until the rest is within the limit; how many went.

        To be called when a run is done, not between computing its features and reading them.

        Parameters
        ----------
        limit
            Bytes of all entries together; `cache_limit()` where not given.
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

    def _used(self, clip: str, name: str) -> None:
        with suppress(OSError):  # a cache that others own can be read all the same
            os.utime(self._path(clip, name))

    def _path(self, clip: str, name: str) -> Path:
        return self.folder / clip[:2] / clip / f"{name}.npz"


def clip_hash(path: str | Path) -> str:
    """32 hex digits of a file's content; remembered as long as its size and time stay the same."""
    stat = Path(path).stat()
    return _clip_hash(str(path), stat.st_size, stat.st_mtime_ns)


def folder_hash(path: str | Path) -> str:
    """32 hex digits of what a model's folder holds: the names and contents of its files, without its model card."""
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
