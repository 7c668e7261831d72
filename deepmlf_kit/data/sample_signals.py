"""Audio and vision of the sample set: synthetic features in the real extractors' spaces.

Where it stands: between the words (`sample_grammar`) and the dataset (`sample`). Given words and how they are
meant (`Expression`), it makes eGeMAPS descriptors at 100 Hz and blendshapes with head pose at a face frame
rate, in the dimensions, units and order of `features.audio_egemaps` and `features.vision_blendshapes`.

The statistics come from short real clips: `scripts/fit_sample_statistics.py` ran the kit's extractors on 49 s of
speech and 36 s of faces and stored moments only (`assets/sample_statistics.json`): for voiced, unvoiced and pause
frames the mean, deviation, correlation and lag-1 autocorrelation of each descriptor, for the face the same, and
the directions in which a face moves when it smiles, lowers its brows, or speaks. What is added by rule: words
are spoken as syllables (an unvoiced onset, a voiced stretch) with pauses between; the pitch declines and has an
accent on each stressed word; the jaw follows the loudness; eyes blink; a bright voice is higher, livelier,
more harmonic and louder in the upper spectrum, a harsh one lower, flatter and rougher (directions after Eyben
et al., "The Geneva Minimalistic Acoustic Parameter Set", 2016). Everything here is synthetic.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from scipy.ndimage import uniform_filter1d
from scipy.signal import lfilter

AUDIO_HZ = 100
AUDIO_DIM, VISION_DIM = 25, 58

# What a fully bright voice (+1) adds while voiced, in deviations of the real clips' voiced frames.
_BRIGHT = {
    "Loudness_sma3": 0.4,
    "alphaRatio_sma3": 0.7,
    "hammarbergIndex_sma3": -0.6,
    "slope500-1500_sma3": 0.5,
    "spectralFlux_sma3": 0.4,
    "jitterLocal_sma3nz": -0.5,
    "shimmerLocaldB_sma3nz": -0.6,
    "HNRdBACF_sma3nz": 0.9,
    "F1frequency_sma3nz": 0.4,
    "F2frequency_sma3nz": 0.6,
    "F3frequency_sma3nz": 0.4,
}
_BRIGHT_SEMITONES = 3.0
# What an eye-roll with a one-sided smirk adds at its height, in blendshape units.
SMIRK = {
    "mouthSmileLeft": 0.5,
    "mouthDimpleLeft": 0.3,
    "mouthPressLeft": 0.2,
    "mouthLeft": 0.15,
    "eyeLookUpLeft": 0.45,
    "eyeLookUpRight": 0.45,
    "eyeLookDownLeft": -0.2,
    "eyeLookDownRight": -0.2,
    "browOuterUpLeft": 0.35,
    "headRoll": 0.12,
}
# Six faces do not show how people, cameras and seats differ: at least this much at rest, and within a clip.
_FACE_BETWEEN = np.r_[np.full(52, 0.01), np.full(3, 0.08), 3.0, 3.0, 8.0]
_FACE_WITHIN = np.r_[np.full(52, 0.01), np.full(3, 0.03), 0.3, 0.3, 0.5]


@dataclass(frozen=True)
class Expression:
    """How words are meant.

    Attributes:
        face: -1 (lowered brows) to 1 (broad smile).
        voice: -1 (low, flat, rough) to 1 (high, lively, clear).
        smirk: height (0 to 1) of an eye-roll with a one-sided smirk at the strong word.
        drawl: how much (0 to 1) the strong word is drawn out on a flat pitch.
    """

    face: float
    voice: float
    smirk: float = 0.0
    drawl: float = 0.0


@dataclass(frozen=True)
class Speaker:
    """What stays the same in all utterances of one person, drawn from the spread between the real clips.

    Attributes:
        pitch: semitones above 27.5 Hz.
        gain: of the microphone, on loudness and flux.
        audio: [25] offsets of the descriptors.
        vision: [58] offsets of the face at rest.
    """

    pitch: float
    gain: float
    audio: np.ndarray
    vision: np.ndarray


@dataclass(frozen=True)
class Utterance:
    """Words as they are spoken.

    Attributes:
        words: `[{"word", "start", "end"}]`, times in seconds.
        seconds: length of the utterance.
        strong: index of the word that is stressed; None: no word is.
        expression: how the words are meant.
    """

    words: list[dict[str, Any]]
    seconds: float
    strong: int | None
    expression: Expression


@lru_cache(maxsize=1)
def statistics() -> dict[str, Any]:
    """The real clips' moments (`assets/sample_statistics.json`) as arrays."""
    source = files("deepmlf_kit") / "assets" / "sample_statistics.json"

    def arrays(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: arrays(v) for k, v in value.items()}
        if isinstance(value, list) and not isinstance(value[0], str):
            return np.asarray(value, np.float64)
        return value

    return arrays(json.loads(source.read_text(encoding="utf-8")))


