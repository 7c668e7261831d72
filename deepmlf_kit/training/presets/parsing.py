"""From plain containers to the tree of settings: every key and value is checked against the tree's dataclasses.

A misspelt key that is silently ignored costs somebody a week; so unknown keys are errors that suggest the key that was
probably meant, and values are checked against the type of the setting.
"""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from ...errors import DeepMLFError, excerpt

Tree = TypeVar("Tree")

#: What other programs call a setting.
_OTHER_NAMES = {
    "lr": "learning_rate",
    "min_lr": "min_learning_rate",
    "wd": "weight_decay",
    "patience": "early_stop",
    "warmup": "warmup_epochs",
    "grad_clip": "clip_value",
    "max_grad_norm": "clip_value",
    "gradient_accumulation_steps": "accumulation",
    "per_device_train_batch_size": "batch_size",
    "num_epochs": "epochs",
    "max_length": "max_text_tokens",
}


def build(cls: type[Tree], tree: Any, where: str = "") -> Tree:
    """Make dataclass `cls` (and those inside it) from plain containers.

    Args:
        where: dotted key of the section, for messages.

    Raises:
        DeepMLFError: a key that does not exist (the message suggests the right one), a value of the wrong type or out of
            bounds.
    """
    if not isinstance(tree, dict):
        raise DeepMLFError(f"Setting {where!r} is {tree!r}, but is a section: give it keys of its own.")
    hints = get_type_hints(cls)
    names = [f.name for f in fields(cls)]
    arguments = {}
    for key, value in tree.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in names:
            raise DeepMLFError(unknown(path, [f"{where}.{n}" if where else n for n in names], "setting"))
        kind = hints[key]
        arguments[key] = build(kind, value, path) if is_dataclass(kind) else _convert(value, kind, path)
    try:
        return cls(**arguments)
    except DeepMLFError as error:
        raise DeepMLFError(f"{where}: {error}" if where else str(error)) from None


def override(settings: Tree, tree: dict[str, Any], overrides: Sequence[str] | dict[str, Any]) -> Tree:
    """A copy of a dataclass of settings with some keys changed.

    Args:
        settings: the dataclass.
        tree: the same as plain containers; changed in place.
        overrides: as on the command line, `["fusion.tokens=12"]`, or as a dict `{"fusion.tokens": 12}`.

    Raises:
        DeepMLFError: as `build`.
    """
    known = _all_keys(settings)
    for key, value in _pairs(overrides):
        if key not in known:
            if inside := [k for k in known if k.startswith(f"{key}.")]:
                raise DeepMLFError(f"Setting {key!r} is a whole section: set one of {', '.join(inside)}.")
            raise DeepMLFError(unknown(key, known, "setting"))
        section, _, name = key.rpartition(".")
        (tree[section] if section else tree)[name] = value
    return build(type(settings), tree)


def yaml_mapping(text: str, what: str) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Args:
        text: of the file.
        what: names the file in messages.

    Raises:
        DeepMLFError: it is not YAML, or not a mapping, or more than settings are.
    """
    if len(text) > _LONGEST_YAML:
        raise DeepMLFError(f"The {what} has {len(text):,} characters, but settings take a few thousand.")
    try:
        tree = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DeepMLFError(f"The {what} is not valid YAML: {excerpt(str(error), 200)}") from error
    if not isinstance(tree, dict):
        raise DeepMLFError(f"The {what} holds {type(tree).__name__}, but must hold keys and values.")
    _count(tree, what)
    return tree


def settings_text(path: Path, what: str) -> str:
    """The text of a YAML file.

    Raises:
        DeepMLFError: it cannot be read, or is no text in UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DeepMLFError(f"The {what} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DeepMLFError(f"The {what} is no text in UTF-8: save it as such.") from error


_LONGEST_YAML = 100_000
_MOST_VALUES = 20_000
_DEEPEST = 30


def _count(value: Any, what: str, depth: int = 0, seen: int = 0) -> int:
    """How many values a tree holds, each alias (`*name`) as often as it stands there: few lines can hold billions."""
    seen += 1
    if seen > _MOST_VALUES or depth > _DEEPEST:
        raise DeepMLFError(f"The {what} holds more values, by aliases, than settings are: write them out.")
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            seen = _count(item, what, depth + 1, seen)
    return seen


def unknown(given: str, known: list[str], what: str) -> str:
    """Say that `given` is unknown and which of `known` was probably meant."""
    section, _, last = given.rpartition(".")
    last = _OTHER_NAMES.get(last, last)
    in_section = [k for k in known if section and k.startswith(f"{section}.")]
    close = [k for k in [*in_section, *known] if k.split(".")[-1] == last]  # the right key in a wrong section
    close = close or difflib.get_close_matches(
        f"{section}.{last}" if section else last, known, n=1, cutoff=0.7
    )
    if not close:  # nearly the right key, in whatever section
        leaves = difflib.get_close_matches(last, [k.split(".")[-1] for k in known], n=1, cutoff=0.75)
        close = [k for k in known if leaves and k.split(".")[-1] == leaves[0]]
    if close:
        return f"There is no {what} {given!r}: did you mean {close[0]!r}?"
    shown = in_section or known
    listed = ", ".join(shown[:20]) + (", ..." if len(shown) > 20 else "")
    return f"There is no {what} {given!r}; there are {listed}."


def _pairs(overrides: Sequence[str] | dict[str, Any]) -> Iterator[tuple[str, Any]]:
    if isinstance(overrides, dict):
        yield from overrides.items()
        return
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise DeepMLFError(
                f"{item!r} sets nothing: write a key and a value, for example fusion.tokens=12."
            )
        try:
            yield key.strip(), yaml_mapping(f"value: {text}", "value")["value"]
        except DeepMLFError as error:
            raise DeepMLFError(
                f"The value in {excerpt(item)!r} cannot be read; quote it if it is text."
            ) from error


def _convert(value: Any, kind: Any, path: str) -> Any:
    """`value` as `kind`, or an error; whole numbers count as floats and `1e-4`, which YAML takes for text, too."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return _convert(value, next(k for k in get_args(kind) if k is not type(None)), path)
    if origin in (list, tuple):
        item = get_args(kind)[0]
        if isinstance(value, str):
            value = value.replace(",", " ").split()
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            value = [value]
        if isinstance(value, (list, tuple)):
            return origin(_convert(v, item, path) for v in value)
    elif origin is dict:
        if isinstance(value, dict):
            return {str(k): _convert(v, get_args(kind)[1], f"{path}.{k}") for k, v in value.items()}
    elif kind is bool:
        if isinstance(value, bool):
            return value
    elif kind is int:
        if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,300}", value.strip()):
            return int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, float) and value.is_integer():
            return int(value)
    elif kind is float:
        if not isinstance(value, bool):
            try:
                return float(value)
            except (TypeError, ValueError, OverflowError):
                pass
    elif kind is str and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    raise DeepMLFError(f"Setting {path!r} is {value!r:.200}, but must be {_kind_name(kind)}.")


def _kind_name(kind: Any) -> str:
    if get_origin(kind) in (list, tuple):
        return f"a list of {_kind_name(get_args(kind)[0]).split(' ', 1)[1]}s, for example [3, 5, 7]"
    if get_origin(kind) is dict:
        return "names with their values, for example {name: 4}"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[kind]


def _all_keys(section: Any, prefix: str = "") -> list[str]:
    """Dotted keys of all settings in a section and the sections within it."""
    keys = []
    for each in fields(section):
        value, path = getattr(section, each.name), f"{prefix}{each.name}"
        keys += _all_keys(value, f"{path}.") if is_dataclass(value) else [path]
    return keys
