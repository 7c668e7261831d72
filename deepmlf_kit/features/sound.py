"""Decoded sound of any layout -> mono at one rate.

Channels are mixed to left and right by their layout's own weights (ITU-R BS.775, as libav has them: the centre and the
surrounds at -3 dB, no LFE), and these two to their mean. Where they cancel each other out, one of them is read alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..storage.optional import optional

if TYPE_CHECKING:
    from av.filter import Graph

av = optional("av")

_CANCELLED = 0.05  # energy of the mean of both sides, as a share of that of a single side


class Downmix:
    """Collects frames of sound, and gives them as mono.

    Args:
        rate: Hz of the result.

    Attributes:
        count: samples so far, at `rate`.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.count = 0
        self._pieces: list[np.ndarray] = []  # each [2, n] or [1, n] float32
        self._mixer: _Mixer | None = None
        self._many = False  # more channels than two at some time: their sum may be above 1

    def add(self, frame: Any) -> None:
        """Add a frame; raises what libav raises where it cannot be converted."""
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._mixer is None or self._mixer.kind != kind:  # a resampler refuses a change in mid-stream
            self.flush()
            self._mixer = _Mixer(frame, kind, self.rate)
        self._many = self._many or frame.layout.nb_channels > 2
        frame.pts = None
        try:
            self._take(self._mixer.push(frame))
        except (av.FFmpegError, OSError, ValueError):
            self._mixer = None
            raise

    def silence(self, seconds: float) -> None:
        """Add a stretch without sound."""
        self.flush()
        self._take([np.zeros((1, round(seconds * self.rate)), np.float32)])

    def flush(self) -> None:
        """Take what the resampler still holds."""
        if self._mixer is not None:
            mixer, self._mixer = self._mixer, None
            self._take(mixer.push(None))

    def mono(self) -> tuple[np.ndarray, bool]:
        """All of it as mono.

        Returns:
            (samples [N] float32 in [-1, 1], whether left and right cancelled each other out).
        """
        # Damaged streams decode to NaN and to values beyond any loudness; both would spread through every feature.
        pieces = [np.nan_to_num(piece, nan=0.0, posinf=0.0, neginf=0.0) for piece in self._pieces]
        mean, side = 0.0, 0.0
        for piece in pieces:
            if len(piece) == 2:
                mean += _energy(piece.mean(0))
                side += max(_energy(piece[0]), _energy(piece[1]))
        cancelled = mean < _CANCELLED * side
        if cancelled:
            left, right = (sum(_energy(piece[n]) for piece in pieces if len(piece) == 2) for n in (0, 1))
            louder = int(right > left)
            mixed = [piece[louder] if len(piece) == 2 else piece[0] for piece in pieces]
        else:
            mixed = [piece.mean(0, dtype=np.float32) for piece in pieces]
        samples = np.concatenate(mixed) if mixed else np.zeros(0, np.float32)
        peak = float(np.abs(samples).max(initial=0.0))
        if self._many and 1.0 < peak < 8.0:  # softer, not distorted
            samples = samples / peak
        return np.clip(samples, -1.0, 1.0), cancelled

    def _take(self, pieces: list[np.ndarray]) -> None:
        self._pieces += pieces
        self.count += sum(piece.shape[1] for piece in pieces)


class _Mixer:
    """A resampler for frames of one kind; libav knows the weights of a layout's channels."""

    def __init__(self, frame: Any, kind: tuple[str, str, int], rate: int) -> None:
        self.kind = kind
        self._rate = rate
        target = "mono" if frame.layout.nb_channels == 1 else "stereo"
        self._resampler = av.AudioResampler(format="fltp", layout=target, rate=rate)
        self._graph: Graph | None = None
        self._works = False

    def push(self, frame: Any) -> list[np.ndarray]:
        # Of one or two channels: `to_ndarray` reads past the end of planar frames of eight and more.
        if self._graph is None:
            try:
                pieces = [part.to_ndarray() for part in self._resampler.resample(frame)]
            except (av.FFmpegError, ValueError):
                if self._works or frame is None:
                    raise
                self._graph = _evenly(
                    frame, self._rate
                )  # channels without names: none is known to be the voice
            else:
                self._works = True
                return pieces
        pieces = []
        self._graph.push(frame)
        while True:
            try:
                pieces.append(self._graph.pull().to_ndarray())
            except (av.FFmpegError, EOFError, BlockingIOError):
                return pieces


def _evenly(frame: Any, rate: int) -> Graph:
    """The mean of all channels."""
    graph, channels = av.filter.Graph(), frame.layout.nb_channels
    source = graph.add_abuffer(
        sample_rate=frame.sample_rate,
        format=frame.format.name,
        layout=frame.layout.name,
        time_base=frame.time_base,
    )
    mix = "+".join(f"{1 / channels:.6f}*c{n}" for n in range(channels))
    last = source
    for name, given in (
        ("pan", f"mono|c0={mix}"),
        ("aresample", str(rate)),
        ("aformat", "sample_fmts=fltp"),
        ("abuffersink", ""),
    ):
        filter = graph.add(name, given) if given else graph.add(name)
        last.link_to(filter)
        last = filter
    graph.configure()
    return graph


def _energy(samples: np.ndarray) -> float:
    return float(np.sum(np.square(samples, dtype=np.float64)))
