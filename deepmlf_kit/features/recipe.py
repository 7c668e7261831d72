"""The feature recipe: one dataclass that every extraction step reads, and that is stored with the dataset.

Two datasets made with equal recipes have the same columns in the same units; a model trained on one takes the
other. Licences differ, so they are named where a user chooses (`AUDIO_CHOICES`, `VISION_CHOICES`).
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from ..errors import DeepMLFError
from . import audio_egemaps, audio_mfcc, vision_blendshapes

AUDIO_CHOICES = {
    "egemaps": "openSMILE eGeMAPSv02 low-level descriptors, 25 dims, 10 ms; openSMILE is free for research and private use only",
    "mfcc": "log F0, 20 MFCC, 12 CQT by librosa, 33 dims, 23 ms; the free choice (ISC licence)",
    "hf:<model>": "any Hugging Face audio encoder, frozen, e.g. hf:facebook/wav2vec2-large-960h; its own licence",
    "none": "the voice is left out",
}
"""What `FeatureRecipe.audio` takes, with what it gives and its licence."""

VISION_CHOICES = {
    "blendshapes": "MediaPipe Face Landmarker: 52 blendshapes, head rotation 3, translation 3; Apache-2.0",
    "hf:<model>": "any Hugging Face vision encoder, frozen, e.g. hf:openai/clip-vit-large-patch14; its own licence",
    "none": "the face is left out",
}
"""What `FeatureRecipe.vision` takes, with what it gives and its licence."""

FACE_CHOICES = {
    "largest": "the largest face",
    "central": "the face nearest to the middle of the picture",
    "speaking": "the face whose mouth moves most where it is loud",
}
"""What `FeatureRecipe.face` takes: which face is read where there are several."""

Part = Literal["audio", "vision", "transcript"]

# Raised when the code of a part changes what it computes, so that older cache entries are not used.
_VERSIONS: dict[str, int] = {"audio": 2, "vision": 2, "transcript": 3}
# Where and how the work is done: no part of what the features are.
_MACHINE_FIELDS = ("device", "half", "batch_size", "max_seconds", "transcribe")
# What else a dataset's `recipe` column holds.
_DATASET_FIELDS = ("label_scale",)


class RecipeError(DeepMLFError):
    """A feature recipe with an unknown or impossible value."""


@dataclass(frozen=True)
class FeatureRecipe:
    """What is extracted from a clip, and how.

    Args:
        audio, vision: extractors, see `AUDIO_CHOICES` and `VISION_CHOICES`.
        fps: frames per second at which video is sampled.
        max_side: frames larger than this many pixels are scaled down before face detection.
        audio_layer, vision_layer: for `hf:` encoders, whose hidden states to take: -1 the last layer, 0 the embeddings.
        face: which face is read where there are several, see `FACE_CHOICES`.
        face_crop: for `hf:` vision encoders, crop each frame to the face (needs the face model).
        transcribe: whether a clip without a given text is transcribed.
        speech_model: faster-whisper model: a size (`tiny`, `base.en`, `small`, ...), a Hugging Face name or a local
            folder; None: the environment variable DEEPMLF_SPEECH_MODEL, else `base`.
        language: spoken language, a code such as `en` or `zh`; None lets the speech model detect it.
        max_seconds: longest clip that is accepted.
        device, half, batch_size: for `hf:` encoders; `auto` takes the GPU where there is one, and half precision there
            only.

    Raises:
        RecipeError: a value is not allowed.
    """

    audio: str = "egemaps"
    vision: str = "blendshapes"
    fps: float = 10.0
    max_side: int = 960
    audio_layer: int = -1
    vision_layer: int = -1
    face: str = "largest"
    face_crop: bool = False
    transcribe: bool = True
    speech_model: str | None = None
    language: str | None = None
    max_seconds: float = 600.0
    device: str = "auto"
    half: bool | Literal["auto"] = "auto"
    batch_size: int = 16

    def __post_init__(self) -> None:
        _check_choice("audio", self.audio, AUDIO_CHOICES)
        _check_choice("vision", self.vision, VISION_CHOICES)
        _check_choice("face", self.face, FACE_CHOICES)
        _check_range("fps", self.fps, 0.1, 120)
        _check_range("max_side", self.max_side, 64, 8192)
        _check_range("max_seconds", self.max_seconds, 0.1, 24 * 3600)
        _check_range("batch_size", self.batch_size, 1, 4096)
        if self.half not in (True, False, "auto"):
            raise RecipeError(f"recipe: found half={self.half!r}, expected True, False or 'auto'.")
        if self.face_crop and not self.vision.startswith("hf:"):
            raise RecipeError(
                f"recipe: found face_crop with vision={self.vision!r}, expected an encoder (vision='hf:<model>'); "
                f"leave face_crop out."
            )

    def to_dict(self) -> dict[str, Any]:
        """All fields that determine the features, without where they were computed."""
        return {name: value for name, value in asdict(self).items() if name not in _MACHINE_FIELDS}

    def to_json(self) -> str:
        """`to_dict` as one line of JSON with sorted keys: the dataset's `recipe` column."""
        return json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FeatureRecipe:
        """A recipe from a mapping; a key that is no field is refused with the likely one.

        What only a dataset's recipe holds (`label_scale`) is ignored.
        """
        values = {key: value for key, value in values.items() if key not in _DATASET_FIELDS}
        if "source" in values:  # of a converted dataset
            raise RecipeError(
                f"they come from an {values['source']}, {values.get('file', 'of no name')}, which does not say how they were made"
            )
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise RecipeError(
                    f"recipe: found the key {key!r}, expected one of {', '.join(known)}.{_hint(key, known)}"
                )
        return cls(**values)

    @classmethod
    def from_json(cls, text: str) -> FeatureRecipe:
        """The recipe in a dataset's `recipe` column."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise RecipeError(f"recipe: found {text[:60]!r}, expected JSON ({error}).") from error
        if not isinstance(values, dict):
            raise RecipeError(f"recipe: found {text[:60]!r}, expected a JSON object.")
        return cls.from_dict(values)

    @classmethod
    def from_stored(cls, stored: str | Mapping[str, Any]) -> FeatureRecipe:
        """The recipe that a run notes: JSON as of its dataset, or an object."""
        return cls.from_dict(stored) if isinstance(stored, Mapping) else cls.from_json(stored)

    def key(self, part: Part, **more: str) -> str:
        """Cache key of a part: a hash, 16 hex digits, of all that determines its features.

        Args:
            part: of the recipe.
            more: what lies outside the recipe, such as the checksum of a face model of one's own.
        """
        audio: dict[str, Any] = {"audio": self.audio}
        vision: dict[str, Any] = {"vision": self.vision, "fps": self.fps, "max_side": self.max_side}
        if self.audio.startswith("hf:"):
            audio["audio_layer"] = self.audio_layer
        if self.vision.startswith("hf:"):
            vision |= {"vision_layer": self.vision_layer, "face_crop": self.face_crop}
        if self.vision == "blendshapes" or self.face_crop:
            vision["face"] = self.face
        speech: dict[str, Any] = {"speech_model": self.speech_model, "language": self.language}
        values = {"audio": audio, "vision": vision, "transcript": speech}[part]
        named = json.dumps({**values, **more, "part": part, "version": _VERSIONS[part]}, sort_keys=True)
        return hashlib.sha256(named.encode()).hexdigest()[:16]


def feature_names(recipe: FeatureRecipe) -> tuple[list[str] | None, list[str] | None]:
    """Names of the audio and the vision dims; None for an encoder, whose dims have no names."""
    audio = {"egemaps": audio_egemaps.AUDIO_NAMES, "mfcc": audio_mfcc.AUDIO_NAMES, "none": ()}.get(
        recipe.audio
    )
    vision = {"blendshapes": vision_blendshapes.VISION_NAMES, "none": ()}.get(recipe.vision)
    return (None if audio is None else list(audio)), (None if vision is None else list(vision))


def _check_choice(name: str, value: str, choices: dict[str, str]) -> None:
    if isinstance(value, str):
        encoder = value.removeprefix("hf:").strip() if value.startswith("hf:") else ""
        if "<" not in value and (value in choices or encoder):
            return
    allowed = "; ".join(f"{choice} ({about})" for choice, about in choices.items())
    raise RecipeError(f"recipe: found {name}={value!r}, expected one of: {allowed}.{_hint(value, choices)}")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise RecipeError(f"recipe: found {name}={value!r}, expected a number from {low} to {high}.")


def _hint(value: object, known) -> str:
    near = difflib.get_close_matches(str(value), [k for k in known if "<" not in k], n=1, cutoff=0.5)
    if near:
        return f" Did you mean {near[0]!r}?"
    return " Did you forget the 'hf:' before the model's name?" if "/" in str(value) else ""
