"""A dataset as training takes it: opened, checked against a preset, read row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict

from ..data import schema
from ..data.labels import class_labels
from ..errors import DeepMLFError
from ..model.modalities import BUILT_IN
from .presets import Preset
from .run_folder import Run
from .scales import SCALES

#: A split smaller than this is held in memory; a larger one is read from its Arrow file row by row.
IN_MEMORY_BYTES = 2**30


def open_dataset(dataset: DatasetDict | str | Path) -> tuple[DatasetDict, str | None]:
    """A dataset in memory or on disk, and its path where it has one.

    Raises:
        DeepMLFError: there is none, or it does not fit the schema.
    """
    if isinstance(dataset, (str, Path)):
        return schema.load(dataset), str(Path(dataset).resolve())
    schema.check(dataset)
    return dataset, None


def dataset_of_run(
    run: Run, dataset: DatasetDict | str | Path | None, purpose: str
) -> tuple[DatasetDict, DatasetDict | str | Path]:
    """The dataset of a run opened, and where it is: as given, or else where the run was trained.

    Args:
        run: any run.
        dataset: in place of the run's own.
        purpose: what the dataset is wanted for, for the message.

    Raises:
        DeepMLFError: none is given and the run was trained in memory, or there is none that can be opened.
    """
    where = dataset if dataset is not None else run.info["dataset"]["path"]
    if where is None:
        raise DeepMLFError(
            f"The run {run.path} was trained on a dataset in memory: say which dataset to {purpose}."
        )
    return open_dataset(where)[0], where


def rows_of(split: Dataset) -> Sequence[dict[str, Any]]:
    """The rows of a split as the collator takes them: a list where they fit in memory, else read one by one."""
    rows = schema.for_batches(split)
    return list(rows) if split.data.nbytes < IN_MEMORY_BYTES else rows


@dataclass(frozen=True)
class Incompatibility:
    """`found` in the dataset where the preset expects something else, and the `setting` (KEY=VALUE) that expects it."""

    found: str
    setting: str


def incompatibilities(data: DatasetDict, preset: Preset) -> list[Incompatibility]:
    """Everything in which a dataset differs from what a preset expects: feature dims and the label scale.

    A dataset with labels beyond [-3, 3] fits the rules of MOSI as well as any.
    """
    differing = []
    dims, settings = schema.modality_dims(data), preset.av_encoder
    for name in BUILT_IN:
        expected = getattr(settings, f"{name}_dim")
        if dims[name] != expected:
            differing.append(
                Incompatibility(
                    f"{dims[name]} {name} features a frame (preset {preset.name!r} expects {expected})",
                    f"av_encoder.{name}_dim={dims[name]}",
                )
            )
    extra = settings.extra_modalities
    there = {name: dims[name] for name in extra if name in dims}
    if there != extra:
        inline = "{" + ", ".join(f"{name}: {dim}" for name, dim in there.items()) + "}"
        differing.append(
            Incompatibility(
                f"{there} features a frame (preset {preset.name!r} expects {extra})",
                f"av_encoder.extra_modalities={inline}",
            )
        )
    largest, expected = schema.recipe_of(data).get("label_scale"), SCALES[preset.data.scale][1]
    rules = {1.0: "sims", 3.0: "mosi"}.get(largest)
    if rules is not None and largest != expected:
        differing.append(
            Incompatibility(
                f"labels from {-largest:g} to {largest:g} (data.scale={preset.data.scale} expects {-expected:g} to "
                f"{expected:g})",
                f"data.scale={rules}",
            )
        )
    return differing


def _labels_of(part: Dataset, classes: int, split: str) -> np.ndarray:
    """Labels of a split [N] as training takes them: sentiments, or class indices; NaN where unknown.

    Raises:
        DeepMLFError: a label is no index of the classes.
    """
    columns = part.with_format(None)
    labels = np.asarray(columns["label"][:], np.float32)
    if not classes:
        return labels
    annotated = np.asarray(columns["label_class"][:], np.float32) if "label_class" in part.features else None
    try:
        return class_labels(labels, classes, annotated)
    except DeepMLFError as error:
        raise DeepMLFError(f"The split {split!r}: {error}.") from error


def scored_split(data: DatasetDict) -> str:
    """The split of the final table: `test`, or `valid` where there is no test split or none of it has a label."""
    if "test" in data and not np.isnan(_labels_of(data["test"], 0, "test")).all():
        return "test"
    return "valid"


def remarks(data: DatasetDict, preset: Preset, lengths: Mapping[str, Sequence[int]]) -> list[str]:
    """What is to be known of a dataset before training: labels that are missing, texts that are longer than is read.

    Args:
        lengths: tokens of each text by split; empty where texts are not read.
    """
    found = []
    if "test" in data and scored_split(data) != "test":
        found.append("no utterance of the split 'test' has a label: the final table will be that of 'valid'")
    for split, part in data.items():
        missing = int(np.isnan(_labels_of(part, 0, split)).sum())
        if missing and (split != "test" or missing < len(part)):
            found.append(
                f"{missing} of {len(part)} utterances of the split {split!r} have no label and are left out"
            )
    limit, total = preset.data.max_text_tokens, sum(map(len, lengths.values()))
    if long := sum(length > limit for of in lengths.values() for length in of):
        found.append(
            f"{long} of {total} texts are longer than {limit} tokens (up to {max(map(max, lengths.values()))}): their "
            f"{preset.data.long_texts} is read (data.max_text_tokens)"
        )
    return found


def check_dataset(data: DatasetDict, preset: Preset, reads_text: bool = True) -> None:
    """Refuse a dataset that cannot be trained on by a preset.

    Args:
        reads_text: whether the model has something to read where there is neither voice nor face.

    Raises:
        DeepMLFError: a split to train or validate on is missing or has no label, a label is no number or class index,
            `incompatibilities` finds any, or there is nothing that the model reads.
    """
    for split in ("train", "valid"):
        if split not in data or len(data[split]) == 0:
            found = ", ".join(f"{name} ({len(part)})" for name, part in data.items())
            raise DeepMLFError(f"Training needs utterances in the split {split!r}; the dataset has {found}.")
    for split, part in data.items():
        labels = _labels_of(part, preset.heads.classes, split)
        if np.isinf(labels).any():
            raise DeepMLFError(
                f"The split {split!r} has infinite labels: correct them and prepare the dataset again."
            )
        if split != "test" and np.isnan(labels).all():
            raise DeepMLFError(
                f"No utterance of the split {split!r} has a label (they are NaN), but training needs some there: add them "
                "and prepare the dataset again."
            )
    if differing := incompatibilities(data, preset):
        raise DeepMLFError(
            f"The dataset has {' and '.join(one.found for one in differing)}: set "
            f"{' and '.join(one.setting for one in differing)} (with --set before each on the command line), or "
            "prepare the dataset with other features or another label_scale."
        )
    if not reads_text and not has_frames(data["train"]):
        raise DeepMLFError(
            "The dataset has texts alone, and this model reads voice and face: train one that reads the words, such as "
            "`deepmlf train` or `deepmlf train --model text`."
        )


def has_frames(split: Dataset) -> bool:
    """Whether any utterance of a split has a frame of any modality."""
    columns = schema.frame_columns(split.features)
    arrow = split.with_format("arrow", columns=columns)
    return any(
        pc.sum(pc.list_value_length(chunk.storage)).as_py()
        for batch in arrow.iter(256)
        for column in columns
        for chunk in batch[column].chunks
    )
