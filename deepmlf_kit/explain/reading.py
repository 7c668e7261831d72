"""Reading: one utterance with all that was captured of it, words and seconds attached.

Where it stands: what `Lens.read` gives and what the plots of one utterance take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..model.av_encoder import step_times
from .capturing import Capture, score_of
from .words import Words


@dataclass
class Reading:
    """One utterance, read by a model.

    Attributes:
        row: the dataset's row (`docs/layout.md`): text, frames, times, label.
        words: which token belongs to which word, and when it was said.
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
        return float(score_of(self.seen.output.prediction, self.classes)[0])

    @property
    def heads(self) -> dict[str, float]:
        """What each head says; `fusion` is the mean over fusion tokens."""
        output = self.seen.output
        return {
            "task": self.sentiment,
            "text": float(score_of(output.text_prediction, self.classes)[0]),
            "fusion": float(score_of(output.fusion_prediction, self.classes)[0].mean()),
            "av": float(score_of(output.av_prediction, self.classes)[0]),
        }

    @property
    def fusion_layers(self) -> tuple[int, ...]:
        return self.seen.fusion_layers

    @property
    def time_axis(self) -> str:
        """Name of the axis that `steps` are on."""
        return "time (s)" if self.timed else "AV step"

    # What was captured, without the batch axis; an error where it was not ------------------------------------

    def get(self, name: str) -> np.ndarray:
        """A measure of `Capture` without its batch axis.

        Raises:
            DeepMLFError: it was not captured.
        """
        values = getattr(self.seen, name)
        if values is None:
            from ..errors import DeepMLFError

            raise DeepMLFError(f"{name} was not captured: read the utterance again with it in what=.")
        return values[0]

    def attention_to_words(self) -> np.ndarray:
        """Self-attention of fusion tokens summed over each word's tokens [N, heads, F, W]."""
        length = len(self.words.tokens)
        return self.words.sum_over_words(self.get("self_attention")[..., :length])


def av_step_times(row: Mapping[str, Any], batch: Mapping[str, Any], steps: int) -> tuple[np.ndarray, bool]:
    """Seconds of each AV step [K], from the voice's frame times, else the face's; step numbers where unknown.

    The encoder pools each modality over its own length, so a step of the face may lie a little beside the same
    step of the voice where the two end at different times.
    """
    for stream in ("audio", "vision"):
        times, mask = np.asarray(row.get(f"{stream}_times", ())), batch.get(f"{stream}_mask")
        if mask is None or not len(times) or not bool(mask.any()):
            continue
        last = int(mask[0].nonzero()[-1]) + 1
        if last <= len(times) and mask.shape[1] >= last and len(times) <= mask.shape[1]:
            return step_times(times[:last], steps), True
    return np.arange(steps, dtype=float), False
