"""From a clip to everything the page shows of it, reporting progress step by step."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import DeepMLFError
from ..features.clip import ClipFeatures
from ..features.recipe import FeatureRecipe
from ..predict.predictor import Prediction
from ..workers.cancel import Cancelled, CancelToken
from .models import Models
from .reasons import Reasons, find_reasons
from .sessions import Session
from .settings import Settings
from .uploads import check_upload

# What extraction times, by the step that it belongs to.
_STEP_OF = {"open": "open", "decode_audio": "open", "decode_video": "open", "voice": "voice"}
_STEP_OF |= {"transcript": "transcript", "load_speech_model": "transcript", "face": "face"}


@dataclass(frozen=True)
class Step:
    """Progress: a stage (`views.STEPS`) and the fraction of it that is done, 0 to 1."""

    stage: str
    fraction: float


@dataclass(frozen=True)
class Answer:
    """The prediction for one clip, its reasons and features; `seconds` holds the duration of each step."""

    prediction: Prediction
    reasons: Reasons
    features: ClipFeatures
    recipe: FeatureRecipe
    seconds: dict[str, float]


def read_clip(
    models: Models,
    settings: Settings,
    path: Path,
    text: str,
    words: list[dict] | None = None,
    cancel: CancelToken | None = None,
) -> Iterator[Step | Answer]:
    """Extract a clip and predict; yields the progress and, last, the `Answer`.

    Args:
        text: the transcript; empty: transcribe where a speech model is available.
        words: the word times, where they are known.
        cancel: stops the work; so does closing the iterator.

    Raises:
        DeepMLFError: the file is refused, or nothing in it can be decoded.
        Cancelled: on request.
    """
    extractor = models.predictor.extractor
    cancel = cancel or CancelToken()
    check_upload(path, settings, lambda clip: extractor.probe(clip, cancel))
    recipe = models.recipe()
    news: queue.Queue = queue.Queue()

    def work() -> None:
        try:
            given = text.strip() or (None if recipe.transcribe else "")
            features = extractor.extract(
                path,
                recipe,
                text=given,
                face_model=models.face_model,
                progress=lambda stage, fraction: news.put(Step(stage, fraction)),
                cancel=cancel,
            )
            if words and not features.words:
                features = replace(features, words=words)
            news.put(Step("model", 0.0))
            news.put(answer(models, with_all_dims(features, models), recipe, cancel=cancel))
        except BaseException as error:
            news.put(error)

    threading.Thread(target=work, name="read-clip", daemon=True).start()
    try:
        while True:
            item = news.get()
            if isinstance(item, DeepMLFError):
                raise type(item)(str(item).replace(str(path), "the clip")) from item
            if isinstance(item, BaseException):
                raise item
            yield item
            if isinstance(item, Answer):
                return
    except GeneratorExit:
        cancel.cancel()
        raise


def ask_again(
    models: Models,
    session: Session,
    text: str,
    *,
    audio: bool,
    vision: bool,
    cancel: CancelToken | None = None,
) -> Answer:
    """Predict again for the session's clip with another text or without a stream; features are reused.

    Raises:
        Cancelled: on request, or where the session has no clip any more.
    """
    features = session.features
    if features is None:
        raise Cancelled("The clip was taken away.")
    return answer(models, features, models.recipe(), text, audio=audio, vision=vision, cancel=cancel)


def answer(
    models: Models,
    features: ClipFeatures,
    recipe: FeatureRecipe,
    text: str | None = None,
    *,
    audio: bool = True,
    vision: bool = True,
    cancel: CancelToken | None = None,
) -> Answer:
    """Predict from features, and measure what the prediction rests on; `cancel` is looked at in between."""
    began = time.perf_counter()
    predictor, cancel = models.predictor, cancel or CancelToken()
    cancel.check()
    prediction = predictor.features(features, text, audio=audio, vision=vision)
    cancel.check()
    reasons = find_reasons(predictor, features, recipe, prediction.text, audio=audio, vision=vision)
    seconds: dict[str, float] = {}
    for stage, took in features.timings.items():
        if stage in _STEP_OF:
            seconds[_STEP_OF[stage]] = seconds.get(_STEP_OF[stage], 0.0) + took
    seconds["model"] = time.perf_counter() - began
    return Answer(prediction, reasons, features, recipe, seconds)


def with_all_dims(features: ClipFeatures, models: Models) -> ClipFeatures:
    """Give missing streams the dimensions that the model expects: without an extractor a stream has 0 columns."""
    dims = models.predictor.collator.dims
    changes = {
        stream: np.zeros((0, dims[stream]), np.float32)
        for stream in ("audio", "vision")
        if not len(getattr(features, stream)) and dims[stream]
    }
    return replace(features, **changes)
