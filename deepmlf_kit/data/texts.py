"""A CSV of texts and labels, without clips -> a dataset in the one schema, whose voice and face are missing.

So the language stream is trained on transcripts alone (those of MOSI and MOSEI, reviews, a survey). Files are read as
`label_csv` reads label files; frames have the dims of the default features, but there are none.
"""

from __future__ import annotations

import json
import random
import re
import time
from dataclasses import replace
from pathlib import Path

from datasets import DatasetDict

from ..errors import DeepMLFError, excerpt
from ..features.recipe import FeatureRecipe, feature_names
from .folder import PreparedFolder, failure_of, on_scale, report_nothing, write_report
from .label_csv import LabelFileError, LabelledClip, cell, labelled_clip, read_lines
from .schema import SPLITS, build_split, load, save, utterance

TEXT_SUFFIXES = (".csv", ".tsv", ".txt")
COLUMNS = ("text", "label", "split")
HELD_OUT = 0.1
"""Share of `valid`, and of `test`, where a file names no splits."""


def prepare_texts(
    file: str | Path, out: str | Path, *, label_scale: float | None = None, seed: int = 0
) -> PreparedFolder:
    """Save a CSV of texts as a dataset.

    Args:
        file: a CSV file with the columns `text` and `label`; `split` (or `mode`), and `id`, or `video_id` and
            `clip_id`, where there are any.
        out: folder to write the dataset to; `failures.csv` lies in it where there were any.
        label_scale: as in `prepare_folder`.
        seed: of the splits where the file names none: 80 % train, 10 % valid, 10 % test; texts of one video (by
            `video_id`, or the id up to its last number) stay together.

    Raises:
        LabelFileError: the file cannot be used.
        DeepMLFError: none of its lines can be used, or `out` holds something else.
    """
    began = time.perf_counter()
    file, out = Path(file), Path(out)
    columns, lines, notes = read_lines(file, COLUMNS)
    if missing := [name for name in ("text", "label") if name not in columns]:
        raise LabelFileError(
            f"{file}: found the columns {excerpt(', '.join(columns), 200) or '(none)'}, expected {', '.join(COLUMNS)} (split "
            f"may be left out; id, or video_id and clip_id, may be there); missing: {', '.join(missing)}."
        )
    column = next((name for name in ("split", "mode") if name in columns), None)
    ids = [text_id(line, number) for number, line in enumerate(lines, start=1)]
    if column is None:
        column = "split"
        for line, split in zip(lines, _splits(ids, lines, seed), strict=True):
            line[column] = split
        notes.append(
            f"the file names no splits: texts of one video together, {1 - 2 * HELD_OUT:.0%} train, {HELD_OUT:.0%} valid "
            f"and {HELD_OUT:.0%} test were drawn with seed {seed}"
        )
    seen: set[str] = set()
    read = [
        _checked(labelled_clip(id, line, column, str(file), ""), seen)
        for line, id in zip(lines, ids, strict=True)
    ]
    read, scale = on_scale(read, label_scale, notes)
    texts = [text for text in read if not text.problem]
    failures = [replace(failure_of(text, text.problem), path="") for text in read if text.problem]
    if not texts:
        report = report_nothing(out, failures)
        raise DeepMLFError(
            f"{file}: none of its {len(lines)} lines can be used; the reasons are in {report}, the first is: "
            f"{failures[0].reason}"
        )
    recipe = {**FeatureRecipe(audio="none", vision="none").to_dict(), "label_scale": scale}
    save(_dataset(texts, recipe), out)
    dataset = load(out)
    notes += [
        f"no text of the split {split!r}: training needs some"
        for split in ("train", "valid")
        if split not in dataset
    ]
    prepared = PreparedFolder(out, dataset, failures, 0, 0, round(time.perf_counter() - began, 3), notes)
    write_report(prepared, json.dumps(recipe, sort_keys=True))
    return prepared


def _dataset(texts: list[LabelledClip], recipe: dict[str, object]) -> DatasetDict:
    audio_dim, vision_dim = (len(names or ()) for names in feature_names(FeatureRecipe()))
    dims = {"audio_dim": audio_dim, "vision_dim": vision_dim}
    rows = [
        (
            each.split,
            utterance(
                each.id,
                each.text or "",
                None,
                None,
                each.label,
                recipe=recipe,
                label_class=each.label_class,
                **each.unimodal,
                **dims,
            ),
        )
        for each in texts
    ]
    parts = {name: [row for split, row in rows if split == name] for name in SPLITS}
    return DatasetDict({name: build_split(part, **dims) for name, part in parts.items() if part})


def text_id(line: dict[str, str], number: int) -> str:
    """Id of the text in the line of a number, counted from 1."""
    video, clip = cell(line, "video_id"), cell(line, "clip_id")
    return f"{video}$_${clip or number}" if video else cell(line, "id") or f"line{number}"


def _checked(text: LabelledClip, seen: set[str]) -> LabelledClip:
    """With the problems that concern texts alone."""
    problems = [text.problem] if text.problem else []
    if text.text is None:
        problems.append("its text is empty")
    if text.id in seen:
        problems.append("its id stands in the file twice; the first one is used")
    seen.add(text.id)
    return replace(text, problem="; ".join(problems))


def _splits(ids: list[str], lines: list[dict[str, str]], seed: int) -> list[str]:
    """A split for each line; the same whatever the order of the lines."""
    videos = [
        cell(line, "video_id") or re.sub(r"(\$_\$|[_-])[^$_-]*\d+$", "", id)
        for id, line in zip(ids, lines, strict=True)
    ]
    order = sorted(set(videos))
    random.Random(seed).shuffle(order)
    count = {video: 0 for video in order}
    for video in videos:
        count[video] += 1
    split_of, done = {}, 0
    for video in order:
        share = done / len(videos)
        split_of[video] = "test" if share < HELD_OUT else "valid" if share < 2 * HELD_OUT else "train"
        done += count[video]
    return [split_of[video] for video in videos]
