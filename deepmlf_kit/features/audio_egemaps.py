"""Audio features by openSMILE: eGeMAPSv02 low-level descriptors, 25 dims every 10 ms.

Licence: openSMILE is free for research and private use only (audEERING); `audio_mfcc` is the free choice.
Source: Eyben et al., "The Geneva Minimalistic Acoustic Parameter Set (GeMAPS)", IEEE TAC 2016.
"""

from __future__ import annotations

import threading
import warnings
from functools import lru_cache

import numpy as np

from ..storage.optional import optional

opensmile = optional("opensmile")

RATE = 16000
"""Sampling rate in Hz that the sound is brought to, so that clips of different origin compare."""

STEP = 0.01
"""Seconds from one frame to the next."""

AUDIO_NAMES = (
    "Loudness_sma3",
    "alphaRatio_sma3",
    "hammarbergIndex_sma3",
    "slope0-500_sma3",
    "slope500-1500_sma3",
    "spectralFlux_sma3",
    "mfcc1_sma3",
    "mfcc2_sma3",
    "mfcc3_sma3",
    "mfcc4_sma3",
    "F0semitoneFrom27.5Hz_sma3nz",
    "jitterLocal_sma3nz",
    "shimmerLocaldB_sma3nz",
    "HNRdBACF_sma3nz",
    "logRelF0-H1-H2_sma3nz",
    "logRelF0-H1-A3_sma3nz",
    "F1frequency_sma3nz",
    "F1bandwidth_sma3nz",
    "F1amplitudeLogRelF0_sma3nz",
    "F2frequency_sma3nz",
    "F2bandwidth_sma3nz",
    "F2amplitudeLogRelF0_sma3nz",
    "F3frequency_sma3nz",
    "F3bandwidth_sma3nz",
    "F3amplitudeLogRelF0_sma3nz",
)
"""The 25 descriptors, in openSMILE's order and under its names."""

F0 = AUDIO_NAMES.index("F0semitoneFrom27.5Hz_sma3nz")
"""Column of the pitch in semitones above 27.5 Hz; 0 in unvoiced frames and silence."""

LEVELS = (AUDIO_NAMES.index("Loudness_sma3"), AUDIO_NAMES.index("spectralFlux_sma3"))
"""Columns that grow with the microphone's gain."""

_SHORTEST = 0.1  # seconds; openSMILE gives nothing below its 60 ms pitch window
_lock = threading.Lock()


def egemaps(samples: np.ndarray, start: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Compute the descriptors of mono sound.

    Args:
        samples: [N] float32 in [-1, 1] at `RATE` Hz. Sound shorter than 0.1 s is padded with silence, and the
            frames of the padding are dropped again.
        start: time of the first sample in seconds.

    Returns:
        (features, times): [L, 25] float32 and the frames' centres [L] float32 in seconds; length 0 for no
            samples.
    """
    if len(samples) == 0:
        return np.zeros((0, len(AUDIO_NAMES)), np.float32), np.zeros(0, np.float32)
    shortest = int(_SHORTEST * RATE)
    padded = np.pad(samples, (0, max(0, shortest - len(samples))))
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = _smile().process_signal(padded, RATE).to_numpy(np.float32)
    if len(samples) < shortest:
        values = values[: max(1, round(len(samples) / RATE / STEP))]
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    times = start + STEP * (np.arange(len(values), dtype=np.float32) + 1.0)
    return np.ascontiguousarray(values), times.astype(np.float32)


@lru_cache(maxsize=1)
def _smile():
    return opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02,
        feature_level=opensmile.FeatureLevel.LowLevelDescriptors,
    )
