"""Packages that are imported on first use: those that an installation may lack, missed by the name of the extra that brings them.

The one way to a package of an extra: `av = optional("av")` at module level, in place of `import av`. So is a package of the core
taken that is slow to import and that a prediction does without (`pandas`, `datasets`).
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from ..errors import DeepMLFError

EXTRAS: dict[str, tuple[str, ...]] = {
    "features": ("av", "opensmile", "mediapipe", "librosa", "soxr", "faster_whisper", "ctranslate2"),
    "app": ("gradio", "starlette", "PIL"),
    "notebooks": ("anywidget", "ipywidgets", "traitlets", "IPython", "captum", "tensorboard"),
    "sweep": ("optuna",),
    "quantized": ("bitsandbytes",),
    "gguf": ("gguf",),
}
"""The extras of pyproject.toml, each with the modules that the kit imports of it."""

_PURPOSES = {
    "features": "to read clips",
    "app": "for the live demo",
    "notebooks": "for widgets, attributions and TensorBoard logs",
    "sweep": "for a sweep that searches",
    "quantized": "for a language model in 8 or 4 bit (else set lm.bits=16)",
    "gguf": "to open GGUF language models",
}


class MissingPackage(DeepMLFError):
    """A package of an extra is not installed; the message says how to install that extra."""


def optional(name: str) -> Any:
    """A module, imported when something is first taken from it.

    Raises:
        MissingPackage: then, where its package is of an extra that is not installed.
    """
    return _Optional(name)


def require(name: str) -> ModuleType:
    """Import a module of an extra now.

    Raises:
        MissingPackage: its package is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        package = (error.name or name).partition(".")[0]
        extra = next((extra for extra, names in EXTRAS.items() if package in names), None)
        if extra is None:
            raise
        raise MissingPackage(
            f"{package} is not installed, and is needed {_PURPOSES[extra]}: pip install 'deepmlf-kit[{extra}]'"
        ) from error


def installed(name: str) -> bool:
    """Whether a package of an extra is there; nothing is imported."""
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


class _Optional(ModuleType):
    """Stands for a module that is imported when it is first asked for something."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__version__":  # inspection
            raise AttributeError(name)
        return getattr(require(self.__name__), name)
