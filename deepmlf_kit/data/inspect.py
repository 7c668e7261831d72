"""Inspect a dataset before training on it: labels, lengths, what is missing, and suspicious feature dimensions.

Where it stands: after a dataset is made, before it is used; behind `deepmlf inspect`. `inspect_dataset` measures
in one pass over the rows (memory does not grow with the dataset), `print_report` draws the tables in a
terminal, and the modules `plots.data_*` draw the figures.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from datasets import DatasetDict
from rich.console import Console
from rich.markup import escape

from ..errors import DeepMLFError, excerpt
from ..features.recipe import FeatureRecipe, feature_names
from ..model.modalities import BUILT_IN
from .labels import CLASS_NAMES
from .normalize import CHOICES, Normalizer
from .schema import DatasetError, check, frame_columns, modality_dims, recipe_of
from .tables import fitted_table, histogram_table

_SAMPLE = 40_000  # frames per modality and split that percentiles are taken over
_EXPENDABLE = ("1 %", "99 %", "zeros", "beyond 5 std", "mean after", "mean", "median", "modality")
_NO_FRAME = "no frame"  # remark on a dimension of a modality that no utterance has
OUTLIER = 10.0  # standard deviations from the mean beyond which a value is an outlier


@dataclass(frozen=True)
class DatasetReport:
    """What `inspect_dataset` found, as pandas tables (a notebook shows them as they are).

    Attributes:
        recipe: what made the features.
        splits: one row per split: utterances, label mean, deviation, range, labels missing, words from a transcript.
        labels: one row per bin of the label, one column per split: utterances.
        classes: one row per annotated class, one column per split: utterances; empty where none is known.
        lengths: one row per split and quantity (words, seconds, frames): mean and percentiles.
        missing: one row per split: shares of utterances without text and each modality; share of missing
            (all-zero) frames; NaN and infinite values.
        features: one row per dimension of each modality: mean, deviation, percentiles, range, remark
            (`constant`, `outliers`, `nearly always 0`).
        label_values: labels of each split, for the plots.
    """

    recipe: dict[str, Any]
    splits: pd.DataFrame
    labels: pd.DataFrame
    classes: pd.DataFrame
    lengths: pd.DataFrame
    missing: pd.DataFrame
    features: pd.DataFrame
    label_values: dict[str, np.ndarray]

    @property
    def suspicious(self) -> pd.DataFrame:
        """The dimensions with a remark."""
        return self.features[self.features["remark"] != ""]


def inspect_dataset(dataset: DatasetDict, bins: int = 7) -> DatasetReport:
    """Measure a dataset.

    Args:
        bins: of the label histogram, over the dataset's scale (`label_scale` of its recipe; where that does not say,
            [-1, 1] if no label exceeds it, else [-3, 3]).

    Raises:
        DatasetError: it does not fit the schema.
    """
    check(dataset)
    recipe = recipe_of(dataset)
    names = dimension_names(dataset)
    label_values = {
        split: np.asarray(part.with_format(None)["label"][:], float) for split, part in dataset.items()
    }
    known = np.concatenate([v[np.isfinite(v)] for v in label_values.values()])
    likely = 1.0 if len(known) and np.abs(known).max() <= 1.0 + 1e-6 else 3.0
    limit = float(recipe.get("label_scale") or likely)
    edges = np.linspace(-limit, limit, bins + 1)
    histogram = {
        split: np.histogram(np.clip(v[np.isfinite(v)], -limit, limit), edges)[0]
        for split, v in label_values.items()
    }
    index = [f"{low:+.2f} to {high:+.2f}" for low, high in itertools.pairwise(edges)]

    splits, lengths, missing = [], [], []
    totals = {m: _Frames(len(of)) for m, of in names.items()}
    for split, part in dataset.items():
        seen = _Split(names)
        for row in _rows(part):
            seen.add(row, totals)
        labels = label_values[split]
        fine = labels[np.isfinite(labels)]
        splits.append(
            {
                "split": split,
                "utterances": len(part),
                "label mean": fine.mean() if len(fine) else np.nan,
                "label std": fine.std() if len(fine) else np.nan,
                "label min": fine.min() if len(fine) else np.nan,
                "label max": fine.max() if len(fine) else np.nan,
                "no label": len(labels) - len(fine),
                "transcribed": seen.transcribed,
            }
        )
        lengths += [{"split": split, **row} for row in seen.lengths()]
        missing.append({"split": split, **seen.missing(len(part))})
    return DatasetReport(
        recipe,
        pd.DataFrame(splits).set_index("split"),
        pd.DataFrame(histogram, index=pd.Index(index, name="label")),
        _classes(dataset),
        pd.DataFrame(lengths).set_index(["split", "of"]),
        pd.DataFrame(missing).set_index("split"),
        _table(totals, names),
        label_values,
    )


def normalization_report(dataset: DatasetDict, normalize: str = "train") -> pd.DataFrame:
    """What a choice of `normalize=` does to each dimension of the training split.

    * `none`: the model sees the values as they are.
    * `train`: minus the training split's mean, over its deviation, clipped to +-5; constant dimensions become 0.
    * `clip`: likewise, after each audio descriptor was taken relative to its median in the clip.
    * `batchnorm`: the AV encoder's BatchNorm does the like with running statistics over pooled steps, learns a scale and
      shift, and clips nothing; the figures here are those of its start, over frames.

    Returns:
        One row per dimension: `mean`, `std`, `largest` (absolute) before, the same after, `clipped` (share of
        values) and the remark of `inspect_dataset`.
    """
    if normalize not in CHOICES:
        raise DatasetError(f"found normalize={normalize!r}, expected one of {', '.join(CHOICES)}")
    check(dataset)
    if "train" not in dataset:
        raise DatasetError(f"found the splits {list(dataset)}; the statistics are taken from 'train'")
    names = dimension_names(dataset)
    normalizer = Normalizer.fit(dataset["train"], relative_audio=normalize == "clip")
    raw, new = ({m: _Frames(len(of)) for m, of in names.items()} for _ in range(2))
    clipped = {m: np.zeros(len(of)) for m, of in names.items()}
    for row in _rows(dataset["train"]):
        for m in names:
            frames = np.nan_to_num(row[m], nan=0.0, posinf=0.0, neginf=0.0)
            frames = frames[frames.any(axis=1)]
            raw[m].add(frames)
            statistics = normalizer.statistics[m]
            if normalize in ("train", "clip"):
                changed = statistics.apply(statistics.prepare(frames, np.ones(len(frames), bool)))
                clipped[m] += (np.abs(changed) >= statistics.limit).sum(0)
            elif normalize == "batchnorm":
                changed = (frames - statistics.mean) / np.sqrt(statistics.std**2 + 1e-5)
            else:
                changed = frames
            new[m].add(changed)
    before = _table(raw, names)
    after = _table(new, names)
    table = before[["mean", "std"]].assign(largest=before[["min", "max"]].abs().max(axis=1))
    table["mean after"], table["std after"] = after["mean"], after["std"]
    table["largest after"] = after[["min", "max"]].abs().max(axis=1)
    table["clipped"] = np.concatenate([clipped[m] / max(raw[m].count, 1) for m in names])
    table["remark"] = before["remark"]
    return table


def dimension_names(dataset: DatasetDict) -> dict[str, list[str]]:
    """Names of each modality's dimensions: the extractor's own where it has some, else numbers."""
    named: dict[str, Any] = {}
    with suppress(DeepMLFError, TypeError):  # features from elsewhere, such as an MMSA pickle
        named = dict(zip(BUILT_IN, feature_names(FeatureRecipe.from_dict(recipe_of(dataset))), strict=True))
    return {
        modality: own if (own := named.get(modality)) and len(own) == dim else [str(i) for i in range(dim)]
        for modality, dim in modality_dims(dataset).items()
    }


def print_report(report: DatasetReport, console: Console | None = None, all_dims: bool = False) -> None:
    """Draw the report in the terminal; of the dimensions, only the suspicious ones unless `all_dims`."""
    console = console or Console()
    made = ", ".join(
        f"{excerpt(key)} {excerpt(value)}"
        for key, value in report.recipe.items()
        if value not in (None, False, "")
    )
    console.print(
        f"[bold]Features[/bold]  {escape(made) or 'the rows do not say how they were made'}", highlight=False
    )
    width = console.width
    console.print(fitted_table("Splits", report.splits, width))
    console.print(histogram_table(report.labels, width))
    if len(report.classes):
        console.print(fitted_table("Annotated classes", report.classes, width))
    console.print(fitted_table("Lengths", report.lengths, width))
    console.print(fitted_table("Missing", report.missing, width))
    features = report.features
    absent = [m for m, part in features.groupby(level="modality") if (part["remark"] == _NO_FRAME).all()]
    for modality in absent:
        console.print(f"[bold]Dimensions[/bold]  no utterance has {modality}", highlight=False)
    features = features.drop(index=absent, level="modality")
    shown = features if all_dims else features[features["remark"] != ""]
    total = len(features)
    if len(shown):
        title = f"Dimensions ({'all' if all_dims else 'suspicious ones of'} {total})"
        console.print(fitted_table(title, shown, width, _EXPENDABLE))
    elif total:
        console.print(
            f"[bold]Dimensions[/bold]  none of the {total} is constant or has outliers", highlight=False
        )


def print_normalization(table: pd.DataFrame, normalize: str, console: Console | None = None) -> None:
    """Draw a `normalization_report` in the terminal: the spread of dimensions, then those that stand out."""
    console = console or Console()
    for modality in table.index.unique("modality"):
        part = table.loc[modality]
        moving = part[part["std"] > 0]
        if not len(moving):
            console.print(f"{modality}: every dimension is constant")
            continue
        before, after = moving["std"], moving["std after"]
        console.print(
            f"[bold]{modality}[/bold]  normalize={normalize}: deviations of the dimensions from "
            f"{before.min():.3g} to {before.max():.3g}, afterwards from {after.min():.3g} to {after.max():.3g}; "
            f"{len(part) - len(moving)} constant; {part['clipped'].mean():.2%} of values clipped",
            highlight=False,
        )
    suspicious = table[(table["remark"] != "") | ((normalize != "none") & (table["largest after"] > OUTLIER))]
    if len(suspicious):
        console.print(fitted_table("Dimensions that stand out", suspicious, console.width, _EXPENDABLE))


class _Split:
    """Counts over the rows of one split."""

    def __init__(self, modalities: Iterable[str]) -> None:
        self.words: list[int] = []
        self.frames: dict[str, list[int]] = {m: [] for m in modalities}
        self.seconds: dict[str, list[float]] = {m: [] for m in modalities}
        self.lost = dict.fromkeys(modalities, 0)
        self.absent = dict.fromkeys(modalities, 0)
        self.nan = self.infinite = self.transcribed = 0

    def add(self, row: dict[str, Any], totals: dict[str, _Frames]) -> None:
        text = str(row["text"]).strip()
        # Languages without spaces are counted by characters.
        self.words.append(len(text.split()) if text.isascii() or " " in text else len(text))
        self.transcribed += str(row["text_source"]) == "transcribed"
        for m in self.frames:
            frames = row[m]
            if not np.isfinite(frames).all():
                nan = int(np.isnan(frames).sum())
                self.nan += nan
                self.infinite += int((~np.isfinite(frames)).sum()) - nan
                frames = np.nan_to_num(frames, nan=0.0, posinf=0.0, neginf=0.0)
            valid = frames.any(axis=1)
            self.frames[m].append(len(frames))
            self.lost[m] += int((~valid).sum())
            self.absent[m] += int(not valid.any())
            times = row.get(f"{m}_times", ())
            if len(times):
                self.seconds[m].append(
                    float(times[-1] - times[0]) + (float(times[1] - times[0]) if len(times) > 1 else 0)
                )
            totals[m].add(frames[valid])

    def lengths(self) -> Iterator[dict[str, Any]]:
        quantities: dict[str, list[Any]] = {"words": self.words}
        for m in self.frames:
            quantities |= {f"{m} frames": self.frames[m], f"{m} seconds": self.seconds[m]}
        for name, values in quantities.items():
            if values:
                low, middle, high = np.percentile(values, [5, 50, 95])
                yield {
                    "of": name,
                    "mean": np.mean(values),
                    "min": np.min(values),
                    "5 %": low,
                    "median": middle,
                    "95 %": high,
                    "max": np.max(values),
                }

    def missing(self, count: int) -> dict[str, Any]:
        out: dict[str, Any] = {"no text": sum(n == 0 for n in self.words) / max(count, 1)}
        for m in self.frames:
            out[f"no {m}"] = self.absent[m] / max(count, 1)
            out[f"{m} frames missing"] = self.lost[m] / max(sum(self.frames[m]), 1)
        return out | {"NaN values": self.nan, "infinite values": self.infinite}


class _Frames:
    """Moments and a sample of frames of one modality."""

    def __init__(self, dim: int) -> None:
        self.dim, self.count = dim, 0
        self.sum, self.squares, self.zeros = np.zeros(dim), np.zeros(dim), np.zeros(dim)
        self.low, self.high = np.full(dim, np.inf), np.full(dim, -np.inf)
        self.sampled: list[np.ndarray] = []
        self.sampled_count, self.step = 0, 1
        self.offset: np.ndarray | None = None

    def add(self, frames: np.ndarray) -> None:
        if not len(frames):
            return
        frames = np.asarray(frames, np.float64)
        if self.offset is None:
            self.offset = frames.mean(0)  # sums of squares about a near mean do not cancel
        moved = frames - self.offset
        self.count += len(frames)
        self.sum += moved.sum(0)
        self.squares += (moved**2).sum(0)
        self.zeros += (frames == 0).sum(0)
        self.low, self.high = np.minimum(self.low, frames.min(0)), np.maximum(self.high, frames.max(0))
        self.sampled.append(frames[:: self.step].astype(np.float32))
        self.sampled_count += len(self.sampled[-1])
        if self.sampled_count > _SAMPLE:  # halve the sample, and sample half as densely from here on
            self.sampled = [np.concatenate(self.sampled)[::2]]
            self.sampled_count, self.step = len(self.sampled[0]), self.step * 2

    def table(self, modality: str, names: list[str]) -> Iterator[dict[str, Any]]:
        if not self.count:
            for name in names:
                yield {"modality": modality, "dim": name, "remark": _NO_FRAME}
            return
        assert self.offset is not None
        shift = self.sum / self.count
        mean, std = self.offset + shift, np.sqrt(np.maximum(self.squares / self.count - shift**2, 0))
        sample = np.concatenate(self.sampled)
        percentiles = np.percentile(sample, [1, 50, 99], axis=0)
        for i, name in enumerate(names):
            far = max(self.high[i] - mean[i], mean[i] - self.low[i])
            constant = self.low[i] == self.high[i] or std[i] < 1e-7 * (1 + abs(mean[i]))
            zeros = self.zeros[i] / self.count
            remark = "constant" if constant else "nearly always 0" if zeros > 0.999 else ""
            if not constant and far > OUTLIER * std[i]:
                remark = "outliers" + (f", {remark}" if remark else "")
            yield {
                "modality": modality,
                "dim": name,
                "mean": mean[i],
                "std": std[i],
                "min": self.low[i],
                "1 %": percentiles[0, i],
                "median": percentiles[1, i],
                "99 %": percentiles[2, i],
                "max": self.high[i],
                "zeros": zeros,
                "beyond 5 std": float((np.abs(sample[:, i] - mean[i]) > 5 * std[i]).mean())
                if std[i]
                else 0.0,
                "remark": remark,
            }


def _classes(dataset: DatasetDict) -> pd.DataFrame:
    index = pd.Index(CLASS_NAMES[3], name="class")
    chosen = {
        split: np.asarray(part.with_format(None)["label_class"][:], float)
        for split, part in dataset.items()
        if "label_class" in part.features
    }
    counts = {split: [int((of == number).sum()) for number in range(3)] for split, of in chosen.items()}
    return pd.DataFrame(counts, index=index) if np.any(list(counts.values())) else pd.DataFrame()


def _table(frames: dict[str, _Frames], names: dict[str, list[str]]) -> pd.DataFrame:
    rows = [row for m, seen in frames.items() for row in seen.table(m, names[m])]
    return pd.DataFrame(rows).set_index(["modality", "dim"])


def _rows(part: Any, batch: int = 64) -> Iterator[dict[str, Any]]:
    frames = [f"{m}{end}" for m in frame_columns(part.features) for end in ("", "_times")]
    view = part.with_format(
        "numpy", columns=["text", "text_source", *(c for c in frames if c in part.features)]
    )
    for start in range(0, len(view), batch):
        yield from view.__getitems__(list(range(start, min(start + batch, len(view)))))
