"""A folder of clips with a label file -> a dataset in the one schema.

    label.csv --> which clips --> extracted in parallel, into the cache --> rows --> DatasetDict, saved
                       `--> failures.csv (what could not be used, and why)

A run that was killed is repeated with the same call: what the cache holds is not computed again.
"""

from __future__ import annotations

import csv
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import DatasetDict, concatenate_datasets
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from .. import features
from ..downloads.cache import CacheError
from ..errors import DeepMLFError, excerpt, printable
from ..features.cache import FeatureCache, cache_limit
from ..features.clip import ClipFeatures, extract_clip, forget_lost, is_cached
from ..features.recipe import FeatureRecipe, feature_names
from ..storage.files import misshapen, read_json, replacing, write_json
from ..storage.folders import foreign, sole_writer_of, working_folder
from .extraction_pool import Job, extract_all
from .label_csv import LabelFileError, LabelledClip, read_labels
from .schema import SPLITS, build_split, check_replaceable, load, save, utterance

Progress = Callable[[str, int, int], None]
"""Called with the stage (`look`, `extract`, `write` or `predict`), the clips done and the clips in all."""


@dataclass(frozen=True)
class Failure:
    """A line of the label file that did not become a row: its id, its clip and the reason."""

    id: str
    path: str
    reason: str


@dataclass(frozen=True)
class PreparedFolder:
    """Result of `prepare_folder`.

    `path`: where the dataset lies; `dataset`: opened from there (None for a shard without a usable clip);
    `extracted`, `cached`: clips extracted now, and found in the cache; `notes`: what was guessed.
    """

    path: Path
    dataset: DatasetDict | None
    failures: list[Failure]
    extracted: int
    cached: int
    seconds: float
    notes: list[str]

    @property
    def is_shard(self) -> bool:
        """Whether this is a part that `merge_shards` is to join."""
        return _SHARD in self.path.name

    @property
    def rows(self) -> dict[str, int]:
        """Utterances by split."""
        return {split: part.num_rows for split, part in (self.dataset or {}).items()}

    def summary(self) -> str:
        """A few lines for people: what was made, what failed and why."""
        rows = ", ".join(f"{count} {split}" for split, count in self.rows.items()) or "no rows"
        clips = f"{self.extracted} clips extracted now, {self.cached} from the cache, "
        clips = clips if self.extracted or self.cached else ""
        lines = [f"{self.path}: {rows} ({clips}{self.seconds:.1f} s)"]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, *list_failures(self.failures, self.path / FAILURES)])


FAILURES = "failures.csv"
_SHARD = ".shard-"
_SUMMARY = "prepared.json"


