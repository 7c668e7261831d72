"""Read presets: YAML, on top of a base preset, to the tree of settings."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from ...errors import DeepMLFError
from .parsing import build, settings_text, unknown, yaml_mapping
from .tree import Preset


def available_presets() -> list[str]:
    """Names of the presets in the package, the published ones first."""
    order = ["mosi", "mosei-base", "mosei-large", "sims", "sample"]
    found = {path.name.removesuffix(".yaml") for path in _folder().iterdir() if path.name.endswith(".yaml")}
    return [name for name in order if name in found] + sorted(found - set(order))


def load_preset(
    preset: str | Path | Preset = "sample", overrides: Sequence[str] | dict[str, Any] = ()
) -> Preset:
    """Load a preset and change some of its keys.

    Args:
        preset: a name out of `available_presets()`, a YAML file, or a preset that is loaded already; the file may
            name a preset under `base:` and then holds only what differs from it.
        overrides: changes as on the command line, `["fusion.tokens=12"]`, or as a dict `{"fusion.tokens": 12}`.

    Raises:
        DeepMLFError: no such preset, a key that does not exist (the message suggests the right one), a value of
            the wrong type or out of bounds.
    """
    loaded = preset if isinstance(preset, Preset) else build(Preset, _read(str(preset)))
    return loaded.with_overrides(overrides) if overrides else loaded


def preset_of(tree: dict[str, Any]) -> Preset:
    """A preset from plain containers, as `Preset.to_dict` gives them; checked like a file."""
    return build(Preset, tree)


def preset_text(name: str) -> str:
    """The YAML of a preset, comments and all."""
    if name not in available_presets():
        raise DeepMLFError(unknown(name, available_presets(), "preset"))
    return (_folder() / f"{name}.yaml").read_text(encoding="utf-8")


def _folder() -> Any:
    return resources.files(__package__)


def _read(name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """The plain tree of a preset, on top of its base's."""
    if name in seen:
        raise DeepMLFError(
            f"Preset {name!r} is its own base ({' -> '.join([*seen, name])}): remove one `base:`."
        )
    if name in available_presets():
        text, where = preset_text(name), f"preset {name!r}"
    elif Path(name).is_file():
        where = f"preset file {name}"
        text = settings_text(Path(name), where)
    else:
        raise DeepMLFError(unknown(name, available_presets(), "preset") + " A path to a YAML file works too.")
    tree = yaml_mapping(text, where)
    base = tree.pop("base", None)
    return _merge(_read(str(base), (*seen, name)), tree) if base else tree


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged
