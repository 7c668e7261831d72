"""Folders of the kit that hold nothing but its own files: replaced as a whole, or emptied of what the kit wrote.

What the kit writes into a folder is known by patterns of relative paths, `train/data-*.arrow`; a pattern covers what lies
below a folder that it matches. Everything else is somebody's own: it is never removed. A symbolic link is never the kit's.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path

from ..errors import DeepMLFError
from .files import TEMPORARY, temporary_name
from .locks import sole_writer

Patterns = Collection[str]


def foreign(folder: Path, known: Patterns) -> list[str]:
    """Relative paths of what somebody else put into a folder; of a foreign folder its own path alone."""
    return [path for path, ours in _entries(folder, known) if not ours]


def refuse_foreign(folder: Path, known: Patterns) -> None:
    """Refuse to replace a folder that holds somebody's own files.

    Raises:
        DeepMLFError: there are any, or there is a file of that name.
    """
    if folder.exists() and not folder.is_dir():
        raise DeepMLFError(f"{folder} is a file, but a folder is to be written there: choose another name.")
    if others := foreign(folder, known):
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise DeepMLFError(
            f"{folder} holds {', '.join(others[:3])}{more}, which the kit did not write and will not remove: move that "
            "elsewhere, or choose another folder."
        )


def remove_known(folder: Path, known: Patterns) -> None:
    """Remove what the kit wrote into a folder, and the folders inside it that are empty then."""
    for path, ours in _entries(folder, known):
        if ours:
            whole = folder / path
            if whole.is_dir():
                shutil.rmtree(whole)
            else:
                whole.unlink(missing_ok=True)
    for parent in sorted({folder / pattern.rpartition("/")[0] for pattern in known} - {folder}, reverse=True):
        if not parent.is_symlink():
            with suppress(OSError):
                parent.rmdir()


def remove_temporary_files(folder: Path) -> None:
    """Remove the temporary files that a killed process left in a folder; hold the folder."""
    for left in folder.glob(f"{TEMPORARY}{'[0-9a-f]' * 24}*"):
        left.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path, known: Patterns) -> Iterator[Path]:
    """A new folder beside `path`, which takes its place when the block ends without an error.

    A kill leaves the old folder or the new one, whole. A symbolic link is followed.

    Args:
        path: of the folder, which may exist.
        known: patterns of what the kit writes there.

    Raises:
        DeepMLFError: `path` holds something else.
    """
    target = Path(os.path.realpath(path))
    refuse_foreign(target, known)
    with working_folder(target) as fresh:
        yield fresh
        refuse_foreign(target, known)
        if target.is_dir() and any(target.iterdir()):
            _exchange(fresh, target)  # the old folder now has the temporary name
        else:
            with suppress(FileNotFoundError):
                target.rmdir()
            os.replace(fresh, target)


@contextmanager
def working_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` for work in progress, removed when the block ends."""
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    made = target.with_name(f"{_prefix(target)}{temporary_name('')[len(TEMPORARY) :]}")
    made.mkdir()
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def sole_writer_of(path: Path) -> Iterator[None]:
    """Hold a folder that is replaced as a whole; what a killed process left beside it is removed.

    Raises:
        DeepMLFError: another process holds it.
    """
    target = Path(os.path.realpath(path))
    prefix = _prefix(target)
    with sole_writer(path, target.with_name(f"{prefix.removesuffix('-')}.lock")) as first:
        if first:
            for left in target.parent.glob(f"{prefix}*"):
                if left.is_dir() and not left.is_symlink():
                    shutil.rmtree(left, ignore_errors=True)
        yield


def _prefix(target: Path) -> str:
    """Of the temporary names that belong to one target, however long its name."""
    return f"{TEMPORARY}{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]}-"


def _entries(folder: Path, known: Patterns) -> Iterator[tuple[str, bool]]:
    """Relative paths in a folder with whether the kit wrote them; folders that hold known files are looked into."""
    patterns = [pattern.split("/") for pattern in known]

    def look(inside: Path, parts: list[str]) -> Iterator[tuple[str, bool]]:
        for path in sorted(inside.iterdir()):
            if path.name.startswith(TEMPORARY):  # of a killed process, or a lock
                continue
            here = [*parts, path.name]
            matching = [p for p in patterns if all(map(fnmatchcase, here, p))]  # up to the shorter of the two
            if path.is_symlink() or not matching:
                yield "/".join(here), False
            elif any(len(p) == len(here) for p in matching):
                yield "/".join(here), True
            elif path.is_dir():
                yield from look(path, here)
            else:
                yield "/".join(here), False

    if folder.is_dir():
        yield from look(folder, [])


def _exchange(one: Path, other: Path) -> None:
    """Swap two folders: at once where the system can (Linux), else by way of a third name."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if renameat2 is not None and not renameat2(here, os.fsencode(one), here, os.fsencode(other), swap):
        return
    aside = one.with_name(f"{one.name}-old")
    os.replace(other, aside)
    try:
        os.replace(one, other)
    except BaseException:
        os.replace(aside, other)
        raise
    os.replace(aside, one)
