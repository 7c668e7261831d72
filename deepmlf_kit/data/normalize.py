"""Per-dimension normalisation of frames, fitted on the training split.

Where it stands: an optional step of the collator. eGeMAPS mixes 0.01 (jitter) with 3,000 (formant
frequencies in Hz), so that a linear layer without it sees little but formants. The choices: three of
`normalize=`, and one of the model,

* `none`: frames as they are (the published MOSI and MOSEI presets),
* `train`: per dimension, minus the training split's mean, over its standard deviation, clipped to +-`limit`;
* `clip`: as `train`, but each audio descriptor is first taken relative to its median over the clip's voiced frames,
  so that a deep voice or a loud microphone is no emotion (`relative_to_clip`). Dividing by the clip's own spread as
  well was tried and loses what little a voice tells (RAVDESS, actors left out: r 0.28 with it, 0.44 without);
* `batchnorm`: frames as they are, and BatchNorm in the AV encoder (the published SIMS preset).

The statistics are stored beside a trained model, since it is blind without them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..features import audio_egemaps, audio_mfcc
from .schema import DatasetError, modality_dims, recipe_of

if TYPE_CHECKING:
    from datasets import Dataset

CHOICES = ("none", "train", "clip", "batchnorm")
_NO_PITCH_DB = -200.0  # openSMILE's level of a harmonic where there is no pitch is -201


@dataclass(frozen=True)
class ClipReference:
    """Takes one clip's frames relative to the clip's own voice.

    Attributes:
        pitch: column that is 0 in unvoiced frames; None: the median is over all valid frames.
        levels: columns that grow with the microphone's gain, 0 in silence.
    """

    pitch: int | None = None
    levels: tuple[int, ...] = ()

    @classmethod
    def of(cls, recipe: Mapping[str, Any]) -> ClipReference:
        """That of a feature recipe's audio extractor."""
        return {
            "egemaps": cls(audio_egemaps.F0, audio_egemaps.LEVELS),
            "mfcc": cls(audio_mfcc.F0),
        }.get(recipe.get("audio", ""), cls())

    def apply(self, frames: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Each descriptor minus its median over voiced frames; levels as the logarithm of their ratio to it.

        Where a frame has no pitch, what is measured on the pitch alone (jitter, harmonics, ...) has no value: eGeMAPS
        writes one constant there, 0 or its floor of -201 dB. Such values become 0, that is, the clip's own median.

        Args:
            frames: [n, d] of one clip.
            valid: [n] bool; missing frames stay as they are.

        Returns:
            [n, d] float32.
        """
        voiced = valid & (frames[:, self.pitch] > 0) if self.pitch is not None else valid
        chosen = frames[voiced] if voiced.any() else frames[valid]
        if not len(chosen):
            return frames
        median = np.median(chosen, axis=0)
        moved = frames - median
        for level in self.levels:
            floor = 0.05 * median[level] + 1e-6
            moved[:, level] = np.log((np.maximum(frames[:, level], 0) + floor) / (median[level] + floor))
        if self.pitch is not None:
            unvoiced = valid & ~voiced
            without = (frames[unvoiced] == 0) | (frames[unvoiced] <= _NO_PITCH_DB)
            without[:, list(self.levels)] = False
            moved[unvoiced] = np.where(without, 0.0, moved[unvoiced])
        moved[~valid] = frames[~valid]
        return moved.astype(np.float32)


@dataclass(frozen=True)
class FrameStatistics:
    """Mean and standard deviation of one modality's dimensions over its valid frames.

    A dimension that never changes has deviation 0 and is mapped to 0.

    Attributes:
        mean, std: [d] float32.
        limit: normalised values are clipped to [-limit, limit], so that an outlier moves no state far.
        reference: a clip's frames are first taken relative to the clip; None: they are not.
    """

    mean: np.ndarray
    std: np.ndarray
    limit: float = 5.0
    reference: ClipReference | None = None

    def prepare(self, frames: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """One clip's frames [n, d] before they are averaged and padded: relative to the clip where that is asked for."""
        return self.reference.apply(frames, valid) if self.reference else frames

    def apply(self, frames: np.ndarray) -> np.ndarray:
        """[..., d] float32 -> the same shape, normalised. Missing frames are the caller's to mask."""
        scale = np.divide(1.0, self.std, out=np.zeros_like(self.std), where=self.std > 0)
        return np.clip((frames - self.mean) * scale, -self.limit, self.limit)


@dataclass(frozen=True)
class Normalizer:
    """Statistics of each modality by its name; `Collator(normalizer=...)` applies them to valid frames."""

    statistics: dict[str, FrameStatistics]

    @classmethod
    def fit(cls, split: Dataset, limit: float = 5.0, *, relative_audio: bool = False) -> Normalizer:
        """Read `split` (the training split) once; memory does not grow with it.

        Args:
            split: rows of the schema.
            limit: of the normalised values.
            relative_audio: audio is taken relative to each clip's own median (`normalize=clip`).
        """
        own_voice = ClipReference.of(recipe_of(split)) if relative_audio else None
        running = {
            name: _Running(dim, own_voice if name == "audio" else None)
            for name, dim in modality_dims(split).items()
        }
        frames = split.with_format("numpy", columns=list(running))
        for start in range(0, len(frames), 32):
            batch = frames[start : start + 32]
            for name, sums in running.items():
                for array in batch[name]:
                    sums.add(array)
        return cls({name: sums.statistics(limit) for name, sums in running.items()})

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for JSON."""
        return {
            name: {**asdict(part), "mean": part.mean.tolist(), "std": part.std.tolist()}
            for name, part in self.statistics.items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], dims: Mapping[str, int] | None = None) -> Normalizer:
        """The inverse of `to_dict`.

        Args:
            values: as `to_dict` gives them.
            dims: features a frame of each modality; None: not compared.

        Raises:
            DatasetError: the values have another shape.
        """
        try:
            made = cls({name: _statistics(**part) for name, part in values.items()})
            fits = dims is None or all(
                part.mean.shape == part.std.shape == (dims[name],) for name, part in made.statistics.items()
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            fits = False
        if not fits:
            raise DatasetError(
                f"normalizer does not hold mean, std and limit of {dims or 'each modality'} features a frame"
            )
        return made


def _statistics(
    mean: list[float], std: list[float], limit: float, reference: dict[str, Any] | None = None
) -> FrameStatistics:
    own = ClipReference(reference["pitch"], tuple(reference["levels"])) if reference else None
    return FrameStatistics(np.asarray(mean, np.float32), np.asarray(std, np.float32), float(limit), own)


class _Running:
    """Sums over frames in float64; chunks are merged by their means (Chan et al.), so nothing cancels."""

    def __init__(self, dim: int, reference: ClipReference | None) -> None:
        self.count, self.mean, self.squares = 0, np.zeros(dim), np.zeros(dim)
        self.reference = reference

    def add(self, frames: np.ndarray) -> None:
        frames = np.asarray(frames, np.float64).reshape(-1, len(self.mean))
        frames = np.where(np.isfinite(frames), frames, 0.0)
        valid = frames.any(axis=1)
        if self.reference is not None:
            frames = self.reference.apply(frames, valid).astype(np.float64)
        frames = frames[valid]
        if not len(frames):
            return
        mean, total = frames.mean(0), self.count + len(frames)
        delta = mean - self.mean
        self.squares += ((frames - mean) ** 2).sum(0) + delta**2 * self.count * len(frames) / total
        self.mean += delta * len(frames) / total
        self.count = total

    def statistics(self, limit: float) -> FrameStatistics:
        std = np.sqrt(self.squares / max(self.count, 1))
        std[std < 1e-7 * (1 + np.abs(self.mean))] = 0.0  # constant but for rounding
        return FrameStatistics(self.mean.astype(np.float32), std.astype(np.float32), limit, self.reference)
