"""Damaged input by the dozen: each ends as a row or as a reported failure, none as a traceback or a hang."""

import random
from pathlib import Path

import numpy as np
import pytest
from clips_made import make_clip

from deepmlf_kit.data.folder import prepare_folder
from deepmlf_kit.data.label_csv import LabelFileError, read_labels
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.features import FeatureCache, FeatureRecipe, extract_clip

SOURCES = {
    "phone.mp4": {"video": "libx264"},
    "old.avi": {"audio": "mp3"},
    "webcam.webm": {"video": "libvpx", "audio": "libopus", "rate": 48000, "live": True},
    "screen.mkv": {"video": "mpeg4"},
    "voice.wav": {"video": None, "audio": "pcm_s16le"},
    "voice.flac": {"video": None, "audio": "flac"},
    "voice.mp3": {"video": None, "audio": "libmp3lame"},
}


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A copy as a faulty disk, cable or program would leave it."""
    kind = rng.choice(["cut", "cut", "flip", "flip", "flip", "hole", "swap", "head", "tail", "empty"])
    raw = bytearray(content)
    if kind == "cut":
        return bytes(raw[: rng.randrange(1, len(raw))])
    if kind == "flip":
        for _ in range(rng.choice([1, 5, 50, 500])):
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    elif kind == "hole":
        start, size = rng.randrange(len(raw)), rng.randrange(1, 4000)
        raw[start : start + size] = bytes(min(size, len(raw) - start))
    elif kind == "swap":
        one, two = sorted(rng.sample(range(len(raw)), 2))
        raw = raw[two:] + raw[one:two] + raw[:one]
    elif kind == "head":
        for place in range(min(64, len(raw))):
            if rng.random() < 0.3:
                raw[place] = rng.randrange(256)
    elif kind == "tail":
        return bytes(raw + rng.randbytes(3000))
    return b"" if kind == "empty" else bytes(raw)


def damaged_folder(root: Path, count: int, seed: int) -> Path:
    """`count` damaged clips, and one whole clip of every kind, with a label file."""
    rng = random.Random(seed)
    whole = {name: make_clip(root / "whole" / name, 1.0, **how).read_bytes() for name, how in SOURCES.items()}
    lines = ["path,text,label,split"]
    lines += [f"whole/{name},whole,1,train" for name in whole]
    (root / "damaged").mkdir()
    for number in range(count):
        name = rng.choice(list(whole))
        suffix = rng.choice([Path(name).suffix, ".mp4"])  # some carry another's ending
        path = root / "damaged" / f"{number}{suffix}"
        path.write_bytes(damaged(whole[name], rng))
        lines.append(f"damaged/{path.name},damaged,1,train")
    (root / "label.csv").write_text("\n".join(lines) + "\n")
    return root


def check_folder(root: Path, out: Path, recipe: FeatureRecipe, count: int, workers: int) -> tuple[int, int]:
    """Every line of the label file is a row or a failure, exactly one of them; (rows, failures)."""
    prepared = prepare_folder(
        root, out, recipe, cache=FeatureCache(out.with_name("cache")), workers=workers, timeout=60
    )
    rows = prepared.dataset["train"].with_format("numpy")
    ids = [str(row["id"]) for row in rows]
    assert len(set(ids)) + len(prepared.failures) == count + len(SOURCES)
    assert not set(ids) & {failure.id for failure in prepared.failures}
    assert sum(id.startswith("whole") for id in ids) == len(SOURCES)
    for row in rows:
        for stream in ("audio", "vision"):
            values, times = np.asarray(row[stream]), np.asarray(row[f"{stream}_times"])
            assert np.isfinite(values).all() and np.isfinite(times).all()
            assert (np.diff(times) > 0).all()
        if recipe.vision != "none":
            assert len(row["audio"]) or len(row["vision"])
    for failure in prepared.failures:
        assert failure.reason and "\n" not in failure.reason
        assert "Traceback" not in failure.reason
    return len(ids), len(prepared.failures)


def test_a_handful_of_damaged_clips_end_as_rows_or_failures(tmp_path):
    root = damaged_folder(tmp_path / "clips", 24, seed=1)
    rows, failures = check_folder(root, tmp_path / "out", FeatureRecipe(vision="none"), 24, workers=1)
    assert rows > 8 and failures > 3


@pytest.mark.slow
def test_many_damaged_clips_end_as_rows_or_failures(tmp_path, face_model):
    root = damaged_folder(tmp_path / "clips", 200, seed=2)
    rows, failures = check_folder(root, tmp_path / "out", FeatureRecipe(fps=5), 200, workers=2)
    assert rows > 60 and failures > 30


@pytest.mark.parametrize("count", [12, pytest.param(120, marks=pytest.mark.slow)])
def test_damaged_clips_give_features_or_one_line(tmp_path, face_model, count: int):
    root = damaged_folder(tmp_path / "clips", count, seed=3)
    recipe = FeatureRecipe(fps=5, transcribe=False)
    used = 0
    for path in sorted((root / "damaged").iterdir()):
        try:
            made = extract_clip(path, recipe)
        except DeepMLFError as error:
            assert "\n" not in str(error)
            continue
        assert len(made.audio) == len(made.audio_times) and len(made.vision) == len(made.vision_times)
        used += 1
    assert 0 < used < count


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_damaged_label_files_are_read_or_refused_in_one_line(tmp_path, count: int):
    rng = random.Random(4)
    make_clip(tmp_path / "Raw" / "v1" / "0001.wav", 0.5, video=None, audio="pcm_s16le")
    text = (
        "video_id,clip_id,text,label,mode\n" + 'v1,0001,"ça, 我很高兴",1.5,train\nv1,0002,no,-1,valid\n' * 5
    )
    for _ in range(count):
        encoding = rng.choice(["utf-8", "utf-8-sig", "utf-16", "gb18030", "latin-1"])
        raw = damaged(text.encode(encoding, errors="replace"), rng)
        (tmp_path / "label.csv").write_bytes(raw)
        try:
            read = read_labels(tmp_path / "label.csv")
        except LabelFileError as error:
            assert "\n" not in str(error) and "expected" in str(error)
        else:
            assert read.clips
            assert all(clip.problem or Path(clip.path).is_file() for clip in read.clips)
