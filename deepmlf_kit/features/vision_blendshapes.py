"""Vision features by MediaPipe's Face Landmarker: 52 blendshapes, head rotation and translation, 58 dims per frame.

Licence: Apache-2.0. One tracker follows the face from frame to frame of one clip, so each clip gets its own:
a result then depends on that clip alone, and two clips at once do not mix.

MediaPipe reports use to its maker and has no switch for it: it runs in a thread without a network (`workers.network`).
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..errors import DeepMLFError
from ..storage.optional import optional
from ..workers.network import refuse_network
from .media import Frame
from .quiet import without_startup_logs

mediapipe = optional("mediapipe")
tasks = optional("mediapipe.tasks.python")
transform = optional("scipy.spatial.transform")

BLENDSHAPE_NAMES = (
    *("_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    *("cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft"),
    *("eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight"),
    *("eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight"),
    *("jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight"),
    *("mouthFrownLeft", "mouthFrownRight", "mouthFunnel", "mouthLeft", "mouthLowerDownLeft"),
    *(
        "mouthLowerDownRight",
        "mouthPressLeft",
        "mouthPressRight",
        "mouthPucker",
        "mouthRight",
        "mouthRollLower",
    ),
    *("mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight"),
    *("mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft"),
    "noseSneerRight",
)
POSE_NAMES = ("headPitch", "headYaw", "headRoll", "headX", "headY", "headZ")
VISION_NAMES = (*BLENDSHAPE_NAMES, *POSE_NAMES)
"""The 58 dims: 52 blendshapes in [0, 1], rotation about x, y, z in radians, translation in cm (z < 0: away)."""


_MOUTH = VISION_NAMES.index("jawOpen")
_POSITION = slice(len(VISION_NAMES) - 3, None)
_FIELD_OF_VIEW = 2 * math.tan(math.radians(63) / 2)  # MediaPipe's camera: 63 degrees from top to bottom


@dataclass(frozen=True)
class Face:
    """A face in a picture.

    Attributes:
        row: [58] float32, `VISION_NAMES`.
        landmarks: [n, 2] float32, as fractions of the picture's width and height.
        x, y: its centre in pixels.
        size, height: the longer side of its box, and its height, in pixels.
        off_centre: distance of its centre from the picture's, as a share of half the diagonal.
    """

    row: np.ndarray
    landmarks: np.ndarray
    x: float
    y: float
    size: float
    height: float
    off_centre: float

    @property
    def mouth(self) -> float:
        """How far the jaw is open, 0 to 1."""
        return float(self.row[_MOUTH])

    def distance(self, other: Face) -> float:
        """Pixels between the centres of two faces."""
        return math.hypot(self.x - other.x, self.y - other.y)

    def near(self, other: Face, sizes: float = 1.0) -> bool:
        """Whether two faces may be the same: about as large, and at most so many of their sizes apart."""
        large, small = max(self.size, other.size), min(self.size, other.size)
        return self.distance(other) < sizes * large and large < 2.5 * small


class _Landmarker:
    """MediaPipe's Face Landmarker, loaded once for one clip. Use as a context manager.

    Args:
        model: path of the face model file (`face_model.find_face_model`).
    """

    _mode = "VIDEO"
    _most = 1

    def __init__(self, model: str | Path) -> None:
        self._first = True
        # Threads that MediaPipe starts inherit what this one may do: all of its calls are made there.
        self._thread = ThreadPoolExecutor(1, "face", initializer=refuse_network)
        try:
            self._landmarker = self._thread.submit(self._open, model).result()
        except BaseException:
            self._thread.shutdown(wait=False)
            raise

    def _open(self, model: str | Path) -> Any:
        vision = tasks.vision
        options = vision.FaceLandmarkerOptions(
            base_options=tasks.BaseOptions(model_asset_path=str(model)),
            running_mode=getattr(vision.RunningMode, self._mode),
            num_faces=self._most,
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
        )
        with without_startup_logs():
            try:
                return vision.FaceLandmarker.create_from_options(options)
            except (RuntimeError, ValueError, OSError) as error:
                raise DeepMLFError(
                    f"face model: {model} is no Face Landmarker model ({error}), expected MediaPipe's "
                    f"face_landmarker.task; give its path, or leave it out to have the file downloaded."
                ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Free its native memory."""
        if self._landmarker is not None:
            self._thread.submit(self._landmarker.close).result()
            self._thread.shutdown()
            self._landmarker = None

    def _detect(self, image: np.ndarray, *milliseconds: int) -> Any:
        """MediaPipe's result for a picture [H, W, 3] uint8."""
        # A view with gaps between its rows would be read as if it had none: the picture is sheared, the face lost.
        image = mediapipe.Image(
            image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image, np.uint8)
        )
        detect = self._landmarker.detect_for_video if milliseconds else self._landmarker.detect
        if self._first:
            self._first = False
            with without_startup_logs():  # its graph starts, and warns, with the first frame
                return self._thread.submit(detect, image, *milliseconds).result()
        return self._thread.submit(detect, image, *milliseconds).result()


