"""The live demo: webcam or clip in, sentiment and its reasons out (`deepmlf app`, `apps/demo.py`, notebook 06).

from deepmlf_kit.app import launch
launch()                             # the bundled checkpoint, at http://127.0.0.1:7860
launch("runs/demo/fused", inline=True, block=False)   # in a notebook
"""

from importlib import import_module
from typing import Any

_PUBLIC = {"RunningApp": "server", "Settings": "settings", "launch": "server"}

__all__ = ["RunningApp", "Settings", "launch"]


def __getattr__(name: str) -> Any:
    # On first use: gradio takes seconds to import.
    if name in _PUBLIC:
        return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
