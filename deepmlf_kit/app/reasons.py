"""What a prediction rests on: streams and words (`streams`), moments and fusion tokens (`explain.effects`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import explain
from ..explain.words import words_of
from ..features.clip import ClipFeatures
from ..features.recipe import FeatureRecipe
from ..plots.style import modality_label
from .streams import Streams, take_apart

if TYPE_CHECKING:
    from ..explain import Reading
    from ..predict import Predictor

MOMENT = 0.6  # seconds that are ablated at a time
_ALIKE = 0.05  # of the scale: fusion tokens whose effects and predictions differ by less do the same


@dataclass
class Reasons:
    """What moved one prediction.

    Attributes:
        streams: what words, voice and face say and add, and what each word adds.
        moments, tokens: lists of {name, effect, ...}; effect is the prediction minus the prediction without it, on the
            dataset's scale. Moments carry `start` and `end` in seconds (None where unknown), tokens their own
            sentiment (`says`).
        reading: the captured forward pass, as the plots take it; None until it is measured.
        replacement: what each kind was replaced by.
    """

    streams: Streams
    moments: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[dict[str, Any]] = field(default_factory=list)
    reading: Reading | None = None
    replacement: dict[str, str] = field(default_factory=dict)

    @property
    def has_av(self) -> bool:
        """Whether there was a voice or a face to attend to."""
        return self.streams.alone["audio"] is not None or self.streams.alone["vision"] is not None

    @property
    def words(self) -> list[dict[str, Any]]:
        """{name, effect, start, end} of each word."""
        return [
            {"name": word["word"], "effect": word["effect"], "start": word["start"], "end": word["end"]}
            for word in self.streams.words
        ]

    @property
    def modalities(self) -> list[dict[str, Any]]:
        """{name, effect} of each stream that is there: the answer minus the answer without it."""
        whole = self.streams.together.sentiment
        return [
            {"name": modality_label(name), "effect": whole - without}
            for name, without in self.streams.without.items()
        ]


def find_reasons(
    predictor: Predictor,
    features: ClipFeatures,
    recipe: FeatureRecipe,
    text: str,
    *,
    audio: bool = True,
    vision: bool = True,
    streams: Streams | None = None,
    progress: Callable[[float], None] = lambda done: None,
) -> Reasons:
    """Take one clip's answer apart: its streams and words, then its moments and fusion tokens, one at a time.

    Args:
        streams: where they and their words' effects are measured already.
        progress: called with the fraction that is done; what it raises ends the work.
    """
    streams = streams or take_apart(predictor, features, text, audio=audio, vision=vision)
    progress(0.0)
    model, collator = predictor.model, predictor.collator
    row = predictor.row(features, text, audio=audio, vision=vision) | {"recipe": recipe.to_json()}
    batch = collator([row])
    batch.pop("labels", None)
    words = words_of(
        text,
        model.tokenizer,
        collator.max_text_tokens,
        features.words,
        long_texts=collator.long_texts,
        full_stop=collator.full_stop,
    )
    with predictor.lock:
        seen = explain.capture(model, batch, ("cross_attention",))
    steps, timed = explain.av_step_times(row, model.config.av_steps)
    reasons = Reasons(streams, reading=explain.Reading(row, words, seen, steps, timed))
    progress(0.3)
    if not reasons.has_av:
        return reasons

    def ablated(kind: str, **options: Any) -> Any:
        with predictor.lock:
            found = explain.effects(model, batch, kind, **options)
        reasons.replacement[kind] = found.replacement
        return found

    width = max(1, round(MOMENT * len(steps) / max(features.found.seconds, MOMENT)))
    found = ablated("time", width=width)
    half = float(np.median(np.diff(steps))) / 2
    for name, effect, first, end in zip(found.names, found.effect, found.start, found.end, strict=True):
        moment = {"name": name, "effect": float(effect), "start": None, "end": None}
        if timed:
            moment["start"] = round(max(0.0, float(steps[first]) - half), 3)
            moment["end"] = round(float(steps[end - 1]) + half, 3)
            moment["name"] = f"{moment['start']:.1f} to {moment['end']:.1f} s"
        reasons.moments.append(moment)
    progress(0.7)
    says = seen.output.fusion_prediction[0].float().cpu().numpy()
    found = ablated("tokens")
    reasons.tokens = [
        {"name": name, "effect": float(effect), "says": float(value)}
        for name, effect, value in zip(found.names, found.effect, says, strict=True)
    ]
    progress(1.0)
    return reasons


def strongest(entries: list[dict[str, Any]], count: int = 5) -> list[dict[str, Any]]:
    """The entries with the largest effects, largest first."""
    return sorted(entries, key=lambda entry: -abs(entry["effect"]))[:count]


def grouped_tokens(tokens: list[dict[str, Any]], scale: float) -> list[dict[str, Any]]:
    """Fusion tokens that do the same as one entry with their means: {name, effect, says, tokens}."""

    def same(one: int, other: int) -> bool:
        return all(abs(tokens[one][key] - tokens[other][key]) < _ALIKE * scale for key in ("effect", "says"))

    return [
        {
            "name": numbered(group),
            "effect": float(np.mean([tokens[n]["effect"] for n in group])),
            "says": float(np.mean([tokens[n]["says"] for n in group])),
            "tokens": group,
        }
        for group in grouped(len(tokens), same)
    ]


def grouped(count: int, same: Callable[[int, int], bool]) -> list[list[int]]:
    """Numbers from 0 in groups, each of those that are the same as the group's first."""
    groups: list[list[int]] = []
    for number in range(count):
        group = next((group for group in groups if same(number, group[0])), None)
        if group is None:
            groups.append([number])
        else:
            group.append(number)
    return groups


def numbered(tokens: list[int]) -> str:
    """Names of fusion tokens, such as "tokens 1 to 4, 6"."""
    runs: list[list[int]] = []
    for number in tokens:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    named = ", ".join(f"{run[0] + 1} to {run[-1] + 1}" if len(run) > 1 else f"{run[0] + 1}" for run in runs)
    return f"token{'s' if len(tokens) > 1 else ''} {named}"
