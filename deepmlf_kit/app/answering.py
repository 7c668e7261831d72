"""From a clip to everything the page shows of it, reporting progress step by step and answers as they come.

sound   --> voice and words --> an answer without the face
frames  --> face            --> the answer --> what it rests on
"""

from __future__ import annotations

import math
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.extraction_process import LostClip
from ..errors import DeepMLFError
from ..features.cache import FeatureCache
from ..features.clip import ClipFeatures
from ..features.container import ClipError
from ..features.media import MediaInfo
from ..features.recipe import FeatureRecipe
from ..predict.prediction import Prediction
from ..workers.cancel import Cancelled, CancelToken
from .examples import Example
from .kept import KeptAnswer
from .models import Models
from .reasons import Reasons, find_reasons
from .sessions import Session
from .settings import Settings
from .streams import answer_and_sum, with_word_effects
from .uploads import UploadRefused, check_upload

# What extraction times, by the step that it belongs to.
_STEP_OF = {"open": "open", "decode_audio": "open", "decode_video": "open", "voice": "voice"}
_STEP_OF |= {"transcript": "transcript", "load_speech_model": "transcript", "face": "face"}
_SHORTEST = 0.5  # seconds
_HEAD = 22.0  # cm
_FIELD_OF_VIEW = 2 * math.tan(math.radians(63) / 2)
_FAR = 90.0  # cm: farther away, a face has less than a fifth of the picture's height


@dataclass(frozen=True)
class Step:
    """Progress: a stage (`views.STEPS`) and the fraction of it that is done, 0 to 1."""

    stage: str
    fraction: float


@dataclass(frozen=True)
class Answer:
    """The prediction for one clip, its reasons and features.

    Attributes:
        seconds: how long each step took.
        state: `heard`: the face is still to come; `answered`: the reasons are; `whole`.
    """

    prediction: Prediction
    reasons: Reasons
    features: ClipFeatures
    recipe: FeatureRecipe
    seconds: dict[str, float]
    state: str = "whole"


def read_clip(
    models: Models,
    settings: Settings,
    path: Path,
    text: str,
    words: list[dict] | None = None,
    cancel: CancelToken | None = None,
    *,
    audio: bool = True,
    vision: bool = True,
) -> Iterator[Step | Answer]:
    """Extract a clip and predict; yields the progress and answers, the whole one last.

    Args:
        text: the transcript; empty: transcribe where a speech model is available.
        words: the word times, where they are known.
        cancel: stops the work; so does closing the iterator.
        audio, vision: False leaves that stream out of the answer.

    Raises:
        DeepMLFError: the file is refused, or nothing in it can be decoded.
        Cancelled: on request.
    """
    extractor = models.predictor.extractor
    cancel = cancel or CancelToken()
    info = check_upload(path, settings, lambda clip: extractor.probe(clip, cancel))
    if info.seconds < _SHORTEST and (info.has_audio or info.seconds > 0):
        raise UploadRefused(
            f"The clip lasts {info.seconds:.1f} s, which is too short to judge. Give a sentence: a second or more."
        )
    recipe = models.recipe()
    news: queue.Queue = queue.Queue()
    given = text.strip() or (None if recipe.transcribe else "")

    def work() -> None:
        try:
            with tempfile.TemporaryDirectory(prefix="deepmlf-") as folder:
                for features, part in extracted(FeatureCache(folder)):
                    if words and not features.words:
                        features = replace(features, words=words)
                    features = with_all_dims(features, models)
                    options: dict[str, Any] = {"audio": audio, "vision": vision, "cancel": cancel}
                    if part != recipe:
                        heard = next(answers(models, features, part, **options))
                        news.put(replace(heard, state="heard"))
                        continue
                    for made in answers(models, features, part, report=report, **options):
                        news.put(made)
                news.put(None)
        except BaseException as error:
            news.put(error)

    def report(stage: str, fraction: float) -> None:
        news.put(Step(stage, fraction))

    def extracted(cache: FeatureCache) -> Iterator[tuple[ClipFeatures, FeatureRecipe]]:
        # By all parts together: what the one before has read comes from the cache, untimed.
        took: dict[str, float] = {}
        for part in _recipes(recipe, info):
            try:
                features = extractor.extract(
                    path,
                    part,
                    text=given,
                    face_model=models.face_model,
                    progress=report,
                    cache=cache,
                    cancel=cancel,
                )
            except ClipError as error:
                if part == recipe or isinstance(error, LostClip):
                    raise
                continue  # a damaged sound: the face may still be read
            took |= features.timings
            features = replace(features, timings=dict(took))
            if part == recipe:
                features = _checked(features, info)
            yield features, part

    threading.Thread(target=work, name="read-clip", daemon=True).start()
    try:
        while (item := news.get()) is not None:
            if isinstance(item, DeepMLFError):
                raise type(item)(str(item).replace(str(path), "the clip")) from item
            if isinstance(item, BaseException):
                raise item
            yield item
    except GeneratorExit:
        cancel.cancel()
        raise


