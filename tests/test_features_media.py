"""Decoding: what a file holds, its sound and its pictures, whatever it was recorded with."""

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from clips_made import damage_stream, make_clip, voice

from deepmlf_kit.features.container import ClipError, Damage, UndecodableStream
from deepmlf_kit.features.media import probe, read_audio, read_frames

FORMATS = {
    "phone.mp4": {},
    "camera.mov": {"video": "libx264", "rate": 44100, "channels": "stereo"},
    "old.avi": {"audio": "mp3", "channels": "stereo"},
    "screen.mkv": {"audio": None},
    "voice.wav": {"video": None, "audio": "pcm_s16le"},
    "voice.flac": {"video": None, "audio": "flac"},
    "voice.mp3": {"video": None, "audio": "libmp3lame"},
}


@pytest.mark.parametrize("name", FORMATS)
def test_any_container_is_read_with_its_length_sound_and_pictures(tmp_path: Path, name: str):
    path = make_clip(tmp_path / name, 2.0, **FORMATS[name])
    info = probe(path)
    assert info.seconds == pytest.approx(2.0, abs=0.1)
    assert info.has_video == (FORMATS[name].get("video", "mpeg4") is not None)
    assert info.has_audio == (FORMATS[name].get("audio", "aac") is not None)
    if info.has_audio:
        sound = read_audio(path)
        assert sound.seconds == pytest.approx(2.0, abs=0.1)
        assert sound.samples.dtype == np.float32
        assert 0.1 < np.abs(sound.samples).max() <= 1.0
    if info.has_video:
        times = [frame.time for frame in read_frames(path, fps=10)]
        assert len(times) in (20, 21)
        assert np.diff(times) == pytest.approx(0.1, abs=0.045)


def test_a_browser_recording_without_a_length_in_its_header_is_read(tmp_path: Path):
    path = make_clip(tmp_path / "webcam.webm", 2.0, video="libvpx", audio="libopus", rate=48000, live=True)
    info = probe(path)
    assert info.seconds == pytest.approx(2.0, abs=0.1)
    assert read_audio(path).seconds == pytest.approx(2.0, abs=0.05)
    assert len(list(read_frames(path, fps=10))) == 20


def test_stereo_becomes_the_mean_of_its_channels_and_is_never_louder(tmp_path: Path):
    loud = np.clip(4 * voice(1.0), -0.9, 0.9)
    mono = make_clip(tmp_path / "mono.flac", 1.0, video=None, audio="flac", sound=loud)
    stereo = make_clip(tmp_path / "stereo.flac", 1.0, video=None, audio="flac", sound=loud, channels="stereo")
    np.testing.assert_allclose(read_audio(stereo).samples, read_audio(mono).samples, atol=1e-3)


def test_pictures_of_a_phone_held_upright_are_turned(tmp_path: Path):
    path = make_clip(tmp_path / "upright.mp4", 0.4, audio=None, size=(64, 48))
    raw = bytearray(path.read_bytes())
    matrix = raw.index(b"tkhd") + 4 + 40  # display matrix of a version 0 track header
    quarter_turn = (0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    raw[matrix : matrix + 36] = struct.pack(">9i", *quarter_turn)
    path.write_bytes(raw)
    image = next(read_frames(path)).image
    assert image.shape == (64, 48, 3)
    red = image[..., 0].astype(int)
    assert red[:28].min() > 200 > red[36:].max()  # the left half is on top now


def test_large_pictures_are_scaled_down_and_small_ones_are_not(tmp_path: Path):
    large = make_clip(tmp_path / "large.mp4", 0.2, fps=10, size=(1920, 1080), audio=None)
    assert next(read_frames(large, max_side=640)).image.shape == (360, 640, 3)
    small = make_clip(tmp_path / "small.mp4", 0.2, fps=10, size=(64, 48), audio=None)
    assert next(read_frames(small, max_side=640)).image.shape == (48, 64, 3)


def test_fewer_pictures_than_asked_for_are_given_once_each(tmp_path: Path):
    path = make_clip(tmp_path / "slow.mp4", 2.0, fps=5, audio=None)
    assert [frame.time for frame in read_frames(path, fps=30)] == pytest.approx(np.arange(10) / 5)


def test_cover_art_is_no_video(tmp_path: Path):
    import av

    path = tmp_path / "song.mp3"
    make_clip(tmp_path / "plain.mp3", 1.0, video=None, audio="libmp3lame")
    with av.open(str(tmp_path / "plain.mp3")) as source, av.open(str(path), "w") as target:
        heard = target.add_stream_from_template(source.streams.audio[0])
        cover = target.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        image = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), "rgb24").reformat(
            format="yuvj420p"
        )
        for packet in cover.encode(image) + cover.encode(None):
            target.mux(packet)
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = heard
                target.mux(packet)
    info = probe(path)
    assert info.has_audio and not info.has_video


