"""Which face of a clip is read, and where it is in each frame: all faces are followed, one is chosen at the end.

    frame --> one large face   --> FaceTracker on the whole frame: the ordinary case, at its speed
         |--> several faces    --> every face, each frame         --> tracks --> largest, most central or speaking
         `--> none, or far away --> a tighter look at parts of it  -'

MediaPipe's detector sees a face from about a quarter of a frame's height; smaller ones are found in crops.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .media import Frame
from .vision_blendshapes import VISION_NAMES, Face, FaceFinder, FaceTracker

_SURVEY = 2.0  # seconds between two looks for further faces
_TIGHT = 0.5  # seconds to the second tighter look; each one that finds nothing doubles the time to the next
_TILES = (1.0, 0.55, 0.35)  # sides of the squares of the tighter look, as shares of the frame's shorter side
_OVERLAP = 0.25  # of neighbouring squares, as a share of their side
_SMALL = 0.3  # height of a face as a share of the frame's shorter side, below which it gets a crop of its own
_LOST = 1.0  # seconds after which a face that is not seen has gone
_RARE = 0.05  # share of the frames below which a face is a passer-by, or none

Loudness = Callable[[np.ndarray], np.ndarray]
"""Loudness of the sound [L] at the times [L] in seconds."""


@dataclass
class FaceReading:
    """The chosen face, frame by frame.

    Attributes:
        features: [L, 58] float32, `VISION_NAMES`; all-zero rows where it is not seen.
        times: [L] float32 seconds.
        landmarks: for each frame [n, 2] float32, as fractions of width and height, or None.
        faces: the most faces that were seen at the same time.
    """

    features: np.ndarray
    times: np.ndarray
    landmarks: list[np.ndarray | None]
    faces: int


def read_faces(
    frames: Iterable[Frame], model: str | Path, choice: str = "largest", loudness: Loudness | None = None
) -> FaceReading:
    """Follow the faces of a clip's frames and choose one.

    Args:
        model: path of the face model file.
        choice: `largest`, `central` or `speaking`.
        loudness: of the clip's sound; `speaking` is the face whose mouth moves most where it is loud.
    """
    with FaceTracker(model) as tracker:
        follower = _Follower(tracker, model)
        try:
            for frame in frames:
                follower.add(frame)
        finally:
            follower.close()
    times = np.asarray(follower.times, np.float32)
    enough = min(len(times), max(3, 0.1 * len(times)))
    tracks = [track for track in follower.tracks if not track.doubtful or len(track.faces) >= enough]
    chosen = _chosen(tracks, times, choice, loudness)
    features = np.zeros((len(times), len(VISION_NAMES)), np.float32)
    for index, face in chosen.items():
        features[index] = face.row
    landmarks = [chosen[n].landmarks if n in chosen else None for n in range(len(times))]
    return FaceReading(features, times, landmarks, _at_once(tracks, len(times)))


@dataclass
class _Track:
    """One face through the clip: where it was seen, by the frame's number."""

    doubtful: bool = False  # seen from close by only: patterns look like faces there
    faces: dict[int, Face] = field(default_factory=dict)
    last_time: float = 0.0

    @property
    def last(self) -> Face:
        return self.faces[max(self.faces)]


class _Follower:
    """Finds faces frame by frame, with no more work than the clip asks for."""

    def __init__(self, tracker: FaceTracker, model: str | Path) -> None:
        self.tracks: list[_Track] = []
        self.times: list[float] = []
        self._tracker, self._model = tracker, model
        self._finder: FaceFinder | None = None
        self._alone = True  # at most one face so far, and a large one
        self._survey_due = -math.inf
        self._tight_due, self._tight_wait = -math.inf, _TIGHT

    def close(self) -> None:
        if self._finder is not None:
            self._finder.close()

    def add(self, frame: Frame) -> None:
        """Take the next frame."""
        number = len(self.times)
        self.times.append(frame.time)
        survey = frame.time >= self._survey_due
        faces: list[Face] = []
        if survey:
            self._survey_due = frame.time + _SURVEY
        if self._alone:
            face = self._tracker.face(frame)
            faces = [] if face is None else [face]
            if survey:
                whole = self.finder.faces(frame.image)
                if len(whole) > 1:
                    self._alone, faces = False, whole
        else:
            faces = self._around(frame, survey)
        if not faces and frame.time >= self._tight_due:
            faces = self._tighter(frame.image)
            self._tight_wait = _TIGHT if faces else 2 * self._tight_wait
            self._tight_due = frame.time + self._tight_wait
            self._alone = self._alone and not faces
        self._assign(number, frame, faces)

    @property
    def finder(self) -> FaceFinder:
        if self._finder is None:
            self._finder = FaceFinder(self._model)
        return self._finder

    def _around(self, frame: Frame, survey: bool) -> list[Face]:
        """Faces where they were last: the large ones in the whole frame, each small one in a crop of its own."""
        image = frame.image
        known = [track.last for track in self.tracks if frame.time - track.last_time <= _LOST]
        small = [face for face in known if _is_small(face, image)]
        faces = self.finder.faces(image) if survey or len(small) < len(known) or not known else []
        for face in known:
            if not any(face.near(other) for other in faces):
                _merge(faces, self.finder.faces(image, _square(face, 3.0, image)))
        return faces

    def _tighter(self, image: np.ndarray) -> list[Face]:
        """Faces in parts of a frame, the largest parts first; each must be seen again in a crop around it."""
        for share in _TILES:
            found: list[Face] = []
            for box in _tiles(image, share):
                _merge(found, self.finder.faces(image, box))
            faces: list[Face] = []
            for face in found:
                again = self.finder.faces(image, _square(face, 3.0, image))
                _merge(faces, [other for other in again if face.near(other)])
            if faces:
                return faces
        return []

    def _assign(self, number: int, frame: Frame, faces: list[Face]) -> None:
        """Each face to the track that it continues, or to a new one."""
        free = [track for track in self.tracks if frame.time - track.last_time <= _LOST]
        if self._alone:
            free = self.tracks[:1]
        for face in faces:
            near = min(free, key=lambda track: face.distance(track.last), default=None)
            if near is None or not (self._alone or face.near(near.last)):
                near = _Track(doubtful=_is_small(face, frame.image))
                self.tracks.append(near)
            free = [track for track in free if track is not near]
            near.faces[number], near.last_time = face, frame.time


