"""Labelled still faces -> tracks of talking faces, and which way an expression points.

The faces are MediaPipe blendshapes of press photographs (`people/face/web_faces.npz`) with the expression people labelled.
A photograph has no motion: the motion of talking faces (jaw, lips, blinks, head) is the sample set's, whose statistics come
from real clips (`deepmlf_kit.data.sample_signals`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import GroupKFold

from deepmlf_kit.data import sample_signals as signals
from deepmlf_kit.features.vision_blendshapes import VISION_NAMES, euler_angles

VALENCE = {
    "happiness": 1.0,
    "neutral": 0.0,
    "anger": -1.0,
    "sadness": -1.0,
    "disgust": -1.0,
    "fear": -1.0,
    "contempt": -1.0,
}  # surprise points neither way
_COLUMN = {name: i for i, name in enumerate(VISION_NAMES)}


@dataclass(frozen=True)
class StillFace:
    """One photograph.

    Attributes:
        features: [58].
        label: valence of the expression that people chose: -1, 0 or 1.
        valence: what people say of faces like this one, on average (`_expected`), in [-1, 1].
    """

    features: np.ndarray
    label: float
    valence: float


def still_faces(people: Path) -> dict[str, list[StillFace]]:
    """The faces by split, no person in two of them. Persons with `person % 5 == 0` are the score's and are left out."""
    stored = np.load(people / "face" / "web_faces.npz")
    found: dict[str, list[tuple[np.ndarray, float, int]]] = {"train": [], "valid": [], "test": []}
    typical = signals.statistics()["vision"]["plain"][55:]
    for shapes, matrix, expression, person in zip(
        stored["blendshapes"], stored["matrix"], stored["expression"], stored["person"], strict=True
    ):
        if person % 5 == 0 or expression not in VALENCE:
            continue
        turned = euler_angles(matrix.reshape(4, 4)[:3, :3])
        split = {1: "valid", 2: "test"}.get(int(person) % 20, "train")
        features = np.concatenate([shapes.astype(np.float64), turned, typical])
        found[split].append((features, VALENCE[str(expression)], int(person)))
    expected = _expected(found)
    return {
        split: [StillFace(*face[:2], value) for face, value in zip(faces, expected[split], strict=True)]
        for split, faces in found.items()
    }


def _expected(found: dict[str, list[tuple[np.ndarray, float, int]]]) -> dict[str, np.ndarray]:
    """The mean label of faces that look like each one: gradient boosting over the training split, cross-fitted by person.

    A model trained with an absolute error answers with the median of the labels, which of -1, 0 and 1 is one of the three,
    however unsure people are. The few negative labels count eight times, as if there were as many unhappy faces as happy ones.
    """

    def fitted(features: np.ndarray, labels: np.ndarray) -> HistGradientBoostingRegressor:
        boosted = HistGradientBoostingRegressor(
            max_iter=200, learning_rate=0.05, max_leaf_nodes=15, min_samples_leaf=40, random_state=0
        )
        return boosted.fit(features, labels, sample_weight=np.where(labels < 0, 8.0, 1.0))

    arrays = {
        split: (np.stack([f for f, _, _ in faces])[:, :55], np.array([label for _, label, _ in faces]))
        for split, faces in found.items()
    }
    features, labels = arrays["train"]
    persons = np.array([person for _, _, person in found["train"]])
    expected = {split: fitted(features, labels).predict(arrays[split][0]) for split in ("valid", "test")}
    expected["train"] = np.zeros(len(labels))
    for fit, held_out in GroupKFold(5).split(features, labels, persons):
        expected["train"][held_out] = fitted(features[fit], labels[fit]).predict(features[held_out])
    return {split: np.clip(values, -1, 1) for split, values in expected.items()}


def balanced(rng: np.random.Generator, faces: list[StillFace]) -> StillFace:
    """A face, the few negative ones drawn more often: half neutral, a quarter happy, a quarter negative."""
    wanted = float(rng.choice([0.0, 1.0, -1.0], p=[0.4, 0.35, 0.25]))
    while True:
        face = faces[int(rng.integers(len(faces)))]
        if face.label == wanted:
            return face


def track(
    rng: np.random.Generator,
    face: StillFace,
    spoken: signals.Utterance,
    rest: np.ndarray,
    *,
    fps: float = 10.0,
    smirk: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The face while it says `spoken`: [Lv, 58] float32 and the frames' times [Lv]; a lost face is a zero row.

    Args:
        rng: of all that is random.
        face: the expression at its height.
        spoken: the words and their times.
        rest: [52] the mean neutral face, towards which the expression relaxes.
        fps: frames per second.
        smirk: index of a word at which the eyes roll over a one-sided smirk.
    """
    real = signals.statistics()["vision"]
    count = max(1, int(spoken.seconds * fps))
    times = np.arange(count) / fps
    if rng.random() < 0.15:  # a photograph held before the camera
        frames = np.repeat(face.features[None], count, axis=0)
        frames[:, 55:] += rng.normal(0, [3.0, 3.0, 8.0])
        return frames.astype(np.float32), times.astype(np.float32)

    low = rng.uniform(0.5, 1.0)
    height = low + (1 - low) * signals.noise(rng, count, np.array([0.9])).clip(-1, 1)[:, 0] ** 2
    frames = np.repeat(face.features[None], count, axis=0)
    frames[:, :52] = rest + height[:, None] * (face.features[:52] - rest)
    steady = real["ar"] ** (real["hz"] / fps)
    frames += 0.7 * np.maximum(real["std"], 0.01) * signals.noise(rng, count, steady)
    frames[:, 52:55] += rng.normal(0, 0.05, 3)
    frames[:, 55:] += rng.normal(0, [3.0, 3.0, 8.0])
    talk = np.zeros(count)
    for word in spoken.words:
        talk += signals.bump(times, word, 0.06) * rng.uniform(0.4, 1.0)
    talk = np.clip(talk, 0, 1)
    frames += talk[:, None] * real["speech"] * rng.uniform(0.6, 1.2)
    frames[:, _COLUMN["jawOpen"]] += 0.15 * talk * rng.uniform(0.4, 1.6, count)
    if smirk is not None:
        rolled = rng.uniform(0.6, 1.0) * signals.bump(times, spoken.words[smirk], 0.2)
        for name, amount in signals.SMIRK.items():
            frames[:, _COLUMN[name]] += rolled * amount
    for at in np.cumsum(rng.exponential(2.8, 6) + 0.6):
        blink = np.exp(-(((times - at) / 0.11) ** 2)) * rng.uniform(0.4, 0.6)
        for name in ("eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight"):
            frames[:, _COLUMN[name]] += blink
    frames[:, :52] = np.clip(frames[:, :52], 0.0, 1.0)
    frames[:, 0] = 0.0
    if rng.random() < 0.06:
        start = int(rng.integers(count))
        frames[start : start + int(rng.integers(1, max(2, int(0.6 * fps))))] = 0.0
    return frames.astype(np.float32), times.astype(np.float32)


def resting_face(faces: list[StillFace]) -> np.ndarray:
    """[52] the mean of the neutral ones."""
    return np.mean([face.features[:52] for face in faces if face.label == 0], axis=0)
