"""Damaged clips: small ones of every container, made here, then damaged as disks, cables and programs do it."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from deepmlf_kit.data.extraction_process import ClipExtractor, LostClip
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.features import FeatureRecipe
from deepmlf_kit.features.face_model import find_face_model

# Name: video codec, audio codec, layout, Hz.
_SOURCES = {
    "phone.mp4": ("libx264", "aac", "stereo", 44_100),
    "camera.mov": ("mpeg4", "pcm_s16le", "stereo", 48_000),
    "screen.mkv": ("libx264", "libopus", "mono", 48_000),
    "webcam.webm": ("libvpx", "libopus", "mono", 48_000),
    "old.avi": ("mpeg4", "libmp3lame", "stereo", 44_100),
    "tv.ts": ("mpeg2video", "mp2", "stereo", 48_000),
    "camcorder.mts": ("libx264", "ac3", "5.1", 48_000),
    "disc.mpg": ("mpeg2video", "mp2", "stereo", 48_000),
    "stream.flv": ("flv", "aac", "mono", 44_100),
    "windows.wmv": ("wmv2", "libmp3lame", "stereo", 44_100),
    "voice.wav": (None, "pcm_s16le", "7.1", 16_000),
    "voice.flac": (None, "flac", "stereo", 16_000),
    "voice.mp3": (None, "libmp3lame", "mono", 16_000),
    "voice.ogg": (None, "libopus", "mono", 48_000),
    "voice.m4a": (None, "aac", "mono", 44_100),
    "voice.aiff": (None, "pcm_s16be", "mono", 22_050),
}
_SECONDS = 1.2
_SIZE = (96, 64)


def make_source(path: Path, video: str | None, audio: str, layout: str, rate: int) -> Path:
    """Write a clip of a moving square and a voice-like tone."""
    with av.open(str(path), "w", format="mpegts" if path.suffix == ".mts" else None) as container:
        pictures = container.add_stream(video, rate=25) if video else None
        if pictures is not None:
            pictures.width, pictures.height, pictures.pix_fmt = *_SIZE, "yuv420p"
        sound = container.add_stream(audio, rate=rate, layout=layout)
        for number in range(round(25 * _SECONDS) if pictures is not None else 0):
            image = np.full((*_SIZE[::-1], 3), 90, np.uint8)
            image[20:44, number : number + 30] = (230, 190, 160)
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        times = np.arange(round(_SECONDS * rate)) / rate
        tone = sum(np.sin(2 * np.pi * 140 * n * times) / n for n in range(1, 8)) * 0.1
        channels = len(sound.layout.channels)
        encode_sound(container, sound, np.repeat(tone[:, None], channels, 1))
        if pictures is not None:
            container.mux(pictures.encode(None))
    return path


def encode_sound(container: Any, stream: Any, samples: np.ndarray) -> None:
    """Write `samples` [N, channels], each from -1 to 1, at the stream's own rate and layout, and end the stream."""
    rate, layout = stream.codec_context.sample_rate, stream.codec_context.layout
    frame = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16).reshape(1, -1), "s16", layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    resampler = av.AudioResampler(
        stream.codec_context.format.name, layout, rate, stream.codec_context.frame_size or 1024
    )
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        container.mux(stream.encode(part))
    container.mux(stream.encode(None))


# Kinds of damage: (content, another clip's content, random numbers) -> damaged content -------------------------


def _flip(raw: bytearray, other: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.choice([1, 1, 3, 30, 300])):
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    return raw


def _truncate(raw: bytearray, other: bytes, rng: random.Random) -> bytes:
    return raw[: rng.randrange(1, len(raw))]


def _hole(raw: bytearray, other: bytes, rng: random.Random) -> bytes:
    start, size = rng.randrange(len(raw)), rng.choice([1, 188, 1000, 5000])
    size = min(size, len(raw) - start)
    raw[start : start + size] = rng.choice([bytes(size), b"\xff" * size, rng.randbytes(size)])
    return raw


def _drop(raw: bytearray, other: bytes, rng: random.Random) -> bytes:
    """Whole packets of a transport stream are lost, or as many bytes elsewhere."""
    for _ in range(rng.randrange(1, 6)):
        start = rng.randrange(len(raw)) // 188 * 188
        del raw[start : start + 188 * rng.randrange(1, 4)]
    return raw


