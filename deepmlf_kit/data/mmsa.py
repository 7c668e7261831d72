"""MMSA pickles (MOSI, MOSEI, CH-SIMS, CH-SIMS v2; aligned or not) to a dataset.

Where it stands: one of the ways into `schema`. The layout is that of the MMSA platform (Mao et al., "M-SENA",
2022): a dict of the splits `train`, `valid` (or `dev`), `test`, each a dict with

    id                 [N] text, `video$_$clip`
    raw_text           [N] text, or lists of words; a missing value is a text without words
    audio, vision      [N, La, da], [N, Lv, dv] numbers
    audio_lengths, vision_lengths   [N], only in unaligned files
    regression_labels  [N], in files that were made by hand `labels`; CH-SIMS also regression_labels_T, _A, _V
    annotations        [N] `Negative`, `Neutral`, `Positive`: the annotated class; may be missing
    classification_labels   [N] the same as 0, 1, 2 (or -1, 0, 1); may be missing

Anything else in it (BERT features) is not needed and not read.

Utterances are padded with all-zero frames to one length, some files at the end, others in front (MMSA's own truncation
skips empty frames in front). Without frame times nothing tells such a frame from a missing one, so that all-zero frames at
either end are padding and dropped; between frames that hold something they are missing frames and keep their place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DatasetDict

from ..errors import DeepMLFError, excerpt
from ..storage.files import write_json
from ..storage.folders import sole_writer_of, working_folder
from . import schema
from .encodings import decoded, repaired
from .labels import class_index, class_labels
from .safe_pickle import load_pickle
from .schema import SPLIT_NAMES, SPLITS, DatasetError

REPORT_FILE = "conversion.json"
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class KnownDataset:
    """What the published files look like: a difference is reported as a remark, but for the label scale."""

    title: str
    sizes: dict[str, int]
    scale: float


KNOWN = {
    "mosi": KnownDataset("CMU-MOSI", {"train": 1284, "valid": 229, "test": 686}, 3.0),
    "mosei": KnownDataset("CMU-MOSEI", {"train": 16326, "valid": 1871, "test": 4659}, 3.0),
    "sims": KnownDataset("CH-SIMS", {"train": 1368, "valid": 456, "test": 457}, 1.0),
    "simsv2": KnownDataset("CH-SIMS v2", {"train": 2722, "valid": 647, "test": 1034}, 1.0),
}
_LABELS = {
    "regression_labels": "label",
    "regression_labels_T": "label_text",
    "regression_labels_A": "label_audio",
    "regression_labels_V": "label_vision",
}


@dataclass
class SplitReport:
    """What was found in one split; counts are of values, rows and utterances.

    Attributes:
        nan, infinite: values set to 0, by modality.
        empty: utterances without a single frame that holds anything, by modality.
        clipped_lengths: utterances whose announced length exceeds the array, by modality.
        beyond_lengths: utterances with frames beyond their announced length, which were dropped, by modality.
        padded_in_front: utterances whose array began with padding, which was dropped, by modality.
    """

    utterances: int = 0
    nan: dict[str, int] = field(default_factory=lambda: {"audio": 0, "vision": 0})
    infinite: dict[str, int] = field(default_factory=lambda: {"audio": 0, "vision": 0})
    empty: dict[str, int] = field(default_factory=lambda: {"audio": 0, "vision": 0})
    clipped_lengths: dict[str, int] = field(default_factory=lambda: {"audio": 0, "vision": 0})
    beyond_lengths: dict[str, int] = field(default_factory=lambda: {"audio": 0, "vision": 0})
    padded_in_front: dict[str, int] = field(default_factory=lambda: {"audio": 0, "vision": 0})


@dataclass
class ConversionReport:
    """Report of a conversion, stored beside the dataset (`conversion.json`)."""

    source: str
    name: str
    aligned: bool
    audio_dim: int
    vision_dim: int
    splits: dict[str, SplitReport]
    remarks: list[str]


def convert_mmsa(
    path: str | Path, out: str | Path, *, name: str | None = None, progress: Progress | None = None
) -> DatasetDict:
    """Convert an MMSA pickle and save the dataset in the folder `out`.

    Frames beyond an utterance's length and padding at both ends are dropped (aligned files: what is empty in both
    modalities); NaN and infinities become 0; both are counted in `read_report(out)`. The arrays stay in the pickle
    file while it is read, so that memory does not grow with it.

    Args:
        path: the pickle; it is opened without running what it names (`safe_pickle`).
        out: dataset folder to write.
        name: `mosi`, `mosei`, `sims` or `simsv2`; found by split sizes, labels and language where None.
        progress: called with (split, utterances done, utterances in all) now and then.

    Raises:
        DatasetError: a pickle that is damaged or names more than arrays; keys or shapes that do not fit (one
            error that lists, per split, what was found beside what was expected); an unknown `name`, or none where
            the scale of the labels cannot be told.
    """
    path, out = Path(path), Path(out)
    if name is not None and name not in KNOWN:
        raise DatasetError(f"found name={name!r}, expected one of {', '.join(KNOWN)}")
    content = load_pickle(path)
    splits, remarks = _checked(content, path, name)
    remarks += _read_texts(splits, path)
    name, more = _named(splits, name, path)
    audio_dim, vision_dim = (np.shape(splits["train"][m])[2] for m in ("audio", "vision"))
    aligned = all("audio_lengths" not in s and "vision_lengths" not in s for s in splits.values()) and all(
        np.shape(s["audio"])[1] == np.shape(s["vision"])[1] for s in splits.values()
    )
    recipe = {
        "source": "MMSA pickle",
        "file": path.name,
        "dataset": name,
        "aligned": aligned,
        "label_scale": KNOWN[name].scale,
    }
    classes, on_classes = _classes(splits)
    report = ConversionReport(
        path.name, name, aligned, audio_dim, vision_dim, {}, remarks + more + on_classes
    )
    schema.check_replaceable(out)
    with sole_writer_of(out), working_folder(out) as parts:
        dataset = DatasetDict()
        for split, data in splits.items():
            report.splits[split] = SplitReport(utterances=len(data["id"]))
            rows = _rows(
                data,
                classes.get(split),
                report.splits[split],
                aligned,
                (audio_dim, vision_dim),
                json.dumps(recipe, sort_keys=True),
            )
            tracked = _tracked(rows, split, len(data["id"]), progress)
            dataset[split] = schema.build_split(tracked, audio_dim, vision_dim, file=parts / f"{split}.arrow")
        schema.save(dataset, out)
        write_json(out / REPORT_FILE, asdict(report))
    return schema.load(out)


def read_report(out: str | Path) -> ConversionReport:
    """The report of the conversion that made the dataset in folder `out`.

    Raises:
        DatasetError: there is none.
    """
    file = Path(out) / REPORT_FILE
    if not file.is_file():
        raise DatasetError(f"no {REPORT_FILE} in {out}: that dataset was not made from an MMSA pickle")
    values = json.loads(file.read_text(encoding="utf-8"))
    values["splits"] = {split: SplitReport(**counts) for split, counts in values["splits"].items()}
    return ConversionReport(**values)


def _checked(content: Any, path: Path, name: str | None) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The splits, or one `DatasetError` that lists every mismatch; and remarks on what was left out."""
    if not isinstance(content, dict):
        raise DatasetError(
            f"{path}: found {_about(content)}, expected a dict of the splits {', '.join(SPLITS)}"
        )
    wrong: list[str] = []
    splits: dict[str, dict[str, Any]] = {}
    other = []
    for key, value in content.items():
        split = SPLIT_NAMES.get(str(key).strip().lower())
        if split is None or split in splits:
            other.append(str(key))
        elif isinstance(value, dict):
            splits[split] = {str(name): column for name, column in value.items()}
            if "labels" in value:
                splits[split].setdefault("regression_labels", _flat(value["labels"]))
        else:
            wrong.append(f"{split}: found {_about(value)}, expected a dict")
            splits[split] = {}
    wrong += [f"{split}: found nothing, expected a dict" for split in SPLITS if split not in splits]
    splits = {split: splits[split] for split in SPLITS if splits.get(split)}
    widths: dict[str, dict[str, int]] = {"audio": {}, "vision": {}}
    for split, data in splits.items():
        wrong += _wrong_in(split, data, widths)
    for modality, found in widths.items():
        if len(set(found.values())) > 1:
            wrong.append(f"{modality}: found widths {found}, expected one width in all splits")
    scale = KNOWN[name].scale if name else _largest_scale(splits)
    for split, data in splits.items():
        for key in _LABELS:
            labels = _numbers(data.get(key))
            if labels is not None and labels.size and np.nanmax(np.abs(labels), initial=0) > scale + 1e-4:
                largest = np.nanmax(np.abs(labels))
                wrong.append(
                    f"{split}.{key}: found values up to {largest:g}, expected [-{scale:g}, {scale:g}]"
                )
    if wrong:
        keys = {split: excerpt(", ".join(map(str, data)), 160) for split, data in splits.items()}
        shown = keys or excerpt(", ".join(map(str, content)), 160)
        raise DatasetError(
            f"{path} does not fit the MMSA layout:\n  "
            + "\n  ".join(wrong)
            + f"\n  keys found: {shown}{_hint(content, splits)}"
        )
    remark = f"left out, no split of these names is used: {excerpt(', '.join(sorted(other)), 160)}"
    return splits, [remark] if other else []


