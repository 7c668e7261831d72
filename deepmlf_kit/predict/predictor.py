"""One clip -> its sentiment, each head's prediction and what was found in the clip: the end of the pipeline.

clip ─► features (features/clip.py) ─► batch (data/collate.py) ─► model of a run ─► Prediction
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.extraction_process import ClipExtractor
from ..errors import DeepMLFError
from ..features.cache import FeatureCache
from ..features.clip import ClipFeatures, ClipFound, Progress
from ..features.recipe import FeatureRecipe, RecipeError
from ..training import Run, open_run
from ..training.calibration import Calibration, streams_of
from .bundled import best_at_hand
from .prediction import Prediction, disagreements, polarity

#: The largest sentiment of a dataset's scale.
SCALES = {"mosi": 3.0, "mosei": 3.0, "sims": 1.0}


class Predictor:
    """A loaded run that predicts. Several threads may share it.

    Args:
        run: the folder of a finished fused run, or a `Run`; or that of a model which `save_pretrained` wrote; None: the
            best checkpoint at hand (`best_at_hand`).
        device: where the model runs; None takes the GPU where there is one.
        extractor: extracts clips, in processes of its own; None: a new one.

    Raises:
        DeepMLFError: no such run, or not one of a fused model.
    """

    def __init__(
        self,
        run: Run | str | Path | None = None,
        device: str | None = None,
        *,
        extractor: ClipExtractor | None = None,
    ) -> None:
        self.run = run if isinstance(run, Run) else open_run(run or best_at_hand())
        if self.run.kind != "fused":
            raise DeepMLFError(
                f"{self.run.path} holds a run of kind {self.run.kind!r}, but prediction needs a fused model: name a "
                "run of `deepmlf train` without --model."
            )
        if classes := self.run.preset.heads.classes:
            raise DeepMLFError(
                f"{self.run.path} holds a model of {classes} classes, but prediction of clips needs one of a sentiment "
                "number: train one with heads.classes=0."
            )
        #: Remarks on the run, such as what it does not say and was assumed.
        self.notes = [assumed] if (assumed := getattr(self.run, "assumed", "")) else []
        self.extractor = extractor or ClipExtractor()
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = self.run.load_model().to(self.device)
        self.collator = self.run.collator(self.model.tokenizer)
        self.scale = SCALES[self.run.preset.data.scale]
        measured = self.run.info.get("calibration")
        #: How sure it is; None where the run does not know.
        self.calibration = Calibration.from_dict(measured) if measured else None
        #: One pass at a time: whoever runs `model` outside `rows` holds it, too.
        self.lock = threading.RLock()

    @property
    def recipe(self) -> FeatureRecipe:
        """How a clip's features must be made for this model.

        Raises:
            DeepMLFError: the model was trained on features that the kit cannot extract (such as a pickle's).
        """
        stored = self.run.info["preprocessing"].get("recipe")
        try:
            if not stored:
                raise RecipeError("nothing says how they were made")
            return FeatureRecipe.from_stored(stored)
        except RecipeError as error:
            raise DeepMLFError(
                f"{self.run.path} was trained on features that the kit cannot take from a clip ({error}). Train on a "
                "dataset made by `deepmlf prepare FOLDER` to predict on clips; a model of your own Trainer needs its collator "
                "beside it, too (docs/hugging_face.md)."
            ) from error

    def clip(
        self,
        path: str | Path,
        text: str | None = None,
        *,
        face: str | None = None,
        face_model: str | Path | None = None,
        progress: Progress | None = None,
        cache: FeatureCache | None = None,
    ) -> Prediction:
        """Predict for a clip: extract its features in a process of its own, then run the model.

        Args:
            path: a video or audio file.
            text: the words, where they are known; else they are transcribed.
            face: which face is read where there are several (`FACE_CHOICES`); by default as the model was trained.
            face_model, progress, cache: as in `extract_clip`.

        Raises:
            ClipError, SpeechModelMissing: see `extract_clip`.
            FaceModelMissing: the one that was named is not there; where none was, and none can be had, the face is left out.
        """
        recipe = self.recipe if face is None else dataclasses.replace(self.recipe, face=face)
        features = self.extractor.extract_at_hand(
            path, recipe, text=text, face_model=face_model, progress=progress, cache=cache
        )
        return self.features(features)

    def features(
        self, features: ClipFeatures, text: str | None = None, *, audio: bool = True, vision: bool = True
    ) -> Prediction:
        """Predict for features that were extracted before.

        Args:
            features: of one clip.
            text: other words than the clip's.
            audio, vision: False leaves that modality out.
        """
        row = self.row(features, text, audio=audio, vision=vision)
        prediction = self.variants(features, [row], given=text is not None)[0]
        prediction.notes += self.notes
        return prediction

    def variants(
        self, features: ClipFeatures, rows: Sequence[dict[str, Any]], *, given: bool = True
    ) -> list[Prediction]:
        """Predict for variants of one clip, in one pass that computes what they share once.

        Args:
            features: of the clip.
            rows: what `row` made of them, with other words or without a stream: up to about 20.
            given: whether the words are other ones than the clip's.
        """
        return self._predictions([features] * len(rows), rows, given, share_texts=True)

    def text(self, text: str) -> Prediction:
        """Predict for words alone, without voice and face."""
        return self.features(text_features(text))

    def batch(self, features: Sequence[ClipFeatures]) -> list[Prediction]:
        """Predict for the features of several clips, in one pass of the model."""
        return self._predictions(features, [self.row(each) for each in features])

    def _predictions(
        self,
        clips: Sequence[ClipFeatures],
        rows: Sequence[dict[str, Any]],
        given: bool = False,
        share_texts: bool = False,
    ) -> list[Prediction]:
        """Predictions for clips as `rows`; `given`: the words are other ones than the clip's."""
        began = time.perf_counter()
        said = self.rows(rows, share_texts=share_texts)
        lengths = self.collator.lengths([row["text"] for row in rows])
        seconds = round((time.perf_counter() - began) / len(rows), 4)
        return [
            self._prediction(
                clip,
                row,
                {name: values[i] for name, values in said.items()},
                lengths[i],
                "given" if given else clip.text_source,
                seconds,
            )
            for i, (clip, row) in enumerate(zip(clips, rows, strict=True))
        ]

    def _prediction(
        self,
        features: ClipFeatures,
        row: dict[str, Any],
        said: dict[str, Any],
        length: int,
        source: str,
        seconds: float,
    ) -> Prediction:
        """What the heads `said` of one clip, and what was found in it, as its `Prediction`."""
        heads = {name: _said(float(said[name])) for name in ("text", "av")}
        tokens = [float(value) for value in said["fusion"]]
        heads["fusion"] = float(np.mean(tokens))
        sentiment = float(said["task"])
        found = features.found.to_dict()
        notes = [*found.pop("notes"), *disagreements(heads, self.scale)]
        read, kept = self.collator.max_text_tokens, self.collator.long_texts
        if length > read:
            notes.append(
                f"read the {'last' if kept == 'end' else 'first'} {read} of the words' {length} tokens"
            )
        interval, certain = self._sure(row, sentiment)
        if certain is False:
            notes.append("too close to 0 to tell whether it is positive, negative or neither")
        if heads["text"] is None:
            notes.append("no words: give them with a typed text, or the answer rests on voice and face alone")
        return Prediction(
            sentiment=sentiment,
            polarity=polarity(sentiment, self.scale),
            interval=interval,
            certain=certain,
            coverage=self.calibration.coverage if self.calibration else None,
            heads=heads,
            fusion_tokens=tokens,
            scale=self.scale,
            text=row["text"],
            text_tokens={"read": min(read, length), "of": length, "long_texts": kept},
            clip={**found, "text_source": source},
            timings={**features.timings, "model": seconds},
            notes=notes,
            answered_by={"checkpoint": self.run.path.resolve().name, "lm": self.run.preset.lm.name},
        )

    def _sure(self, row: dict[str, Any], sentiment: float) -> tuple[tuple[float, float] | None, bool | None]:
        """The interval around a prediction, and whether its sign is to be trusted."""
        if self.calibration is None:
            return None, None
        streams = streams_of(row)
        interval = self.calibration.interval(sentiment, streams, self.scale)
        return interval, abs(sentiment) >= self.calibration.zone(streams)

    def row(
        self, features: ClipFeatures, text: str | None = None, *, audio: bool = True, vision: bool = True
    ) -> dict[str, Any]:
        """Features as a row of a dataset (see `data.schema`), with a stream left out where asked for."""
        row: dict[str, Any] = {"text": features.text if text is None else text, "words": features.words}
        for name, wanted in (("audio", audio), ("vision", vision)):
            frames, times = getattr(features, name), getattr(features, f"{name}_times")
            if not wanted or not len(frames):  # extracted without this stream, it has no columns either
                width = self.collator.dims[name] or frames.shape[1]
                frames = np.zeros(
                    (0, width), np.float32
                )  # its times stay: the clock of the other stream is the same
            row[name], row[f"{name}_times"] = frames, times
        return row

    def rows(self, rows: Sequence[dict[str, Any]], *, share_texts: bool = False) -> dict[str, np.ndarray]:
        """Predict for rows of a dataset, as one batch.

        Args:
            share_texts: as of `DeepMLFModel.forward`, for rows whose texts are variants of one.

        Returns:
            `task`, `text`, `av` [B] and `fusion` [B, F]; NaN for `text` of a row without words, and for `av` of one
            without voice and face.
        """
        batch = {
            name: tensor.to(self.device) for name, tensor in self.collator(rows).items() if name != "labels"
        }
        with self.lock, torch.inference_mode():
            predictions = self.model(**batch, share_texts=share_texts).head_predictions()
        said = {name: tensor.float().cpu().numpy() for name, tensor in predictions.items()}
        said["text"] = np.where([bool(row["text"].strip()) for row in rows], said["text"], np.nan)
        return said


def limit_threads(count: int) -> int:
    """Let torch compute with so many threads in the whole process; returns how many they were before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    return before


def text_features(text: str) -> ClipFeatures:
    """Features of words alone: no voice, no face."""
    none, never = np.zeros((0, 0), np.float32), np.zeros(0)
    found = ClipFound(0.0, has_audio=False, has_video=False)
    return ClipFeatures(none, never, none, never, text, [], "given", found, {})


def _said(value: float) -> float | None:
    """What a head says; None where its stream is missing."""
    return None if np.isnan(value) else value