def prepare_folder(
    root: str | Path,
    out: str | Path,
    recipe: FeatureRecipe | None = None,
    *,
    labels: str | Path | None = None,
    transcribe: bool = False,
    workers: int | None = None,
    shard: tuple[int, int] | None = None,
    face_model: str | Path | None = None,
    cache: FeatureCache | None = None,
    timeout: float = 600.0,
    retry: bool = False,
    label_scale: float | None = None,
    progress: Progress | None = None,
    show_progress: bool = False,
) -> PreparedFolder:
    """Extract the features of a folder of clips and save them as a dataset.

    Args:
        root: folder of the clips, with `label.csv` in it.
        out: folder to write the dataset to; `failures.csv` lies in it where there were any.
        recipe: what to extract; the defaults of `FeatureRecipe` where not given.
        labels: the label file, where it is not `root/label.csv`. See `label_csv.read_labels` for its two
            layouts.
        transcribe: transcribe the clips whose text is not given (`text_source` then says so). Otherwise they
            are failures.
        workers: processes that extract at the same time; the number of cores where not given.
        shard: (i, n) with 1 <= i <= n: take the i-th of n equal parts, and write it beside `out`;
            `merge_shards` joins them.
            For the job array of a cluster.
        face_model: path of the face model file, see `features.face_model.find_face_model`.
        cache: of features; by default the user's cache folder. At the end it is trimmed to
            DEEPMLF_CACHE_GB (`features.cache.cache_limit`).
        timeout: seconds without progress after which a clip is given up.
        retry: try clips again that crashed or hung their process in an earlier run.
        label_scale: largest absolute label there can be, kept with the dataset: 3 for MOSI and MOSEI, 1 for
            SIMS. By default 1 if no label is beyond it, else 3. A clip with a label beyond it is a failure.
        progress: called with the progress, see `Progress`.
        show_progress: whether to draw a progress bar on stderr.

    Raises:
        LabelFileError: the label file cannot be used.
        DeepMLFError: a model is missing, no clip at all can be used, or `out` holds something else.
    """
    began = time.perf_counter()
    root, out = Path(root), Path(out)
    if not root.is_dir():
        raise LabelFileError(
            f"{root}: found no such folder, expected a folder of clips with a label.csv in it."
        )
    recipe = replace(recipe or FeatureRecipe(), transcribe=transcribe)
    limit = cache_limit()  # a wrong setting fails now, not after hours
    read = read_labels(labels or root / "label.csv", root)
    notes = list(read.notes)
    clips, label_scale = on_scale(read.clips, label_scale, notes)
    if shard is not None:
        out, clips = _shard(out, clips, shard)
    check_replaceable(out)

    failures = [failure_of(clip, clip.problem) for clip in clips if clip.problem]
    usable = []
    for clip in clips:
        if clip.problem:
            continue
        if clip.text is None and not transcribe:
            failures.append(
                failure_of(
                    clip, "the label file gives no text; add it, or have it transcribed (--transcribe)"
                )
            )
        else:
            usable.append(clip)

    with (
        sole_writer_of(out),
        cache_for(out, cache, notes) as cache,
        progress_shown(_TITLES, progress, show_progress) as tell,
    ):
        extracted, failed = extract_missing(
            usable,
            recipe,
            cache,
            tell,
            face_model=face_model,
            workers=workers,
            timeout=timeout,
            retry=retry,
        )
        failures += failed
        gone = {failure.id for failure in failed}
        good = [clip for clip in usable if clip.id not in gone]
        made = json.dumps(
            {**recipe.to_dict(), "label_scale": label_scale}, sort_keys=True, ensure_ascii=False
        )
        dataset = _write(good, out, recipe, made, face_model, cache, failures, tell)
        trim_noting(cache, limit, notes)
    if dataset is None and shard is None:
        report = report_nothing(out, failures)
        raise DeepMLFError(
            f"{root}: none of its {len(clips)} clips could be used; the reasons are in {report}, the first is: "
            f"{failures[0].reason}"
        )
    if shard is None:
        notes += [
            f"no clip of the split {split!r}: training needs some"
            for split in ("train", "valid")
            if split not in (dataset or {})
        ]
        notes += [
            f"no utterance of the split {split!r} has a label: "
            + ("training needs some" if split != "test" else "training's final table will be that of 'valid'")
            for split, part in (dataset or {}).items()
            if all(map(math.isnan, part.with_format(None)["label"][:]))
        ]
    order = {clip.id: place for place, clip in enumerate(clips)}
    failures.sort(key=lambda failure: order[failure.id])
    prepared = PreparedFolder(
        path=out,
        dataset=dataset,
        failures=failures,
        extracted=extracted,
        cached=sum(part.num_rows for part in (dataset or {}).values()) - extracted,
        seconds=round(time.perf_counter() - began, 3),
        notes=notes,
    )
    write_report(prepared, made)
    return prepared