def _hint(content: dict, splits: dict[str, dict[str, Any]]) -> str:
    """What else of this field a pickle may be, and what to do then; empty where it is like none."""
    if any("raw_text" not in data and {"text", "audio", "vision"} <= data.keys() for data in splits.values()):
        return (
            "\n  This looks like a file of MulT (Tsai et al., 2019), such as mosi_data.pkl: `text` holds word vectors, and "
            "DeepMLF reads the words themselves. Take the file of the same dataset from MMSA (aligned_50.pkl, "
            "unaligned_50.pkl), or add the sentences to each split as `raw_text`, in the order of `id`."
        )
    if any(isinstance(part, list) and part and isinstance(part[0], tuple) for part in content.values()):
        return (
            "\n  This looks like a file of MAG-BERT or MISA (a list of ((words, vision, audio), label, id) a split): take "
            "the file of the same dataset from MMSA (aligned_50.pkl, unaligned_50.pkl)."
        )
    return ""


def _wrong_in(split: str, data: dict[str, Any], widths: dict[str, dict[str, int]]) -> list[str]:
    """Mismatches of one split; notes the widths of its frames."""
    wrong = []
    count = None
    for key in ("id", "raw_text", "audio", "vision", "regression_labels"):
        if key not in data:
            wrong.append(f"{split}.{key}: found nothing, expected " + _expected(key))
            continue
        try:
            count = len(data[key]) if count is None else count
        except TypeError:
            wrong.append(f"{split}.{key}: found {_about(data[key])}, expected " + _expected(key))
    if count == 0:
        wrong.append(f"{split}: found no utterance, expected at least one")
    for modality, found in widths.items():
        array = data.get(modality)
        if array is None:
            continue
        shape = np.shape(array) if isinstance(array, np.ndarray) else None
        if (
            shape is None
            or len(shape) != 3
            or shape[0] != count
            or 0 in shape[1:]
            or array.dtype.kind not in "fiu"
        ):
            wrong.append(f"{split}.{modality}: found {_about(array)}, expected {_expected(modality, count)}")
            continue
        found[split] = shape[2]
    for key in ("id", "raw_text"):
        if key in data and _length(data[key]) != count:
            wrong.append(f"{split}.{key}: found {_about(data[key])}, expected {_expected(key, count)}")
    for key in _LABELS:
        if key in data and (_numbers(data[key]) is None or len(_numbers(data[key])) != count):
            wrong.append(
                f"{split}.{key}: found {_about(data[key])}, expected {_expected('regression_labels', count)}"
            )
    for key in ("audio_lengths", "vision_lengths"):
        if key not in data:
            continue
        lengths = _numbers(data[key])
        if lengths is None or len(lengths) != count:
            wrong.append(f"{split}.{key}: found {_about(data[key])}, expected [{count}] whole numbers")
        elif not np.isfinite(lengths).all() or (lengths < 0).any() or (lengths % 1).any():
            wrong.append(
                f"{split}.{key}: found {lengths.min():g} to {lengths.max():g}, expected frame counts from 0 up"
            )
    return wrong


