"""Clips read with PyAV: what is in a file, its sound as one array, its video frames as a stream.

The first step of feature extraction. Nothing here needs a system ffmpeg. Video is decoded frame by frame and
never kept, so that memory does not grow with the length of a clip or (beyond a few frames) its resolution.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition

from ..errors import DeepMLFError

MAX_SECONDS = 600.0
"""Longest clip that is read by default, in seconds."""

MEDIA_SUFFIXES = (
    *(
        ".mp4",
        ".m4v",
        ".mov",
        ".webm",
        ".mkv",
        ".avi",
        ".mpg",
        ".mpeg",
        ".ts",
        ".flv",
        ".wmv",
        ".3gp",
        ".ogv",
    ),
    *(".wav", ".flac", ".mp3", ".m4a", ".ogg", ".opus", ".aac"),
)
"""File endings that `data.folder` looks for; what a file is, is decided by its content alone."""

# Formats that hold one self-contained clip. Playlists (HLS, DASH, concat) are left out on purpose: they name
# other files and addresses, which an uploaded file must not make this program open.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska,webm",
    *(
        "avi",
        "mpeg",
        "mpegts",
        "mpegvideo",
        "flv",
        "asf",
        "ogg",
        "wav",
        "w64",
        "flac",
        "mp3",
        "aac",
        "aiff",
        "amr",
    ),
)
_WHAT_IS_A_CLIP = "expected a video or audio file (mp4, mov, webm, mkv, avi, wav, flac, mp3, ...)"
_LARGEST_GAP = 30.0  # seconds of missing sound that are filled with silence; more is a damaged time stamp


class ClipError(DeepMLFError):
    """A file is no clip, or a clip that cannot be used: what was found, what was expected, what to do."""


class UndecodableStream(ClipError):
    """A stream is there, but nothing of it could be decoded; another stream of the clip may still be good."""


@dataclass(frozen=True)
class MediaInfo:
    """What a file holds.

    `seconds` is the length; `fps`, `width` and `height` are 0 without video, `sample_rate` is 0 without audio.
    Width and height are as stored; `read_frames` turns the frames of phones upright.
    """

    seconds: float
    has_audio: bool
    has_video: bool
    fps: float = 0.0
    width: int = 0
    height: int = 0
    sample_rate: int = 0
    container: str = ""


@dataclass
class Damage:
    """What had to be skipped while a stream was decoded; filled in by the reading functions."""

    packets: int = 0
    ended_early: bool = False


@dataclass(frozen=True)
class Frame:
    """One video frame: `image` [H, W, 3] uint8 RGB and its `time` in seconds from the start of the clip."""

    image: np.ndarray
    time: float


@dataclass(frozen=True)
class Sound:
    """Mono sound: `samples` [N] float32 in [-1, 1] at `rate` Hz; the first sample is at `start` seconds."""

    samples: np.ndarray
    rate: int
    start: float = 0.0
    damage: Damage = field(default_factory=Damage)

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


def probe(path: str | Path, max_seconds: float | None = MAX_SECONDS) -> MediaInfo:
    """Say what a file holds, without decoding it.

    A file recorded by a browser has no length in its header; its packets are then read (not decoded) to the end.

    Raises:
        ClipError: the file is missing, empty, no audio or video file, or longer than `max_seconds`.
    """
    with _opened(path) as container:
        video, audio = _video_stream(container), _audio_stream(container)
        if video is None and audio is None:
            raise ClipError(
                f"{path}: found a {container.format.name} file without sound or pictures; {_WHAT_IS_A_CLIP}."
            )
        info = MediaInfo(
            seconds=0.0,
            has_audio=audio is not None,
            has_video=video is not None,
            fps=float(video.average_rate or video.guessed_rate or 0) if video else 0.0,
            width=video.codec_context.width if video else 0,
            height=video.codec_context.height if video else 0,
            sample_rate=(audio.codec_context.sample_rate or 0) if audio else 0,
            container=container.format.name,
        )
        seconds = _header_seconds(container) or _packet_seconds(container, max_seconds)
    check_length(path, seconds, max_seconds)
    return replace(info, seconds=seconds)


def check_length(path: str | Path, seconds: float, max_seconds: float | None) -> None:
    """Raise `ClipError` where a clip is longer than the limit."""
    if max_seconds is not None and seconds > max_seconds:
        raise ClipError(
            f"{path}: found more than {max_seconds:.0f} s of video or audio, expected at most that; cut the clip "
            f"into utterances, or raise max_seconds."
        )


def read_audio(path: str | Path, rate: int = 16000, max_seconds: float | None = MAX_SECONDS) -> Sound:
    """Decode the first audio stream to mono float32 at `rate` Hz.

    Damaged packets are skipped and counted in `Sound.damage`; stretches without sound in the middle (a paused
    recording, a skipped packet) become silence, so that times stay right.

    Raises:
        ClipError: the file is no clip, has no audio stream, none of it could be decoded, or it is longer than
            `max_seconds`.
    """
    damage = Damage()
    pieces: list[np.ndarray] = []
    count = 0
    start: float | None = None
    with _opened(path) as container:
        stream = _audio_stream(container)
        if stream is None:
            raise ClipError(f"{path}: found no audio stream, expected one.")
        origin = _origin(container)
        resampler = None
        heard_format = None
        for frame in _decoded(container, stream, damage):
            if not frame.samples or not frame.sample_rate:
                continue
            this_format = (frame.format.name, frame.layout.name, frame.sample_rate)
            if (
                resampler is None or this_format != heard_format
            ):  # the resampler refuses a change in mid-stream
                resampler = av.AudioResampler(format="fltp", rate=rate)
                heard_format = this_format
            time = None if frame.pts is None or frame.time is None else frame.time - origin
            if start is None:
                start = max(0.0, time or 0.0)
            elif time is not None and 0.1 < (gap := time - start - count / rate) < _LARGEST_GAP:
                pieces.append(np.zeros(round(gap * rate), np.float32))
                count += len(pieces[-1])
            frame.pts = None
            try:
                resampled = resampler.resample(frame)
            except (av.FFmpegError, ValueError):
                damage.packets += 1
                heard_format = None
                continue
            for part in resampled:
                pieces.append(_mono(part))
                count += len(pieces[-1])
            check_length(path, count / rate - 1, max_seconds)
        if resampler is not None:
            try:
                pieces.extend(
                    p.to_ndarray()[0].astype(np.float32, copy=False) for p in resampler.resample(None)
                )
            except (av.FFmpegError, ValueError):
                damage.packets += 1
    samples = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    if not len(samples):
        raise UndecodableStream(
            f"{path}: found an audio stream of which nothing could be decoded, expected sound; the file is "
            f"damaged or incomplete, copy or record it again."
        )
    # Damaged streams decode to NaN and to values beyond any loudness; both would spread through every feature.
    samples = np.clip(np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0), -1.0, 1.0)
    return Sound(samples, rate, start or 0.0, damage)


def read_frames(
    path: str | Path,
    fps: float = 10.0,
    max_side: int = 960,
    max_seconds: float | None = MAX_SECONDS,
    damage: Damage | None = None,
    threads: int = 0,
) -> Iterator[Frame]:
    """Decode the first video stream, one frame at a time, sampled at `fps` frames per second.

    Frames are turned upright, scaled down to `max_side` pixels where larger, and carry their own times: a
    video with fewer frames per second than `fps` yields each once. `threads` 0 lets the decoder choose.

    Raises:
        ClipError: the file is no clip, has no video stream, none of it could be decoded, or it is longer than
            `max_seconds`.
    """
    damage = damage if damage is not None else Damage()
    shown = 0
    with _opened(path) as container:
        stream = _video_stream(container)
        if stream is None:
            raise ClipError(f"{path}: found no video stream, expected one.")
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = threads
        origin = _origin(container)
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        half_frame = 0.5 / max(rate, 1.0)
        due = 0.0  # time of the next frame to yield
        last = -math.inf
        for index, frame in enumerate(_decoded(container, stream, damage)):
            time = index / rate if frame.time is None else frame.time - origin
            check_length(path, time - 1, max_seconds)
            if time + half_frame < due or time <= last:
                continue
            try:
                image = _upright_rgb(frame, max_side)
            except (av.FFmpegError, ValueError, MemoryError):
                damage.packets += 1
                continue
            last = time
            due = max(due + 1.0 / fps, time + 0.5 / fps)
            shown += 1
            yield Frame(image, max(0.0, time))
    if not shown:
        raise UndecodableStream(
            f"{path}: found a video stream of which nothing could be decoded, expected pictures; the file is "
            f"damaged or incomplete, copy or record it again."
        )


def allowed_threads() -> int:
    """Threads that one library may start: what OMP_NUM_THREADS says, 0 (its own choice) where it is not set."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() else 0


