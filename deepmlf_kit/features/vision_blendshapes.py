"""Vision features by MediaPipe's Face Landmarker: 52 blendshapes, head rotation and translation, 58 dims per frame.

Licence: Apache-2.0. One tracker follows the face from frame to frame of one clip, so each clip gets its own:
a result then depends on that clip alone, and two clips at once do not mix.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from ..errors import DeepMLFError
from .media import Frame
from .quiet import without_startup_logs

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


class FaceTracker:
    """Follows one face through the frames of one clip. Use as a context manager.

    Args:
        model: path of the face model file (`face_model.find_face_model`).
    """

    def __init__(self, model: str | Path) -> None:
        from mediapipe.tasks.python import BaseOptions, vision

        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(model)),
            running_mode=vision.RunningMode.VIDEO,
            num_faces=1,
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
        )
        with without_startup_logs():
            try:
                self._landmarker = vision.FaceLandmarker.create_from_options(options)
            except (RuntimeError, ValueError, OSError) as error:
                raise DeepMLFError(
                    f"face model: {model} is no Face Landmarker model ({error}), expected MediaPipe's "
                    f"face_landmarker.task; give its path, or leave it out to have the file downloaded."
                ) from error
        self._last_ms = -1
        self._first = True

    def __enter__(self) -> FaceTracker:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the tracker's native memory."""
        if self._landmarker is not None:
            self._landmarker.close()
            self._landmarker = None

    def detect(self, frame: Frame):
        """MediaPipe's result for the next frame; times must not run backwards."""
        import mediapipe

        self._last_ms = max(self._last_ms + 1, round(frame.time * 1000))
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=frame.image)
        if self._first:
            self._first = False
            with without_startup_logs():  # its graph starts, and warns, with the first frame
                return self._landmarker.detect_for_video(image, self._last_ms)
        return self._landmarker.detect_for_video(image, self._last_ms)

    def row(self, frame: Frame) -> np.ndarray:
        """[58] float32 for the next frame; all zero where no face is found."""
        result = self.detect(frame)
        if not result.face_blendshapes:
            return np.zeros(len(VISION_NAMES), np.float32)
        scores = [category.score for category in result.face_blendshapes[0]]
        matrix = np.asarray(result.facial_transformation_matrixes[0])
        return np.concatenate([scores, euler_angles(matrix[:3, :3]), matrix[:3, 3]]).astype(np.float32)


def blendshapes(frames: Iterable[Frame], model: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Face features of a clip's frames.

    Returns:
        (features, times): [L, 58] float32 (`VISION_NAMES`; all-zero rows where there is no face) and [L]
            float32 seconds.
    """
    rows, times = [], []
    with FaceTracker(model) as tracker:
        for frame in frames:
            rows.append(tracker.row(frame))
            times.append(frame.time)
    features = np.stack(rows) if rows else np.zeros((0, len(VISION_NAMES)), np.float32)
    return features, np.asarray(times, np.float32)


def euler_angles(rotation: np.ndarray) -> np.ndarray:
    """Pitch, yaw and roll (about x, y and z, applied in this order) in radians of a rotation matrix [3, 3]."""
    return Rotation.from_matrix(rotation).as_euler("xyz")
