"""One Arrow schema for every dataset, whatever it was made from.

Where it stands: the sample set (`sample`), the MMSA pickles (`mmsa`) and the folders of clips (`folder`) all
end here; the collator, the trainer, the plots and the explorer all begin here. One row is one utterance; the
columns are listed in `docs/layout.md`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DeepMLFError
from ..model.modalities import BUILT_IN, registered_modalities
from ..storage.files import misshapen, read_json
from ..storage.folders import refuse_foreign, replacing_folder, sole_writer_of
from ..storage.optional import optional

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa
else:  # half a second, and a prediction reads no dataset
    datasets, pa = optional("datasets"), optional("pyarrow")

SPLITS = ("train", "valid", "test")
#: What a source may call a split, in small letters.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "dev": "valid",
    "validation": "valid",
    "test": "test",
    "testing": "test",
}
BATCH_COLUMNS = ("text", "label", "label_class")  # and those of the modalities
#: File beside a model that says how rows become its batches, and how their features were made (`Collator.save_pretrained`).
PREPROCESSOR_FILE = "preprocessor_config.json"
OPTIONAL_COLUMNS = ("label_class",)  # datasets of the kit's first days do not have them
#: Patterns of what the kit writes into a dataset's folder.
FOLDER_FILES = (
    "dataset_dict.json",
    "failures.csv",
    "prepared.json",
    "conversion.json",
    *(
        f"{split}/{name}"
        for split in SPLITS
        for name in ("dataset_info.json", "state.json", "data-*.arrow", "cache-*.arrow", "indices-*.arrow")
    ),
)
_NAN = float("nan")


class DatasetError(DeepMLFError):
    """A dataset that does not fit the schema: says what was found beside what was expected."""


def features(
    audio_dim: int, vision_dim: int, extra_dims: Mapping[str, int] | None = None
) -> datasets.Features:
    """The schema: column names and Arrow types of one utterance.

    Args:
        audio_dim: da, values per audio frame.
        vision_dim: dv, values per vision frame.
        extra_dims: values per frame of further registered modalities, by name.
    """
    dims = {"audio": audio_dim, "vision": vision_dim, **(extra_dims or {})}
    if too_small := {f"{name}_dim": dim for name, dim in dims.items() if dim < 1}:
        raise DatasetError(f"{too_small} must be at least 1")
    number, string, many = datasets.Value("float32"), datasets.Value("string"), datasets.List
    frames: dict[str, Any] = {}
    for name, dim in dims.items():
        frames |= {name: datasets.Array2D((None, dim), "float32"), f"{name}_times": many(number)}
    return datasets.Features(
        {
            "id": string,
            "text": string,
            **frames,
            "label": number,
            "label_text": number,
            "label_audio": number,
            "label_vision": number,
            "label_class": number,
            "words": many({"word": string, "start": number, "end": number}),
            "text_source": string,
            "clip": string,
            "recipe": string,
        }
    )


def utterance(
    id: str,
    text: str,
    audio: np.ndarray | None,
    vision: np.ndarray | None,
    label: float = _NAN,
    *,
    audio_dim: int,
    vision_dim: int,
    audio_times: Iterable[float] | None = None,
    vision_times: Iterable[float] | None = None,
    label_text: float = _NAN,
    label_audio: float = _NAN,
    label_vision: float = _NAN,
    label_class: float = _NAN,
    words: Iterable[Mapping[str, Any]] | None = None,
    text_source: str = "given",
    clip: str = "",
    recipe: Mapping[str, Any] | str = "",
    extra: Mapping[str, np.ndarray] | None = None,
    extra_times: Mapping[str, Iterable[float]] | None = None,
) -> dict[str, Any]:
    """One row of a dataset, checked, with the defaults filled in.

    Args:
        audio: [La, audio_dim] float, one row a frame; None or no rows: the utterance has no audio.
        vision: [Lv, vision_dim] float, likewise.
        audio_times, vision_times: seconds, the centre of each frame; None where unknown.
        label_class: the annotated class: 0 negative, 1 neutral, 2 positive.
        words: mappings with `word`, `start`, `end` (seconds).
        recipe: what made the features, a JSON object or its text; the same in every row.
        extra: frames [n, d] of further registered modalities, by name.
        extra_times: seconds of their frames, where known.

    Raises:
        DatasetError: frames of the wrong width, or as many times as there are not frames.
    """
    frames = {}
    further = {name: np.asarray(values, np.float32) for name, values in (extra or {}).items()}
    for name, array, dim, times in (
        ("audio", audio, audio_dim, audio_times),
        ("vision", vision, vision_dim, vision_times),
        *((name, a, a.shape[-1], (extra_times or {}).get(name)) for name, a in further.items()),
    ):
        array = np.zeros((0, dim), np.float32) if array is None else np.asarray(array, np.float32)
        if array.size == 0:
            array = array.reshape(0, dim)
        if array.ndim != 2 or array.shape[1] != dim:
            raise DatasetError(f"{id}: {name} has shape {list(array.shape)}, expected [frames, {dim}]")
        times = np.zeros(0, np.float32) if times is None else np.asarray(times, np.float32)
        if len(times) not in (0, len(array)):
            raise DatasetError(
                f"{id}: {name}_times has {len(times)} entries for {len(array)} frames; expected one a frame, or none"
            )
        frames[name], frames[f"{name}_times"] = array, times
    return {
        "id": str(id),
        "text": str(text),
        **frames,
        "label": float(label),
        "label_text": float(label_text),
        "label_audio": float(label_audio),
        "label_vision": float(label_vision),
        "label_class": float(label_class),
        "words": [{"word": w["word"], "start": w["start"], "end": w["end"]} for w in words or ()],
        "text_source": text_source,
        "clip": str(clip),
        "recipe": recipe if isinstance(recipe, str) else json.dumps(recipe, sort_keys=True),
    }


def build_split(
    rows: Iterable[Mapping[str, Any]],
    audio_dim: int,
    vision_dim: int,
    file: str | Path | None = None,
    extra_dims: Mapping[str, int] | None = None,
) -> datasets.Dataset:
    """Rows (as `utterance` makes them) to one split.

    Rows are consumed one at a time. With `file` they go straight to that Arrow file, which is then
    memory-mapped, so that memory does not grow with the dataset; without, they stay in memory.
    """
    schema = features(audio_dim, vision_dim, extra_dims)
    if file is None:
        sink = pa.BufferOutputStream()
        _write(rows, schema, stream=sink)
        return datasets.Dataset.from_buffer(sink.getvalue())
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    _write(rows, schema, path=str(file))
    return datasets.Dataset.from_file(str(file))


def _write(rows: Iterable[Mapping[str, Any]], schema: datasets.Features, **sink: Any) -> None:
    # Small record batches: a random row then costs one small slice, and little is held while writing.
    with datasets.arrow_writer.ArrowWriter(features=schema, writer_batch_size=64, **sink) as writer:
        for row in rows:
            writer.write(dict(row))
        writer.finalize()


def save(dataset: datasets.DatasetDict, path: str | Path) -> Path:
    """Write a dataset folder (`DatasetDict.save_to_disk`), replacing one that stood there only when whole.

    Raises:
        DatasetError: the dataset does not fit the schema, or `path` holds something else than the kit's files.
        DeepMLFError: another process is writing it.
    """
    path = Path(path)
    check(dataset)
    check_replaceable(path)
    with sole_writer_of(path), replacing_folder(path, FOLDER_FILES) as fresh, _no_bars():
        dataset.save_to_disk(str(fresh))
    return path


def check_replaceable(path: Path) -> None:
    """Refuse a folder in whose place no dataset can be written, before hours of work.

    Raises:
        DatasetError: it holds what the kit did not write, or a dataset of somebody's own.
    """
    try:
        refuse_foreign(path, FOLDER_FILES)
    except DeepMLFError as error:
        raise DatasetError(str(error)) from None
    for info in sorted(path.glob("*/dataset_info.json")):
        if not {"text", "clip", "recipe"} <= set(
            read_json(info, "remove that folder.").get("features") or {}
        ):
            raise DatasetError(
                f"{path} holds a dataset that the kit did not write ({info.parent.name} has other columns): choose another "
                "folder."
            )


@contextmanager
def _no_bars() -> Iterator[None]:
    """Without `datasets`' own bar for every split; whoever saves shows one for the work before."""
    hidden = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not hidden:
            datasets.enable_progress_bars()


