"""The models of one app: loaded once, in the background, while the page is already open.

Three of them: the sentiment model (a run of the kit), the face model and the speech model. Only the first must be
available; without the others the app leaves out the face, or asks for the words, and says so. Nothing here imports torch
before `start`; what the bundled checkpoints answer to the examples is known before that (`kept.py`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import predict
from ..data.extraction_process import ClipExtractor
from ..errors import DeepMLFError
from ..features.clip import ClipFeatures
from ..features.face_model import FaceModelMissing, find_face_model
from ..features.recipe import FeatureRecipe
from ..features.transcript import load_speech_model, transcribe
from ..features.vision_blendshapes import FaceTracker
from ..predict.fresh import expected_recipe
from ..predict.prediction import Prediction
from ..workers.cancel import CancelToken
from ..workers.imports import without_collection
from .examples import examples, shown_examples
from .kept import kept_answers

if TYPE_CHECKING:
    from ..predict import Predictor

_log = logging.getLogger(__name__)
_PATIENCE = 20.0  # seconds; native code that is cut off while it loads aborts the process


@dataclass(frozen=True)
class Status:
    """Loading status. `face` and `speech` are None while it is not known yet; `problem` ends the waiting."""

    ready: bool
    face: bool | None
    speech: bool | None
    problem: str = ""
    notes: tuple[str, ...] = ()


class Models:
    """Loads in threads of its own, from `start` on; `predictor` blocks until the sentiment model is ready.

    Args:
        checkpoint: a run of the kit; None: the bundled demo checkpoint.
        face_model: path of the face model; None: see `features.face_model.find_face_model`.
        max_seconds: longest clip.
        speech: False: never transcribe.
        threads: torch threads of the whole process, until `close`; None: as many as torch takes.
    """

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        *,
        face_model: str | Path | None = None,
        max_seconds: float = 60.0,
        speech: bool = True,
        threads: int | None = None,
    ) -> None:
        self._checkpoint, self._wanted_face, self._max_seconds = checkpoint, face_model, max_seconds
        self._wanted_threads, self._threads_before = threads, 0
        self._status = Status(False, None, None if speech else False)
        self._changed = threading.Condition()
        self.seconds: dict[str, float] = {}
        self._extractor = ClipExtractor()
        #: How clips are read, as far as is known before the model is loaded.
        self.expected_recipe = expected_recipe(checkpoint)
        #: Features of the bundled clips, by the example's name: their answers wait for nothing but the model.
        self.examples = _example_features(self.expected_recipe)
        #: What is known to be answered to them.
        self.kept = kept_answers(checkpoint)
        #: What the model answers to them.
        self.predictions: dict[str, Prediction] = {name: kept.prediction for name, kept in self.kept.items()}
        self._closing = CancelToken()
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for name, target in (("load-models", self._load), ("warm-up", self._warm_up))
        ]

    def start(self) -> None:
        """Begin to load; returns at once."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End what is being loaded, and the processes that extract clips."""
        self._closing.cancel()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(_PATIENCE)
        self._extractor.close()
        if self._threads_before:
            predict.limit_threads(self._threads_before)

    @property
    def status(self) -> Status:
        """The current loading status."""
        return self._status

    @property
    def predictor(self) -> Predictor:
        """The sentiment model; waits for it.

        Raises:
            DeepMLFError: it could not be loaded.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._status.ready or self._status.problem)
        if self._status.problem:
            raise DeepMLFError(self._status.problem)
        return self._predictor

    def recipe(self, patience: float = 20.0) -> FeatureRecipe:
        """The feature recipe for the available models; waits `patience` seconds for those still loading."""
        predictor = self.predictor
        with self._changed:
            self._changed.wait_for(
                lambda: self._status.face is not None and self._status.speech is not None, patience
            )
        recipe = replace(predictor.recipe, max_seconds=self._max_seconds)
        if not self._status.speech:
            recipe = replace(recipe, transcribe=False)
        if self._needs_face(recipe) and not self._status.face:
            recipe = replace(recipe, vision="none")
        return recipe

    @property
    def face_model(self) -> Path | None:
        """The face model's file, once it is known to be there."""
        return self._face_path if self._status.face else None

    # Loading -------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        try:
            with self._timed("sentiment model"), without_collection():
                if self._wanted_threads is not None:
                    self._threads_before = predict.limit_threads(self._wanted_threads)
                self._closing.check()
                self._predictor = predict.Predictor(self._checkpoint, extractor=self._extractor)
                recipe = self._predictor.recipe
        except DeepMLFError as error:
            self._set(problem=str(error))
            return
        except Exception as error:
            _log.exception("the sentiment model could not be loaded")
            self._set(problem=f"The sentiment model could not be loaded ({error}).")
            return
        self._set(ready=True)
        self._answer_examples(recipe)
        if self._status.speech is None:
            self._try(
                "speech", "speech model", lambda: self._load_speech(recipe), "words are not transcribed"
            )
        if self._needs_face(recipe):
            self._try("face", "face model", self._load_face, "the face is left out")
        else:
            self._set(face=False)

    def _answer_examples(self, recipe: FeatureRecipe) -> None:
        if recipe != self.expected_recipe:
            self.examples = _example_features(recipe)
        for name, features in self.examples.items():
            if name not in self.kept:
                self.predictions[name] = self._predictor.features(features)

    def _load_speech(self, recipe: FeatureRecipe) -> None:
        load_speech_model(recipe.speech_model)
        tone = 0.1 * np.sin(np.arange(16000, dtype=np.float32) * 0.1)
        transcribe(tone, recipe.speech_model, recipe.language)

    def _load_face(self) -> None:
        self._face_path = find_face_model(self._wanted_face)
        FaceTracker(self._face_path).close()

    def _warm_up(self) -> None:
        """Have one bundled clip extracted, so that the first user's need not wait for what that loads on first use.

        In a process of its own, beside torch's import here.
        """
        recipe = replace(self.expected_recipe, transcribe=False)
        try:
            if self._needs_face(recipe):
                try:
                    find_face_model(self._wanted_face, download=False)
                except FaceModelMissing:
                    recipe = replace(recipe, vision="none")
            for example in examples()[:1]:
                self._extractor.extract(
                    example.path,
                    recipe,
                    text=example.text,
                    face_model=self._wanted_face,
                    cancel=self._closing,
                )
        except DeepMLFError as error:  # stopped, or a model is missing, which loading tells
            _log.info("%s", error)
        except Exception:
            _log.exception("warming up failed")

    def _try(self, name: str, what: str, load: Callable[[], None], consequence: str) -> None:
        if self._closing.cancelled:
            return
        try:
            with self._timed(what):
                load()
            self._set(**{name: True})
        except DeepMLFError as error:
            _log.info("%s", error)
            self._set(**{name: False}, note=f"No {what} is at hand: {consequence}.")
        except Exception:
            _log.exception("the %s could not be loaded", what)
            self._set(**{name: False}, note=f"The {what} could not be loaded: {consequence}.")

    def _set(self, note: str = "", **changes) -> None:
        with self._changed:
            notes = (*self._status.notes, note) if note else self._status.notes
            self._status = replace(self._status, notes=notes, **changes)
            self._changed.notify_all()

    def _timed(self, what: str):
        return _Timer(self.seconds, what)

    @staticmethod
    def _needs_face(recipe: FeatureRecipe) -> bool:
        return recipe.vision == "blendshapes" or recipe.face_crop


def _example_features(recipe: FeatureRecipe) -> dict[str, ClipFeatures]:
    """Features of the bundled clips by the example's name, where they are those of the recipe."""
    made = {example.name: example.features(recipe) for example in shown_examples()}
    return {name: features for name, features in made.items() if features is not None}


class _Timer:
    def __init__(self, into: dict[str, float], what: str) -> None:
        self.into, self.what = into, what

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *exc: object) -> None:
        self.into[self.what] = round(time.perf_counter() - self.began, 2)
