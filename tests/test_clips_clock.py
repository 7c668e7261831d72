"""One clock for sound and pictures, whatever the container's stamps: a flash and a click at the same time, to 20 ms."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from deepmlf_kit.features import FeatureRecipe, extract_clip
from deepmlf_kit.features.container import Damage
from deepmlf_kit.features.media import probe, read_audio, read_frames
from deepmlf_kit.features.timestamps import SteadyClock

FPS, RATE, SECONDS, MOMENT = 25, 48_000, 2.0, 1.0
VOICE = FeatureRecipe(vision="none", transcribe=False)
WRAP = 2**33 / 90_000  # seconds after which the clock of a transport stream starts over


def flash_and_click(
    path: Path,
    video: str = "libx264",
    audio: str = "aac",
    base: float = 0.0,
    late: float = 0.0,
    options: dict[str, str] | None = None,
) -> Path:
    """A clip with one white picture and a click at `MOMENT`.

    Args:
        base: time stamp at which it starts.
        late: seconds by which the sound starts after the pictures.
    """

    with av.open(str(path), "w", options=options or {}) as container:
        pictures = container.add_stream(video, rate=FPS)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        pictures.gop_size = 5
        sound = container.add_stream(audio, rate=RATE, layout="mono")
        step = sound.codec_context.frame_size or 1024
        samples = np.zeros(round(SECONDS * RATE), np.float32)
        samples[round(MOMENT * RATE) : round(MOMENT * RATE) + 480] = 0.9
        samples = samples[round(late * RATE) :]
        packets = []
        for number in [*range(round(SECONDS * FPS)), None]:
            frame = None
            if number is not None:
                white = number == round(MOMENT * FPS)
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 255 * white, np.uint8), "rgb24")
                frame.time_base, frame.pts = Fraction(1, FPS), number
            packets += [(packet, pictures) for packet in pictures.encode(frame)]
        resampler = av.AudioResampler(sound.codec_context.format.name, "mono", RATE, step)
        frame = av.AudioFrame.from_ndarray(samples[None], "flt", "mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, round(late * RATE), Fraction(1, RATE)
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            packets += [(packet, sound) for packet in sound.encode(part)]
        packets.sort(key=lambda each: float(each[0].dts * each[0].time_base))
        for packet, stream in packets:
            packet.pts += round(base / packet.time_base)
            packet.dts += round(base / packet.time_base)
            packet.stream = stream
            container.mux(packet)
    return path


def times_of(path: Path) -> tuple[float, float]:
    """When the flash and the click are, in seconds."""
    flash = next(frame.time for frame in read_frames(path, fps=FPS) if frame.image.mean() > 100)
    sound = read_audio(path)
    return flash, sound.start + float(np.argmax(np.abs(sound.samples) > 0.4)) / sound.rate


CLIPS = {
    "plain.mp4": {},
    "plain.mkv": {"audio": "libopus"},
    "plain.mov": {"audio": "pcm_s16le"},
    "plain.avi": {"video": "mpeg4", "audio": "libmp3lame"},
    "plain.ts": {"audio": "mp2"},
    "plain.flv": {"video": "flv"},
    "plain.mpg": {"video": "mpeg2video", "audio": "mp2"},
    "late_sound.mp4": {"late": 0.44},
    "late_sound.mkv": {"late": 0.44, "audio": "libopus"},
    "starts_late.ts": {"base": 7_000.0, "audio": "mp2"},
    "starts_late.mkv": {"base": 12.0, "audio": "libopus"},
    "starts_late.mp4": {"base": 3.0},
    "wraps_soon.ts": {"base": WRAP - 0.5, "audio": "mp2"},
    "wraps_late.ts": {"base": WRAP - 1.8, "audio": "mp2"},
    "starts_below_zero.mp4": {"base": -0.4, "options": {"avoid_negative_ts": "disabled"}},
    "starts_below_zero.mkv": {"base": -0.4, "options": {"avoid_negative_ts": "disabled"}, "audio": "libopus"},
}


@pytest.mark.parametrize("name", CLIPS)
def test_flash_and_click_are_at_the_same_time(tmp_path: Path, name: str):
    path = flash_and_click(tmp_path / name, **CLIPS[name])
    flash, click = times_of(path)
    assert click == pytest.approx(flash, abs=0.02)


@pytest.mark.parametrize("name", ["plain.mp4", "starts_late.ts", "wraps_soon.ts", "late_sound.mkv"])
def test_times_count_from_the_start_of_the_clip(tmp_path: Path, name: str):
    path = flash_and_click(tmp_path / name, **CLIPS[name])
    assert times_of(path) == pytest.approx((MOMENT, MOMENT), abs=0.05)
    assert probe(path).seconds == pytest.approx(SECONDS, abs=0.1)


@pytest.mark.parametrize("base", [100.0, 60_000.0])
def test_a_clock_that_was_set_anew_in_mid_recording_goes_on(tmp_path: Path, base: float):
    parts = [
        flash_and_click(tmp_path / f"{at}.ts", audio="mp2", base=at).read_bytes() for at in (7_000.0, base)
    ]
    path = tmp_path / "clip.ts"
    path.write_bytes(b"".join(parts))
    assert probe(path).seconds == pytest.approx(2 * SECONDS, abs=0.3)
    flashes = [frame.time for frame in read_frames(path, fps=FPS) if frame.image.mean() > 100]
    sound = read_audio(path)
    loud = sound.start + np.flatnonzero(np.abs(sound.samples) > 0.4) / sound.rate
    assert flashes == pytest.approx([MOMENT, SECONDS + MOMENT], abs=0.15)
    assert loud.min() == pytest.approx(flashes[0], abs=0.02) and loud.max() == pytest.approx(
        flashes[1], abs=0.15
    )


def flip_stamp(path: Path, stream: str, which: int, bit: int) -> Path:
    """Flip one bit (of 33) of the time stamp of the packet `which` of a stream in a transport stream."""
    raw = bytearray(path.read_bytes())
    starts = []
    for place in range(0, len(raw) - 187, 188):
        head = raw[place : place + 188]
        if head[1] & 0x40 and head[3] & 0x10:
            start = place + 4 + (1 + head[4] if head[3] & 0x20 else 0)
            kind = 0xE0 if stream == "video" else 0xC0
            if raw[start : start + 3] == b"\0\0\1" and raw[start + 3] & 0xF0 == kind & 0xF0:
                starts.append(start)
    stamp = starts[which] + 9
    if bit >= 30:
        raw[stamp] ^= 1 << (bit - 30 + 1)
    elif bit >= 22:
        raw[stamp + 1] ^= 1 << (bit - 22)
    else:
        raw[stamp + 2] ^= 1 << (bit - 15 + 1)
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("bit", [15, 16, 18, 20, 22, 25, 28, 31, 32])
@pytest.mark.parametrize("stream", ["video", "audio"])
def test_one_wild_time_stamp_is_mended(tmp_path: Path, stream: str, bit: int):
    path = flash_and_click(tmp_path / "clip.ts", audio="mp2", base=100.0)
    flip_stamp(path, stream, 3, bit)
    assert probe(path, max_seconds=10).seconds == pytest.approx(SECONDS, abs=0.8)
    flash, click = times_of(path)
    assert flash == pytest.approx(MOMENT, abs=0.1) and click == pytest.approx(MOMENT, abs=0.1)
    assert read_audio(path).seconds == pytest.approx(SECONDS, abs=0.8)
    assert 45 <= len(list(read_frames(path, fps=FPS))) <= 50


def test_a_mended_time_stamp_is_said(tmp_path: Path):
    path = flip_stamp(flash_and_click(tmp_path / "clip.ts", audio="mp2", base=100.0), "video", 12, 25)
    damage = Damage()
    list(read_frames(path, damage=damage))
    assert damage.notes("video") == ("the video stream has 1 wrong time stamp: mended",)


def steady(stamps: list[float | None], **how: float) -> list[float]:
    clock: SteadyClock = SteadyClock(**how)
    return [round(time, 6) for time, _ in clock.run((stamp, 1.0, None) for stamp in stamps)]


def test_a_clock_mends_what_is_wild_and_believes_what_persists():
    assert steady([0, 1, 2, 3, 4]) == [0, 1, 2, 3, 4]
    assert steady([0, 1, 500, 3, 4]) == [0, 1, 2, 3, 4]  # one bit
    assert steady([0, 1, -500, 3, 4]) == [0, 1, 2, 3, 4]
    assert steady([500, 1, 2, 3]) == [0, 1, 2, 3]  # the very first
    assert steady([0, 1, 2, 500]) == [0, 1, 2, 3]  # the very last
    assert steady([0, 1, 12, 13, 14]) == [0, 1, 12, 13, 14]  # a paused recording
    assert steady([0, 1, 0, 1, 2]) == [0, 1, 2, 3, 4]  # a clock that starts over
    assert steady([0, 1, 9_000, 9_001]) == [0, 1, 2, 3]  # a clock that was put forward
    assert steady([0, 1, 90, 91], end=100) == [0, 1, 90, 91]  # where the other stream was there meanwhile
    assert steady([0, None, 2, None]) == [0, 1, 2, 3]
    assert steady([None, None, 0, 1]) == [-2, -1, 0, 1]
    assert steady([0, 3, 1, 2, 6, 4, 5], slack=3.0) == [0, 3, 1, 2, 6, 4, 5]  # frames reordered


def test_a_wild_stamp_leaves_the_clip_usable(tmp_path: Path):
    path = flip_stamp(flash_and_click(tmp_path / "clip.ts", audio="mp2", base=100.0), "video", 12, 31)
    made = extract_clip(path, VOICE, text="")
    assert made.found.seconds == pytest.approx(SECONDS, abs=0.1)
