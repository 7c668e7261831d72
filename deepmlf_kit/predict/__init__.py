"""One clip or text -> a sentiment, what every head says and what was found in the clip."""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "BUNDLED": "predictor",
    "Prediction": "predictor",
    "Predictor": "predictor",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    # On first use: a configuration alone must not wait for torch.
    if name in _PUBLIC:
        return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
