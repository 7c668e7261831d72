"""Opening a clip: what file it is, which streams count, their packets and frames, and the bounds on all of it.

Every container that the package opens is opened here. What a file is, its content decides, never its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DeepMLFError
from ..storage.optional import optional

if TYPE_CHECKING:
    from av.container import InputContainer

av = optional("av")

MAX_PIXELS = 8192 * 4352
"""Largest picture that is decoded, in pixels: 8K. A header may announce any size, and memory is taken for it at once."""

MAX_CHANNELS = 64
SAMPLE_RATES = (2_000, 768_000)
"""Lowest and highest sampling rate in Hz that is decoded; at 8 Hz a minute of sound fits into a few bytes."""

# Formats that hold one self-contained clip. Playlists (HLS, DASH, concat) are left out on purpose: they name
# other files and addresses, which an uploaded file must not make this program open.
_FORMATS = (
    *(
        "mov,mp4,m4a,3gp,3g2,mj2",
        "matroska,webm",
        "avi",
        "mpeg",
        "mpegts",
        "mpegvideo",
        "flv",
        "asf",
        "mxf",
        "dv",
    ),
    *("ogg", "wav", "w64", "flac", "mp3", "aac", "aiff", "amr", "caf", "au", "ac3", "eac3"),
)
_SUFFIXES = (
    "3g2 3gp aac ac3 aif aifc aiff amr asf au avi caf dv eac3 f4v flac flv m2t m2ts m2v m4a m4v mka mkv mov mp3 mp4 mpeg mpg "
    "mts mxf oga ogg ogv opus qt ts vob w64 wav webm wma wmv"
)
_MEDIA_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())
# First bytes of the formats above, from the offset given.
_MAGIC = (
    *((4, word) for word in (b"ftyp", b"moov", b"mdat", b"wide", b"skip", b"free", b"pnot")),
    *(
        (0, word)
        for word in (
            b"\x1aE\xdf\xa3",
            b"RIFF",
            b"RF64",
            b"riff",
            b"fLaC",
            b"OggS",
            b"FLV\x01",
            b"#!AMR",
            b"caff",
        )
    ),
    *(
        (0, word)
        for word in (b"FORM", b".snd", b"ID3", b"\x30\x26\xb2\x75", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3")
    ),
    *((0, word) for word in (b"\x0bw", b"\x06\x0e\x2b\x34", b"\x1f\x07\x00")),
)
_WHAT_IS_A_CLIP = "expected a video or audio file (mp4, mov, webm, mkv, avi, wav, flac, mp3, ...)"
_ANNOTATIONS = (
    "comment",
    "karaoke",
    "visual_impaired",
    "clean_effects",
    "lyrics",
)  # sound that is not the clip's own
_STILLS = ("attached_pic", "timed_thumbnails", "still_image")


class ClipError(DeepMLFError):
    """A file is no clip, or a clip that cannot be used: what was found, what was expected, what to do."""


class UndecodableStream(ClipError):
    """A stream is there, but nothing of it can be decoded; another stream of the clip may still be good.

    Attributes:
        reason: why, as part of a sentence.
    """

    def __init__(self, path: str | Path, stream: str, reason: str = "") -> None:
        self.reason = reason or "nothing could be decoded"
        super().__init__(
            f"{path}: found {stream} that cannot be used ({self.reason}), expected sound or pictures; "
            f"the file is damaged or incomplete, copy or record it again."
        )


@dataclass
class Damage:
    """What had to be skipped or mended while a stream was decoded; filled in by the reading functions."""

    packets: int = 0
    times: int = 0
    stray: bool = False
    ended_early: bool = False

    def notes(self, stream: str) -> tuple[str, ...]:
        """In words, for people; `stream` is `audio` or `video`."""
        notes = []
        if self.ended_early:
            notes.append(f"the {stream} stream ends early: what could be decoded is used")
        elif self.packets:
            notes.append(
                f"the {stream} stream has {self.packets} damaged packet{'s'[: self.packets > 1]}: "
                "what could be decoded is used"
            )
        if self.times:
            notes.append(
                f"the {stream} stream has {self.times} wrong time stamp{'s'[: self.times > 1]}: mended"
            )
        return tuple(notes)


def check_file(path: str | Path) -> None:
    """Refuse what is no clip at first sight, as a `ClipError`: nothing, a folder, an empty file."""
    path = Path(path)
    if not path.exists():
        raise ClipError(f"{path}: found no such file, {_WHAT_IS_A_CLIP}; check the path.")
    if not path.is_file():
        raise ClipError(f"{path}: found a folder, {_WHAT_IS_A_CLIP}.")
    if path.stat().st_size == 0:
        raise ClipError(f"{path}: found an empty file, {_WHAT_IS_A_CLIP}; copy or record it again.")


@contextmanager
def opened(path: str | Path) -> Iterator[InputContainer]:
    """Open a local file with libav, and turn every way of not being a clip into a `ClipError`."""
    # No callback from libav's threads into Python: it deadlocks when a reader is closed with frames in flight.
    av.logging.set_level(None)
    path = Path(path)
    check_file(path)
    options = {
        "format_whitelist": ",".join(_FORMATS),
        "protocol_whitelist": "file",
        "max_pixels": str(MAX_PIXELS),  # of the decoders that libav opens to find out what the streams are
        "max_streams": "200",
    }
    try:
        container = av.open(f"file:{path}", options=options, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
        raise ClipError(f"{path}: found {_content(path)}, {_WHAT_IS_A_CLIP}.") from error
    with container:
        for stream in container.streams.video:
            if stream.codec_context is not None:
                stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        yield container


def nothing_in(path: str | Path, container: InputContainer) -> ClipError:
    """The error for a file with neither sound nor pictures."""
    return ClipError(
        f"{path}: found a {container.format.name} file without sound or pictures; {_WHAT_IS_A_CLIP}."
    )


def may_hold_pictures(path: Path) -> bool:
    """Whether a file's ending is not one of sound alone; nothing is opened."""
    return path.suffix.lower() not in (
        ".wav",
        ".flac",
        ".mp3",
        ".ogg",
        ".oga",
        ".opus",
        ".aac",
        ".m4a",
        ".wma",
    )


