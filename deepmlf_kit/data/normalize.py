"""Per-dimension normalisation of frames, fitted on the training split.

Where it stands: an optional step of the collator. eGeMAPS mixes 0.01 (jitter) with 3,000 (formant
frequencies in Hz), so that a linear layer without it sees little but formants. The three choices of
`normalize=` are

* `none`: frames as they are (the published MOSI and MOSEI presets),
* `train`: per dimension, minus the training split's mean, over its standard deviation, clipped to +-`limit`;
* `batchnorm`: frames as they are, and BatchNorm in the AV encoder (the published SIMS preset).

The statistics are stored beside a trained model, since it is blind without them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset

from deepmlf_kit.data.schema import modality_dims

CHOICES = ("none", "train", "batchnorm")


@dataclass(frozen=True)
class FrameStatistics:
    """Mean and standard deviation of one modality's dimensions over its valid frames.

    A dimension that never changes has deviation 0 and is mapped to 0.

    Attributes:
        mean, std: [d] float32.
        limit: normalised values are clipped to [-limit, limit], so that an outlier moves no state far.
    """

    mean: np.ndarray
    std: np.ndarray
    limit: float = 5.0

    def apply(self, frames: np.ndarray) -> np.ndarray:
        """[..., d] float32 -> the same shape, normalised. Missing frames are the caller's to mask."""
        scale = np.divide(1.0, self.std, out=np.zeros_like(self.std), where=self.std > 0)
        return np.clip((frames - self.mean) * scale, -self.limit, self.limit)


@dataclass(frozen=True)
class Normalizer:
    """Statistics of each modality by its name; `Collator(normalizer=...)` applies them to valid frames."""

    statistics: dict[str, FrameStatistics]

    @classmethod
    def fit(cls, split: Dataset, limit: float = 5.0) -> Normalizer:
        """Read `split` (the training split) once; memory does not grow with it."""
        running = {name: _Running(dim) for name, dim in modality_dims(split).items()}
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
            name: {"mean": part.mean.tolist(), "std": part.std.tolist(), "limit": part.limit}
            for name, part in self.statistics.items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Normalizer:
        """The inverse of `to_dict`."""
        return cls(
            {
                name: FrameStatistics(
                    np.asarray(part["mean"], np.float32),
                    np.asarray(part["std"], np.float32),
                    float(part["limit"]),
                )
                for name, part in values.items()
            }
        )


class _Running:
    """Sums over frames in float64; chunks are merged by their means (Chan et al.), so nothing cancels."""

    def __init__(self, dim: int) -> None:
        self.count, self.mean, self.squares = 0, np.zeros(dim), np.zeros(dim)

    def add(self, frames: np.ndarray) -> None:
        frames = np.asarray(frames, np.float64).reshape(-1, len(self.mean))
        frames = np.where(np.isfinite(frames), frames, 0.0)
        frames = frames[frames.any(axis=1)]
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
        return FrameStatistics(self.mean.astype(np.float32), std.astype(np.float32), limit)
