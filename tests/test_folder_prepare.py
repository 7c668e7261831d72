"""A folder of clips -> a dataset: rows, failures, resuming, shards, and clips that take their worker down."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from clips_made import make_clip

from deepmlf_kit.data import extraction_process, schema
from deepmlf_kit.data.folder import merge_shards, prepare_folder
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.features import FeatureCache, FeatureRecipe
from deepmlf_kit.features.clip import extract_clip

VOICE = FeatureRecipe(vision="none")


def make_folder(root: Path, *names: str, broken: tuple[str, ...] = (), text: str = "some words") -> Path:
    """Half a second of voice for each name, and a label file; every clip has another pitch, and so content."""
    lines = ["path,text,label,split"]
    for number, name in enumerate((*names, *broken)):
        path = root / f"{name}.wav"
        if name in broken:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"no clip {number}")
        else:
            make_clip(path, 0.5 + 0.02 * number, video=None, audio="pcm_s16le")
        lines.append(f"{name}.wav,{text} {number},{number % 3 - 1},{('train', 'valid', 'test')[number % 3]}")
    (root / "label.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "cache")


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips whose names say so hang, crash or surprise their worker."""
    monkeypatch.setattr(extraction_process, "WORKER", "faulty_worker")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def test_clips_become_rows_and_a_broken_one_is_reported(tmp_path, cache):
    root = make_folder(tmp_path / "clips", "a", "b", "c", "d", broken=("e",))
    prepared = prepare_folder(root, tmp_path / "out", VOICE, cache=cache, workers=1)
    assert prepared.rows == {"train": 2, "valid": 1, "test": 1}
    assert (prepared.extracted, prepared.cached) == (4, 0)
    dataset = schema.load(tmp_path / "out")
    row = dataset["train"].with_format("numpy")[0]
    expected = extract_clip(root / "a.wav", VOICE, text="")
    np.testing.assert_array_equal(row["audio"], expected.audio)
    np.testing.assert_allclose(row["audio_times"], expected.audio_times)
    assert (row["id"], row["text"], row["text_source"], row["label"]) == ("a", "some words 0", "given", -1.0)
    assert Path(row["clip"]) == (root / "a.wav").absolute()
    assert FeatureRecipe.from_json(str(row["recipe"])).audio == "egemaps"
    assert json.loads(str(row["recipe"]))["label_scale"] == 1.0
    [failure] = prepared.failures
    assert failure.id == "e" and failure.reason.startswith("found text, expected a video or audio file")
    with (tmp_path / "out" / "failures.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"id": "e", "path": failure.path, "reason": failure.reason}]
    assert "1 could not be used" in prepared.summary() and "e: found text" in prepared.summary()


def test_a_repeated_run_extracts_nothing_and_starts_no_worker(tmp_path, cache, monkeypatch):
    root = make_folder(tmp_path / "clips", "a", "b", "c", broken=("d",))
    prepare_folder(root, tmp_path / "out", VOICE, cache=cache, workers=1)
    monkeypatch.setattr(extraction_process, "WORKER", "no_such_module")
    again = prepare_folder(root, tmp_path / "out", VOICE, cache=cache, workers=1)
    assert (again.extracted, again.cached) == (0, 3)
    assert [failure.id for failure in again.failures] == ["d"]


def test_kept_features_are_trimmed_when_the_dataset_is_written(tmp_path, cache, monkeypatch):
    root = make_folder(tmp_path / "clips", "a", "b", "c")
    monkeypatch.setenv("DEEPMLF_CACHE_GB", "0")
    prepared = prepare_folder(root, tmp_path / "out", VOICE, cache=cache, workers=1)
    assert sum(prepared.rows.values()) == 3
    assert not list(cache.folder.rglob("*.npz"))
    assert any("DEEPMLF_CACHE_GB" in note for note in prepared.notes)


def test_splits_that_training_needs_are_missed_aloud(tmp_path, cache):
    root = make_folder(tmp_path / "clips", "a")
    prepared = prepare_folder(root, tmp_path / "out", VOICE, cache=cache, workers=1)
    assert "note: no clip of the split 'valid': training needs some" in prepared.summary()


def test_labels_beyond_the_fields_scale_are_pointed_out(tmp_path, cache):
    root = make_folder(tmp_path / "clips", "a", "b", "c")
    notes = prepare_folder(root, tmp_path / "one", VOICE, cache=cache, workers=1).notes
    assert not any("Acc-7" in note for note in notes)
    table = root / "label.csv"
    table.write_text(table.read_text().replace(",1,", ",5,"))
    notes = prepare_folder(root, tmp_path / "five", VOICE, cache=cache, workers=1).notes
    assert any("[-5, 5]" in note for note in notes)
    assert any("Acc-7" in note and "multiply them by 0.6" in note for note in notes)


def prepared_with_labels(labels, tmp_path, cache, **options):
    """A folder of clips with these labels, one after the other in train, valid and test."""
    root = make_folder(tmp_path / "clips", *(f"c{i:02}" for i in range(len(labels))))
    lines = (root / "label.csv").read_text().splitlines()
    for number, label in enumerate(labels, 1):
        path, words, _, split = lines[number].split(",")
        lines[number] = f"{path},{words},{label},{split}"
    (root / "label.csv").write_text("\n".join(lines))
    return prepare_folder(root, tmp_path / "out", VOICE, cache=cache, workers=1, **options)


def test_a_label_beyond_the_stated_scale_is_a_failure(tmp_path, cache):
    prepared = prepared_with_labels([1.5, 15, -1, -3.5], tmp_path, cache, label_scale=3)
    assert [failure.id for failure in prepared.failures] == ["c01", "c03"]
    assert "label is 15, expected a number in [-3, 3]" in prepared.failures[0].reason
    assert schema.scale_of(schema.load(tmp_path / "out")) == 3


def test_one_mistyped_label_does_not_make_the_scale(tmp_path, cache):
    labels = [(i % 21 - 10) / 10 for i in range(21)]
    prepared = prepared_with_labels([8, *labels], tmp_path, cache)
    assert [failure.id for failure in prepared.failures] == ["c00"]
    assert schema.scale_of(prepared.dataset) == 1 and any("mistyped" in note for note in prepared.notes)


def test_a_split_without_labels_is_said(tmp_path, cache):
    prepared = prepared_with_labels([1, -1, "", 2, 0, ""], tmp_path, cache)
    assert any("'test' has a label" in note for note in prepared.notes)


def test_clips_that_crash_or_surprise_take_nothing_else_with_them(tmp_path, cache, faulty):
    root = make_folder(tmp_path / "clips", "a", "crashes", "b", "surprises", "prints")
    prepared = prepare_folder(root, tmp_path / "out", VOICE, cache=cache, workers=1)
    reasons = {failure.id: failure.reason for failure in prepared.failures}
    assert set(reasons) == {"crashes", "surprises"}
    assert "crashed the decoder (exit code -6: terminate called: bad packet)" in reasons["crashes"]
    assert "RecursionError" in reasons["surprises"] and "\n" not in reasons["surprises"]
    rows = [row for part in prepared.dataset.values() for row in part["id"]]
    assert sorted(rows) == ["a", "b", "prints"]


@pytest.mark.slow
def test_a_clip_that_hangs_is_given_up_and_a_slow_one_that_makes_progress_is_not(tmp_path, cache, faulty):
    root = make_folder(tmp_path / "clips", "hangs", "a", "slow", "b")
    prepared = prepare_folder(root, tmp_path / "out", VOICE, cache=cache, workers=2, timeout=12)
    assert [(failure.id, failure.reason) for failure in prepared.failures] == [
        ("hangs", "no progress for 12 s, the file is probably damaged; given up.")
    ]
    with (tmp_path / "out" / "failures.csv").open(newline="") as file:
        assert [line["id"] for line in csv.DictReader(file)] == ["hangs"]
    assert sum(prepared.rows.values()) == 3


def test_an_interrupted_run_goes_on_where_it_was(tmp_path, cache):
    root = make_folder(tmp_path / "clips", "a", "b", "c", "d")

    def stop_after_two(stage: str, done: int, of: int) -> None:
        if (stage, done) == ("extract", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_folder(root, tmp_path / "out", VOICE, cache=cache, workers=1, progress=stop_after_two)
    assert not (tmp_path / "out").exists()
    told = []
    prepared = prepare_folder(
        root, tmp_path / "out", VOICE, cache=cache, workers=1, progress=lambda *done: told.append(done)
    )
    assert prepared.cached >= 2 and prepared.extracted <= 2
    assert sum(prepared.rows.values()) == 4
    assert [done for done in told if done[0] == "write"] == [("write", n, 4) for n in (1, 2, 3, 4)]


_RUN = """
import sys
from deepmlf_kit.data.folder import prepare_folder
from deepmlf_kit.features import FeatureCache, FeatureRecipe
root, out, cache = sys.argv[1:]
tell = lambda stage, done, of: print(stage, done, flush=True)
prepare_folder(root, out, FeatureRecipe(vision="none"), cache=FeatureCache(cache), workers=1, progress=tell)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_run_loses_only_the_clip_in_hand(tmp_path, cache):
    root = make_folder(tmp_path / "clips", *"abcdefgh")
    run = subprocess.Popen(
        [sys.executable, "-c", _RUN, str(root), str(tmp_path / "out"), str(cache.folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in run.stdout:
        if line.strip() == "extract 3":
            break
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    time.sleep(1)  # its worker may be finishing the clip in hand
    prepared = prepare_folder(root, tmp_path / "out", VOICE, cache=cache, workers=1)
    assert prepared.cached >= 3
    assert sum(prepared.rows.values()) == 8


def test_words_that_are_missing_are_a_failure_unless_transcribed(tmp_path, cache, monkeypatch):
    root = make_folder(tmp_path / "clips", "a", "b")
    label = root / "label.csv"
    label.write_text(label.read_text().replace("some words 0", ""))
    prepared = prepare_folder(root, tmp_path / "out", VOICE, cache=cache, workers=1)
    assert [(failure.id, "--transcribe" in failure.reason) for failure in prepared.failures] == [("a", True)]
    monkeypatch.setenv("DEEPMLF_SPEECH_MODEL", str(tmp_path / "no_model"))
    with pytest.raises(DeepMLFError, match="speech model"):
        prepare_folder(root, tmp_path / "other", VOICE, cache=cache, workers=1, transcribe=True)


def test_shards_join_to_the_whole(tmp_path, cache):
    root = make_folder(tmp_path / "clips", "a", "b", "c", "d", broken=("e",))
    whole = prepare_folder(root, tmp_path / "whole", VOICE, cache=cache, workers=1)
    prepare_folder(root, tmp_path / "parts", VOICE, cache=cache, workers=1, shard=(1, 3))
    with pytest.raises(DeepMLFError, match="found 1 of 3 parts, missing: 2, 3"):
        merge_shards(tmp_path / "parts")
    for shard in (2, 3):
        prepare_folder(root, tmp_path / "parts", VOICE, cache=cache, workers=1, shard=(shard, 3))
    joined = merge_shards(tmp_path / "parts")
    assert joined.rows == whole.rows
    for split in whole.rows:
        assert repr(joined.dataset[split].to_dict()) == repr(
            whole.dataset[split].to_dict()
        )  # NaN is unequal to NaN
    assert joined.failures == whole.failures
    with pytest.raises(DeepMLFError, match="found 4/3"):
        prepare_folder(root, tmp_path / "parts", VOICE, cache=cache, shard=(4, 3))


def test_a_shard_without_a_usable_clip_does_not_stop_the_others(tmp_path, cache):
    root = make_folder(tmp_path / "clips", "a", broken=("b",))
    for shard in (1, 2):
        prepared = prepare_folder(root, tmp_path / "out", VOICE, cache=cache, workers=1, shard=(shard, 2))
    assert prepared.dataset is None and len(prepared.failures) == 1
    assert merge_shards(tmp_path / "out").rows == {"train": 1}


def test_a_folder_without_one_usable_clip_is_an_error_with_its_reasons_on_disk(tmp_path, cache):
    root = make_folder(tmp_path / "clips", broken=("a", "b"))
    for _ in range(2):  # the report of the first time does not stand in the way of the second
        with pytest.raises(DeepMLFError, match="none of its 2 clips could be used") as refused:
            prepare_folder(root, tmp_path / "out", VOICE, cache=cache, workers=1)
    assert "found text" in str(refused.value)
    assert len((tmp_path / "out" / "failures.csv").read_text().splitlines()) == 3


def test_a_folder_with_other_things_is_not_written_to(tmp_path, cache):
    root = make_folder(tmp_path / "clips", "a")
    with pytest.raises(DeepMLFError, match="which the kit did not write"):
        prepare_folder(root, root, VOICE, cache=cache)
    with pytest.raises(DeepMLFError, match="no such folder"):
        prepare_folder(tmp_path / "nowhere", tmp_path / "out", VOICE, cache=cache)


def test_a_missing_model_is_one_error_not_one_for_every_clip(tmp_path, cache, monkeypatch):
    monkeypatch.setenv("DEEPMLF_FACE_MODEL", str(tmp_path / "gone.task"))
    root = make_folder(tmp_path / "clips", "a", "b")
    make_clip(root / "c.mp4", 0.5)
    with (root / "label.csv").open("a") as labels:
        labels.write("c.mp4,so it is,1,test\n")
    with pytest.raises(DeepMLFError, match="face model"):
        prepare_folder(root, tmp_path / "out", cache=cache, workers=2)
    (root / "c.mp4").unlink()
    made = prepare_folder(root, tmp_path / "sound", cache=cache, workers=2)  # of sound alone
    assert made.extracted == 2 and len(made.failures) == 1


def test_a_progress_bar_is_drawn_on_stderr_alone(tmp_path, cache, capsys):
    root = make_folder(tmp_path / "clips", "a")
    prepare_folder(root, tmp_path / "out", VOICE, cache=cache, workers=1, show_progress=True)
    shown = capsys.readouterr()
    assert "Extracting features" in shown.err and shown.out == ""


def test_real_clips_with_a_broken_file_among_them(clips, face_model, tmp_path, cache):
    root = tmp_path / "clips"
    (root / "Raw" / "v").mkdir(parents=True)
    names = ["smile_short.mp4", "no_audio_face.mp4", "speech_only.flac", "README.md"]
    for number, name in enumerate(names):
        suffix = ".mp4" if name == "README.md" else Path(name).suffix
        (root / "Raw" / "v" / f"{number}{suffix}").write_bytes((clips / name).read_bytes())
    lines = [f"v,{n},words {n},{n - 1},{mode}" for n, mode in enumerate(("train", "train", "valid", "test"))]
    (root / "label.csv").write_text("video_id,clip_id,text,label,mode\n" + "\n".join(lines) + "\n")
    prepared = prepare_folder(root, tmp_path / "out", cache=cache, workers=1)
    assert prepared.rows == {"train": 2, "valid": 1}
    assert [failure.id for failure in prepared.failures] == ["v$_$3"]
    shapes = [np.asarray(row["vision"]).shape for row in prepared.dataset["train"]]
    assert shapes == [(24, 58), (31, 58)]
    assert len(prepared.dataset["train"][1]["audio"]) == len(prepared.dataset["valid"][0]["vision"]) == 0
    assert prepared.dataset["train"].features["audio"].shape == (None, 25)


def test_a_cache_that_cannot_be_written_refuses_nothing(tmp_path, monkeypatch):
    (tmp_path / "home").write_text("no folder")
    monkeypatch.setenv("DEEPMLF_CACHE", str(tmp_path / "home" / "cache"))
    root = make_folder(tmp_path / "clips", "a")
    prepared = prepare_folder(root, tmp_path / "out", VOICE, workers=1)
    assert sum(prepared.rows.values()) == 1
    assert any("are not kept" in note for note in prepared.notes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips", "home", "out"]


def test_where_no_clip_can_be_used_the_reasons_overwrite_nothing(tmp_path, cache):
    root = make_folder(tmp_path / "clips", "a")
    prepare_folder(root, tmp_path / "out", VOICE, cache=cache)
    (tmp_path / "out.failed").mkdir()
    (tmp_path / "out.failed" / "thesis.tex").write_text("mine")
    for clip in root.glob("*.wav"):
        clip.write_bytes(b"no sound")
    with pytest.raises(DeepMLFError, match=r"out.failed-2"):
        prepare_folder(root, tmp_path / "out", VOICE, cache=cache)
    assert (tmp_path / "out" / "dataset_dict.json").is_file()
    assert [path.name for path in (tmp_path / "out.failed").iterdir()] == ["thesis.tex"]
