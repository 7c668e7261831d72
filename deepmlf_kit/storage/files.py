"""Files written atomically, and JSON files read with their shape checked.

A file is written under a temporary name beside its target and then takes its place, so that a kill leaves the old file or
the new one. Temporary names are unique and begin with `.deepmlf-`; nothing else is ever overwritten on the way.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import DeepMLFError

TEMPORARY = ".deepmlf-"
"""How every temporary name and lock file of the kit begins."""

_LARGEST_JSON = 100_000_000  # bytes; the kit's own files are far below


def temporary_name(ending: str) -> str:
    """A name that no other file has: 33 characters and the ending, however long the target's own name is."""
    return f"{TEMPORARY}{secrets.token_hex(12)}{ending}"


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside a file, which takes the file's place when the block ends without an error.

    A symbolic link is followed; what is no regular file (a pipe, /dev/stdout) is written to as it is.

    Raises:
        DeepMLFError: `path` is a folder.
        OSError: it cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise DeepMLFError(f"{path} is a folder, but a file is to be written there: name a file.")
    if path.exists() and not path.is_file():
        yield path
        return
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(temporary_name(target.suffix[:16]))
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file, atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path, repair: str) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        path: of the file.
        repair: what to do where it is damaged, for the message.

    Raises:
        FileNotFoundError: there is no such file.
        DeepMLFError: it holds no JSON object.
    """
    try:
        if (size := path.stat().st_size) > _LARGEST_JSON:
            raise DeepMLFError(f"{path} has {size} bytes, at most {_LARGEST_JSON} are expected: {repair}")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise DeepMLFError(f"{path} is damaged ({reason[:200]}), expected a JSON object: {repair}") from error
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise DeepMLFError(f"{path} cannot be read ({error.strerror or error}): {repair}") from error
    if not isinstance(value, dict):
        raise DeepMLFError(f"{path} holds a {type(value).__name__}, expected a JSON object: {repair}")
    return value


def misshapen(value: Any, shape: Any, where: str = "") -> str | None:
    """The first place at which a JSON value departs from a shape; None where it has it.

    Args:
        value: as `json.loads` gives it.
        shape: a type or a tuple of types (`float` takes whole numbers, too; `bool` is no number), or a mapping of names
            to shapes; a name that ends in `?` may be missing.
        where: dotted name of the value.
    """
    if isinstance(shape, Mapping):
        if not isinstance(value, dict):
            return f"{where or 'it'} is {_told(value)}, expected an object"
        for name, inside in shape.items():
            key = name.removesuffix("?")
            place = f"{where}.{key}" if where else key
            if key not in value:
                if not name.endswith("?"):
                    return f"{place} is missing"
            elif found := misshapen(value[key], inside, place):
                return found
        return None
    kinds = shape if isinstance(shape, tuple) else (shape,)
    taken = tuple({*kinds, *((int,) if float in kinds else ())})
    if isinstance(value, taken) and (bool in kinds or not isinstance(value, bool)):
        return None
    names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
    return f"{where} is {_told(value)}, expected {names}"


def _told(value: Any) -> str:
    return repr(value)[:80]