def _duplicate(raw: bytearray, other: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(raw)) // 188 * 188
    piece = raw[start : start + 188 * rng.randrange(1, 20)]
    place = rng.randrange(len(raw)) // 188 * 188
    return raw[:place] + piece + raw[place:]


def _splice(raw: bytearray, other: bytes, rng: random.Random) -> bytes:
    """Another clip follows, or cuts in: stamps start over, streams turn up."""
    place = rng.choice([len(raw), rng.randrange(len(raw)) // 188 * 188])
    return raw[:place] + other[rng.choice([0, rng.randrange(len(other)) // 188 * 188]) :]


def _header(raw: bytearray, other: bytes, rng: random.Random) -> bytes:
    """Wild numbers where containers keep sizes, rates, durations and channels."""
    boxes = [
        found.start()
        for found in re.finditer(
            rb"moov|mvhd|tkhd|mdhd|stsd|stts|stsz|stco|ctts|elst|fmt |strh|strf|avih", raw
        )
    ]
    for _ in range(rng.randrange(1, 5)):
        base = rng.choice(boxes) if boxes and rng.random() < 0.7 else 0
        place = min(len(raw) - 4, base + rng.randrange(0, 80))
        number = rng.choice(
            [0, 1, 8, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, rng.getrandbits(32)]
        )
        raw[place : place + 4] = struct.pack(rng.choice("<>") + "I", number)
    return raw


def _swap(raw: bytearray, other: bytes, rng: random.Random) -> bytes:
    one, two = sorted(rng.sample(range(len(raw)), 2))
    return raw[two:] + raw[one:two] + raw[:one]


_DAMAGES: tuple[Callable[[bytearray, bytes, random.Random], bytes], ...] = (
    *(_flip, _flip, _truncate, _hole, _drop, _duplicate, _splice, _header, _header, _swap),
)


def cases(folder: Path, seed: int) -> Iterator[tuple[str, Path]]:
    """Names and files of damaged clips, without end."""
    rng = random.Random(seed)
    whole = {name: make_source(folder / name, *how).read_bytes() for name, how in _SOURCES.items()}
    number = 0
    while True:
        name, damage = rng.choice(list(whole)), rng.choice(_DAMAGES)
        ending = Path(name).suffix
        others = [
            content for other, content in whole.items() if Path(other).suffix == ending or rng.random() < 0.2
        ]
        path = (
            folder
            / f"{number:04}-{Path(name).stem}-{damage.__name__.strip('_')}{rng.choice([ending, ending, '.mp4', ''])}"
        )
        path.write_bytes(damage(bytearray(whole[name]), rng.choice(others), rng))
        yield path.name, path
        number += 1


class Tester:
    """Extracts clips as `predict` and the app do. Use as a context manager.

    Args:
        patience: seconds without progress after which a clip counts as a hang.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        try:
            find_face_model(download=False)
            vision = "blendshapes"
        except DeepMLFError:
            vision = "none"
        self._recipe = FeatureRecipe(vision=vision, fps=4, transcribe=False)

    def __enter__(self) -> Tester:
        self._extractor = ClipExtractor(self._patience)
        return self

    def __exit__(self, *exc: object) -> None:
        self._extractor.close()

    def try_one(self, path: Path) -> None:
        """Raises what a user would see; TimeoutError for a hang."""
        try:
            made = self._extractor.extract(path, self._recipe, text="words")
        except LostClip as error:
            if "no progress" in str(error):
                raise TimeoutError(str(error)) from error
            raise
        for values in (made.audio, made.vision, made.audio_times, made.vision_times):
            if not np.isfinite(values).all():
                raise ValueError("features that are no numbers")
        if made.found.seconds > 600:
            raise ValueError(f"a length of {made.found.seconds} s")

    def peak(self) -> float:
        """Most memory that the process has taken so far, in MB; 0 where the system does not say."""
        return self._extractor.peak_memory()

    def restart(self) -> None:
        """Go on with a process that has taken no memory yet."""
        self.__exit__()
        self.__enter__()
