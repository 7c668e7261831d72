"""Training: AV pretraining and fused training through a thin `transformers.Trainer`, and the folder of a run.

av = pretrain_av("sample", dataset, "runs/av")
run = train("sample", dataset, "runs/first", av_encoder=av)
run.metrics
"""

from importlib import import_module
from typing import Any

_PUBLIC = {"Recipe": "recipe", "Run": "run_folder", "pretrain_av": "av_pretraining", "train": "fused"}

__all__ = ["Recipe", "Run", "pretrain_av", "train"]


def __getattr__(name: str) -> Any:
    # On first use: presets need only the recipe, and must not wait for torch.
    if name in _PUBLIC:
        return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