def load(path: str | Path) -> datasets.DatasetDict:
    """Open a dataset folder, memory-mapped, and check it against the schema.

    Raises:
        DatasetError: no dataset there, or one that does not fit (every mismatch is listed).
    """
    path = Path(path)
    if not path.is_dir():
        raise DatasetError(f"no dataset at {path}: `deepmlf sample` or `deepmlf prepare` makes one")
    if not (path / "dataset_dict.json").is_file():
        raise DatasetError(
            f"{path} is not a dataset folder: expected dataset_dict.json and one folder a split, as "
            "`deepmlf sample` or `deepmlf prepare` write them"
        )
    try:
        dataset = datasets.load_from_disk(str(path))
    except Exception as error:
        raise DatasetError(f"{path} cannot be read ({error}); make it again") from error
    check(dataset)
    return dataset


def check(dataset: datasets.DatasetDict) -> None:
    """Raise one `DatasetError` that lists everything in which `dataset` differs from the schema."""
    if not isinstance(dataset, datasets.DatasetDict):
        raise DatasetError(
            f"found {type(dataset).__name__}, expected a DatasetDict with the splits {list(SPLITS)}"
        )
    wrong = []
    if not dataset or not set(dataset) <= set(SPLITS):
        wrong.append(f"splits: found {list(dataset)}, expected some of {list(SPLITS)}")
    dims = set()
    for split, part in dataset.items():
        found = part.features
        try:
            sizes = {name: found[name].shape[1] for name in frame_columns(found)}
            dims.add(tuple(sizes.items()))
        except (KeyError, AttributeError, IndexError):
            wrong += [
                f"{split}.{name}: found {found.get(name, 'nothing')}, expected Array2D (None, dims) of float32"
                for name in frame_columns(found)
                if not isinstance(found.get(name), datasets.Array2D)
            ]
            continue
        extra_dims = {name: dim for name, dim in sizes.items() if name not in BUILT_IN}
        expected = features(sizes["audio"], sizes["vision"], extra_dims)
        wrong += [
            f"{split}.{name}: found {found.get(name, 'nothing')}, expected {kind}"
            for name, kind in expected.items()
            if found.get(name) != kind and (name in found or name not in OPTIONAL_COLUMNS)
        ]
    if len(dims) > 1:
        wrong.append(f"dimensions differ between splits: {sorted(dims)}")
    if wrong:
        raise DatasetError("the dataset does not fit the schema:\n  " + "\n  ".join(wrong))


