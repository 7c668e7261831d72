"""Training: one driver for every registered model, on a thin `transformers.Trainer`, and the folder of a run.

av = train("sample", dataset, "runs/av", model="av")
run = train("sample", dataset, "runs/first", av_encoder=av)
run.metrics
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "Recipe": "recipe",
    "Run": "run_folder",
    "TrainableModel": "models",
    "register_model": "models",
    "train": "driver",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    # On first use: presets need only the recipe, and must not wait for torch.
    if name in _PUBLIC:
        return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
