"""One clip's answer from a fresh process: its features are extracted while torch and the model are loaded here.

Nothing here imports torch before the extraction, in a process of its own, has begun.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

from .. import predict
from ..data.extraction_process import ClipExtractor
from ..data.schema import PREPROCESSOR_FILE
from ..errors import DeepMLFError
from ..features.clip import ClipFeatures
from ..features.container import check_file
from ..features.recipe import FeatureRecipe
from ..storage.files import read_json
from ..workers.imports import left_out, without_collection
from .bundled import PEOPLE
from .prediction import Prediction


def predict_clip(
    checkpoint: str | Path | None,
    clip: str | Path,
    text: str | None = None,
    *,
    face: str | None = None,
    face_model: str | Path | None = None,
) -> Prediction:
    """As `Predictor(checkpoint).clip(clip, text, ...)`, sooner.

    Raises:
        DeepMLFError: as there.
    """
    check_file(clip)  # said at once; all else that may be wrong with it, when the model is there
    extractor = ClipExtractor()
    expected = _reading(expected_recipe(checkpoint), face)
    begun: Future[ClipFeatures] = Future()

    def extract() -> None:
        try:
            begun.set_result(extractor.extract_at_hand(clip, expected, text=text, face_model=face_model))
        except BaseException as error:
            begun.set_exception(error)

    # A daemon: where the model cannot be loaded, nobody waits for the clip.
    threading.Thread(target=extract, daemon=True).start()
    with _quick_start(), one_thread():
        predictor = predict.Predictor(checkpoint, extractor=extractor)
        if _reading(predictor.recipe, face) != expected:
            return predictor.clip(clip, text, face=face, face_model=face_model)
        return predictor.features(begun.result())


def predict_text(checkpoint: str | Path | None, text: str) -> Prediction:
    """As `Predictor(checkpoint).text(text)`, sooner.

    Raises:
        DeepMLFError: as there.
    """
    with _quick_start(), one_thread():
        return predict.Predictor(checkpoint).text(text)


@contextlib.contextmanager
def _quick_start() -> Iterator[None]:
    """For the imports of torch and transformers, which take most of the time to an answer."""
    # transformers imports these for losses of object detection, and before version 5.21 for assisted generation.
    with without_collection(), left_out("scipy", "sklearn"):
        yield


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """With one torch thread: the passes of opening a model and of one answer are small, and on busy cores several threads wait
    for each other, which takes many times as long."""
    before = predict.limit_threads(1)
    try:
        yield
    finally:
        predict.limit_threads(before)


def expected_recipe(checkpoint: str | Path | None) -> FeatureRecipe:
    """The recipe that a run, or a model alone, seems to need: the one that its folder names, else the default."""
    # What is wrong with it is said when the run is opened. The bundled checkpoints have one recipe.
    folder = Path(checkpoint or PEOPLE)
    with contextlib.suppress(DeepMLFError, OSError, KeyError, TypeError):
        if (folder / "run.json").is_file():
            return FeatureRecipe.from_stored(read_json(folder / "run.json", "")["preprocessing"]["recipe"])
        return FeatureRecipe.from_stored(read_json(folder / PREPROCESSOR_FILE, "")["recipe"])
    return FeatureRecipe()


def _reading(recipe: FeatureRecipe, face: str | None) -> FeatureRecipe:
    """The recipe with the face that was asked for, if any was."""
    return recipe if face is None else dataclasses.replace(recipe, face=face)
