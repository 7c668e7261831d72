"""Share of a sound that is voiced, for extractors that do not measure the pitch themselves.

A frame is voiced where it is loud enough and repeats itself at a pitch of a human voice: the peak of its
normalised autocorrelation between 65 and 400 Hz, after Boersma (1993), divided by that of the window.
"""

from __future__ import annotations

import numpy as np

_FRAME, _HOP = 0.04, 0.02  # seconds
_LOWEST, _HIGHEST = 65.0, 400.0  # Hz
_PERIODIC = 0.5  # peak of the autocorrelation; 1 is a perfect repetition
_SILENT = 0.03  # of the loudest frame


def voiced_share(samples: np.ndarray, rate: int) -> float:
    """Share of 40 ms frames with a pitch, 0 to 1, in mono sound [N] float32."""
    size, hop = round(_FRAME * rate), round(_HOP * rate)
    if len(samples) < size:
        samples = np.pad(samples, (0, size - len(samples)))
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[::hop].astype(np.float32)  # [n, size]
    window = np.hanning(size).astype(np.float32)
    frames = (frames - frames.mean(1, keepdims=True)) * window
    energy = np.sqrt((frames**2).mean(1))
    if energy.max() < 1e-4:
        return 0.0
    padded = 2 * size
    own = np.fft.irfft(np.abs(np.fft.rfft(frames, padded)) ** 2, padded)[:, :size]
    of_window = np.fft.irfft(np.abs(np.fft.rfft(window, padded)) ** 2, padded)[:size]
    lags = slice(int(rate / _HIGHEST), min(size - 1, int(rate / _LOWEST)) + 1)
    shape = of_window[lags] / of_window[0]
    peaks = (own[:, lags] / np.maximum(own[:, :1], 1e-12) / np.maximum(shape, 1e-3)).max(1)
    return round(float(((peaks > _PERIODIC) & (energy > _SILENT * energy.max())).mean()), 4)