def merge_shards(out: str | Path) -> PreparedFolder:
    """Join the parts that `prepare_folder(..., shard=(i, n))` wrote beside `out`; they stay where they are.

    Raises:
        DeepMLFError: there are no parts, some are missing, or they were made with different recipes.
    """
    began = time.perf_counter()
    out = Path(out)
    parts = sorted(path.parent for path in out.parent.glob(f"{out.name}{_SHARD}*-of-*/{_SUMMARY}"))
    if not parts:
        raise DeepMLFError(
            f"{out}: found no parts beside it, expected folders {out.name}.shard-1-of-n and so on."
        )
    reports = {path: _read_summary(path) for path in parts}
    counts = {report["shard"][1] for report in reports.values()}
    if len(counts) > 1:
        raise DeepMLFError(
            f"{out}: found parts of runs with {', '.join(map(str, sorted(counts)))} shards, expected one number; "
            f"remove the folders of the other run."
        )
    count = counts.pop()
    missing = sorted(set(range(1, count + 1)) - {report["shard"][0] for report in reports.values()})
    if missing:
        raise DeepMLFError(
            f"{out}: found {len(parts)} of {count} parts, missing: {', '.join(map(str, missing))}; run them, then merge."
        )
    in_order = sorted(parts, key=lambda path: reports[path]["shard"][0])
    recipes = {reports[path]["recipe"] for path in in_order}
    if len(recipes) > 1:
        raise DeepMLFError(
            f"{out}: its parts were made with {len(recipes)} different recipes; make them again with one."
        )
    loaded = [load(path) for path in in_order if (path / "dataset_dict.json").is_file()]
    failures = [Failure(**line) for path in in_order for line in _read_failures(path)]
    if not loaded:
        raise DeepMLFError(f"{out}: none of its parts holds a usable clip; see {FAILURES} in each of them.")
    dataset = DatasetDict(
        {
            split: concatenate_datasets([part[split] for part in loaded if split in part])
            for split in SPLITS
            if any(split in part for part in loaded)
        }
    )
    save(dataset, out)
    prepared = PreparedFolder(
        path=out,
        dataset=load(out),
        failures=failures,
        extracted=sum(report["extracted"] for report in reports.values()),
        cached=sum(report["cached"] for report in reports.values()),
        seconds=round(time.perf_counter() - began, 3),
        notes=list(dict.fromkeys(note for report in reports.values() for note in report["notes"])),
    )
    write_report(prepared, recipes.pop())
    return prepared


# Steps of prepare_folder; predictions for many clips share those without an underscore ------------------------------


def extract_missing(
    clips: list[LabelledClip],
    recipe: FeatureRecipe,
    cache: FeatureCache,
    tell: Progress,
    *,
    face_model: str | Path | None = None,
    workers: int | None = None,
    timeout: float = 600.0,
    retry: bool = False,
) -> tuple[int, list[Failure]]:
    """Extract into the cache what it does not hold yet; arguments as in `prepare_folder`.

    Returns:
        How many clips were extracted, and those that failed.
    """
    pending = []
    for number, clip in enumerate(clips, start=1):
        if retry:
            forget_lost(cache, clip.path, recipe)
        if not is_cached(clip.path, recipe, text=clip.text, face_model=face_model, cache=cache):
            pending.append(clip)
        tell("look", number, len(clips))
    failures: list[Failure] = []
    done = 0

    def finished(index: int, problem: str) -> None:
        nonlocal done
        done += 1
        if problem:
            failures.append(failure_of(pending[index], problem))
        tell("extract", done, len(pending))

    extract_all(
        [Job(clip.path, clip.text) for clip in pending],
        recipe,
        cache.folder,
        workers=workers or os.cpu_count() or 1,
        face_model=face_model,
        timeout=timeout,
        finished=finished,
    )
    return len(pending) - len(failures), failures


def _write(
    clips: list[LabelledClip],
    out: Path,
    recipe: FeatureRecipe,
    made: str,
    face_model: Any,
    cache: FeatureCache,
    failures: list[Failure],
    tell: Progress,
) -> DatasetDict | None:
    """Rows from the cache to the saved dataset, one at a time; None where there are none."""
    audio_dim, vision_dim = _dims(recipe)
    written = 0

    def row(clip: LabelledClip, got: ClipFeatures) -> dict[str, Any]:
        return utterance(
            clip.id,
            got.text,
            got.audio,
            got.vision,
            clip.label,
            audio_dim=audio_dim,
            vision_dim=vision_dim,
            audio_times=got.audio_times,
            vision_times=got.vision_times,
            words=got.words,
            text_source="given" if clip.text is not None else "transcribed",
            clip=str(Path(clip.path).absolute()),
            recipe=made,
            label_class=clip.label_class,
            **clip.unimodal,
        )

    def rows(split: str) -> Iterator[dict[str, Any]]:
        nonlocal written
        for clip in clips:
            if clip.split != split:
                continue
            got = cached_features(clip, recipe, cache, face_model)
            if isinstance(got, Failure):
                failures.append(got)
            else:
                yield row(clip, got)
            written += 1
            tell("write", written, len(clips))

    with working_folder(out) as building:
        splits = {
            split: build_split(rows(split), audio_dim, vision_dim, building / f"{split}.arrow")
            for split in SPLITS
            if any(clip.split == split for clip in clips)
        }
        splits = {split: part for split, part in splits.items() if part.num_rows}
        if not splits:
            return None
        save(DatasetDict(splits), out)
    return load(out)