def _classes(splits: dict[str, dict[str, Any]]) -> tuple[dict[str, np.ndarray], list[str]]:
    """By split, the annotated class of each utterance [N] (NaN: none), and remarks on it.

    The names in `annotations` come first; `classification_labels` fill in where there are none. Neither is needed, so
    that what cannot be read as three classes is left out with a remark.
    """
    named, numbered, remarks = {}, {}, []
    for split, data in splits.items():
        count = len(data["id"])
        if _length(data.get("annotations")) == count:
            named[split] = np.array([class_index(_plain(name)) for name in data["annotations"]], np.float32)
            other = int(np.isnan(named[split]).sum())
            if other:
                remarks.append(
                    f"{split}.annotations: {other} are not Negative, Neutral or Positive; left out"
                )
        elif "annotations" in data:
            remarks.append(f"{split}.annotations: found {_about(data['annotations'])}; left out")
        numbers = _numbers(data.get("classification_labels"))
        if numbers is not None and len(numbers) == count:
            numbered[split] = numbers
        elif "classification_labels" in data:
            remarks.append(
                f"{split}.classification_labels: found {_about(data['classification_labels'])}; left out"
            )
    values = np.unique(np.concatenate([np.zeros(0), *numbered.values()]))
    values = values[~np.isnan(values)]
    if not (np.isin(values, (0, 1, 2)).all() or np.isin(values, (-1, 0, 1)).all()):
        remarks.append(
            f"classification_labels: found {', '.join(f'{v:g}' for v in values[:8])}, expected 0, 1, 2 or -1, 0, 1; "
            "left out"
        )
        numbered = {}
    shift = 1.0 if (values < 0).any() else 0.0
    classes = {split: (numbers + shift).astype(np.float32) for split, numbers in numbered.items()}
    unlike = 0
    for split, names in named.items():
        numbers = classes.get(split, np.full(len(names), np.nan, np.float32))
        unlike += int((~np.isnan(names) & ~np.isnan(numbers) & (names != numbers)).sum())
        classes[split] = np.where(np.isnan(names), numbers, names)
    if unlike:
        remarks.append(
            f"{unlike} utterances: annotations and classification_labels differ; annotations are used"
        )
    by_sign = 0
    for split, annotated in classes.items():
        signs = class_labels(_numbers(splits[split]["regression_labels"]), 3)
        by_sign += int((~np.isnan(annotated) & ~np.isnan(signs) & (annotated != signs)).sum())
    if by_sign:
        remarks.append(
            f"{by_sign} utterances: the annotated class is not the sign of the label; heads.classes=3 takes "
            "the class"
        )
    return classes, remarks