def make_speaker(rng: np.random.Generator) -> Speaker:
    """A random person."""
    real = statistics()
    return Speaker(
        pitch=float(rng.choice([24.5, 30.0, 35.5]) + rng.normal(0, 1.2)),
        gain=float(np.exp(rng.normal(0, 0.4))),
        audio=rng.normal(0, 1, AUDIO_DIM) * real["audio"]["voiced"]["between"] * 0.7,
        vision=rng.normal(0, 1, VISION_DIM) * np.maximum(real["vision"]["between"], _FACE_BETWEEN) * 0.7,
    )


def time_words(
    rng: np.random.Generator,
    words: tuple[str, ...],
    strong: int | None,
    expression: Expression,
    shortest: float,
    longest: float,
) -> Utterance:
    """The words with random times, in `shortest` to `longest` seconds."""
    lengths = np.array([0.09 + 0.05 * len(word) for word in words]) * rng.uniform(0.85, 1.2, len(words))
    if strong is not None:
        lengths[strong] *= 1.15 + 0.7 * expression.drawl
    gaps = np.where(rng.random(len(words)) < 0.12, rng.uniform(0.12, 0.35, len(words)), 0.02)
    gaps[0] = rng.uniform(0.1, 0.35)
    tail = rng.uniform(0.15, 0.4)
    total = lengths.sum() + gaps.sum() + tail
    fitted = float(np.clip(total * rng.uniform(0.9, 1.15), shortest, longest))
    pace = min(1.0, (fitted - tail) / (total - tail)) if fitted < total else 1.0
    ends = np.cumsum(lengths + gaps) * pace
    starts = ends - lengths * pace
    timed = [
        {"word": w, "start": round(float(s), 3), "end": round(float(e), 3)}
        for w, s, e in zip(words, starts, ends, strict=True)
    ]
    return Utterance(timed, fitted, strong, expression)