def cached_features(
    clip: LabelledClip, recipe: FeatureRecipe, cache: FeatureCache, face_model: str | Path | None
) -> ClipFeatures | Failure:
    """A clip's features from the cache; why there are none where it fails after all."""
    try:
        return extract_clip(clip.path, recipe, text=clip.text, face_model=face_model, cache=cache)
    except DeepMLFError as error:
        return failure_of(clip, str(error))
    # A cache entry that was damaged since: the clip is computed here, and may raise anything.
    except Exception as error:
        return failure_of(clip, f"could not be processed ({type(error).__name__}: {error})")


def _dims(recipe: FeatureRecipe) -> tuple[int, int]:
    """Values per audio and per vision frame; a modality that is left out has one, and no frames."""
    dims = []
    for kind, choice, names in zip(
        ("audio", "vision"), (recipe.audio, recipe.vision), feature_names(recipe), strict=True
    ):
        if names is None:
            dims.append(features.encoder_width(kind, choice.removeprefix("hf:").strip()))
        else:
            dims.append(max(1, len(names)))
    return dims[0], dims[1]


def failure_of(clip: LabelledClip, reason: str) -> Failure:
    """A clip that is left out, and why."""
    reason = " ".join(reason.removeprefix(f"{clip.path}: ").split())  # libraries' reasons may have many lines
    return Failure(clip.id, clip.path, reason)


@contextmanager
def cache_for(out: Path, cache: FeatureCache | None, notes: list[str]) -> Iterator[FeatureCache]:
    """The cache as given or the user's; where it cannot be written, one beside `out` for this call, which a note says."""
    try:
        cache = cache or FeatureCache()
        if cache.is_writable():
            yield cache
            return
        reason = f"{cache.folder} cannot be written to"
    except CacheError as error:
        reason = str(error).rstrip(".")
    notes.append(f"extracted features are not kept for later runs: {reason} (see DEEPMLF_CACHE)")
    with working_folder(out) as folder:
        yield FeatureCache(folder)


def trim_noting(cache: FeatureCache, limit: float, notes: list[str]) -> None:
    """Trim the cache to `limit` bytes, and note what went."""
    if removed := cache.trim(limit):
        notes.append(
            f"cached features were above {limit / 1e9:g} GB (DEEPMLF_CACHE_GB): the {removed} least recently used "
            "were removed; a run that needs them computes them again"
        )


# Files around the dataset -------------------------------------------------------------------------------------