def _rows(
    data: dict[str, Any],
    classes: np.ndarray | None,
    report: SplitReport,
    aligned: bool,
    dims: tuple[int, int],
    recipe: str,
) -> Iterator[Mapping[str, Any]]:
    ids, texts = list(data["id"]), list(data["raw_text"])
    labels: dict[str, Any] = {column: _numbers(data[key]) for key, column in _LABELS.items() if key in data}
    if classes is not None:
        labels["label_class"] = classes
    lengths: dict[str, Any] = {
        m: _numbers(data[f"{m}_lengths"]) for m in ("audio", "vision") if f"{m}_lengths" in data
    }
    for i in range(len(ids)):
        frames, in_front = {}, {"audio": 0, "vision": 0}
        for modality in ("audio", "vision"):
            with np.errstate(over="ignore"):  # beyond float32 becomes infinite, and is counted as such
                array = np.asarray(data[modality][i], np.float32)
            if modality in lengths:
                report.clipped_lengths[modality] += int(lengths[modality][i] > len(array))
                whole_array = array
                array, in_front[modality] = _announced(array, int(lengths[modality][i]))
                dropped = whole_array[len(array) :] if not in_front[modality] else array[:0]
                report.beyond_lengths[modality] += int(_held(dropped) is not None)
            finite = np.isfinite(array)
            if not finite.all():
                missing = int(np.isnan(array).sum())
                report.nan[modality] += missing
                report.infinite[modality] += int((~finite).sum()) - missing
                array = np.where(finite, array, np.float32(0))
            frames[modality] = array
        held = {m: _held(array) for m, array in frames.items()}
        if aligned:  # one time axis: cut at the same steps
            both = [place for place in held.values() if place is not None]
            whole = (min(first for first, _ in both), max(end for _, end in both)) if both else None
            held = {m: whole if place is not None else None for m, place in held.items()}
        for modality, array in frames.items():
            place = held[modality]
            report.empty[modality] += int(place is None)
            first, end = place or (0, 0)
            report.padded_in_front[modality] += int(place is not None and in_front[modality] + first > 0)
            frames[modality] = array[first:end]
        yield schema.utterance(
            _name_of(ids[i]),
            texts[i],
            frames["audio"],
            frames["vision"],
            audio_dim=dims[0],
            vision_dim=dims[1],
            recipe=recipe,
            **{column: float(values[i]) for column, values in labels.items()},
        )