@contextmanager
def _opened(path: str | Path) -> Iterator[InputContainer]:
    """Open a local file with libav, and turn every way of not being a clip into a `ClipError`."""
    av.logging.set_level(av.logging.PANIC)
    path = Path(path)
    if not path.exists():
        raise ClipError(f"{path}: found no such file, {_WHAT_IS_A_CLIP}; check the path.")
    if not path.is_file():
        raise ClipError(f"{path}: found a folder, {_WHAT_IS_A_CLIP}.")
    if path.stat().st_size == 0:
        raise ClipError(f"{path}: found an empty file, {_WHAT_IS_A_CLIP}; copy or record it again.")
    options = {"format_whitelist": ",".join(_FORMATS), "protocol_whitelist": "file"}
    try:
        container = av.open(f"file:{path}", options=options)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise ClipError(f"{path}: found {_content(path)}, {_WHAT_IS_A_CLIP}.") from error
    with container:
        yield container


def _content(path: Path) -> str:
    """Name what a file that is no clip looks like, from its first bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        return f"a file that cannot be read ({error.strerror})"
    if head[4:8] == b"ftyp" or head[:4] in (b"\x1aE\xdf\xa3", b"RIFF", b"fLaC", b"OggS"):
        return "a damaged or incomplete media file (its index cannot be read; copy or record it again)"
    if head[:4] == b"\x89PNG" or head[:3] == b"\xff\xd8\xff" or head[:4] == b"GIF8":
        return "a picture"
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return f"{path.stat().st_size} bytes that are no media file"
    return "text" if b"\0" not in head else f"{path.stat().st_size} bytes that are no media file"


def _audio_stream(container: InputContainer):
    return next(
        (
            s
            for s in container.streams.audio
            if s.codec_context is not None and s.codec_context.codec is not None
        ),
        None,
    )


def _video_stream(container: InputContainer):
    """The first stream of moving pictures; cover art in music files is none."""
    for stream in container.streams.video:
        if stream.codec_context is None or stream.disposition & Disposition.attached_pic:
            continue
        return stream
    return None


def _origin(container: InputContainer) -> float:
    """Time stamp of the start of the clip in seconds: audio and video share it, so that their times agree."""
    return max(0.0, (container.start_time or 0) / 1_000_000)


def _header_seconds(container: InputContainer) -> float:
    return max(0.0, (container.duration or 0) / 1_000_000)


def _packet_seconds(container: InputContainer, max_seconds: float | None) -> float:
    """Length by reading packets to the end (or past the limit), for files without one in the header."""
    first, last = math.inf, 0.0
    try:
        for packet in container.demux():
            if packet.pts is None or packet.time_base is None:
                continue
            time = float(packet.pts * packet.time_base)
            first = min(first, time)
            last = max(last, time + float((packet.duration or 0) * packet.time_base))
            if max_seconds is not None and last - first > max_seconds:
                break
    except (av.FFmpegError, OSError):
        pass  # a file that ends early: what was read so far is its length
    return max(0.0, last - first) if math.isfinite(first) else 0.0


def _decoded(container: InputContainer, stream, damage: Damage) -> Iterator:
    """Frames of a stream; packets that cannot be decoded are counted and skipped."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.FFmpegError, OSError, ValueError):
            damage.ended_early = True
            return
        try:
            frames = packet.decode()
        except (av.FFmpegError, ValueError):
            damage.packets += 1
            continue
        yield from frames


def _mono(frame) -> np.ndarray:
    """[N] float32, the mean of the channels: libav's own way to mono adds them up and can exceed 1."""
    return frame.to_ndarray().mean(axis=0, dtype=np.float32)


def _upright_rgb(frame, max_side: int) -> np.ndarray:
    """[H, W, 3] uint8, at most `max_side` pixels on the longer side, turned as the file says."""
    scale = min(1.0, max_side / max(frame.width, frame.height))
    width, height = (max(2, round(side * scale)) for side in (frame.width, frame.height))
    image = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
    turns = round((frame.rotation or 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image
