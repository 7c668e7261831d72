"""Where the face model file comes from: an argument, the environment, the cache, or one checked download.

MediaPipe's Face Landmarker (Apache-2.0, 3.8 MB) is not part of its pip package.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from ..downloads.fetching import Address, FetchedModel, FetchError, ModelFile
from ..errors import DeepMLFError

FACE_MODEL_URL = "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task"
FACE_MODEL = FetchedModel(
    name="face",
    title="MediaPipe's Face Landmarker",
    licence="Apache-2.0",
    files=[
        ModelFile(
            "face_landmarker.task",
            3_758_596,
            "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
        )
    ],
    sources=[Address(FACE_MODEL_URL)],
    folder_name="",
)


class FaceModelMissing(DeepMLFError):
    """The face model file was not found and could not be downloaded."""


def find_face_model(path: str | Path | None = None, *, download: bool = True) -> Path:
    """Path of the face model file.

    Taken from, in this order: `path`, the environment variable DEEPMLF_FACE_MODEL, the cache folder
    (DEEPMLF_CACHE), a download into the cache, whose checksum is compared.

    Raises:
        FaceModelMissing: at a given path is no such file, or none was given and the download failed or is not allowed.
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
            if not zipfile.is_zipfile(given):  # a bundle of several models
                raise FaceModelMissing(
                    f"face model: {given} (given {by}) is no Face Landmarker model, expected MediaPipe's "
                    f"face_landmarker.task; correct the path, or leave it out to have the file downloaded once."
                )
            return Path(given)
    try:
        if not download and not FACE_MODEL.is_at_hand:
            raise FetchError("it is not to be downloaded now.")
        return FACE_MODEL.fetch() / FACE_MODEL.files[0].name
    except FetchError as error:
        raise FaceModelMissing(
            f"face model: found none, and {error} Either connect this machine to the network once (`deepmlf fetch face`), or download "
            f"{FACE_MODEL_URL} elsewhere and give its path with face_model=... or the environment variable "
            f"DEEPMLF_FACE_MODEL."
        ) from error
