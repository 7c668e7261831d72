"""Upload checks: a file is judged by its content, never by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..errors import DeepMLFError
from ..features.container import ClipError
from ..features.media import MediaInfo
from .settings import Settings

_TAKEN = "Give a video (mp4, webm, mov, mts, ...) or a sound file (wav, flac, mp3, ...)."


class UploadRefused(DeepMLFError):
    """A file that the app refuses; the message says what it is and what is accepted."""


def check_upload(path: str | Path, settings: Settings, look: Callable[[Path], MediaInfo]) -> MediaInfo:
    """Check a file before any work is done on it.

    Args:
        look: says what the file holds (`ClipExtractor.probe`).

    Raises:
        UploadRefused: it is too large, too long, empty, damaged, or no clip.
    """
    path = Path(path)
    if not path.is_file():
        raise UploadRefused("The file is no longer there. Give the clip again.")
    megabytes = path.stat().st_size / 1e6
    if megabytes > settings.max_megabytes:
        raise UploadRefused(
            f"The file has {megabytes:.0f} MB; at most {settings.max_megabytes} MB are taken. "
            "Cut it, or save it at a lower resolution."
        )
    try:
        info = look(path)
    except ClipError as error:
        found = str(error).removeprefix(f"{path}: ").split(", expected")[0].split("; expected")[0]
        raise UploadRefused(f"This is no clip: {found}. {_TAKEN}") from error
    if info.seconds > settings.max_seconds:
        raise UploadRefused(
            f"The clip lasts {info.seconds:.0f} s; at most {settings.max_seconds:.0f} s are taken. "
            "Cut out one utterance: the model reads a sentence or two."
        )
    return info
