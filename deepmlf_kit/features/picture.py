"""A decoded frame as a player shows it: upright, with square pixels, without interlacing, in ordinary colours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from ..storage.optional import optional

if TYPE_CHECKING:
    from av.filter import Graph
    from av.video.frame import VideoFrame

av = optional("av")
colours = optional("av.video.reformatter")

_HDR = (16, 18)  # libav's AVColorTransferCharacteristic: SMPTE 2084 (PQ) and ARIB STD-B67 (HLG)
_UNSPECIFIED, _BT2020 = 2, 9  # libav's AVColorSpace and AVColorPrimaries


class PictureMaker:
    """Makes pictures [H, W, 3] uint8 RGB of one stream's frames, contiguous in memory.

    Args:
        stream: the video stream, whose pixels may not be square.
        max_side: longer side in pixels to which larger pictures are scaled down.
    """

    def __init__(self, stream: Any, max_side: int) -> None:
        self._stream, self._max_side = stream, max_side
        self._reformatter = (
            colours.VideoReformatter()
        )  # one for all: its tables for HDR take a second to make
        self._rotation: float | None = None
        self._matrix: np.ndarray | None = None

    def picture(self, frame: VideoFrame) -> np.ndarray:
        """The picture of a frame; raises what libav raises for damaged ones."""
        aspect = _pixel_aspect(self._stream)
        shown = (frame.width * max(aspect, 1.0), frame.height / min(aspect, 1.0))
        scale = min(1.0, self._max_side / max(shown))
        width, height = (max(2, round(side * scale)) for side in shown)
        image = self._rgb(frame, width, height)
        return np.ascontiguousarray(oriented(image, self._orientation(frame)))

    def _orientation(self, frame: VideoFrame) -> np.ndarray | None:
        """The display matrix, read again where the rotation changes: a frame whose side data was asked for stays in memory
        until the garbage collector comes by, and large ones are few objects but many bytes."""
        if frame.rotation != self._rotation:
            self._rotation, self._matrix = frame.rotation, _display_matrix(frame)
        return self._matrix

    def _rgb(self, frame: VideoFrame, width: int, height: int) -> np.ndarray:
        convert = self._reformatter.reformat
        if frame.color_trc in _HDR:
            if frame.colorspace == _UNSPECIFIED:
                frame.colorspace = _BT2020
            if frame.color_primaries == _UNSPECIFIED:
                frame.color_primaries = _BT2020
            try:
                target = {
                    "dst_color_trc": colours.ColorTrc.BT709,
                    "dst_color_primaries": colours.ColorPrimaries.BT709,
                }
                return convert(frame, width, height, "rgb24", **target).to_ndarray()
            except (av.FFmpegError, OSError, ValueError):
                pass  # tags that contradict each other: as if there were none
        try:
            return convert(frame, width, height, "rgb24").to_ndarray()
        except (av.FFmpegError, OSError):
            if frame.colorspace == _UNSPECIFIED:
                raise
            frame.colorspace = _UNSPECIFIED  # a reserved or unknown value: what players take
            return convert(frame, width, height, "rgb24").to_ndarray()


def _pixel_aspect(stream: Any) -> float:
    """Width of a pixel divided by its height; what the container says goes before what the codec says, as in ffmpeg."""
    aspect: Fraction | None = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    return float(aspect) if aspect and 0.1 <= aspect <= 10 else 1.0


def _display_matrix(frame: VideoFrame) -> np.ndarray | None:
    """The display matrix [3, 3] of a frame, as integers, or None."""
    side_data: Any = frame.side_data  # a mapping by its `Type`, whatever its stub says
    data = side_data.get(av.sidedata.sidedata.Type.DISPLAYMATRIX)
    if data is None or data.buffer_size < 36:
        return None
    return np.frombuffer(bytes(data)[:36], np.int32).reshape(3, 3)


def oriented(image: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """A picture [H, W, 3] turned and mirrored as a display matrix [3, 3] says: one of eight orientations.

    The matrix takes a point (x, y) to (a x + c y, b x + d y), with a, b in its first and c, d in its second row.
    """
    if matrix is None:
        return image
    (a, b), (c, d) = matrix[:2, :2].astype(np.int64)
    if abs(b) + abs(c) > abs(a) + abs(d):
        image = image.transpose(1, 0, 2)
        a, d = c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def deinterlaced(frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
    """The frames, of interlaced ones both fields joined (bwdif); progressive ones pass as they are."""
    graph, made_for = None, None
    for frame in frames:
        kind = (frame.width, frame.height, frame.format.name)
        if graph is not None and kind != made_for:
            yield from _pulled(graph, None)
            graph = None
        if graph is None and frame.interlaced_frame and frame.time_base is not None:
            graph, made_for = _bwdif(frame), kind
        if graph is None:
            yield frame
        else:
            yield from _pulled(graph, frame)
    if graph is not None:
        yield from _pulled(graph, None)


def _bwdif(frame: VideoFrame) -> Graph:
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    filter = graph.add("bwdif", "mode=send_frame:deint=interlaced")
    sink = graph.add("buffersink")
    source.link_to(filter)
    filter.link_to(sink)
    graph.configure()
    return graph


def _pulled(graph: Graph, frame: VideoFrame | None) -> Iterator[Any]:
    try:
        graph.push(frame)
        while True:
            yield graph.pull()
    except (av.FFmpegError, EOFError, BlockingIOError):  # no more for now
        return
