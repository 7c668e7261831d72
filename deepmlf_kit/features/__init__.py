"""From a clip (a video or audio file) to the features a model reads; the first stage of the pipeline.

`extract_clip(path, FeatureRecipe())` is the one call; `data.prepare_folder` runs it over a folder of clips. The
names are imported on first use, because MediaPipe, openSMILE and faster-whisper take seconds to import.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "ClipError": "media",
    "ClipFeatures": "clip",
    "FaceModelMissing": "face_model",
    "FeatureCache": "cache",
    "FeatureRecipe": "recipe",
    "MediaInfo": "media",
    "RecipeError": "recipe",
    "SpeechModelMissing": "transcript",
    "extract_clip": "clip",
    "feature_names": "recipe",
    "probe": "media",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