def _shard(out: Path, clips: list[LabelledClip], shard: tuple[int, int]) -> tuple[Path, list[LabelledClip]]:
    part, count = shard
    if not 1 <= part <= count:
        raise DeepMLFError(f"shard: found {part}/{count}, expected i/n with i from 1 to n.")
    first, last = (len(clips) * edge // count for edge in (part - 1, part))
    return out.with_name(f"{out.name}{_SHARD}{part}-of-{count}"), clips[first:last]


def on_scale(
    clips: list[LabelledClip], stated: float | None, notes: list[str]
) -> tuple[list[LabelledClip], float]:
    """The clips, with a problem where a label is beyond the scale, and that scale: as stated, else guessed.

    Raises:
        DeepMLFError: what is stated is no scale.
    """
    if stated is not None and not 0 < stated < math.inf:
        raise DeepMLFError(f"label_scale is {stated:g}, expected the largest label, such as 3 or 1.")
    scale = _guessed_scale(clips, notes) if stated is None else stated
    return [_on_scale(clip, scale) for clip in clips], scale


def _guessed_scale(clips: list[LabelledClip], notes: list[str]) -> float:
    """The field's scale that the labels fit, but for a twentieth that may be mistyped; else the largest label."""
    labels = sorted(abs(clip.label) for clip in clips if not math.isnan(clip.label))
    mistyped = [label for label in labels if label > 3]
    if len(mistyped) > len(labels) / 20:
        mistyped = []
    largest = labels[-1 - len(mistyped)] if labels else 3.0
    scale = 1.0 if largest <= 1 else 3.0 if largest <= 3 else largest
    notes.append(
        f"labels are taken to lie in [-{scale:g}, {scale:g}]; the largest is {largest:g}, label_scale tells of larger ones"
    )
    if mistyped:
        notes.append(
            f"{len(mistyped)} labels are far beyond all others, up to {mistyped[-1]:g}: they count as mistyped, unless "
            "label_scale says that they can be"
        )
    if scale > 3:
        notes.append(
            "such labels are trained on as they are, but Acc-7 and Acc-5 take all beyond 3 and 2 for one class: for the "
            f"field's scale of -3 to 3 multiply them by {3 / scale:.3g}"
        )
    return scale


def _on_scale(clip: LabelledClip, scale: float) -> LabelledClip:
    """The clip, with a problem where a label of it is beyond the scale."""
    wrong = [
        f"{name} is {value:g}, expected a number in [-{scale:g}, {scale:g}] (label_scale)"
        for name, value in {"label": clip.label, **clip.unimodal}.items()
        if abs(value) > scale * (1 + 1e-6)
    ]
    return replace(clip, problem="; ".join(filter(None, [clip.problem, *wrong]))) if wrong else clip


def write_report(prepared: PreparedFolder, recipe: str) -> None:
    """Write the list of failures, and what a later call (or a merge of shards) reads of this one."""
    prepared.path.mkdir(parents=True, exist_ok=True)
    if prepared.failures:
        write_failures(prepared.path / FAILURES, prepared.failures)
    part = prepared.path.name.rpartition(_SHARD)[2].split("-of-") if prepared.is_shard else ["1", "1"]
    report = {
        "rows": prepared.rows,
        "failures": len(prepared.failures),
        "extracted": prepared.extracted,
        "cached": prepared.cached,
        "seconds": prepared.seconds,
        "notes": prepared.notes,
        "shard": [int(number) for number in part],
        "recipe": recipe,
    }
    write_json(prepared.path / _SUMMARY, report)


def _read_summary(part: Path) -> dict[str, Any]:
    """The report of a shard.

    Raises:
        DeepMLFError: it is damaged.
    """
    repair = "prepare that shard again."
    report = read_json(part / _SUMMARY, repair)
    shape = {"shard": list, "recipe": str, "extracted": int, "cached": int, "notes": list}
    if wrong := misshapen(report, shape):
        raise DeepMLFError(f"{part / _SUMMARY}: {wrong}; {repair}")
    return report


def report_nothing(out: Path, failures: list[Failure]) -> Path:
    """Write the list of failures where there is no dataset to lie beside; its path."""
    place, number = out, 1
    while place.is_file() or foreign(
        place, (FAILURES, _SUMMARY)
    ):  # an older dataset stays as it is, and so does what is not ours
        place, number = out.with_name(f"{out.name}.failed{f'-{number}' if number > 1 else ''}"), number + 1
    place.mkdir(parents=True, exist_ok=True)
    return write_failures(place / FAILURES, failures)


def list_failures(failures: list[Failure], file: Path) -> list[str]:
    """Lines for people: the first failures, and the file that holds all."""
    if not failures:
        return []
    lines = [f"  {excerpt(failure.id)}: {printable(failure.reason)}" for failure in failures[:10]]
    more = [f"  ... and {len(failures) - 10} more"] if len(failures) > 10 else []
    return [f"{len(failures)} could not be used (all in {file}):", *lines, *more]


def write_failures(file: Path, failures: list[Failure]) -> Path:
    """Write the list of failures as a CSV file; its path."""
    with replacing(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(("id", "path", "reason"))
        writer.writerows((failure.id, failure.path, failure.reason) for failure in failures)
    return file


def _read_failures(folder: Path) -> list[dict[str, str]]:
    try:
        with (folder / FAILURES).open(newline="", encoding="utf-8") as opened:
            return list(csv.DictReader(opened))
    except FileNotFoundError:
        return []


_TITLES = {"look": "Looking for clips", "extract": "Extracting features", "write": "Writing the dataset"}


@contextmanager
def progress_shown(titles: Mapping[str, str], progress: Progress | None, show: bool) -> Iterator[Progress]:
    """A function to tell progress to: the caller's, a bar on stderr for each stage of `titles`, both or neither."""
    if not show:
        yield progress or (lambda stage, done, of: None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def tell(stage: str, done: int, of: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(titles[stage], total=of)
            bars.update(tasks[stage], completed=done)
            if progress is not None:
                progress(stage, done, of)

        yield tell
