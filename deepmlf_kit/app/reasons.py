"""Why the answer is what it is: what it rests on, measured by taking things out (`explain.effects`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ..features.clip import ClipFeatures
    from ..predict import Predictor

MOMENT = 0.6  # seconds that are taken out at a time


@dataclass
class Reasons:
    """What moved one answer.

    Attributes:
        words, moments, tokens, modalities: lists of {name, effect, ...}; effect is the prediction minus the
            prediction without it, on the dataset's scale. Words and moments carry `start` and `end` in seconds
            (None where unknown), tokens what they say themselves (`says`).
        attention: of fusion tokens over time, mean over MM Blocks and heads [F, K]; None without voice and face.
        times: seconds of the K AV steps.
        timed_words: the words whose times are known: {word, start, end}.
        meaning: what took the place of what was taken out, for each kind.
    """

    words: list[dict[str, Any]]
    moments: list[dict[str, Any]]
    tokens: list[dict[str, Any]]
    modalities: list[dict[str, Any]]
    attention: np.ndarray | None
    times: np.ndarray
    timed_words: list[dict[str, Any]]
    meaning: dict[str, str]


def find_reasons(
    predictor: Predictor, features: ClipFeatures, text: str, *, audio: bool = True, vision: bool = True
) -> Reasons:
    """Take words, moments, fusion tokens and modalities out of one clip, one at a time."""
    from ..av_encoder import step_times
    from ..explain import capture, effects
    from ..explain.words import words_of

    model = predictor.model
    batch = predictor.collator([predictor.row(features, text, audio=audio, vision=vision)])
    batch.pop("labels", None)
    words = words_of(text, model.tokenizer, model.config.max_text_tokens, features.words)
    seen_or_heard = bool(batch["audio_mask"].any() or batch["vision_mask"].any())
    steps = model.config.av_steps
    # A modality's own frames tell when an AV step was; the voice's are the finer ones.
    frame_times = features.audio_times if audio and len(features.audio_times) else features.vision_times
    if not audio or not len(features.audio_times):
        frame_times = features.vision_times if vision else np.zeros(0, np.float32)
    times = step_times(np.asarray(frame_times, float), steps)
    width = max(1, round(MOMENT * steps / max(features.found.seconds, MOMENT)))

    meaning: dict[str, str] = {}

    def taken_out(kind: str, **options: Any) -> Any:
        found = effects(model, batch, kind, **options)
        meaning[kind] = found.meaning
        return found

    moments, tokens, attention = [], [], None
    if seen_or_heard:
        found = taken_out("time", width=width)
        half = float(np.nanmedian(np.diff(times))) / 2 if steps > 1 else 0.0
        for name, effect, first, last in zip(found.names, found.effect, found.start, found.end, strict=True):
            start, end = times[first] - half, times[last - 1] + half
            moments.append(
                {
                    "name": f"{max(0.0, start):.1f} to {end:.1f} s" if np.isfinite(start) else name,
                    "effect": float(effect),
                    "start": _number(max(0.0, start)),
                    "end": _number(end),
                }
            )
        maps = capture(model, batch, ("cross_attention",))
        attention = maps.cross_attention[0].mean(axis=(0, 1))  # [F, K]
        says = maps.output.fusion_prediction[0].float().cpu().numpy()
        found = taken_out("tokens")
        tokens = [
            {"name": name, "effect": float(effect), "says": float(value)}
            for name, effect, value in zip(found.names, found.effect, says, strict=True)
        ]
    spoken = []
    if words.words:
        found = taken_out("words", words=words)
        spoken = [
            {"name": name, "effect": float(effect), "start": _number(start), "end": _number(end)}
            for name, effect, start, end in zip(
                found.names, found.effect, words.start, words.end, strict=True
            )
        ]
    found = taken_out("modalities")
    present = {
        "words": bool(words.words),
        "voice": bool(batch["audio_mask"].any()),
        "face": bool(batch["vision_mask"].any()),
    }
    modalities = [
        {"name": name, "effect": float(effect)}
        for name, effect in zip(found.names, found.effect, strict=True)
        if present.get(name, present["voice"] and present["face"])
    ]
    timed = [
        {"word": word, "start": float(start), "end": float(end)}
        for word, start, end in zip(words.words, words.start, words.end, strict=True)
        if np.isfinite(start) and np.isfinite(end)
    ]
    return Reasons(spoken, moments, tokens, modalities, attention, times, timed, meaning)


def strongest(entries: list[dict[str, Any]], count: int = 5) -> list[dict[str, Any]]:
    """The entries with the largest effects, largest first."""
    return sorted(entries, key=lambda entry: -abs(entry["effect"]))[:count]


def _number(value: float) -> float | None:
    return round(float(value), 3) if np.isfinite(value) else None
