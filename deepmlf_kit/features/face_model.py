"""Where the face model file comes from: an argument, the environment, the cache, or one checked download.

MediaPipe's Face Landmarker (Apache-2.0, 3.8 MB) is not part of its pip package.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.request
from functools import lru_cache
from pathlib import Path

from ..errors import DeepMLFError
from .cache import cache_folder

FACE_MODEL_URL = "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task"
FACE_MODEL_SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"


class FaceModelMissing(DeepMLFError):
    """The face model file was not found and could not be downloaded."""


def find_face_model(path: str | Path | None = None, *, download: bool = True) -> Path:
    """Path of the face model file.

    Taken from, in this order: `path`, the environment variable DEEPMLF_FACE_MODEL, the cache folder
    (DEEPMLF_CACHE), a download into the cache, whose checksum is compared.

    Raises:
        FaceModelMissing: a given path does not exist, or none was given and the download failed or is not
            allowed.
    """
    for given, by in (
        (path, "as an argument"),
        (os.environ.get("DEEPMLF_FACE_MODEL"), "by DEEPMLF_FACE_MODEL"),
    ):
        if given:
            if not Path(given).is_file():
                raise FaceModelMissing(
                    f"face model: found no file at {given} (given {by}), expected face_landmarker.task; "
                    f"correct the path, or leave it out to have the file downloaded once."
                )
            return Path(given)
    cached = cache_folder() / "models" / "face_landmarker.task"
    if cached.is_file() and checksum(cached) == FACE_MODEL_SHA256:
        return cached
    reason = "downloading is switched off" if not download else _download(cached)
    if reason is None:
        return cached
    raise FaceModelMissing(
        f"face model: found none, and {reason}. Either connect this machine to the network once, or download "
        f"{FACE_MODEL_URL} elsewhere and give its path with face_model=... or the environment variable "
        f"DEEPMLF_FACE_MODEL."
    )


def checksum(path: str | Path) -> str:
    """SHA-256 of a file, memoised while its size and modification time stay the same."""
    stat = Path(path).stat()
    return _checksum(str(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=16)
def _checksum(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(target: Path) -> str | None:
    """Fetch the file; the reason why not, or None when it lies at `target`."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(FACE_MODEL_URL, timeout=20) as answer:
            content = answer.read()
        found = hashlib.sha256(content).hexdigest()
        if found != FACE_MODEL_SHA256:
            return f"the download's checksum is {found[:12]}..., expected {FACE_MODEL_SHA256[:12]}..."
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
            file.write(content)
        os.replace(file.name, target)
    except OSError as error:
        return f"the download failed ({getattr(error, 'reason', error)})"
    return None