def looks_like_a_clip(path: Path) -> bool:
    """Whether a file's first bytes, or at least its ending, are those of a video or audio file; nothing is opened."""
    if path.suffix.lower() in _MEDIA_SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError:
        return False
    if any(head.startswith(word, offset) for offset, word in _MAGIC):
        return True
    transport = any(
        len(head) > start + 2 * size and all(head[start + n * size] == 0x47 for n in range(3))
        for start, size in ((0, 188), (4, 192), (0, 204))
    )
    return transport or (
        head[:1] == b"\xff" and head[1:2] >= b"\xe0" and head[1:2] != b"\xff" and head[1:3] != b"\xd8\xff"
    )


def _is(stream: Any, *kinds: str) -> bool:
    """Whether a stream is marked as one of libav's kinds."""
    return any(stream.disposition & getattr(av.stream.Disposition, kind) for kind in kinds)


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


def audio_stream(container: InputContainer) -> Any:
    """The sound that a player plays: the container's default track, no commentary where there is another; or None."""
    usable = [
        s
        for s in container.streams.audio
        if s.codec_context is not None and s.codec_context.codec is not None
    ]
    return min(
        usable,
        key=lambda s: (_is(s, *_ANNOTATIONS), not _is(s, "default"), s.index),
        default=None,
    )


def video_stream(container: InputContainer) -> Any:
    """The moving pictures that a player shows, or None; cover art in music files is none."""
    usable = [s for s in container.streams.video if s.codec_context is not None and not _is(s, *_STILLS)]
    return min(usable, key=lambda s: (not _is(s, "default"), s.index), default=None)


def check_audio(path: str | Path, rate: int, channels: int) -> None:
    """Raise `UndecodableStream` where sound of this kind is not decoded."""
    low, high = SAMPLE_RATES
    if not low <= rate <= high:
        raise UndecodableStream(path, "audio", f"its header says {rate} Hz, expected {low} to {high}")
    if not 1 <= channels <= MAX_CHANNELS:
        raise UndecodableStream(
            path, "audio", f"its header says {channels} channels, expected 1 to {MAX_CHANNELS}"
        )


def check_video(path: str | Path, width: int, height: int) -> None:
    """Raise `UndecodableStream` where pictures of this size are not decoded."""
    if width * height > MAX_PIXELS:
        raise UndecodableStream(
            path,
            "video",
            f"its pictures are {width} x {height}, expected at most {MAX_PIXELS / 1e6:.0f} megapixels",
        )


def packets(container: InputContainer, streams: list[Any], damage: Damage) -> Iterator[Any]:
    """Packets in the order of the file, of the given streams; a file that breaks off just ends."""
    found = container.demux(*streams)
    while True:
        try:
            yield next(found)
        except StopIteration:
            return
        except (
            IndexError
        ):  # PyAV, at the end of a file in which a stream turned up that was not there at the start
            damage.stray = True
            return
        except (av.FFmpegError, OSError, ValueError, MemoryError):
            damage.ended_early = True
            return


def frames(container: InputContainer, stream: Any, damage: Damage) -> Iterator[Any]:
    """Frames of a stream; packets that cannot be decoded are counted and skipped."""
    flushed = False
    for packet in packets(container, [stream], damage):
        if packet.stream_index != stream.index:
            continue
        flushed = flushed or packet.size == 0
        damage.packets += packet.is_corrupt  # what libav can still make of it is used
        yield from _decoded(packet.decode, damage)
    if not flushed:
        yield from _decoded(lambda: stream.decode(None), damage)


def _decoded(decode: Any, damage: Damage) -> list[Any]:
    try:
        return decode()
    except EOFError:
        return []
    except (av.FFmpegError, OSError, ValueError, MemoryError):
        damage.packets += 1
        return []
