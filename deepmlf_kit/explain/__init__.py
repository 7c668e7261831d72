"""Measure what the fusion tokens do: what they attend to, what each branch adds, and what makes a difference.

`capture` reads a forward pass without changing it, `effects` takes parts of an utterance or of the model out and
sees how far the prediction moves, `integrated_gradients` shares a prediction out over words and frames. `Lens`
does each of them for a row of a dataset, in one call. `deepmlf_kit.plots` draws what is measured here.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "Attributions": "gradients",
    "AttentionVsEffect": "compare",
    "Capture": "capturing",
    "Effects": "causes",
    "Lens": "lens",
    "Reading": "reading",
    "Survey": "surveying",
    "attention_vs_effect": "compare",
    "capture": "capturing",
    "effects": "causes",
    "integrated_gradients": "gradients",
    "survey": "surveying",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    # On first use: `import deepmlf_kit.explain` must not wait for torch.
    if name in _PUBLIC:
        return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
