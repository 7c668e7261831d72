"""Small clips made on the spot with PyAV, for tests of decoding and extraction. No face is in any of them."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

RATE = 16000


def voice(seconds: float, rate: int = RATE, pitch: float = 140.0) -> np.ndarray:
    """Something like a vowel: harmonics of a pitch that wavers, [N] float32."""
    t = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * (pitch * t + 3 * np.sin(2 * np.pi * 2 * t))
    sound = sum(np.sin(k * phase) / k for k in range(1, 12))
    return (0.2 * sound).astype(np.float32)


def picture(number: int, width: int, height: int) -> np.ndarray:
    """[H, W, 3] uint8: a gradient whose brightness is the picture's number."""
    image = np.full((height, width, 3), (number * 7) % 256, np.uint8)
    image[:, : width // 2, 0] = 255  # the left half is red, so that a turn shows
    return image


class _NoSeek(io.RawIOBase):
    """A file that cannot be gone back in: a browser's recorder writes so, and leaves the length out."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb")

    def write(self, data: bytes) -> int:
        return self.file.write(data)

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        self.file.close()


def make_clip(
    path: Path,
    seconds: float = 1.0,
    *,
    fps: int = 25,
    size: tuple[int, int] = (64, 48),
    video: str | None = "mpeg4",
    audio: str | None = "aac",
    channels: str = "mono",
    sound: np.ndarray | None = None,
    rate: int = RATE,
    live: bool = False,
) -> Path:
    """Write a clip; `video` and `audio` are codecs or None, `live` leaves the length out of the header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    target = _NoSeek(path) if live else str(path)
    with av.open(target, "w", format="webm" if live else None) as container:
        pictures = container.add_stream(video, rate=fps) if video else None
        if pictures is not None:
            pictures.width, pictures.height, pictures.pix_fmt = *size, "yuv420p"
        heard = container.add_stream(audio, rate=rate, layout=channels) if audio else None
        if heard is not None:
            samples = voice(seconds, rate) if sound is None else sound
            samples = np.repeat(samples[None], len(heard.layout.channels), 0)
            step = heard.codec_context.frame_size or 1024
            resampler = av.AudioResampler(heard.format.name, heard.layout, rate, step)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", channels)
            frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(heard.encode(part))
            container.mux(heard.encode(None))
        if pictures is not None:
            for number in range(round(seconds * fps)):
                frame = av.VideoFrame.from_ndarray(picture(number, *size), "rgb24")
                container.mux(pictures.encode(frame))
            container.mux(pictures.encode(None))
    if live:
        target.close()
    return path


def make_bad_clip(path: Path, kind: str, whole: bytes, **long: Any) -> None:
    """A file that is no usable clip: `text`, `empty`, `truncated` (the beginning of `whole`) or `long` (a minute and more).

    Args:
        long: arguments of `make_clip` for `long`.
    """
    if kind == "text":
        path.write_text("This is a letter, not a clip.\n" * 40)
    elif kind == "empty":
        path.touch()
    elif kind == "truncated":
        path.write_bytes(whole)
    else:
        make_clip(path, **long)


def damage_stream(path: Path) -> Path:
    """Overwrite every video packet of a clip, so that nothing of its video can be decoded."""
    with av.open(str(path)) as container:
        spans = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    raw = bytearray(path.read_bytes())
    for start, size in spans:
        raw[start : start + size] = b"\xff" * size
    path.write_bytes(raw)
    return path
