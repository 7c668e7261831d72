"""Pictures are what a player shows: upright, mirrored as asked, with square pixels, deinterlaced, HDR in ordinary colours."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from deepmlf_kit.features.container import MAX_PIXELS, ClipError, UndecodableStream
from deepmlf_kit.features.media import probe, read_audio, read_frames
from deepmlf_kit.features.picture import oriented


def write(path: Path, images: list[np.ndarray], codec: str = "libx264", **how) -> Path:
    """A clip of pictures [H, W, 3]; `how`: attributes of the stream, `frame`: of each frame, `rotation`: for PyAV."""
    frame_tags, rotation, options = how.pop("frame", {}), how.pop("rotation", None), how.pop("options", {})
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = how.pop("pix_fmt", "yuv420p")
        for name, value in how.items():
            setattr(stream.codec_context, name, value)
        if rotation:
            stream.set_display_rotation(rotation[0], **rotation[1])
        for image in images:
            frame = image if isinstance(image, av.VideoFrame) else av.VideoFrame.from_ndarray(image, "rgb24")
            for name, value in frame_tags.items():
                setattr(frame, name, value)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def corners() -> np.ndarray:
    """[64, 96, 3]: red top left, green top right, blue bottom left, white bottom right."""
    image = np.zeros((64, 96, 3), np.uint8)
    image[:32, :48, 0] = image[:32, 48:, 1] = image[32:, :48, 2] = 255
    image[32:, 48:] = 255
    return image


def names(image: np.ndarray) -> str:
    """The colours of the corners, from the top left clockwise."""
    height, width = image.shape[:2]
    found = ""
    for y, x in (
        (height // 4, width // 4),
        (height // 4, 3 * width // 4),
        (3 * height // 4, 3 * width // 4),
        (3 * height // 4, width // 4),
    ):
        red, green, blue = (int(value > 128) for value in image[y, x])
        found += {(1, 0, 0): "r", (0, 1, 0): "g", (0, 0, 1): "b", (1, 1, 1): "w"}[red, green, blue]
    return found


# Upper left of the matrix as the file has it (a, b, c, d), and the corners that ffmpeg shows (clockwise from top left).
ORIENTATIONS = {
    (1, 0, 0, 1): "rgwb",
    (0, 1, -1, 0): "brgw",  # turned clockwise
    (-1, 0, 0, -1): "wbrg",
    (0, -1, 1, 0): "gwbr",
    (-1, 0, 0, 1): "grbw",  # a mirror
    (1, 0, 0, -1): "bwgr",
    (0, 1, 1, 0): "rbwg",
    (0, -1, -1, 0): "wgrb",
}


@pytest.mark.parametrize("matrix", ORIENTATIONS, ids=str)
def test_every_display_matrix_is_followed(tmp_path: Path, matrix: tuple[int, ...]):
    path = write(tmp_path / "clip.mp4", [corners()] * 3)
    raw = bytearray(path.read_bytes())
    place = raw.index(b"tkhd") + 4 + 40
    a, b, c, d = (value * 0x10000 for value in matrix)
    raw[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 0x40000000)
    path.write_bytes(raw)
    image = next(read_frames(path)).image
    assert names(image) == ORIENTATIONS[matrix]
    assert image.shape == ((96, 64, 3) if matrix[0] == 0 else (64, 96, 3))
    assert image.flags["C_CONTIGUOUS"]


def test_a_rotation_with_a_flip_of_another_container_is_followed(tmp_path: Path):
    turned = write(tmp_path / "clip.mkv", [corners()] * 3, rotation=(0, {"hflip": True}))
    assert names(next(read_frames(turned)).image) == "grbw"


def test_a_matrix_that_is_none_leaves_the_picture_alone():
    image = corners()
    assert oriented(image, None) is image
    assert np.array_equal(oriented(image, np.zeros((3, 3), np.int32)), image)


@pytest.mark.parametrize(
    ("aspect", "shape"),
    [((32, 27), (48, 85)), ((8, 9), (54, 72)), ((2, 1), (48, 144)), ((1, 1), (48, 72)), ((1, 500), (48, 72))],
)
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts"])
def test_pixels_become_square(tmp_path: Path, name: str, aspect: tuple[int, int], shape: tuple[int, int]):
    noise = np.random.default_rng(0).integers(0, 255, (12, 48, 72, 3), np.uint8)
    path = write(tmp_path / name, list(noise), sample_aspect_ratio=Fraction(*aspect))
    assert next(read_frames(path)).image.shape[:2] == shape


def test_wide_pixels_of_an_upright_phone_are_squared_before_the_turn(tmp_path: Path):
    path = write(
        tmp_path / "clip.mp4", [corners()] * 2, sample_aspect_ratio=Fraction(2, 1), rotation=(90, {})
    )
    assert next(read_frames(path)).image.shape == (192, 64, 3)


@pytest.mark.parametrize("width", [16, 17, 31, 90, 211, 360, 426, 540, 854, 1199, 1200])
def test_pictures_of_every_width_are_contiguous_in_memory(tmp_path: Path, width: int):
    path = write(tmp_path / "clip.avi", [np.full((36, width, 3), 128, np.uint8)] * 2, "ffv1", pix_fmt="bgr0")
    for side in (4096, 300):
        image = next(read_frames(path, max_side=side)).image
        assert image.flags["C_CONTIGUOUS"] and image.strides == (image.shape[1] * 3, 3, 1)


def test_interlaced_pictures_lose_their_combs(tmp_path: Path):
    images = []
    for number in range(12):  # a bar that moves between the two fields of a picture
        image = np.full((64, 96, 3), 40, np.uint8)
        image[0::2, 4 * number : 4 * number + 24] = 220
        image[1::2, 4 * number + 2 : 4 * number + 26] = 220
        images.append(image)
    path = write(
        tmp_path / "clip.mpg", images, "mpeg2video", options={"flags": "+ildct+ilme", "b": "4000000"}
    )
    combs = []
    for frame in list(read_frames(path, fps=25))[2:-2]:
        grey = frame.image.mean(2)
        combs.append(np.abs(grey[10:50:2] - (grey[9:49:2] + grey[11:51:2]) / 2).max())
    raw = [image.mean(2) for image in images]
    assert max(np.abs(each[10:50:2] - each[9:49:2]).max() for each in raw) > 150
    assert np.median(combs) < 60
    assert np.diff([frame.time for frame in read_frames(path, fps=25)]) == pytest.approx(0.04, abs=0.001)


def hdr_frame(nits: float, curve: int) -> av.VideoFrame:
    """A grey frame of that luminance in PQ (16) or HLG (18), 10 bits, BT.2020."""
    if curve == 16:
        power = (nits / 10_000) ** 0.1593017578125
        signal = ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    else:
        linear = (nits / 1000) ** (1 / 1.2)
        signal = (
            np.sqrt(3 * linear)
            if linear <= 1 / 12
            else 0.17883277 * np.log(12 * linear - 0.28466892) + 0.55991073
        )
    frame = av.VideoFrame(64, 48, "yuv420p10le")
    for plane, value in zip(frame.planes, (round(64 + 876 * signal), 512, 512), strict=True):
        plane.update(np.full(plane.buffer_size // 2, value, np.uint16).tobytes())
    return frame


@pytest.mark.parametrize("curve", [16, 18])
def test_hdr_is_shown_as_bright_as_ordinary_video(tmp_path: Path, curve: int):
    tags = {"color_trc": curve, "color_primaries": 9, "colorspace": 9, "color_range": 1}
    levels = []
    for nits in (2, 30, 100, 180):
        frames = [hdr_frame(nits, curve) for _ in range(3)]
        for frame in frames:
            for name, value in tags.items():
                setattr(frame, name, value)
        path = tmp_path / f"{curve}-{nits}.mkv"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx265", rate=25, options={"x265-params": "log-level=none"})
            stream.height, stream.width = 48, 64
            stream.pix_fmt = "yuv420p10le"
            for name, value in tags.items():
                setattr(stream.codec_context, name, value)
            for frame in frames:
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        levels.append(float(next(read_frames(path)).image.mean()))
    assert levels == sorted(levels)
    assert levels[0] < 60 and levels[-1] > 200  # washed out, they lie between 45 and 165


@pytest.mark.parametrize(("matrix", "full"), [(1, False), (5, False), (1, True), (5, True)])
def test_colours_follow_matrix_and_range(tmp_path: Path, matrix: int, full: bool):
    red, green, blue = 0.8, 0.3, 0.2
    kr, kb = (0.2126, 0.0722) if matrix == 1 else (0.299, 0.114)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = (blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr)
    low, span, colour = (0, 255, 255) if full else (16, 219, 224)
    frame = av.VideoFrame(64, 48, "yuv420p")
    values = (low + span * luma, 128 + colour * chroma[0], 128 + colour * chroma[1])
    for plane, value in zip(frame.planes, values, strict=True):
        plane.update(bytes([round(value)]) * plane.buffer_size)
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for name, value in {"colorspace": matrix, "color_range": 2 if full else 1}.items():
            setattr(stream.codec_context, name, value)
            setattr(frame, name, value)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = next(read_frames(path)).image.reshape(-1, 3).mean(0) / 255
    assert found == pytest.approx([red, green, blue], abs=0.025)


def test_pictures_beyond_the_limit_are_refused_before_they_take_memory(tmp_path: Path):
    side = 15_000
    assert side * side > MAX_PIXELS
    path = tmp_path / "huge.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(stream.encode(None))
    raw = bytearray(path.read_bytes())
    place = raw.index(b"strf") + 8  # BITMAPINFOHEADER: size, width, height
    raw[place + 4 : place + 12] = struct.pack("<2i", side, side)
    path.write_bytes(raw)
    with pytest.raises((UndecodableStream, ClipError)) as refused:
        list(read_frames(path))
    assert "\n" not in str(refused.value)
    assert probe(path).has_video
    with pytest.raises(ClipError, match="no audio"):
        read_audio(path)