def dims_of(dataset: datasets.DatasetDict | datasets.Dataset) -> tuple[int, int]:
    """(audio_dim, vision_dim): values per audio frame and per vision frame."""
    dims = modality_dims(dataset)
    return dims["audio"], dims["vision"]


def frame_columns(columns: Iterable[str]) -> list[str]:
    """Columns of frames: audio, vision, and those of `columns` that are further registered modalities."""
    columns = set(columns)
    return [name for name in registered_modalities() if name in BUILT_IN or name in columns]


def modality_dims(dataset: datasets.DatasetDict | datasets.Dataset) -> dict[str, int]:
    """Values per frame of each modality."""
    part = next(iter(dataset.values())) if isinstance(dataset, datasets.DatasetDict) else dataset
    return {name: part.features[name].shape[1] for name in frame_columns(part.features)}


def recipe_of(dataset: datasets.DatasetDict | datasets.Dataset) -> dict[str, Any]:
    """The extractors and settings that made the features; empty where the rows do not say.

    Raises:
        DatasetError: the column `recipe` holds something else.
    """
    parts = dataset.values() if isinstance(dataset, datasets.DatasetDict) else [dataset]
    for part in parts:
        if len(part):
            text = part.with_format(None).select_columns(["recipe"])[0]["recipe"]
            return _recipe(text) if text else {}
    return {}


def _recipe(text: str) -> dict[str, Any]:
    try:
        recipe = json.loads(text)
    except (ValueError, RecursionError):
        recipe = None
    wrong = misshapen(recipe, {"label_scale?": float})
    if not wrong and not 0 < recipe.get("label_scale", 1.0) < float("inf"):
        wrong = f"label_scale is {recipe['label_scale']}, expected a number above 0"
    if wrong:
        raise DatasetError(
            f"the column recipe holds {text[:80]!r} ({wrong}), expected the JSON that `deepmlf prepare` writes: make the "
            "dataset again"
        )
    return recipe


def scale_of(dataset: datasets.DatasetDict | datasets.Dataset) -> float:
    """Largest absolute label the dataset's scale allows: from the recipe (`label_scale`), else 3."""
    return float(recipe_of(dataset).get("label_scale", 3.0))


def for_batches(dataset: datasets.Dataset) -> datasets.Dataset:
    """A view of one split that yields the columns a batch needs, as NumPy arrays (what `Collator` wants)."""
    frames = [column for name in frame_columns(dataset.features) for column in (name, f"{name}_times")]
    columns = [
        name for name in (*BATCH_COLUMNS, *frames) if name in dataset.features or name not in OPTIONAL_COLUMNS
    ]
    return dataset.with_format("numpy", columns=columns)