class FaceTracker(_Landmarker):
    """Follows one face through the frames of one clip. Use as a context manager."""

    def __init__(self, model: str | Path) -> None:
        super().__init__(model)
        self._last_ms = -1

    def face(self, frame: Frame) -> Face | None:
        """The face in the next frame, or None; times must not run backwards."""
        self._last_ms = max(self._last_ms + 1, round(frame.time * 1000))
        faces = _faces(self._detect(frame.image, self._last_ms), frame.image, _whole(frame.image))
        return faces[0] if faces else None

    def row(self, frame: Frame) -> np.ndarray:
        """[58] float32 for the next frame; all zero where no face is found."""
        face = self.face(frame)
        return np.zeros(len(VISION_NAMES), np.float32) if face is None else face.row


class FaceFinder(_Landmarker):
    """Finds all faces (at most five) in single pictures. Use as a context manager."""

    _mode = "IMAGE"
    _most = 5

    def faces(self, image: np.ndarray, box: tuple[int, int, int, int] | None = None) -> list[Face]:
        """The faces in a picture [H, W, 3] uint8, or in a part of it: (left, top, right, bottom) in pixels."""
        box = box or _whole(image)
        left, top, right, bottom = box
        if right - left < 2 or bottom - top < 2:
            return []
        return _faces(self._detect(image[top:bottom, left:right]), image, box)


def _whole(image: np.ndarray) -> tuple[int, int, int, int]:
    return 0, 0, image.shape[1], image.shape[0]


def _faces(result: Any, image: np.ndarray, box: tuple[int, int, int, int]) -> list[Face]:
    """MediaPipe's result for a part of a picture, in the whole picture's measures."""
    height, width = image.shape[:2]
    left, top, right, bottom = box
    faces = []
    found = zip(
        result.face_landmarks, result.face_blendshapes, result.facial_transformation_matrixes, strict=False
    )
    for points, blendshapes, matrix in found:
        scores = [category.score for category in blendshapes]
        matrix = np.asarray(matrix)
        row = np.concatenate([scores, euler_angles(matrix[:3, :3]), matrix[:3, 3]]).astype(np.float32)
        if box != _whole(image):
            row[_POSITION] = _position(row[_POSITION], (width, height), box)
        pixels = np.array([(point.x, point.y) for point in points]) * (right - left, bottom - top) + (
            left,
            top,
        )
        low, high = pixels.min(0), pixels.max(0)
        x, y = (low + high) / 2
        faces.append(
            Face(
                row=row,
                landmarks=(pixels / (width, height)).astype(np.float32),
                x=float(x),
                y=float(y),
                size=float((high - low).max()),
                height=float(high[1] - low[1]),
                off_centre=math.hypot(x - width / 2, y - height / 2) / (math.hypot(width, height) / 2),
            )
        )
    return faces


def _position(
    position: np.ndarray, size: tuple[int, int], box: tuple[int, int, int, int]
) -> tuple[float, float, float]:
    """The head's place in cm before the camera of the whole picture, from that before the camera of a part of it."""
    (width, height), (left, top, right, bottom) = size, box
    x, y, z = (float(value) for value in position)
    focal, part_focal = height / _FIELD_OF_VIEW, (bottom - top) / _FIELD_OF_VIEW
    right_of_centre = part_focal * x / -z + (left + right - width) / 2  # pixels
    above_centre = part_focal * y / -z + (height - top - bottom) / 2
    z *= focal / part_focal
    return right_of_centre * -z / focal, above_centre * -z / focal, z


def euler_angles(rotation: np.ndarray) -> np.ndarray:
    """Pitch, yaw and roll (about x, y and z, applied in this order) in radians of a rotation matrix [3, 3]."""
    return transform.Rotation.from_matrix(rotation).as_euler("xyz")