def _is_small(face: Face, image: np.ndarray) -> bool:
    return face.height < _SMALL * min(image.shape[:2])


def _merge(faces: list[Face], more: Iterable[Face]) -> None:
    """Add the faces that are not there yet."""
    for face in more:
        if not any(face.near(other, 0.5) for other in faces):
            faces.append(face)


def _square(face: Face, times: float, image: np.ndarray) -> tuple[int, int, int, int]:
    """Box (left, top, right, bottom) around a face, so many times its size, within the image."""
    height, width = image.shape[:2]
    half = max(16.0, face.size * times / 2)
    left, top = max(0, round(face.x - half)), max(0, round(face.y - half))
    return left, top, min(width, round(face.x + half)), min(height, round(face.y + half))


def _tiles(image: np.ndarray, share: float) -> Iterator[tuple[int, int, int, int]]:
    """Squares that cover an image."""
    height, width = image.shape[:2]
    side = max(32, round(share * min(height, width)))
    columns, rows = (
        max(1, math.ceil((length / side - _OVERLAP) / (1 - _OVERLAP) - 0.1)) for length in (width, height)
    )
    for row in range(rows):
        for column in range(columns):
            left = round((width - side) * column / max(1, columns - 1)) if columns > 1 else 0
            top = round((height - side) * row / max(1, rows - 1)) if rows > 1 else 0
            yield max(0, left), max(0, top), min(width, max(0, left) + side), min(height, max(0, top) + side)


def _chosen(
    tracks: list[_Track], times: np.ndarray, choice: str, loudness: Loudness | None
) -> dict[int, Face]:
    """The face of each frame: the chosen one, and the next best where that one is away for longer than a moment."""
    most = max((len(track.faces) for track in tracks), default=0)
    loud = loudness(times) if loudness is not None and choice == "speaking" else np.ones(len(times))
    scores = {"largest": _size, "central": _centrality, "speaking": lambda track: _speech(track, loud)}
    ranked = sorted(
        tracks, key=lambda track: (len(track.faces) >= 0.3 * most, scores[choice](track)), reverse=True
    )
    chosen: dict[int, Face] = {}
    for track in ranked:
        taken = np.array(sorted(times[number] for number in chosen))
        for number, face in track.faces.items():
            if number not in chosen and (not len(taken) or np.abs(taken - times[number]).min() > _LOST):
                chosen[number] = face
    return chosen


def _size(track: _Track) -> float:
    return sum(face.size**2 for face in track.faces.values())


def _centrality(track: _Track) -> float:
    return -float(np.mean([face.off_centre for face in track.faces.values()]))


def _speech(track: _Track, loud: np.ndarray) -> float:
    """Movement of the mouth from frame to frame, weighed by the loudness at that time."""
    moved = [
        loud[number] * abs(face.mouth - track.faces[number - 1].mouth)
        for number, face in track.faces.items()
        if number - 1 in track.faces
    ]
    return float(np.mean(moved)) if moved else 0.0


def _at_once(tracks: list[_Track], frames: int) -> int:
    """The most faces in one frame, without passers-by."""
    counts = np.zeros(frames, int)
    for track in tracks:
        if len(track.faces) >= max(2, _RARE * frames) or frames < 3:
            counts[list(track.faces)] += 1
    return int(counts.max(initial=0))
