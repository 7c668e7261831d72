"""The model, part by part as in the paper's figure; `DeepMLFModel.forward` in `deepmlf.py` reads it in order."""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "AVEncoder": "av_encoder",
    "AVSentimentModel": "av_encoder",
    "DeepMLFConfig": "config",
    "DeepMLFModel": "deepmlf",
    "DeepMLFOutput": "deepmlf",
    "MMBlock": "mm_block",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    # On first use: a configuration alone must not wait for torch.
    if name in _PUBLIC:
        return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
