"""The models of one app: loaded once, in the background, while the page is already open.

Three of them: the sentiment model (a run of the kit), the face model and the speech model. Only the first must be
available; without the others the app leaves out the face, or asks for the words, and says so.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import DeepMLFError
from ..features.clip import ClipFeatures
from ..features.face_model import find_face_model
from ..features.recipe import FeatureRecipe
from ..features.transcript import load_speech_model, transcribe
from ..features.vision_blendshapes import FaceTracker
from ..predict.predictor import Prediction, Predictor
from .examples import examples, shown_examples

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
    """Loads in a thread of its own; `wait` blocks until the sentiment model is ready.

    Args:
        checkpoint: a run of the kit; None: the bundled demo checkpoint.
        face_model: path of the face model; None: see `features.face_model.find_face_model`.
        max_seconds: longest clip.
        speech: False: never transcribe.
    """

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        *,
        face_model: str | Path | None = None,
        max_seconds: float = 60.0,
        speech: bool = True,
    ) -> None:
        self._checkpoint, self._wanted_face, self._max_seconds = checkpoint, face_model, max_seconds
        self._status = Status(False, None, None if speech else False)
        self._changed = threading.Condition()
        self.seconds: dict[str, float] = {}
        #: Features of the bundled clips, by the example's name: their answers wait for nothing but the model.
        self.examples: dict[str, ClipFeatures] = {}
        #: What the model answers to them.
        self.predictions: dict[str, Prediction] = {}
        loading = threading.Thread(target=self._load, name="load-models", daemon=True)
        loading.start()
        atexit.register(loading.join, _PATIENCE)

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
            with self._timed("sentiment model"):
                self._predictor = Predictor(self._checkpoint)
                recipe = self._predictor.recipe
        except DeepMLFError as error:
            self._set(problem=str(error))
            return
        except Exception as error:
            _log.exception("the sentiment model could not be loaded")
            self._set(problem=f"The sentiment model could not be loaded ({error}).")
            return
        self._set(ready=True)
        self._answer_examples()
        if self._status.speech is None:
            self._try(
                "speech", "speech model", lambda: self._load_speech(recipe), "words are not transcribed"
            )
        if self._needs_face(recipe):
            self._try("face", "face model", self._load_face, "the face is left out")
        else:
            self._set(face=False)
        self._warm_up()

    def _answer_examples(self) -> None:
        for example in shown_examples():
            features = example.features(self._predictor.recipe)
            if features is not None:
                self.examples[example.name] = features
                self.predictions[example.name] = self._predictor.features(features)

    def _load_speech(self, recipe: FeatureRecipe) -> None:
        load_speech_model(recipe.speech_model)
        tone = 0.1 * np.sin(np.arange(16000, dtype=np.float32) * 0.1)
        transcribe(tone, recipe.speech_model, recipe.language)

    def _load_face(self) -> None:
        self._face_path = find_face_model(self._wanted_face)
        FaceTracker(self._face_path).close()

    def _warm_up(self) -> None:
        """Run one bundled clip through the whole pipeline, so that the first user does not wait for lazy loading."""
        try:
            for example in examples()[:1]:
                recipe = replace(self.recipe(0), transcribe=False)
                features = self._predictor.extractor.extract(
                    example.path, recipe, text=example.text, face_model=self.face_model
                )
                if not features.vision.shape[1]:
                    return
                self._predictor.features(features)
        except Exception:
            _log.exception("warming up failed")

    def _try(self, name: str, what: str, load, consequence: str) -> None:
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


class _Timer:
    def __init__(self, into: dict[str, float], what: str) -> None:
        self.into, self.what = into, what

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *exc: object) -> None:
        self.into[self.what] = round(time.perf_counter() - self.began, 2)
