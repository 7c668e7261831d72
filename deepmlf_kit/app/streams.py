"""What each stream says by itself and what it adds to the answer; what each word adds. One batch of forward passes.

"Adds" is the Shapley value over words, voice and face (Shapley 1953): the mean, over all orders in which the streams can
come, of how far the sentiment moves when that one comes. So the start (the answer to nothing at all) and what the streams add
make up the answer exactly. A word's effect is the answer with it minus the answer to the text without it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from math import factorial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..explain.words import word_spans, word_times
from ..features.clip import ClipFeatures
from ..training.calibration import streams_of

if TYPE_CHECKING:
    from ..predict import Predictor

NAMES = {"text": "Words", "audio": "Voice", "vision": "Face"}
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
        words: {word, start, end, effect} in the text's order, from `first` on; seconds are None where unknown.
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
    predictor: Predictor,
    features: ClipFeatures,
    text: str,
    *,
    audio: bool = True,
    vision: bool = True,
    sentiment: float | None = None,
) -> Streams:
    """Answer for every choice of streams and for every text with a word left out.

    Args:
        audio, vision: False leaves that stream out.
        sentiment: the answer, where it is known: computed in another batch, a bfloat16 LM moves its last digits.
    """
    whole = predictor.row(features, text, audio=audio, vision=vision)
    there = [name for name in NAMES if _is_there(whole, name)]
    choices = [chosen for count in range(len(there) + 1) for chosen in combinations(there, count)]
    rows = [_only(predictor, features, text, chosen) for chosen in choices]
    spans = word_spans(text)
    first = max(0, len(spans) - MOST_WORDS)
    rows += [whole | {"text": without_span(text, span)} for span in spans[first:]]
    found = [float(value) for value in predictor.rows(rows)["task"]]
    answers = dict(zip(choices, found, strict=False))
    if sentiment is not None:
        answers[tuple(there)] = sentiment
    together = answers[tuple(there)]
    said = {name: _said(predictor, rows[choices.index((name,))], answers[name,]) for name in there}
    timed = _times(text, spans, features.words)
    return Streams(
        together=_said(predictor, whole, together),
        alone={name: said.get(name) for name in NAMES},
        adds={name: _added(name, there, answers) if name in there else None for name in NAMES},
        start=answers[()],
        without={name: answers[tuple(other for other in there if other != name)] for name in there},
        words=[
            {"word": text[a:b], "start": start, "end": end, "effect": together - found[len(choices) + n]}
            for n, ((a, b), (start, end)) in enumerate(zip(spans[first:], timed[first:], strict=True))
        ],
        first=first,
        scale=predictor.scale,
        text=text,
    )


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