def make_audio(
    rng: np.random.Generator,
    speaker: Speaker,
    utterance: Utterance,
) -> tuple[np.ndarray, np.ndarray]:
    """eGeMAPS descriptors of the words as they are meant: [La, 25] float32 and the frames' times [La]."""
    words, strong, expression = utterance.words, utterance.strong, utterance.expression
    real = statistics()["audio"]
    names, column = real["names"], {name: i for i, name in enumerate(real["names"])}
    count = round(utterance.seconds * AUDIO_HZ) - 4  # openSMILE's last windows do not fill
    times = (np.arange(count) + 1.0) / AUDIO_HZ
    voiced, speech, loud, accent = _syllables(rng, words, count, strong)

    kinds = [("pause", ~speech), ("unvoiced", speech & ~voiced), ("voiced", voiced)]
    mean, spread = np.zeros((count, AUDIO_DIM)), np.zeros((count, AUDIO_DIM))
    for kind, mask in kinds:
        mean[mask], spread[mask] = real[kind]["mean"], real[kind]["std"]
    frames = (
        mean + speaker.audio + spread * 0.8 * noise(rng, count, real["voiced"]["ar"], real["voiced"]["corr"])
    )

    level = column["Loudness_sma3"]
    frames[:, level] = np.abs(
        0.25 + 0.12 * rng.random() + loud * mean[:, level].max() + 0.1 * frames[:, level] * loud
    )
    flux = column["spectralFlux_sma3"]
    frames[:, flux] = frames[:, level] * 0.5 * np.exp(0.25 * noise(rng, count, np.array([0.9]))[:, 0])

    # Valence colours voiced frames, most around the strong word.
    weight = voiced * expression.voice * (0.8 + 0.4 * accent)
    for name, amount in _BRIGHT.items():
        frames[:, column[name]] += weight * amount * real["voiced"]["std"][column[name]]
    at_strong = bump(times, words[strong], 0.05) if strong is not None else np.zeros(count)
    lively = np.clip(1.0 + 0.8 * expression.voice, 0.15, 2.0) * (1 - expression.drawl * at_strong)
    contour = 1.5 * (0.5 - times / utterance.seconds) + 3.0 * accent
    wander = noise(rng, count, np.array([0.985]))[:, 0]
    pitch = speaker.pitch + _BRIGHT_SEMITONES * expression.voice + lively * contour + 0.6 * lively * wander
    frames[:, column["F0semitoneFrom27.5Hz_sma3nz"]] = pitch - 2.0 * expression.drawl * at_strong

    for name in ("jitterLocal_sma3nz", "shimmerLocaldB_sma3nz"):
        frames[:, column[name]] = np.abs(frames[:, column[name]])
    frames = np.clip(frames, real["low"], real["high"])
    for i, name in enumerate(names):
        if name.endswith("nz") and "Amplitude" in name.title():
            frames[~voiced, i] = -201.0  # openSMILE's floor where there is no pitch
            frames[:, i] = uniform_filter1d(frames[:, i], 3, mode="nearest")
        elif 10 <= i <= 15:
            frames[~voiced, i] = 0.0  # pitch, jitter, shimmer, HNR, harmonics: 0 without pitch
        elif not name.endswith("nz"):
            frames[:, i] = uniform_filter1d(frames[:, i], 3, mode="nearest")
    return frames.astype(np.float32), times.astype(np.float32)


