"""`label.csv`: which clips belong to a dataset, with their words, labels and splits.

The first step of `folder.prepare_folder`. Two layouts are read: M-SENA's (`video_id, clip_id, text, label, mode`,
clips at `Raw/video_id/clip_id.mp4`) and a plain one (`path, text, label, split`).
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import DeepMLFError, excerpt
from ..features.cache import clip_hash
from ..features.container import looks_like_a_clip
from .encodings import UnknownEncodingError, decoded
from .labels import class_index
from .schema import SPLIT_NAMES

M_SENA_COLUMNS = ("video_id", "clip_id", "text", "label", "mode")
PLAIN_COLUMNS = ("path", "text", "label", "split")
UNIMODAL_LABELS = {"label_T": "label_text", "label_A": "label_audio", "label_V": "label_vision"}
"""Optional columns of CH-SIMS; another one is `annotation`, the annotated class."""


class LabelFileError(DeepMLFError):
    """A label file that cannot be used as a whole: what was found beside what was expected."""


@dataclass(frozen=True)
class LabelledClip:
    """One line of the label file. `problem` says why it cannot be used, and is empty where it can."""

    id: str
    path: str
    text: str | None
    split: str
    label: float = math.nan
    unimodal: dict[str, float] = field(default_factory=dict)
    label_class: float = math.nan
    problem: str = ""


@dataclass(frozen=True)
class LabelFile:
    """All lines of a label file, in its order, and sentences about what was guessed in reading it."""

    clips: list[LabelledClip]
    notes: list[str]


def read_labels(file: str | Path, root: str | Path | None = None, *, for_training: bool = True) -> LabelFile:
    """Read a label file in either layout.

    Args:
        file: a CSV file with a header; commas, semicolons or tabs; UTF-8, UTF-16 or the code page of a Chinese or
            Western Windows (`encodings`).
        root: folder that paths are relative to; that of the file where not given.
        for_training: whether labels and splits are needed; else they are not looked at.

    Returns:
        LabelFile: one entry a line. A line with a wrong label, an unknown split, a repeated id, a clip that another
            line has (by another name, or in another split), or without a file becomes an entry with a `problem`; its
            text is None where the file gives none.

    Raises:
        LabelFileError: there is no such file, it is no text, has no lines, or its columns fit neither layout.
    """
    file = Path(file)
    root = Path(root) if root is not None else file.parent
    columns, lines, notes = read_lines(file, M_SENA_COLUMNS, PLAIN_COLUMNS)
    plain = "path" in columns
    wanted = PLAIN_COLUMNS if plain else M_SENA_COLUMNS
    # Words can be transcribed, so their column may be missing; whether they are is the caller's to decide.
    optional = {"text"} if for_training else {"text", "label", "split", "mode"}
    missing = [name for name in wanted if name not in columns and name not in optional]
    if missing:
        raise LabelFileError(
            f"{file}: found the columns {excerpt(', '.join(columns), 200) or '(none)'}, expected {', '.join(M_SENA_COLUMNS)} "
            f"(M-SENA) or {', '.join(PLAIN_COLUMNS)}; missing: {', '.join(missing)}."
        )
    read = _plain_clip if plain else _m_sena_clip
    clips: list[LabelledClip] = []
    seen: set[str] = set()
    for line in lines:
        clip = read(line, root, for_training)
        if clip.id in seen and plain and clip.path:  # a.mp4 and a.wav are two clips
            clip = replace(clip, id=clip.id + Path(clip.path).suffix)
        if clip.id in seen and not clip.problem:
            clip = replace(clip, problem="its id stands in the label file twice; the first one is used")
        seen.add(clip.id)
        clips.append(clip)
    clips = _without_repeated_files(clips)
    other = sum(
        bool(cell(line, "annotation")) and math.isnan(class_index(cell(line, "annotation"))) for line in lines
    )
    if other:
        notes.append(f"{other} annotations are not Negative, Neutral or Positive and were left out")
    return LabelFile(clips, notes)


def _without_repeated_files(clips: list[LabelledClip]) -> list[LabelledClip]:
    """Lines whose clip an earlier line has get a problem, however path and id are written.

    The same file (by case, by a link) is one clip. A copy is one too where it stands in another split: a model would be
    tested on what it was trained on.
    """
    files: dict[tuple[int, int], LabelledClip] = {}
    by_size: dict[int, list[LabelledClip]] = {}
    checked = []
    for clip in clips:
        try:
            found = Path(clip.path).stat() if clip.path and not clip.problem else None
        except OSError:
            found = None
        if found is not None:
            file = (found.st_dev, found.st_ino)
            first = files.setdefault(file, clip)
            alike = by_size.setdefault(found.st_size, [])
            if first is not clip:
                clip = replace(clip, problem=f"the same file as {_quoted(first)}")
            elif copied := next((other for other in alike if found.st_size and _is_copy(clip, other)), None):
                clip = replace(clip, problem=f"the same content as {_quoted(copied)}")
            else:
                alike.append(clip)
        checked.append(clip)
    return checked


def _is_copy(clip: LabelledClip, other: LabelledClip) -> bool:
    try:
        return clip.split != other.split and clip_hash(clip.path) == clip_hash(other.path)
    except OSError:
        return False


def _quoted(clip: LabelledClip) -> str:
    return f"{excerpt(clip.id)!r} in the split {clip.split!r}; the first one is used"


def read_lines(file: Path, *layouts: tuple[str, ...]) -> tuple[list[str], list[dict[str, str]], list[str]]:
    """The columns of a CSV file, its lines that are not empty, and notes on how it was read.

    Raises:
        LabelFileError: there is no such file, it is no text, or it has no lines.
    """
    if not file.is_file():
        wanted = " or ".join(", ".join(columns) for columns in layouts)
        raise LabelFileError(f"{file}: found no such file, expected a CSV with the columns {wanted}.")
    text, notes = _decoded(file)
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        columns = [(name or "").strip() for name in reader.fieldnames or ()]
        reader.fieldnames = columns
        lines = [line for line in reader if any(isinstance(v, str) and v.strip() for v in line.values())]
    except csv.Error as error:
        raise LabelFileError(
            f"{file}: found a file that is no CSV ({excerpt(str(error))}), expected one clip a line."
        ) from error
    if not lines:
        raise LabelFileError(f"{file}: found a header and no line below it, expected one clip a line.")
    return columns, lines, notes


def _plain_clip(line: dict[str, str], root: Path, for_training: bool) -> LabelledClip:
    given = cell(line, "path")
    path = root / given
    inside = Path(given)
    name = inside.with_suffix("") if not inside.is_absolute() else Path(inside.parent.name, inside.stem)
    found = str(path) if given and _is(Path.is_file, path) else None
    column = "split" if for_training else None
    return labelled_clip("$_$".join(name.parts) or "(no path)", line, column, found, f"no file at {path}")


def _m_sena_clip(line: dict[str, str], root: Path, for_training: bool) -> LabelledClip:
    video, clip = cell(line, "video_id"), cell(line, "clip_id")
    folders = [
        folder for folder in (root / "Raw" / video, root / video) if video and _is(Path.is_dir, folder)
    ]
    found = next(filter(None, (_file_of(folder, clip) for folder in folders)), None)
    return labelled_clip(
        f"{video}$_${clip}",
        line,
        "mode" if for_training else None,
        found,
        f"no clip at {root / 'Raw' / video / clip}.mp4 (or any other video or audio file of that name)",
    )


def _file_of(folder: Path, clip: str) -> str | None:
    """The clip's file, whatever its ending; spreadsheets turn `0001` into `1`, so numbers compare as numbers."""
    files = sorted(path for path in folder.iterdir() if _is(Path.is_file, path))
    same = [path for path in files if path.name == clip] or [path for path in files if path.stem == clip]
    if not same:
        same = [path for path in files if clip.lower() in (path.stem.lower(), path.name.lower())]
    if not same and clip.isascii() and clip.isdigit():
        same = [
            path
            for path in files
            if path.stem.isascii() and path.stem.isdigit() and int(path.stem) == int(clip)
        ]
    return next((str(path) for path in same if looks_like_a_clip(path)), None)


