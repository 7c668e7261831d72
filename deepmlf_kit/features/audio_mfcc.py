"""Audio features by librosa, as for CH-SIMS: log F0, 20 MFCC, 12 CQT, 33 dims every 23 ms.

The free choice: librosa is under the ISC licence. Sampling rate 22,050 Hz and a step of 512 samples as in the
paper of CH-SIMS (Yu et al., ACL 2020), which names librosa's own defaults.
"""

from __future__ import annotations

import warnings

import numpy as np

from ..storage.optional import optional

librosa = optional("librosa")

RATE = 22050
"""Sampling rate in Hz."""

HOP = 512
"""Samples from one frame to the next: 23.2 ms."""

AUDIO_NAMES = (
    "logF0",
    *(f"mfcc{i}" for i in range(1, 21)),
    *(f"cqt{name}" for name in ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")),
)
"""The 33 dims: natural logarithm of the pitch in Hz (0 where unvoiced), MFCC, energy of the 12 pitch classes."""

F0 = 0
"""Column of the pitch; 0 in unvoiced frames and silence."""

_SHORTEST = 4096  # samples; the pitch of a low voice needs two of its periods, the CQT a few frames


def mfcc(samples: np.ndarray, start: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Compute log F0, MFCC and CQT chroma of mono sound.

    Args:
        samples: [N] float32 in [-1, 1] at `RATE` Hz; shorter sound than 0.19 s is padded with silence.
        start: time of the first sample in seconds.

    Returns:
        (features, times): [L, 33] float32 and the frames' centres [L] float32 in seconds; length 0 for no
            samples.
    """
    if len(samples) == 0:
        return np.zeros((0, len(AUDIO_NAMES)), np.float32), np.zeros(0, np.float32)
    padded = np.pad(samples, (0, max(0, _SHORTEST - len(samples))))
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # librosa warns of silence and of short sound, which are no errors here
        f0, voiced, _ = librosa.pyin(
            padded, fmin=65.0, fmax=600.0, sr=RATE, hop_length=HOP, frame_length=2048, resolution=0.2
        )
        log_f0 = np.where(voiced & np.isfinite(f0), np.log(np.maximum(np.nan_to_num(f0), 1.0)), 0.0)
        mfccs = librosa.feature.mfcc(y=padded, sr=RATE, n_mfcc=20, hop_length=HOP)
        cqt = librosa.feature.chroma_cqt(y=padded, sr=RATE, hop_length=HOP, tuning=0.0)
    frames = min(log_f0.shape[-1], mfccs.shape[-1], cqt.shape[-1], 1 + len(samples) // HOP)
    values = np.concatenate([log_f0[None, :frames], mfccs[:, :frames], cqt[:, :frames]]).T
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)
    times = start + np.arange(frames, dtype=np.float32) * HOP / RATE
    return np.ascontiguousarray(values), times.astype(np.float32)
