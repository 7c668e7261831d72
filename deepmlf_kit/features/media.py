"""Clips read with PyAV: what is in a file, its sound as one array, its video frames as a stream.

The first step of feature extraction. Nothing here needs a system ffmpeg. Video is decoded frame by frame and
never kept, so that memory does not grow with the length of a clip or (beyond a few frames) its resolution.

    file --> container.py --> timestamps.py --> picture.py --> read_frames
                                   `----------> sound.py ----> read_audio
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..storage.optional import optional
from .container import (
    ClipError,
    Damage,
    UndecodableStream,
    audio_stream,
    check_audio,
    check_video,
    frames,
    nothing_in,
    opened,
    packets,
    video_stream,
)
from .picture import PictureMaker, deinterlaced
from .sound import Downmix
from .timestamps import LARGEST_GAP, SteadyClock

if TYPE_CHECKING:
    from av.container import InputContainer

av = optional("av")

MAX_SECONDS = 600.0
"""Longest clip that is read by default, in seconds."""

# Formats whose length libav only guesses, from the last time stamps or the bit rate.
_WITHOUT_LENGTH = {"mpegts", "mpeg", "mpegvideo", "ogg", "mp3", "aac", "amr", "ac3", "eac3", "dv"}
_LARGE = 4096 * 2304  # pixels above which frames are not decoded several at a time


@dataclass(frozen=True)
class MediaInfo:
    """What a file holds.

    `seconds` is the length that can be read. Where a clip ends early, `announced` is the length that its header announces
    (else 0), and up to `complete` seconds no stream is cut off. `stray`: a stream turns up in the middle, as by damage.
    `start` is the time stamp at which the clip begins, for sound and pictures alike. `fps`, `width` and `height` are 0
    without video, `sample_rate` is 0 without audio. Width and height are as stored; `read_frames` turns the frames of
    phones upright.
    """

    seconds: float
    has_audio: bool
    has_video: bool
    fps: float = 0.0
    width: int = 0
    height: int = 0
    sample_rate: int = 0
    container: str = ""
    start: float = 0.0
    complete: float = 0.0
    announced: float = 0.0
    stray: bool = False


@dataclass(frozen=True)
class Frame:
    """One video frame: `image` [H, W, 3] uint8 RGB and its `time` in seconds from the start of the clip."""

    image: np.ndarray
    time: float


@dataclass(frozen=True)
class Sound:
    """Mono sound: `samples` [N] float32 in [-1, 1] at `rate` Hz; the first sample is at `start` seconds.

    `cancelled`: left and right cancel each other out, so that one of them was read alone.
    """

    samples: np.ndarray
    rate: int
    start: float = 0.0
    damage: Damage = field(default_factory=Damage)
    cancelled: bool = False

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    def loudness(self, times: np.ndarray) -> np.ndarray:
        """Root mean square of the 0.1 s around each of the times [L] in seconds; 0 outside the sound."""
        energy = np.concatenate([[0.0], np.cumsum(np.square(self.samples, dtype=np.float64))])
        middle = (np.asarray(times, np.float64) - self.start) * self.rate
        low, high = (
            np.clip((middle + offset * self.rate).astype(int), 0, len(self.samples))
            for offset in (-0.05, 0.05)
        )
        return np.sqrt((energy[high] - energy[low]) / (0.1 * self.rate))


def probe(path: str | Path, max_seconds: float | None = MAX_SECONDS) -> MediaInfo:
    """Say what a file holds. Its packets are read to the end, but not decoded: headers lie, and some say nothing.

    Raises:
        ClipError: the file is missing, empty, no audio or video file, or longer than `max_seconds`.
    """
    with opened(path) as container:
        video, audio = video_stream(container), audio_stream(container)
        streams = [stream for stream in (video, audio) if stream is not None]
        if not streams:
            raise nothing_in(path, container)
        info = MediaInfo(
            seconds=0.0,
            has_audio=audio is not None,
            has_video=video is not None,
            fps=_rate(video) if video else 0.0,
            width=video.codec_context.width if video else 0,
            height=video.codec_context.height if video else 0,
            sample_rate=(audio.codec_context.sample_rate or 0) if audio else 0,
            container=container.format.name,
        )
        damage = Damage()
        timed = [stream for stream in streams if stream is video or _is_sound(path, stream)]
        start, ends = _extent(container, timed, max_seconds, damage)
        seconds = max(ends.values()) - start
        check_length(path, seconds, max_seconds)
        complete, announced = _cut_off(path, container, timed, start, ends)
    return replace(
        info, seconds=seconds, start=start, complete=complete, announced=announced, stray=damage.stray
    )


def check_length(path: str | Path, seconds: float, max_seconds: float | None) -> None:
    """Raise `ClipError` where a clip is longer than the limit."""
    if max_seconds is not None and seconds > max_seconds:
        raise ClipError(
            f"{path}: found more than {max_seconds:.0f} s of video or audio, expected at most that; cut the clip "
            f"into utterances, or raise max_seconds."
        )


def read_audio(
    path: str | Path,
    rate: int = 16000,
    max_seconds: float | None = MAX_SECONDS,
    info: MediaInfo | None = None,
) -> Sound:
    """Decode the clip's sound (its default track) to mono float32 at `rate` Hz.

    Damaged packets are skipped and counted in `Sound.damage`; stretches without sound in the middle (a paused
    recording, a skipped packet) become silence, so that times stay right.

    Args:
        info: what `probe` said of the clip, where it is known.

    Raises:
        ClipError: the file is no clip, has no audio stream, none of it could be decoded, or it is longer than
            `max_seconds`.
    """
    info = info or probe(path, max_seconds)
    damage = Damage()
    mix = Downmix(rate)
    clock: SteadyClock = SteadyClock(end=info.start + info.seconds + 1)
    start: float | None = None
    with opened(path) as container:
        stream = audio_stream(container)
        if stream is None:
            raise ClipError(f"{path}: found no audio stream, expected one.")
        _check_header(path, stream)
        heard = (
            (frame.time, frame.samples / frame.sample_rate, frame)
            for frame in frames(container, stream, damage)
            if frame.samples and frame.sample_rate
        )
        for time, frame in clock.run(heard):
            check_audio(path, frame.sample_rate, frame.layout.nb_channels)
            time -= info.start
            if start is None:
                start = max(0.0, time)
            elif 0.1 < (gap := time - start - mix.count / rate) < LARGEST_GAP:
                mix.silence(gap)
            try:
                mix.add(frame)
            except (av.FFmpegError, OSError, ValueError):
                damage.packets += 1
            check_length(path, mix.count / rate - 1, max_seconds)
        try:
            mix.flush()
        except (av.FFmpegError, OSError, ValueError):
            damage.packets += 1
    damage.times = clock.wrong
    samples, cancelled = mix.mono()
    if not len(samples):
        raise UndecodableStream(path, "audio")
    return Sound(samples, rate, start or 0.0, damage, cancelled)


def read_frames(
    path: str | Path,
    fps: float = 10.0,
    max_side: int = 960,
    max_seconds: float | None = MAX_SECONDS,
    damage: Damage | None = None,
    threads: int = 0,
    info: MediaInfo | None = None,
) -> Iterator[Frame]:
    """Decode the clip's video (its default track), one frame at a time, sampled at `fps` frames per second.

    Frames are what a player shows: upright, with square pixels, deinterlaced, HDR in ordinary colours; scaled down to
    `max_side` pixels where larger. They carry their own times: a video with fewer frames per second than `fps` yields
    each once. `threads` 0 lets the decoder choose; `info` is what `probe` said of the clip, where it is known.

    Raises:
        ClipError: the file is no clip, has no video stream, none of it could be decoded, or it is longer than
            `max_seconds`.
    """
    info = info or probe(path, max_seconds)
    damage = damage if damage is not None else Damage()
    clock: SteadyClock = SteadyClock(end=info.start + info.seconds + 1)
    shown = 0
    with opened(path) as container:
        stream = video_stream(container)
        if stream is None:
            raise ClipError(f"{path}: found no video stream, expected one.")
        size = stream.codec_context.width * stream.codec_context.height
        check_video(path, stream.codec_context.width, stream.codec_context.height)
        stream.thread_type = "AUTO" if size <= _LARGE else "SLICE"
        stream.codec_context.thread_count = threads
        pictures = PictureMaker(stream, max_side)
        step = 1.0 / max(_rate(stream), 1.0)
        due = 0.0  # time of the next frame to yield
        last = -math.inf
        decoded = ((frame.time, step, frame) for frame in deinterlaced(frames(container, stream, damage)))
        for time, frame in clock.run(decoded):
            time -= info.start
            damage.times = clock.wrong
            check_length(path, time - 1, max_seconds)
            if time + step / 2 < due or time <= last:
                continue
            try:
                check_video(path, frame.width, frame.height)
                image = pictures.picture(frame)
            except (av.FFmpegError, OSError, ValueError, MemoryError, UndecodableStream):
                damage.packets += 1
                continue
            last = time
            due = max(due + 1.0 / fps, time + 0.5 / fps)
            shown += 1
            yield Frame(image, max(0.0, time))
    if not shown:
        raise UndecodableStream(path, "video")


def allowed_threads() -> int:
    """Threads that one library may start: what OMP_NUM_THREADS says, 0 (its own choice) where it is not set."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() else 0