def labelled_clip(
    id: str, line: dict[str, str], split_column: str | None, path: str | None, absent: str
) -> LabelledClip:
    """A line as an entry; `absent` is its problem where there is no `path`.

    Without a `split_column` labels and split are left out.
    """
    problems = [] if path else [absent]
    if split_column is None:
        return LabelledClip(id, path or "", cell(line, "text") or None, "", problem="; ".join(problems))
    labels = {}
    for column in ("label", *UNIMODAL_LABELS):
        try:
            labels[column] = _number(cell(line, column))
        except ValueError:
            problems.append(f"{column} is {excerpt(cell(line, column))!r}, expected a number")
    split = cell(line, split_column).lower()
    if split not in SPLIT_NAMES:
        problems.append(f"{split_column} is {excerpt(split)!r}, expected train, valid or test")
    return LabelledClip(
        id=id,
        path=path or "",
        text=cell(line, "text") or None,
        split=SPLIT_NAMES.get(split, ""),
        label=labels.get("label", math.nan),
        label_class=class_index(cell(line, "annotation")),
        unimodal={name: labels.get(column, math.nan) for column, name in UNIMODAL_LABELS.items()},
        problem=excerpt("; ".join(problems), 400),
    )


def _is(question: Callable[[Path], bool], path: Path) -> bool:
    """`path.is_file()` or `is_dir()`; a name that no file can have (too long, a NUL in it) is neither."""
    try:
        return question(path)
    except (OSError, ValueError):
        return False


def cell(line: dict[str, str], name: str) -> str:
    """A line's value in a column; empty where it has none."""
    value = line.get(name)
    return value.strip() if isinstance(value, str) else ""


def _number(text: str) -> float:
    if not text:
        return math.nan
    number = float(text.replace(",", "."))  # decimal commas, in files with semicolons
    if math.isinf(number):
        raise ValueError(text)
    return number


def _decoded(file: Path) -> tuple[str, list[str]]:
    """The file's text, and a note where its encoding was guessed."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise LabelFileError(f"{file}: cannot be read ({error.strerror}), expected a CSV file.") from error
    if not raw.strip():
        raise LabelFileError(
            f"{file}: found an empty file, expected a CSV with a header and one clip a line."
        )
    if encoding := _utf_16(raw):
        return raw.decode(encoding, errors="replace"), [f"{file.name} was read as UTF-16"]
    if b"\0" in raw:
        raise LabelFileError(f"{file}: found a file that is no text, expected a CSV file saved as UTF-8.")
    try:
        text, note = decoded(raw.removeprefix(b"\xef\xbb\xbf"))
    except UnknownEncodingError as error:
        raise LabelFileError(f"{file}: {error}.") from error
    return text, [f"{file.name}: {note}"] if note else []


def _utf_16(raw: bytes) -> str | None:
    """The codec of a text in UTF-16, which begins with its mark, or with the plain letters of a header."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    header = raw[:16]
    if len(header) == 16 and not any(header[1::2]) and all(header[::2]):
        return "utf-16-le"
    return "utf-16-be" if len(header) == 16 and not any(header[::2]) and all(header[1::2]) else None
