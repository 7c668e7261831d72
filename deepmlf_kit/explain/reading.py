"""Reading: the captured forward pass of one utterance, with its words and times.

Where it stands: what `Lens.read` returns and what the plots of one utterance take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..data.clock import spans_of, step_times
from ..errors import DeepMLFError
from ..model.av_encoder import frames_of_steps
from .capturing import Capture, head_scores
from .words import Words


@dataclass
class Reading:
    """One utterance and its captured forward pass.

    Attributes:
        row: the dataset's row (`docs/layout.md`): text, frames, times, label.
        words: which token belongs to which word, and the words' times.
        seen: what was captured (B = 1).
        steps: the time of each AV step in seconds [K], or its number where times are unknown.
        timed: whether `steps` are seconds.
        classes: 0, or the model's number of classes.
    """

    row: Mapping[str, Any]
    words: Words
    seen: Capture
    steps: np.ndarray
    timed: bool
    classes: int = 0

    @property
    def id(self) -> str:
        return str(self.row.get("id", ""))

    @property
    def text(self) -> str:
        return str(self.row["text"])

    @property
    def label(self) -> float:
        """On the dataset's scale; NaN where unknown."""
        return float(self.row.get("label", np.nan))

    @property
    def sentiment(self) -> float:
        """The prediction."""
        return self.heads["task"]

    @property
    def heads(self) -> dict[str, float]:
        """Each head's prediction; `fusion` is the mean over fusion tokens."""
        scores = head_scores(self.seen.output, self.classes)
        return {name: float(score[0].mean()) for name, score in scores.items()}

    @property
    def fusion_layers(self) -> tuple[int, ...]:
        return self.seen.fusion_layers

    @property
    def time_axis(self) -> str:
        """Name of the axis that `steps` are on."""
        return "time (s)" if self.timed else "AV step"

    def frame_times(self, stream: str) -> np.ndarray:
        """Where each frame of `audio` or `vision` lies on the axis of `steps` [T]."""
        known = np.asarray(self.row.get(f"{stream}_times", ()), float)
        if self.timed and len(known) == len(self.row[stream]):
            return known
        middles = spans_of(self.row)[stream].mean(axis=1) * len(self.steps) - 0.5  # in steps, counted from 0
        if not self.timed:
            return middles
        begin, end = self.steps[0], self.steps[-1]
        return begin + middles * (end - begin) / max(len(self.steps) - 1, 1)

    def frames_of_steps(self, stream: str) -> np.ndarray:
        """Which frames of `audio` or `vision` each AV step averages [K, T], bool."""
        if not len(self.row[stream]):
            return np.zeros((len(self.steps), 0), bool)
        valid = torch.from_numpy(np.asarray(self.row[stream], np.float32).any(axis=1))
        spans = torch.from_numpy(spans_of(self.row)[stream])
        return frames_of_steps(spans.unsqueeze(0), valid.unsqueeze(0), len(self.steps))[0].bool().numpy()

    # What was captured, without the batch axis; an error where it was not ------------------------------------

    def get(self, name: str) -> np.ndarray:
        """A measure of `Capture` without its batch axis.

        Raises:
            DeepMLFError: it was not captured.
        """
        values = getattr(self.seen, name)
        if values is None:
            raise DeepMLFError(f"{name} was not captured: read the utterance again with it in what=.")
        return values[0]

    def attention_to_words(self) -> np.ndarray:
        """Self-attention of fusion tokens summed over each word's tokens [N, heads, F, W]."""
        length = len(self.words.tokens)
        return self.words.sum_over_words(self.get("self_attention")[..., :length])


def times_uniform(weights: np.ndarray, readable: np.ndarray) -> np.ndarray:
    """Attention as a multiple of an even spread's, which is 1 everywhere; NaN at steps that cannot be attended to.

    Args:
        weights: over AV steps [..., K].
        readable: which steps can be attended to [K], bool.
    """
    return np.where(readable, weights * readable.sum(), np.nan)


def av_step_times(row: Mapping[str, Any], steps: int) -> tuple[np.ndarray, bool]:
    """Middle of each AV step on the utterance's clock in seconds [K], or step numbers; and whether it is seconds."""
    times = step_times(row, steps)
    return (np.arange(steps, dtype=float), False) if times is None else (times, True)
