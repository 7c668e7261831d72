"""What a prediction rests on, measured by ablation (`explain.effects`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..explain import capture, effects
from ..explain.reading import Reading, av_step_times
from ..explain.words import words_of
from ..features.clip import ClipFeatures
from ..features.recipe import FeatureRecipe
from ..plots.style import modality_label
from ..predict.predictor import Predictor

MOMENT = 0.6  # seconds that are ablated at a time


@dataclass
class Reasons:
    """What moved one prediction.

    Attributes:
        words, moments, tokens, modalities: lists of {name, effect, ...}; effect is the prediction minus the
            prediction without it, on the dataset's scale. Words and moments carry `start` and `end` in seconds
            (None where unknown), tokens their own sentiment (`says`).
        reading: the captured forward pass, as the plots take it.
        replacement: what each kind was replaced by.
    """

    words: list[dict[str, Any]]
    moments: list[dict[str, Any]]
    tokens: list[dict[str, Any]]
    modalities: list[dict[str, Any]]
    reading: Reading
    replacement: dict[str, str]

    @property
    def has_av(self) -> bool:
        """Whether there was a voice or a face to attend to."""
        return bool(self.reading.seen.av_mask.any())


def find_reasons(
    predictor: Predictor,
    features: ClipFeatures,
    recipe: FeatureRecipe,
    text: str,
    *,
    audio: bool = True,
    vision: bool = True,
) -> Reasons:
    """Ablate the words, moments, fusion tokens and modalities of one clip, one at a time."""
    with predictor.lock:
        return _find_reasons(predictor, features, recipe, text, audio, vision)


def _find_reasons(
    predictor: Predictor,
    features: ClipFeatures,
    recipe: FeatureRecipe,
    text: str,
    audio: bool,
    vision: bool,
) -> Reasons:
    model = predictor.model
    row = predictor.row(features, text, audio=audio, vision=vision) | {"recipe": recipe.to_json()}
    batch = predictor.collator([row])
    batch.pop("labels", None)
    collator = predictor.collator
    words = words_of(
        text, model.tokenizer, collator.max_text_tokens, features.words, long_texts=collator.long_texts
    )
    seen = capture(model, batch, ("cross_attention",))
    steps, timed = av_step_times(row, model.config.av_steps)
    reading = Reading(row, words, seen, steps, timed)
    reasons = Reasons([], [], [], [], reading, {})

    def ablated(kind: str, **options: Any) -> Any:
        found = effects(model, batch, kind, **options)
        reasons.replacement[kind] = found.replacement
        return found

    if reasons.has_av:
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
        says = seen.output.fusion_prediction[0].float().cpu().numpy()
        found = ablated("tokens")
        reasons.tokens = [
            {"name": name, "effect": float(effect), "says": float(value)}
            for name, effect, value in zip(found.names, found.effect, says, strict=True)
        ]
    if words.words:
        found = ablated("words", words=words)
        reasons.words = [
            {"name": name, "effect": float(effect), "start": _number(start), "end": _number(end)}
            for name, effect, start, end in zip(
                found.names, found.effect, words.start, words.end, strict=True
            )
        ]
    found = ablated("modalities")
    audio, vision = bool(batch["audio_mask"].any()), bool(batch["vision_mask"].any())
    present = {
        "text": bool(words.words),
        "audio": audio,
        "vision": vision,
        "audio and vision": audio and vision,
    }
    reasons.modalities = [
        {"name": modality_label(name), "effect": float(effect)}
        for name, effect in zip(found.names, found.effect, strict=True)
        if present[name]
    ]
    return reasons


def strongest(entries: list[dict[str, Any]], count: int = 5) -> list[dict[str, Any]]:
    """The entries with the largest effects, largest first."""
    return sorted(entries, key=lambda entry: -abs(entry["effect"]))[:count]


def _number(value: float) -> float | None:
    return round(float(value), 3) if np.isfinite(value) else None