def _check_header(path: str | Path, stream: Any) -> None:
    """`check_audio` of what the header says, where it says anything."""
    check_audio(path, stream.codec_context.sample_rate or 48_000, stream.codec_context.channels or 1)


def _is_sound(path: str | Path, stream: Any) -> bool:
    """Whether an audio stream can be decoded, by its header: the length of one that cannot means nothing."""
    try:
        _check_header(path, stream)
    except UndecodableStream:
        return False
    return True


def _rate(stream: Any) -> float:
    """Frames per second of a video stream, 25 where nobody knows."""
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    return rate if 0 < rate <= 1000 else 25.0


def _extent(
    container: InputContainer, streams: list[Any], max_seconds: float | None, damage: Damage
) -> tuple[float, dict[int, float]]:
    """Time stamps in seconds of the clip's start, and of each stream's end by its index, from all packets or up to the limit."""
    clocks: dict[int, SteadyClock] = {}
    for stream in streams:
        slack = max(0.7, 8 / _rate(stream)) if stream.type == "video" else 0.0
        clocks[stream.index] = SteadyClock(slack)
    first = math.inf
    ends: dict[int, float] = {}

    def seen(index: int, times: Iterator[tuple[float, float]]) -> None:
        nonlocal first
        for time, duration in times:
            first = min(first, time)
            ends[index] = max(ends.get(index, -math.inf), time + duration)

    for packet in packets(container, streams, damage) if streams else ():
        if (
            packet.stream_index not in clocks
            or not packet.size
            or packet.is_discard
            or packet.time_base is None
        ):
            continue
        stamp = packet.pts if packet.pts is not None else packet.dts
        duration = float((packet.duration or 0) * packet.time_base)
        duration = duration if duration < LARGEST_GAP else 0.0
        seconds = None if stamp is None else float(stamp * packet.time_base)
        seen(packet.stream_index, clocks[packet.stream_index].push(seconds, duration, duration))
        if max_seconds is not None and ends and max(ends.values()) - first > max_seconds + 1:
            break
    for index, clock in clocks.items():
        seen(index, clock.finish())
    if not ends:
        return 0.0, {-1: 0.0}
    # Where it is near, libav's own start leaves out what encoders put before the first sample.
    start = (container.start_time or 0) / 1_000_000
    return (start if abs(start - first) < 0.5 else first), ends