def _announced(array: np.ndarray, length: int) -> tuple[np.ndarray, int]:
    """The frames of an announced length, and how many in front of them are padding.

    They are the first ones, or the last ones where everything in front of those is empty and the array goes on beyond the
    length.
    """
    front = len(array) - length
    if (
        front > 0
        and (place := _held(np.isfinite(array) & (array != 0)))
        and place[0] >= front
        and place[1] > length
    ):
        return array[front:], front
    return array[:length], 0


def _held(array: np.ndarray) -> tuple[int, int] | None:
    """From the first frame that holds anything to the last, as a slice; None where there is none."""
    held = np.flatnonzero(array.any(axis=1))
    return (int(held[0]), int(held[-1]) + 1) if len(held) else None


def _tracked(rows: Iterator[Any], split: str, total: int, progress: Progress | None) -> Iterator[Any]:
    for done, row in enumerate(rows, 1):
        yield row
        if progress is not None and (done % 32 == 0 or done == total):
            progress(split, done, total)


def _named(splits: dict[str, dict[str, Any]], name: str | None, path: Path) -> tuple[str, list[str]]:
    """The dataset's name, from sizes, labels and language where not given, and remarks where it is not as published.

    Raises:
        DatasetError: labels and language leave it open which scale the labels are on.
    """
    sizes = {split: len(data["id"]) for split, data in splits.items()}
    if name is None:
        same = [key for key, known in KNOWN.items() if known.sizes == sizes]
        if same:
            return same[0], []
        if _has_unimodal_labels(splits):
            name, kind = "sims", "CH-SIMS (it has unimodal labels)"
        elif (largest := _largest_label(splits)) > 1:
            name, kind = "mosi", f"MOSI (its labels go up to {largest:g})"
        elif _is_chinese(text for data in splits.values() for text in data["raw_text"]):
            name, kind = "sims", f"CH-SIMS (its labels go up to {largest:g}, its texts are Chinese)"
        else:
            raise DatasetError(
                f"{path}: found sizes {sizes} of no published dataset and labels up to {largest:g}, which may be on MOSI's "
                "scale of -3 to 3 or on that of CH-SIMS, -1 to 1: say which with name (--name mosi or --name sims)"
            )
        return name, [
            f"sizes {sizes} are of no published dataset; taken as like {kind}; --name says otherwise"
        ]
    if sizes != KNOWN[name].sizes:
        return name, [f"found sizes {sizes}; {KNOWN[name].title} as published has {KNOWN[name].sizes}"]
    return name, []


def _has_unimodal_labels(splits: dict[str, dict[str, Any]]) -> bool:
    return any(key in data for data in splits.values() for key in list(_LABELS)[1:])


def _largest_scale(splits: dict[str, dict[str, Any]]) -> float:
    """Of the scales that a file without a name may be on, the largest."""
    return 1.0 if _has_unimodal_labels(splits) else 3.0


def _largest_label(splits: dict[str, dict[str, Any]]) -> float:
    values = np.concatenate([_known_numbers(data["regression_labels"]) for data in splits.values()])
    return float(np.abs(values).max(initial=0))


def _known_numbers(values: Any) -> np.ndarray:
    numbers = _numbers(values)
    assert numbers is not None  # as `_checked` saw to
    return numbers[~np.isnan(numbers)]


def _is_chinese(texts: Iterable[str]) -> bool:
    """Whether most texts have a Chinese character."""
    having = [any("\u4e00" <= sign <= "\u9fff" for sign in text) for text in texts if text]
    return sum(having) > len(having) / 2


# Texts --------------------------------------------------------------------------------------------------------

_MISSING = {"", "nan", "NaN", "None", "<NA>"}
_PAUSE = "sp"  # in the words of the CMU Multimodal SDK


