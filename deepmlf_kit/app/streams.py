"""What each stream says by itself and what it adds to the answer, in one pass; then what each word adds.

"Adds" is the Shapley value over words, voice and face (Shapley 1953): the mean, over all orders in which the streams can
come, of how far the sentiment moves when that one comes. So the start (the answer to nothing at all) and what the streams add
make up the answer exactly. A word's effect is the answer with it minus the answer to the text without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import combinations
from math import factorial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..explain.words import word_spans, word_times
from ..features.clip import ClipFeatures
from ..predict.prediction import Prediction
from ..training.calibration import streams_of

if TYPE_CHECKING:
    from ..predict import Predictor

NAMES = {"text": "Words", "audio": "Voice", "vision": "Face"}
_AT_ONCE = 16  # words left out in one pass
MOST_WORDS = 60  # whose effects are measured; of longer texts the last ones, which the model reads


@dataclass(frozen=True)
class Said:
    """An answer: the sentiment, where it lies in `coverage` of such utterances, and the zone without a verdict.

    `low`, `high` and `zone` are None where the run was not calibrated.
    """

    sentiment: float
    low: float | None = None
    high: float | None = None
    zone: float | None = None


@dataclass(frozen=True)
class Streams:
    """One answer, taken apart.

    Attributes:
        together: the answer.
        alone: what each stream says by itself; None where it is not there or left out.
        adds: what each stream adds to the answer; None likewise. `start` and these sum to the answer.
        start: the answer to no words, no voice and no face.
        without: the answer without each of the streams that are there.
        words: {word, start, end, effect} in the text's order, from `first` on; seconds are None where unknown, effects
            before they are measured.
        first: index of the first word that the model read.
        scale: the largest sentiment of the scale.
        text: the words.
    """

    together: Said
    alone: dict[str, Said | None]
    adds: dict[str, float | None]
    start: float
    without: dict[str, float]
    words: list[dict[str, Any]] = field(default_factory=list)
    first: int = 0
    scale: float = 3.0
    text: str = ""


def take_apart(
    predictor: Predictor, features: ClipFeatures, text: str, *, audio: bool = True, vision: bool = True
) -> Streams:
    """What each stream and each word says and adds.

    Args:
        audio, vision: False leaves that stream out.
    """
    _, streams = answer_and_sum(predictor, features, text, audio=audio, vision=vision)
    return with_word_effects(predictor, features, streams, audio=audio, vision=vision)


def answer_and_sum(
    predictor: Predictor, features: ClipFeatures, text: str | None, *, audio: bool = True, vision: bool = True
) -> tuple[Prediction, Streams]:
    """Answer for every choice of streams in one pass; the effects of the words are still to come (None).

    Args:
        text: other words than the clip's; None: the clip's.
        audio, vision: False leaves that stream out.
    """
    whole = predictor.row(features, text, audio=audio, vision=vision)
    there = [name for name in NAMES if _is_there(whole, name)]
    choices = [chosen for count in range(len(there) + 1) for chosen in combinations(there, count)]
    rows = [_only(predictor, features, whole["text"], chosen) for chosen in choices]
    made = dict(zip(choices, predictor.variants(features, rows, given=text is not None), strict=True))
    answers = {chosen: prediction.sentiment for chosen, prediction in made.items()}
    said = {name: _said(predictor, rows[choices.index((name,))], answers[name,]) for name in there}
    together = answers[tuple(there)]
    text = str(whole["text"])
    spans = word_spans(text)
    first = max(0, len(spans) - MOST_WORDS)
    timed = _times(text, spans, features.words)
    streams = Streams(
        together=_said(predictor, whole, together),
        alone={name: said.get(name) for name in NAMES},
        adds={name: _added(name, there, answers) if name in there else None for name in NAMES},
        start=answers[()],
        without={name: answers[tuple(other for other in there if other != name)] for name in there},
        words=[
            {"word": text[a:b], "start": start, "end": end, "effect": None}
            for (a, b), (start, end) in zip(spans[first:], timed[first:], strict=True)
        ],
        first=first,
        scale=predictor.scale,
        text=text,
    )
    return made[tuple(there)], streams


def with_word_effects(
    predictor: Predictor,
    features: ClipFeatures,
    streams: Streams,
    *,
    audio: bool = True,
    vision: bool = True,
    progress: Callable[[float], None] = lambda done: None,
) -> Streams:
    """Streams with the effect of each word: the answer minus the answer to the text without it.

    Args:
        audio, vision: as `answer_and_sum` was asked.
        progress: called with the fraction that is done; what it raises ends the work.
    """
    text = streams.text
    rows = [
        predictor.row(features, without_span(text, span), audio=audio, vision=vision)
        for span in word_spans(text)[streams.first :]
    ]
    whole = predictor.row(features, text, audio=audio, vision=vision)
    effects: list[float] = []
    for begin in range(0, len(rows), _AT_ONCE):
        found = predictor.rows([whole, *rows[begin : begin + _AT_ONCE]], share_texts=True)["task"]
        effects += [float(value) for value in found[0] - found[1:]]
        progress(len(effects) / len(rows))
    words = [word | {"effect": effect} for word, effect in zip(streams.words, effects, strict=True)]
    return replace(streams, words=words)


def without_span(text: str, span: tuple[int, int]) -> str:
    """The text without a word, closed up."""
    before, after = text[: span[0]], text[span[1] :]
    return (before.rstrip() + after).strip() if not after.strip() else (before + after.lstrip()).strip()


def _is_there(row: dict[str, Any], name: str) -> bool:
    return bool(row["text"].strip()) if name == "text" else bool(np.any(row[name]))


def _only(predictor: Predictor, features: ClipFeatures, text: str, chosen: tuple[str, ...]) -> dict[str, Any]:
    words = text if "text" in chosen else ""
    return predictor.row(features, words, audio="audio" in chosen, vision="vision" in chosen)


def _said(predictor: Predictor, row: dict[str, Any], sentiment: float) -> Said:
    if predictor.calibration is None:
        return Said(sentiment)
    streams = streams_of(row)
    low, high = predictor.calibration.interval(sentiment, streams, predictor.scale)
    return Said(sentiment, low, high, predictor.calibration.zone(streams))


def _added(name: str, there: list[str], answers: dict[tuple[str, ...], float]) -> float:
    """The Shapley value of one stream."""
    others = [other for other in there if other != name]
    total = 0.0
    for count in range(len(others) + 1):
        weight = factorial(count) * factorial(len(others) - count) / factorial(len(there))
        for before in combinations(others, count):
            after = tuple(stream for stream in there if stream in before or stream == name)
            total += weight * (answers[after] - answers[before])
    return total


def _times(
    text: str, spans: list[tuple[int, int]], timed: list[dict[str, Any]]
) -> list[tuple[float | None, float | None]]:
    start, end = word_times([text[a:b] for a, b in spans], timed)
    return [(_number(a), _number(b)) for a, b in zip(start, end, strict=True)]


def _number(value: float) -> float | None:
    return round(float(value), 3) if np.isfinite(value) else None