def answer_example(
    models: Models, example: Example, *, audio: bool, vision: bool, cancel: CancelToken
) -> Iterator[Answer]:
    """Predict for an example from the features that came with it; where the answer is kept (`kept.py`), that one is given, at
    once, and what it rests on is measured.

    Args:
        example: one of `models.examples`.
        audio, vision: False leaves that stream out.
        cancel: looked at in between.
    """
    features = models.examples[example.name]
    known = models.kept.get(example.name) if audio and vision else None
    if known is not None:
        yield Answer(
            known.prediction, Reasons(known.streams), features, models.expected_recipe, {}, "answered"
        )
    yield from answers(
        models,
        features,
        models.predictor.recipe,
        example.text,
        audio=audio,
        vision=vision,
        known=known,
        cancel=cancel,
    )


def ask_again(
    models: Models,
    session: Session,
    text: str,
    *,
    audio: bool,
    vision: bool,
    cancel: CancelToken | None = None,
) -> Iterator[Answer]:
    """Predict again for the session's clip with another text or without a stream; features are reused.

    Raises:
        Cancelled: on request, or where the session has no clip any more.
    """
    features = session.features
    if features is None:
        raise Cancelled("The clip was taken away.")
    return answers(models, features, models.predictor.recipe, text, audio=audio, vision=vision, cancel=cancel)


def answers(
    models: Models,
    features: ClipFeatures,
    recipe: FeatureRecipe,
    text: str | None = None,
    *,
    audio: bool = True,
    vision: bool = True,
    known: KeptAnswer | None = None,
    cancel: CancelToken | None = None,
    report: Callable[[str, float], None] = lambda stage, fraction: None,
) -> Iterator[Answer]:
    """Predict from features: first the answer and its sum, then the words' effects, then all that it rests on.

    Args:
        known: an answer with its words' effects that is there already.
        cancel: looked at in between.
        report: called with the stage `model` and the fraction that is done.
    """
    began = time.perf_counter()
    predictor, cancel = models.predictor, cancel or CancelToken()
    which = {"audio": audio, "vision": vision}

    def progress(done: float) -> None:
        cancel.check()
        report("model", done)

    def made(reasons: Reasons, state: str) -> Answer:
        seconds: dict[str, float] = {}
        for stage, took in features.timings.items():
            if stage in _STEP_OF:
                seconds[_STEP_OF[stage]] = seconds.get(_STEP_OF[stage], 0.0) + took
        seconds["model"] = time.perf_counter() - began
        return Answer(prediction, reasons, features, recipe, seconds, state)

    progress(0.0)
    if known is None:
        prediction, streams = answer_and_sum(predictor, features, text, **which)
        yield made(Reasons(streams), "answered")
        progress(0.2)
        streams = with_word_effects(
            predictor, features, streams, progress=lambda done: progress(0.2 + 0.4 * done), **which
        )
        yield made(Reasons(streams), "answered")
    else:
        prediction, streams = known.prediction, known.streams
    reasons = find_reasons(
        predictor,
        features,
        recipe,
        prediction.text,
        streams=streams,
        progress=lambda done: progress(0.6 + 0.4 * done),
        **which,
    )
    yield made(reasons, "whole")


def with_all_dims(features: ClipFeatures, models: Models) -> ClipFeatures:
    """Give missing streams the dimensions that the model expects: without an extractor a stream has 0 columns."""
    dims = models.predictor.collator.dims
    changes = {
        stream: np.zeros((0, dims[stream]), np.float32)
        for stream in ("audio", "vision")
        if not len(getattr(features, stream)) and dims[stream]
    }
    return replace(features, **changes)


def face_boxes(features: ClipFeatures | None) -> list[list[float]]:
    """Where the face that was read is: seconds, then its middle from the picture's middle and its size, in picture heights.

    From the head's place in cm before MediaPipe's camera, which sees 63 degrees from top to bottom.
    """
    if features is None or features.vision.shape[1:] != (58,):
        return []
    boxes = []
    for at, row in zip(features.vision_times, features.vision, strict=True):
        x, y, z = (float(value) for value in row[-3:])
        if z < 0:
            size = 1 / (-z * _FIELD_OF_VIEW)
            boxes.append([round(n, 3) for n in (float(at), x * size, -y * size, _HEAD * size)])
    return boxes


def _recipes(recipe: FeatureRecipe, info: MediaInfo) -> list[FeatureRecipe]:
    """What is extracted one after the other: where there is a voice and a face, the voice first."""
    if info.has_audio and info.has_video and "none" not in (recipe.audio, recipe.vision):
        return [replace(recipe, vision="none"), recipe]
    return [recipe]


def _checked(features: ClipFeatures, info: MediaInfo) -> ClipFeatures:
    """The features with hints on how to give a better clip.

    Raises:
        UploadRefused: they are those of a single picture.
    """
    found, rows = features.found, features.vision
    if not len(features.audio) and len(rows) < 3:
        raise UploadRefused(
            "This is a single picture, which is too little to judge. Give a clip of a sentence."
        )
    seen = rows[rows.any(axis=1)] if len(rows) else rows
    hint = ""
    if info.has_video and found.face_share is not None and not len(seen):
        hint = (
            "come closer to the camera, into the light: the face should fill a third of the picture's height"
        )
    elif len(seen) and rows.shape[1] == 58 and -float(np.median(seen[:, -1])) > _FAR:
        hint = "the face is small in the picture: come closer to the camera for a better reading"
    if not hint:
        return features
    return replace(features, found=replace(found, notes=[*found.notes, hint]))