def make_silence(rng: np.random.Generator, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Descriptors of a track without speech: [La, 25] float32 and times [La]."""
    real = statistics()["audio"]
    count = round(seconds * AUDIO_HZ) - 4
    quiet = rng.random() < 0.5  # half of them digital silence but for a hum
    hum = noise(rng, count, real["voiced"]["ar"]) * real["silence"]["std"] * (0.15 if quiet else 0.5)
    frames = (
        np.where(quiet, real["silence"]["mean"], 0.6 * real["pause"]["mean"] + 0.4 * real["silence"]["mean"])
        + hum
    )
    frames[:, 0] = np.abs(rng.uniform(0.0, 0.15) * (1 + 0.2 * hum[:, 0]))
    frames[:, 5] = np.abs(0.1 * frames[:, 0])
    frames[:, 10:16] = 0.0
    frames[:, 16:] = np.maximum(frames[:, 16:], 0.0)
    frames[:, [18, 21, 24]] = -201.0
    return frames.astype(np.float32), ((np.arange(count) + 1.0) / AUDIO_HZ).astype(np.float32)


def make_vision(
    rng: np.random.Generator,
    speaker: Speaker,
    utterance: Utterance,
    fps: float = 10.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Blendshapes and head pose: [Lv, 58] float32 and the frames' times [Lv]; a lost face is a zero row."""
    words, strong, expression = utterance.words, utterance.strong, utterance.expression
    real = statistics()["vision"]
    column = {name: i for i, name in enumerate(real["names"])}
    count = max(1, int(utterance.seconds * fps))
    times = np.arange(count) / fps
    # Correlations at the face rate: the fitted ones hold at 10 frames per second.
    steady = real["ar"] ** (real["hz"] / fps)
    moves = 0.5 + 0.5 * np.exp(-4 * np.abs(real["smile"]))  # what smiling moves is moved by `face` below
    frames = (
        real["plain"]
        + speaker.vision
        + np.maximum(real["std"], _FACE_WITHIN) * moves * 0.8 * noise(rng, count, steady)
    )

    talk = np.zeros(count)
    for word in words:
        talk += bump(times, word, 0.06) * rng.uniform(0.4, 1.0)
    frames += np.clip(talk, 0, 1)[:, None] * real["speech"]
    frames[:, column["jawOpen"]] += 0.18 * np.clip(talk, 0, 1) * rng.uniform(0.6, 1.4, count)

    apex = (
        (words[strong]["start"] + words[strong]["end"]) / 2
        if strong is not None
        else utterance.seconds * rng.uniform(0.4, 0.7)
    )
    shape = 0.55 + 0.45 * np.exp(-(((times - apex) / (0.35 * utterance.seconds)) ** 2))
    shape *= 1.0 + 0.12 * noise(rng, count, np.array([0.8]))[:, 0]
    direction = real["smile"] if expression.face > 0 else real["frown"]
    direction = np.where(np.arange(VISION_DIM) < 52, direction, 0.0)
    frames += (abs(expression.face) * shape)[:, None] * direction

    if expression.smirk and strong is not None:
        height = expression.smirk * bump(times, words[strong], 0.2)
        for name, amount in SMIRK.items():
            frames[:, column[name]] += height * amount
    for at in np.cumsum(rng.exponential(2.8, 6) + 0.6):
        blink = np.exp(-(((times - at) / 0.11) ** 2)) * rng.uniform(0.4, 0.6)
        for name in ("eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight"):
            frames[:, column[name]] += blink
    frames[:, :52] = np.clip(frames[:, :52], 0.0, np.maximum(real["high"][:52], 0.05))
    frames[:, 0] = 0.0  # MediaPipe's `_neutral` is always about 0
    if rng.random() < 0.06:  # The tracker loses the face for a moment.
        start = int(rng.integers(count))
        frames[start : start + int(rng.integers(1, max(2, int(0.6 * fps))))] = 0.0
    return frames.astype(np.float32), times.astype(np.float32)


def _syllables(
    rng: np.random.Generator, words: list[dict[str, Any]], count: int, strong: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Voiced [n] bool, within a word [n] bool, loudness [n] 0..1 and pitch accent [n] 0..1 of each frame."""
    voiced, speech = np.zeros(count, bool), np.zeros(count, bool)
    loud, accent = np.zeros(count), np.zeros(count)
    for number, word in enumerate(words):
        first, last = int(word["start"] * AUDIO_HZ), min(count, int(word["end"] * AUDIO_HZ))
        if last - first < 3:
            continue
        speech[first:last] = True
        stress = 1.0 if number == strong else 0.55 if len(word["word"]) > 3 else 0.3
        accent[first:last] = np.maximum(accent[first:last], stress * np.hanning(last - first))
        edges = np.linspace(first, last, max(1, round(len(word["word"]) / 3.2)) + 1).astype(int)
        for start, end in itertools.pairwise(edges):
            onset = min(end - 1, start + int(rng.integers(0, 7)))
            voiced[onset:end] = True
            loud[start:end] = (0.35 + 0.65 * np.hanning(end - start + 2)[1:-1]) * (0.6 + 0.4 * stress)
    return voiced, speech, uniform_filter1d(loud, 5), accent


def bump(times: np.ndarray, word: dict[str, Any], margin: float) -> np.ndarray:
    """[n] about 1 while `word` is spoken, falling to 0 over `margin` seconds."""
    rise = (times - word["start"] + margin) / margin
    fall = (word["end"] + margin - times) / margin
    return np.clip(np.minimum(rise, fall), 0.0, 1.0)


def noise(
    rng: np.random.Generator, count: int, steady: np.ndarray, corr: np.ndarray | None = None
) -> np.ndarray:
    """[count, d] stationary noise of deviation 1: lag-1 autocorrelation `steady` [d], correlation `corr`."""
    white = rng.normal(size=(count, len(steady)))
    if corr is not None:
        white = white @ np.linalg.cholesky(corr).T
    out = np.empty_like(white)
    steps = np.minimum(np.round(np.asarray(steady) / 0.05) * 0.05, 0.98)  # few values, so few calls
    for a in np.unique(steps):
        chosen = steps == a
        part = white[:, chosen]
        out[:, chosen] = lfilter([np.sqrt(1 - a * a)], [1.0, -a], part, axis=0, zi=a * part[:1])[0]
    return out