def _cut_off(
    path: str | Path, container: InputContainer, streams: list[Any], start: float, ends: dict[int, float]
) -> tuple[float, float]:
    """(`MediaInfo.complete`, `MediaInfo.announced`): what the header and the index list beside what is there."""
    latest = max(ends.values())
    complete, announced = latest - start, (container.duration or 0) / 1_000_000
    if _WITHOUT_LENGTH & set(container.format.name.split(",")):
        return complete, 0.0
    size = Path(path).stat().st_size
    if "mov" in container.format.name and any(len(stream.index_entries) for stream in streams):
        cut = [s.index for s in streams if any(entry.pos + entry.size > size for entry in s.index_entries)]
        if not cut:
            return complete, 0.0
    else:
        cut = [index for index, end in ends.items() if latest - end < 1.0]
        if (whole := _announced_bytes(path)) > size:
            counted = [float(s.frames * s.time_base) for s in streams if "avi" in container.format.name]
            announced = max(announced, *(counted or [complete * whole / size]))
    complete = min(ends.get(index, start) for index in cut) - start
    return complete, announced if announced - complete > max(0.2, 0.02 * announced) else 0.0


def _announced_bytes(path: str | Path) -> int:
    """Size of a file by its own header (wav, avi, aiff), 0 where it says none."""
    with open(path, "rb") as file:
        kind, length = file.read(4), file.read(4)
    order: Literal["little", "big"] | None = {b"RIFF": "little", b"FORM": "big"}.get(kind)  # type: ignore[assignment]
    size = 0 if order is None else int.from_bytes(length, order)
    return (
        size + 8 if 0 < size < 2**31 else 0
    )  # larger ones are what is written where the length is not known yet
