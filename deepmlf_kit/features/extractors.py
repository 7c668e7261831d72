"""The extractors of a recipe: sound -> audio features, frames -> vision features."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .. import features as lazy_features  # `hf_encoders` needs torch: it is imported where an encoder is used
from ..storage.optional import optional, require
from . import audio_mfcc
from .audio_egemaps import F0, egemaps
from .faces import FaceReading, Loudness, read_faces
from .media import Frame, Sound
from .recipe import FeatureRecipe
from .voicing import voiced_share

soxr = optional("soxr")

Features = tuple[np.ndarray, np.ndarray, float | None]
"""Features [L, d], times [L] in seconds, share of voiced frames or of frames with a face (None: unknown)."""


def extract_audio(
    sound: Sound, recipe: FeatureRecipe, progress: Callable[[float], None] | None = None
) -> Features:
    """Features of mono sound at 16 kHz by `recipe.audio`, and the share of frames with a voiced pitch."""
    if recipe.audio == "egemaps":
        features, times = egemaps(sound.samples, sound.start)
        return features, times, _share(features[:, F0])
    if recipe.audio == "mfcc":
        samples = resampled(sound, audio_mfcc.RATE)
        features, times = audio_mfcc.mfcc(samples, sound.start)
        return features, times, _share(features[:, audio_mfcc.F0])
    features, times = lazy_features.encode_audio(
        sound.samples,
        recipe.audio.removeprefix("hf:").strip(),
        layer=recipe.audio_layer,
        start=sound.start,
        progress=progress,
        **_machine(recipe),
    )
    return features, times, voiced_share(sound.samples, sound.rate)


def extract_vision(
    frames: Callable[[], Iterable[Frame]],
    recipe: FeatureRecipe,
    face_model: Path | None,
    loudness: Loudness | None = None,
) -> tuple[Features, int]:
    """Features of a clip's frames by `recipe.vision` with the share of frames with a face, and how many faces there are.

    Args:
        frames: called once for each pass over the clip: a face is chosen before an encoder reads it.
        loudness: see `faces.read_faces`.
    """
    reading: FaceReading | None = None
    if recipe.vision == "blendshapes" or recipe.face_crop:
        assert face_model is not None
        reading = read_faces(frames(), face_model, recipe.face, loudness)
        if recipe.vision == "blendshapes":
            return (reading.features, reading.times, _share(reading.features)), reading.faces
    features, times = lazy_features.encode_frames(
        frames(),
        recipe.vision.removeprefix("hf:").strip(),
        layer=recipe.vision_layer,
        landmarks=reading.landmarks if reading is not None else None,
        **_machine(recipe),
    )
    if reading is None:
        return (features, times, None), 0
    return (features, times, _share(features)), reading.faces


def load_extractors(recipe: FeatureRecipe) -> None:
    """Load (or download) what a recipe names; the first clip then takes no longer than the others."""
    if recipe.audio in ("egemaps", "mfcc"):
        extract_audio(Sound(np.zeros(4000, np.float32), 16000), recipe)
    if recipe.vision == "blendshapes" or recipe.face_crop:
        require("mediapipe.tasks.python.vision")
    for kind, choice in (("audio", recipe.audio), ("vision", recipe.vision)):
        if choice.startswith("hf:"):
            lazy_features.load_encoder(kind, choice.removeprefix("hf:").strip(), recipe.device, recipe.half)


def resampled(sound: Sound, rate: int) -> np.ndarray:
    """The samples at another rate, [N * rate / sound.rate] float32."""
    return soxr.resample(sound.samples, sound.rate, rate).astype(np.float32)


def _machine(recipe: FeatureRecipe) -> dict[str, Any]:
    """Where and how an encoder runs."""
    return {name: getattr(recipe, name) for name in ("device", "half", "batch_size")}


def _share(values: np.ndarray) -> float:
    """Share of frames [L] or [L, d] that are not zero."""
    return round(float(np.mean(values.reshape(len(values), -1).any(axis=1))), 4) if len(values) else 0.0
