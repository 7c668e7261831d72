"""Plotly figures of the kit: each function takes what another part measured and returns a `go.Figure`."""

from importlib import import_module
from typing import Any

_PUBLIC: dict[str, str] = {}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    # On first use: plotly is imported only where something is drawn.
    if name in _PUBLIC:
        return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
