"""Widgets: play with a trained model in a notebook."""

from importlib import import_module
from typing import Any

_PUBLIC = {"Explorer": "explorer"}

__all__ = ["Explorer"]


def __getattr__(name: str) -> Any:
    # On first use: ipywidgets and torch are imported only where a widget is shown.
    if name in _PUBLIC:
        return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
