"""What is said about one clip, and the words for it. Nothing here imports torch: the app's page is served before it is there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Prediction:
    """A model's prediction for one clip.

    Attributes:
        sentiment: the prediction, on the dataset's scale (MOSI and MOSEI -3 to 3, SIMS -1 to 1; the model may
            overshoot a little).
        polarity: the same in words.
        interval: from where to where the sentiment lies in `coverage` of utterances like those of the training; None
            where the run was not calibrated.
        certain: whether the sign is to be trusted: False where an answer of this size has the right one less often
            than `coverage`; None where the run was not calibrated.
        coverage: of the interval, 0.8 as a rule.
        heads: predictions of the heads `text`, `av` and `fusion` (mean over fusion tokens); None for a head whose stream
            is not there: no words, or neither voice nor face.
        fusion_tokens: each fusion token's prediction [F].
        scale: the largest sentiment of the scale.
        text: the words.
        text_tokens: how many tokens they are (`of`), how many of those were `read`, and of a longer text which part
            (`long_texts`: `end` or `start`).
        clip: what was found in the clip (see `ClipFound`), with the transcript.
        timings: seconds that each stage took.
        notes: remarks for the reader, such as heads that disagree.
        answered_by: `checkpoint` (its folder's name) and `lm` (its language model).
    """

    sentiment: float
    polarity: str
    interval: tuple[float, float] | None
    certain: bool | None
    coverage: float | None
    heads: dict[str, float | None]
    fusion_tokens: list[float]
    scale: float
    text: str
    text_tokens: dict[str, Any]
    clip: dict[str, Any]
    timings: dict[str, float]
    notes: list[str] = field(default_factory=list)
    answered_by: dict[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """The polarity, unless the sign is not to be trusted."""
        return self.polarity if self.certain is not False else "I cannot tell"

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Prediction:
        """The inverse of `to_dict`."""
        interval = values["interval"]
        return cls(**{**values, "interval": None if interval is None else tuple(interval)})


def sentence(note: str) -> str:
    """A remark as a sentence, for people to read."""
    return f"{note[:1].upper()}{note[1:]}{'' if note.endswith(('?', '.')) else '.'}"


def polarity(sentiment: float, scale: float = 3.0) -> str:
    """A sentiment in words: the seven classes of MOSI, whatever the scale."""
    words = ("neutral", "slightly", "rather", "strongly")
    step = min(round(abs(sentiment) / scale * 3), 3)
    return words[0] if step == 0 else f"{words[step]} {'positive' if sentiment > 0 else 'negative'}"


def disagreements(heads: dict[str, float | None], scale: float) -> list[str]:
    """A remark where words and voice-and-face point to opposite sides, each by more than a sixth of the scale."""
    text, av = heads["text"], heads["av"]
    if text is not None and av is not None and text * av < 0 and min(abs(text), abs(av)) > scale / 6:
        return [
            f"the words alone sound {polarity(text, scale)}, voice and face alone {polarity(av, scale)}: "
            "irony, or a mixed feeling?"
        ]
    return []