NO_CLIPS = {
    "text": (b"these are only words\n" * 50, "found text"),
    "empty": (b"", "found an empty file"),
    "picture": (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "found a picture"),
    "noise": (bytes(range(256)) * 8, "bytes that are no media file"),
    "playlist": (
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/passwd\n#EXT-X-ENDLIST\n",
        "found text",
    ),
}


@pytest.mark.parametrize("kind", NO_CLIPS)
def test_what_is_no_clip_is_refused_in_one_line(tmp_path: Path, kind: str):
    content, found = NO_CLIPS[kind]
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    for read in (probe, read_audio, lambda p: list(read_frames(p))):
        with pytest.raises(ClipError, match=found) as refused:
            read(path)
        assert "\n" not in str(refused.value)
        assert "expected a video or audio file" in str(refused.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path):
    with pytest.raises(ClipError, match="no such file"):
        probe(tmp_path / "nothing.mp4")
    with pytest.raises(ClipError, match="found a folder"):
        probe(tmp_path)


def test_a_truncated_clip_is_refused_or_used_as_far_as_it_goes(tmp_path: Path):
    whole = make_clip(tmp_path / "whole.mkv", 2.0, video="libx264").read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole[: len(whole) * 2 // 3])
    assert 0.5 < read_audio(cut).seconds < 2.0
    index_lost = tmp_path / "cut.mp4"
    index_lost.write_bytes(make_clip(tmp_path / "whole.mp4", 2.0).read_bytes()[:5000])
    with pytest.raises(ClipError, match="damaged or incomplete"):
        probe(index_lost)


def test_a_stream_of_which_nothing_can_be_decoded_is_named(tmp_path: Path):
    path = damage_stream(make_clip(tmp_path / "clip.mp4", 1.0, video="libx264", audio=None))
    damage = Damage()
    with pytest.raises(UndecodableStream, match="nothing could be decoded"):
        list(read_frames(path, damage=damage))
    assert damage.packets or damage.ended_early


def test_a_clip_beyond_the_limit_is_refused_before_it_is_decoded(tmp_path: Path):
    path = make_clip(tmp_path / "long.mp4", 3.0, fps=5)
    with pytest.raises(ClipError, match=r"more than 2 s .* cut the clip into utterances"):
        probe(path, max_seconds=2)
    live = make_clip(
        tmp_path / "long.webm", 3.0, fps=5, video="libvpx", audio="libopus", rate=48000, live=True
    )
    with pytest.raises(ClipError, match="more than 2 s"):
        probe(live, max_seconds=2)
    with pytest.raises(ClipError, match="more than 1 s"):
        read_audio(path, max_seconds=1)


_PEAK = """
import re, sys
from pathlib import Path
from deepmlf_kit.features.media import read_frames
count = sum(1 for _ in read_frames(sys.argv[1], fps=10, threads=1))
# Not ru_maxrss, which starts at what the parent process took.
print(count, int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
def test_memory_does_not_grow_with_the_length_of_a_4k_clip(tmp_path: Path):
    peaks = []
    for seconds in (1, 8):
        path = make_clip(tmp_path / f"{seconds}.mp4", seconds, fps=10, size=(3840, 2160), audio=None)
        answer = subprocess.run(
            [sys.executable, "-c", _PEAK, str(path)], capture_output=True, text=True, check=True
        )
        count, peak = map(int, answer.stdout.split())
        assert count == seconds * 10
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 40  # MB; one 4K picture is 25 MB, 70 of them are 1.7 GB
    assert peaks[1] < 600
