"""Damage is skipped and said, a half clip is called one, and a reader that is closed early lets go."""

import subprocess
import sys
from pathlib import Path

import pytest
from clips_made import make_clip
from test_clips_clock import flash_and_click

from deepmlf_kit.data.label_csv import read_labels
from deepmlf_kit.features import FeatureRecipe, extract_clip
from deepmlf_kit.features.container import looks_like_a_clip
from deepmlf_kit.features.media import probe, read_audio, read_frames

VOICE = FeatureRecipe(vision="none", transcribe=False)
ROOT = Path(__file__).parents[1]


def notes(path: Path) -> str:
    return "; ".join(extract_clip(path, VOICE, text="").found.notes)


def first_half(path: Path, share: float) -> Path:
    raw = path.read_bytes()
    path.write_bytes(raw[: round(len(raw) * share)])
    return path


HALVES = {
    "clip.mp4": {"options": {"movflags": "faststart"}},
    "clip.mov": {"options": {"movflags": "faststart"}, "audio": "pcm_s16le"},
    "clip.mkv": {"audio": "libopus"},
    "clip.avi": {"video": "mpeg4", "audio": "libmp3lame"},
    "clip.flv": {"video": "flv"},
}


@pytest.mark.parametrize("name", HALVES)
def test_a_download_that_stopped_half_way_ends_early(tmp_path: Path, name: str):
    path = flash_and_click(tmp_path / name, **HALVES[name])
    assert "ends early" not in notes(path)
    assert probe(path).announced == 0
    first_half(path, 0.85 if name == "clip.mp4" else 0.6)  # the index stands in front
    info = probe(path)
    assert info.announced == pytest.approx(2.0, abs=0.2)
    assert 0 < info.complete < 1.8
    assert (
        f"ends early, as after a download that stopped: {info.complete:.1f} of {info.announced:.1f} s"
        in notes(path)
    )


@pytest.mark.parametrize("name", ["voice.wav", "voice.flac"])
def test_sound_that_stopped_half_way_ends_early(tmp_path: Path, name: str):
    codec = "flac" if name.endswith("flac") else "pcm_s16le"
    path = make_clip(tmp_path / name, 2.0, video=None, audio=codec)
    assert "ends early" not in notes(path)
    assert "ends early" in notes(first_half(path, 0.6))


def test_sound_shorter_than_the_pictures_is_no_half_clip(tmp_path: Path):
    path = flash_and_click(tmp_path / "clip.mp4", late=0.9)
    assert "ends early" not in notes(path)


def test_a_stream_that_turns_up_in_the_middle_is_left_out_and_said(tmp_path: Path):
    path = flash_and_click(tmp_path / "clip.ts", audio="mp2")
    raw = bytearray(path.read_bytes())
    places = [
        n for n in range(0, len(raw), 188) if raw[n + 1] & 0x40 and raw[n + 2] == 0x01 and raw[n + 3] & 0x10
    ]
    place = [n for n in places if b"\0\0\1\xc0" in raw[n : n + 188]][2]
    raw[raw.index(b"\0\0\1\xc0", place) + 3] = 0xBD  # the number of a packet's stream
    raw[place + 2] = 0x40  # of a programme that nobody announced
    path.write_bytes(raw)
    assert read_audio(path).seconds == pytest.approx(2.0, abs=0.3)
    assert len(list(read_frames(path, fps=25))) >= 45
    made = extract_clip(path, VOICE, text="")
    assert made.found.seconds == pytest.approx(2.0, abs=0.2)


def test_a_damaged_header_that_announces_hours_is_no_reason_to_refuse(tmp_path: Path):
    path = flash_and_click(tmp_path / "clip.mp4")
    raw = bytearray(path.read_bytes())
    for box in (b"mvhd", b"mdhd", b"tkhd"):
        place = raw.index(box) + 4 + (20 if box == b"tkhd" else 16)
        raw[place : place + 4] = (0x7FFFFFF).to_bytes(4, "big")
    path.write_bytes(raw)
    assert probe(path).seconds == pytest.approx(2.0, abs=0.1)
    assert extract_clip(path, VOICE, text="").found.seconds == pytest.approx(2.0, abs=0.1)


CLOSED_EARLY = """
import sys
from deepmlf_kit.features.media import read_frames
for n in range(12):
    next(read_frames(sys.argv[1]))
print("done")
"""


def test_a_reader_that_is_closed_early_never_hangs(tmp_path: Path):
    path = make_clip(tmp_path / "clip.mp4", 2.0, video="libx264", size=(640, 480))
    raw = bytearray(path.read_bytes())
    for place in range(len(raw) // 3, 2 * len(raw) // 3, 97):  # the decoder has something to complain about
        raw[place] ^= 0x40
    path.write_bytes(raw)
    answer = subprocess.run(
        [sys.executable, "-c", CLOSED_EARLY, str(path)], capture_output=True, text=True, timeout=120
    )
    assert answer.stdout.strip() == "done", answer.stderr


def test_no_log_callback_into_python_is_ever_set():
    for path in (ROOT / "deepmlf_kit").rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert "set_level(" not in line or "set_level(None)" in line, path


ENDINGS = [
    "0001.MTS",
    "0001.m2ts",
    "0001.3gp",
    "0001.3g2",
    "0001.aac",
    "0001.amr",
    "0001.wma",
    "0001.aiff",
    "0001.vob",
    "0001",
    "0001.video",
]


@pytest.mark.parametrize("name", ENDINGS)
def test_a_clip_in_a_folder_is_found_whatever_its_ending(tmp_path: Path, name: str):
    folder = tmp_path / "Raw" / "talk"
    made = make_clip(folder / "made.mkv", 0.5)
    made.rename(folder / name)
    (folder / "0001.txt").write_text("the transcript of the clip")
    (folder / "0001.json").write_text("{}")
    (folder / "0001.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "label.csv").write_text(
        "video_id,clip_id,text,label,mode\ntalk,0001,hi,1,train\ntalk,1,hi,1,train\n"
    )
    clips = read_labels(tmp_path / "label.csv", tmp_path).clips
    assert clips[0].path == str(folder / name)


def test_a_transport_stream_is_known_by_its_bytes(tmp_path: Path):
    plain = flash_and_click(tmp_path / "clip.ts", audio="mp2")
    assert looks_like_a_clip(plain.rename(tmp_path / "clip"))
    (tmp_path / "notes").write_text("G" + "words " * 100)
    assert not looks_like_a_clip(tmp_path / "notes")
