"""Many clips, or many texts, -> one CSV of predictions, in batches; what fails is listed beside it.

    folders and files --> which clips --> extracted in parallel, into the cache --> batches through the model --> CSV
    CSV of texts ---------------------------------------------------------------------'      `--> failures.csv

A run that was stopped is repeated with the same call: what the cache holds is not extracted again.
"""

from __future__ import annotations

import csv
import dataclasses
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from ..data.folder import (
    Failure,
    Progress,
    cache_for,
    cached_features,
    extract_missing,
    failure_of,
    list_failures,
    progress_shown,
    trim_noting,
    write_failures,
)
from ..data.label_csv import LabelFileError, LabelledClip, cell, read_labels, read_lines
from ..data.texts import TEXT_SUFFIXES, text_id
from ..errors import DeepMLFError, excerpt
from ..features.cache import FeatureCache, cache_limit
from ..features.clip import ClipFeatures
from ..features.container import looks_like_a_clip
from ..storage.files import replacing
from .prediction import Prediction
from .predictor import Predictor, text_features

BATCH = 32
"""Clips or texts in one pass of the model."""

COLUMNS = (
    "id",
    "path",
    "sentiment",
    "low",
    "high",
    "certain",
    "polarity",
    "text_head",
    "av_head",
    "fusion_head",
    "text",
    "text_source",
    "seconds",
    "face_share",
    "voiced_share",
    "notes",
)
"""Columns of the predictions; empty where a head has nothing to go by, nothing was looked for, or nothing was calibrated
(`low` and `high` end the interval; `certain` is 1 where the sign is to be trusted)."""

_TITLES = {"look": "Looking for clips", "extract": "Extracting features", "predict": "Predicting"}


@dataclass(frozen=True)
class PredictedMany:
    """Result of `predict_clips` and `predict_texts`.

    `path`: the CSV with the columns `COLUMNS`; `predicted`: its lines; `extracted`: clips whose features were computed
    now; `notes`: what was guessed; `failures`: what has no line, also in the file `failures_path`.
    """

    path: Path
    predicted: int
    extracted: int
    failures: list[Failure]
    seconds: float
    notes: list[str]

    @property
    def failures_path(self) -> Path:
        """Where the failures are listed, if there are any."""
        return self.path.with_name(f"{self.path.stem}.failures.csv")

    def summary(self) -> str:
        """A few lines for people."""
        lines = [f"{self.path}: {self.predicted} predictions ({self.seconds:.1f} s)"]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, *list_failures(self.failures, self.failures_path)])


def predict_clips(
    predictor: Predictor,
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    face: str | None = None,
    face_model: str | Path | None = None,
    workers: int | None = None,
    cache: FeatureCache | None = None,
    timeout: float = 600.0,
    retry: bool = False,
    progress: Progress | None = None,
    show_progress: bool = False,
) -> PredictedMany:
    """Predict for clips and folders of clips, and write one CSV.

    Args:
        predictor: the model.
        sources: video and audio files, and folders. Of a folder with a `label.csv` its lines are taken, with their
            words where it gives them (`label_csv.read_labels`; labels and splits are not needed); of another one all
            clips in it and below. Other words are transcribed.
        out: the CSV; the failures are listed beside it, in `NAME.failures.csv`.
        face: which face is read where there are several; by default as the model was trained.
        face_model, workers, cache, timeout, retry, progress, show_progress: as in `data.folder.prepare_folder`; the
            stages are `look`, `extract` and `predict`.

    Raises:
        DeepMLFError: there is no such source, a model is missing, or no clip at all can be used.
    """
    began = time.perf_counter()
    out = Path(out)
    recipe = predictor.recipe if face is None else dataclasses.replace(predictor.recipe, face=face)
    limit = cache_limit()
    notes = list(predictor.notes)
    clips = [clip for source in sources for clip in _clips_of(Path(source), notes)]
    _refuse_overwriting(
        out, [path for source in map(Path, sources) for path in (source, source / "label.csv")]
    )
    if not clips:
        raise DeepMLFError(f"{', '.join(map(str, sources))}: found no video or audio file there.")
    usable = [clip for clip in clips if not clip.problem]
    with (
        cache_for(out, cache, notes) as kept,
        progress_shown(_TITLES, progress, show_progress) as tell,
    ):
        options = {"face_model": face_model, "workers": workers, "timeout": timeout, "retry": retry}
        extracted, failed = extract_missing(usable, recipe, kept, tell, **options)
        lost = {(failure.id, failure.path): failure for failure in failed}

        def features_of(clip: LabelledClip) -> ClipFeatures | Failure:
            if clip.problem:
                return failure_of(clip, clip.problem)
            return lost.get((clip.id, clip.path)) or cached_features(clip, recipe, kept, face_model)

        made = _write(predictor, clips, features_of, out, tell)
        trim_noting(kept, limit, notes)
    return _finished(made, clips, out, extracted, began, notes)


