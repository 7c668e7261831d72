"""Sound synthesized from voice features: the voice of the app's example clips.

A source-filter model with three formants (Fant, "Acoustic Theory of Speech Production", 1960) follows the sample
set's eGeMAPS tracks: pulses at the pitch, noise where unvoiced, filtered at the formants. It says no words.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter

from deepmlf_kit.features.audio_egemaps import AUDIO_NAMES, RATE, STEP

_COLUMN = {name.split("_sma3")[0]: number for number, name in enumerate(AUDIO_NAMES)}
_HOP = round(STEP * RATE)


def synthesize(frames: np.ndarray, seed: int = 0) -> np.ndarray:
    """Sound that has about these features.

    Args:
        frames: [L, 25] eGeMAPS low-level descriptors, one every 10 ms.
        seed: of the breath noise.

    Returns:
        [L * 160] float32 in [-1, 1] at 16 kHz.
    """
    rng = np.random.default_rng(seed)
    pitch = frames[:, _COLUMN["F0semitoneFrom27.5Hz"]]
    voiced = pitch > 0
    hertz = 27.5 * 2.0 ** (pitch / 12)
    loud = np.clip(frames[:, _COLUMN["Loudness"]], 0, 3)
    rough = np.clip(frames[:, _COLUMN["jitterLocal"]], 0, 0.1)
    source = _pulses(hertz, voiced, rough, rng)
    breath = rng.normal(0, 1, len(source)) * np.repeat(np.where(voiced, 0.03, 0.10), _HOP)
    sound = lfilter([1.0], [1.0, -0.97], source) * 0.25 + breath
    for number, bandwidth in ((1, 90.0), (2, 130.0), (3, 200.0)):
        sound = _resonance(sound, frames[:, _COLUMN[f"F{number}frequency"]], bandwidth)
    level = np.interp(np.arange(len(sound)) / _HOP, np.arange(len(frames)) + 0.5, loud / 1.5)
    sound = sound / (np.sqrt(np.mean(sound**2)) + 1e-9) * level * 0.12
    return np.clip(sound, -1, 1).astype(np.float32)


def _pulses(hertz: np.ndarray, voiced: np.ndarray, rough: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One pulse a period, its length jittered where the voice is rough."""
    out = np.zeros(len(hertz) * _HOP)
    at = 0.0
    while at < len(out):
        frame = int(at) // _HOP
        if not voiced[frame]:
            at = float((frame + 1) * _HOP)
            continue
        out[int(at)] = 1.0
        at += max(20.0, RATE / hertz[frame] * (1 + rough[frame] * rng.normal()))
    return out


def _resonance(sound: np.ndarray, centres: np.ndarray, bandwidth: float) -> np.ndarray:
    """A two-pole filter whose frequency follows `centres` [L] in Hz, one value a frame."""
    out = np.empty_like(sound)
    state = np.zeros(2)
    radius = np.exp(-np.pi * bandwidth / RATE)
    for frame, hertz in enumerate(np.clip(centres, 150, 0.45 * RATE)):
        poles = [1.0, -2 * radius * np.cos(2 * np.pi * hertz / RATE), radius**2]
        part = slice(frame * _HOP, (frame + 1) * _HOP)
        out[part], state = lfilter([sum(poles)], poles, sound[part], zi=state)
    return out