def _read_texts(splits: dict[str, dict[str, Any]], path: Path) -> list[str]:
    """Replace the column `raw_text` of each split by the words people meant, and say in remarks what had to be done.

    Bytes (of Python 2 and the CMU Multimodal SDK) are decoded, all of a file as one; words apart are joined; missing
    values become texts without words.

    Raises:
        DatasetError: what stands there is no text, or in an unknown encoding.
    """
    columns = {split: [_parts(text) for text in data["raw_text"]] for split, data in splits.items()}
    every = [part for column in columns.values() for parts in column for part in parts]
    if odd := [part for part in every if not isinstance(part, str | bytes)]:
        raise DatasetError(
            f"{path}: found {_about(odd[0])} in raw_text ({len(odd)} such values), expected texts or lists of words"
        )
    remarks = []
    raw = {part: part.replace(b"\0", b"") for part in every if isinstance(part, bytes)}
    try:
        text, note = decoded(b"\0".join(raw.values()))
    except DeepMLFError as error:
        raise DatasetError(f"{path}: raw_text: {error}") from error
    meant: dict[Any, str] = dict(zip(raw, text.split("\0"), strict=True)) if raw else {}
    if note:
        remarks.append(f"raw_text: {note}")
    strings = sorted({part for part in every if isinstance(part, str)})
    if right := repaired(strings):
        meant |= zip(strings, right, strict=True)
        remarks.append("raw_text: UTF-8 that was once read as Latin-1 (such as 'Itâ€™s') was read as UTF-8")
    missing = 0
    for split, column in columns.items():
        texts = [_joined([_clean(meant.get(part, part)) for part in parts]) for parts in column]
        missing += sum(not text for text in texts)
        splits[split]["raw_text"] = texts
    if missing:
        remarks.append(
            f"{missing} utterances have no text (or a missing value); they are read as without words"
        )
    return remarks


def _parts(value: Any) -> list[Any]:
    """A text as a list of one, words apart as a list of many; a missing value as an empty one."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [part for item in value for part in _parts(item)]
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or (isinstance(value, float) and value != value):
        return []
    return [str(value) if isinstance(value, int) else value]


def _joined(words: list[str]) -> str:
    """Words to a text: with spaces, but for Chinese."""
    if len(words) < 2:
        return words[0] if words and words[0] not in _MISSING else ""
    words = [word for word in words if word and word != _PAUSE]
    return ("" if _is_chinese(words) else " ").join(words)


def _clean(text: str) -> str:
    """Without what no file can hold: halves of surrogate pairs, and NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", "").strip()


# Small readers ------------------------------------------------------------------------------------------------


def _flat(labels: Any) -> Any:
    """Labels [N, 1, 1], as MulT's files have them, as [N]; anything else as it is."""
    return labels.reshape(-1) if isinstance(labels, np.ndarray) and labels.size == len(labels) else labels


def _numbers(values: Any) -> np.ndarray | None:
    """[N] or [N, 1] numbers as [N] float64; None where they are something else."""
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        return None
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    return array if array.ndim == 1 else None


def _plain(value: Any) -> str:
    value = value.item() if isinstance(value, (np.generic, np.ndarray)) and np.size(value) == 1 else value
    return _clean(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))


def _name_of(value: Any) -> str:
    """An id; some aligned files give it as a list of parts."""
    if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.size > 1):
        return "$_$".join(_plain(part) for part in value)
    return _plain(value)


def _length(value: Any) -> int | None:
    return (
        len(value)
        if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim)
        else None
    )


def _expected(key: str, count: int | None = None) -> str:
    n = "N" if count is None else count
    shapes = {"audio": f"[{n}, La, da] numbers", "vision": f"[{n}, Lv, dv] numbers"}
    return shapes.get(key, f"[{n}] numbers" if key == "regression_labels" else f"[{n}] texts")


def _about(value: Any) -> str:
    """Type and shape of what was found, in a few words."""
    if value is None:
        return "nothing"
    if isinstance(value, np.ndarray):
        return f"array {list(value.shape)} of {value.dtype}"
    if isinstance(value, (list, tuple, dict, set)):
        return f"{type(value).__name__} of {len(value)}"
    return f"{type(value).__name__} {excerpt(value, 30)!r}"
