"""DeepMLF kit: multimodal sentiment analysis with fusion tokens in a frozen language model.

The names below are the public ones. They are imported on first use, so that `import deepmlf_kit` stays
fast and a machine without, say, MediaPipe can still train.
"""

import logging
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Where bitsandbytes is installed, peft imports it, and on CPU it tells of a kernel it lacks and, at every step, of a
# cast: nothing to act on.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

_PUBLIC = {
    "DeepMLFConfig": "model.config",
    "DeepMLFModel": "model.deepmlf",
    "DeepMLFOutput": "model.deepmlf",
    "Prediction": "predict.predictor",
    "Predictor": "predict.predictor",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