def predict_texts(
    predictor: Predictor,
    file: str | Path,
    out: str | Path,
    *,
    progress: Progress | None = None,
    show_progress: bool = False,
) -> PredictedMany:
    """Predict for texts alone, without voice and face, and write one CSV.

    Args:
        predictor: the model.
        file: a CSV file with the column `text`, and `id`, or `video_id` and `clip_id`, where there are any.
        out: the CSV; the failures (empty texts) are listed beside it, in `NAME.failures.csv`.
        progress, show_progress: as in `predict_clips`; the one stage is `predict`.

    Raises:
        LabelFileError: the file cannot be used.
        DeepMLFError: no text can be used.
    """
    began = time.perf_counter()
    file, out = Path(file), Path(out)
    columns, lines, notes = read_lines(file, ("text",))
    notes = [*predictor.notes, *notes]
    _refuse_overwriting(out, [file])
    if "text" not in columns:
        raise LabelFileError(
            f"{file}: found the columns {excerpt(', '.join(columns), 200) or '(none)'}, expected a column text."
        )
    texts = [
        LabelledClip(text_id(line, number), "", cell(line, "text"), "")
        for number, line in enumerate(lines, start=1)
    ]

    def features_of(text: LabelledClip) -> ClipFeatures | Failure:
        return text_features(text.text) if text.text else failure_of(text, "its text is empty")

    with progress_shown(_TITLES, progress, show_progress) as tell:
        made = _write(predictor, texts, features_of, out, tell)
    return _finished(made, texts, out, 0, began, notes)


def _clips_of(source: Path, notes: list[str]) -> list[LabelledClip]:
    """The clips of a folder, or the one file."""
    if not source.is_dir():
        if not source.is_file():
            raise DeepMLFError(f"{source}: found no such file or folder, expected clips.")
        if source.suffix.lower() in TEXT_SUFFIXES:
            raise DeepMLFError(f"{source} is no clip; for the texts of a CSV add --text-only.")
        return [LabelledClip(source.name, str(source), None, "")]
    if (labels := source / "label.csv").is_file():
        read = read_labels(labels, source, for_training=False)
        listed = {Path(clip.path).resolve() for clip in read.clips}
        if unlisted := sum(
            path.resolve() not in listed and looks_like_a_clip(path) for path in _files_of(source)
        ):
            notes.append(f"{unlisted} clips in {source} are not in its label.csv and were left out")
        notes += read.notes
        return read.clips
    files = _files_of(source)
    clips = [path for path in files if looks_like_a_clip(path)]
    if others := len(files) - len(clips):
        notes.append(f"{others} files in {source} are no clips and were left out")
    return [LabelledClip(path.relative_to(source).as_posix(), str(path), None, "") for path in clips]


def _files_of(folder: Path) -> list[Path]:
    """The files in a folder and below, but hidden ones."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not _hidden(path, folder)]


def _refuse_overwriting(out: Path, inputs: Sequence[Path]) -> None:
    for path in inputs:
        if path.is_file() and out.exists() and out.samefile(path):
            raise DeepMLFError(f"{out} is read from and cannot take the predictions: choose another file.")


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


@dataclass
class _Made:
    """What became of the clips or texts: lines written, and failures."""

    lines: int
    failures: list[Failure]


def _write(
    predictor: Predictor, clips: Sequence[LabelledClip], features_of: Any, out: Path, tell: Progress
) -> _Made:
    """Predict batch by batch and write the CSV, in the order of the clips; nothing is written where all fail."""
    made = _Made(0, [])

    def answers() -> Iterator[tuple[LabelledClip, Prediction]]:
        for start in range(0, len(clips), BATCH):
            found = [(clip, features_of(clip)) for clip in clips[start : start + BATCH]]
            made.failures += [failure for _, failure in found if isinstance(failure, Failure)]
            good = [(clip, features) for clip, features in found if not isinstance(features, Failure)]
            if good:
                predictions = predictor.batch([features for _, features in good])
                yield from ((clip, said) for (clip, _), said in zip(good, predictions, strict=True))
            tell("predict", min(start + BATCH, len(clips)), len(clips))

    waiting = answers()
    first = next(waiting, None)
    if first is None:
        return made
    with replacing(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for clip, prediction in chain([first], waiting):  # one batch in memory at a time
            writer.writerow(_line(clip, prediction))
            made.lines += 1
    return made


def _line(clip: LabelledClip, prediction: Prediction) -> list[Any]:
    heads, found = prediction.heads, prediction.clip
    return [
        clip.id,
        clip.path,
        _rounded(prediction.sentiment),
        *(_rounded(end) for end in prediction.interval or (None, None)),
        None if prediction.certain is None else int(prediction.certain),
        prediction.polarity,
        *(_rounded(heads[name]) for name in ("text", "av", "fusion")),
        prediction.text,
        found["text_source"],
        found["seconds"] or None,
        *(_rounded(found[name]) for name in ("face_share", "voiced_share")),
        "; ".join(prediction.notes),
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _finished(
    made: _Made, clips: Sequence[LabelledClip], out: Path, extracted: int, began: float, notes: list[str]
) -> PredictedMany:
    """The result, with its failures written.

    Raises:
        DeepMLFError: there are only failures.
    """
    seconds = round(time.perf_counter() - began, 3)
    result = PredictedMany(out, made.lines, extracted, made.failures, seconds, notes)
    if made.failures or result.failures_path.exists():  # the list of an earlier run is outdated
        write_failures(result.failures_path, made.failures)
    if not made.lines:
        raise DeepMLFError(
            f"none of {len(clips)} could be used; the reasons are in {result.failures_path}, the first is: "
            f"{made.failures[0].reason}"
        )
    return result
