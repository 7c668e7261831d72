"""`predict` and the app extract in processes of their own: warm, equal to the call, and lost without harm."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from clips_made import make_clip

from deepmlf_kit.data import extraction_process
from deepmlf_kit.data.extraction_process import ClipExtractor, ExtractionProcess, LostClip
from deepmlf_kit.data.folder import prepare_folder
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.features import ClipError, FaceModelMissing, FeatureCache, FeatureRecipe, extract_clip
from deepmlf_kit.features.clip import ClipFeatures
from deepmlf_kit.workers.cancel import Cancelled, CancelToken

VOICE = FeatureRecipe(vision="none", transcribe=False)


@pytest.fixture
def extractor():
    made = ClipExtractor(timeout=60)
    yield made
    made.close()


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch):
    """Workers that fail by the name of the clip, see `faulty_worker`."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setattr(extraction_process, "WORKER", "faulty_worker")


def test_features_come_back_whole_and_the_process_stays(
    tmp_path: Path, extractor: ClipExtractor, monkeypatch
):
    path = make_clip(tmp_path / "clip.wav", 1.0, video=None, audio="pcm_s16le")
    monkeypatch.chdir(tmp_path)
    stages = []
    made = extractor.extract(
        "clip.wav", VOICE, text="so it is", progress=lambda stage, share: stages.append(stage)
    )
    expected = extract_clip(path, VOICE, text="so it is")
    assert (made.text, made.text_source, made.found) == ("so it is", "given", expected.found)
    for name in ("audio", "audio_times", "vision", "vision_times"):
        np.testing.assert_array_equal(getattr(made, name), getattr(expected, name))
    assert "voice" in stages
    first = extractor._idle[0][1].process
    assert extractor.probe(path).seconds == pytest.approx(1.0, abs=0.01)
    assert extractor._idle[0][1].process is first


def test_features_are_saved_and_loaded(tmp_path: Path):
    made = extract_clip(
        make_clip(tmp_path / "clip.wav", 0.5, video=None, audio="pcm_s16le"), VOICE, text="né"
    )
    made.save(tmp_path / "features.npz")
    again = ClipFeatures.load(tmp_path / "features.npz")
    assert (again.text, again.words, again.found, again.timings) == ("né", [], made.found, made.timings)
    np.testing.assert_array_equal(again.audio, made.audio)


def test_errors_keep_their_kind_and_name_the_path_as_given(
    tmp_path: Path, extractor: ClipExtractor, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("letter.mp4").write_text("dear reader\n" * 50)
    with pytest.raises(ClipError, match=r"^letter\.mp4: found text"):
        extractor.extract("letter.mp4", VOICE)
    make_clip(Path("clip.mp4"), 0.4)
    with pytest.raises(FaceModelMissing, match="no file at"):
        extractor.extract(
            "clip.mp4", FeatureRecipe(transcribe=False), text="", face_model=tmp_path / "none.task"
        )


def test_a_clip_that_crashes_its_process_is_one_clear_line(tmp_path: Path, extractor: ClipExtractor, faulty):
    for name in ("crashes.wav", "good.wav"):
        make_clip(tmp_path / name, 0.5, video=None, audio="pcm_s16le")
    with pytest.raises(LostClip, match="crashed the decoder") as lost:
        extractor.extract(tmp_path / "crashes.wav", VOICE, text="")
    assert "\n" not in str(lost.value)
    assert len(extractor.extract(tmp_path / "good.wav", VOICE, text="").audio) > 10


def test_cancelling_ends_the_process_and_the_next_clip_is_extracted(
    tmp_path: Path, extractor: ClipExtractor, faulty
):
    for name in ("hangs.wav", "good.wav"):
        make_clip(tmp_path / name, 0.5, video=None, audio="pcm_s16le")
    token, processes = CancelToken(), []
    real = ExtractionProcess.ask

    def ask(process: ExtractionProcess, *job):
        processes.append(process)
        threading.Timer(0.5, token.cancel).start()
        return real(process, *job)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Cancelled):
        patch.setattr(ExtractionProcess, "ask", ask)
        extractor.extract(tmp_path / "hangs.wav", VOICE, text="", cancel=token)
    assert not processes[0].process.running
    with pytest.raises(Cancelled):  # before it has begun
        extractor.extract(tmp_path / "good.wav", VOICE, text="", cancel=token)
    assert len(extractor.extract(tmp_path / "good.wav", VOICE, text="", cancel=CancelToken()).audio) > 10


def folder_of(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):  # of different contents, as the cache goes by them
        make_clip(root / f"{name}.wav", 0.5 + number / 10, video=None, audio="pcm_s16le")
    lines = [f"{name}.wav,hello,1,train" for name in names]
    (root / "label.csv").write_text("\n".join(["path,text,label,split", *lines]) + "\n")
    return root


def test_a_lost_clip_is_not_tried_anew_each_time_and_that_is_said(tmp_path: Path, faulty):
    root, cache = folder_of(tmp_path / "clips", "good", "crashes"), FeatureCache(tmp_path / "cache")
    first = prepare_folder(root, tmp_path / "one", VOICE, cache=cache, workers=1)
    assert [failure.id for failure in first.failures] == ["crashes"]
    extraction_process.WORKER = "no_such_module"  # would be needed if it were tried again
    second = prepare_folder(root, tmp_path / "two", VOICE, cache=cache, workers=1)
    assert second.rows == {"train": 1}
    assert "crashed the decoder" in second.failures[0].reason
    assert "earlier run" in second.failures[0].reason and "--retry" in second.failures[0].reason
    extraction_process.WORKER = "deepmlf_kit.data.extraction_worker"  # whatever crashed it, it is mended
    third = prepare_folder(root, tmp_path / "three", VOICE, cache=cache, workers=1, retry=True)
    assert third.rows == {"train": 2} and not third.failures


def test_a_worker_that_was_killed_for_memory_is_not_the_clips_fault(tmp_path: Path, faulty):
    root, cache = (
        folder_of(tmp_path / "clips", "good", "killed_once", "killed_always"),
        FeatureCache(tmp_path / "cache"),
    )
    prepared = prepare_folder(root, tmp_path / "out", VOICE, cache=cache, workers=1)
    assert prepared.rows == {"train": 2}
    assert [failure.id for failure in prepared.failures] == ["killed_always"]
    assert "memory" in prepared.failures[0].reason and "--workers 1" in prepared.failures[0].reason
    assert not list(cache.folder.rglob("lost-*"))


def test_without_a_face_model_the_face_is_left_out_and_said(tmp_path: Path, monkeypatch):
    """Offline and with nothing fetched, as a newcomer's first `predict` may be; a model that was named is asked for."""
    path = make_clip(tmp_path / "good.wav", 1.0, video=None, audio="pcm_s16le")
    monkeypatch.setenv("DEEPMLF_CACHE", str(tmp_path / "empty"))
    monkeypatch.delenv("DEEPMLF_FACE_MODEL", raising=False)
    asked = []

    def extract(self, path, recipe, *, face_model=None, **others):
        asked.append((face_model, recipe.vision))
        if recipe.vision != "none":
            raise FaceModelMissing("none to be had")
        return extract_clip(path, VOICE, text="")

    monkeypatch.setattr(ClipExtractor, "extract", extract)
    features = ClipExtractor().extract_at_hand(path, FeatureRecipe())
    assert asked == [(None, "blendshapes"), (None, "none")]
    assert any("the face is left out" in note for note in features.found.notes)
    with pytest.raises(FaceModelMissing):
        ClipExtractor().extract_at_hand(path, FeatureRecipe(), face_model="named.task")
    monkeypatch.setenv("DEEPMLF_FACE_MODEL", "named.task")
    with pytest.raises(FaceModelMissing):
        ClipExtractor().extract_at_hand(path, FeatureRecipe())


def test_a_clip_that_cannot_be_opened_is_a_failure_like_any_other(tmp_path: Path, monkeypatch):
    from deepmlf_kit.features import clip

    root, cache = folder_of(tmp_path / "clips", "good", "locked"), FeatureCache(tmp_path / "cache")
    real = clip.clip_hash

    def locked(path):
        if "locked" in str(path):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(clip, "clip_hash", locked)
    assert clip.is_cached(root / "locked.wav", VOICE, text="", cache=cache) is False
    with pytest.raises(ClipError, match=r"cannot be read \(Permission denied\)"):
        extract_clip(root / "locked.wav", VOICE, text="", cache=cache)
    (root / "locked.wav").unlink()
    (root / "locked.wav").mkdir()  # what nobody can open, whoever runs the tests
    prepared = prepare_folder(root, tmp_path / "out", VOICE, cache=cache, workers=1)
    assert prepared.rows == {"train": 1} and len(prepared.failures) == 1


def damage_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_flips(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    for place in range(40, len(raw) - 200, 7):
        raw[place] ^= 0xFF
    path.write_bytes(raw)


def damage_other(path: Path) -> None:
    np.savez(path, notes=np.frombuffer(b"[1, 2]", np.uint8), features=np.zeros(3), times=np.zeros((2, 2)))


def damage_shape(path: Path) -> None:
    notes = np.frombuffer(b'{"share": 1.0, "notes": [], "seconds": 1}', np.uint8)
    np.savez(path, notes=notes, features=np.zeros((3, 25)), times=np.zeros(2))


@pytest.mark.parametrize("damage", [damage_half, damage_flips, damage_other, damage_shape])
def test_damaged_cache_entries_are_made_anew(tmp_path: Path, damage):
    root, cache = folder_of(tmp_path / "clips", "a", "b"), FeatureCache(tmp_path / "cache")
    whole = prepare_folder(root, tmp_path / "one", VOICE, cache=cache, workers=1)
    entries = list(cache.folder.rglob("*.npz"))
    assert len(entries) == 4
    for entry in entries:
        damage(entry)
    again = prepare_folder(root, tmp_path / "two", VOICE, cache=cache, workers=1)
    assert again.rows == whole.rows == {"train": 2} and not again.failures
    np.testing.assert_array_equal(again.dataset["train"]["audio"][0], whole.dataset["train"]["audio"][0])


def test_workers_import_nothing_from_the_current_folder(tmp_path: Path):
    (tmp_path / "json.py").write_text("raise SystemExit('imported from the current folder')")
    code = (
        "from deepmlf_kit.data.extraction_process import ClipExtractor\n"
        "import sys\n"
        "try: ClipExtractor().probe('nothing.mp4')\n"
        "except Exception as error: print(error)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert "found no such file" in answer.stdout, answer.stdout + answer.stderr


def test_an_error_that_nobody_foresaw_is_one_line(tmp_path: Path, extractor: ClipExtractor, faulty):
    path = make_clip(tmp_path / "surprises.wav", 0.5, video=None, audio="pcm_s16le")
    with pytest.raises(DeepMLFError, match=r"could not be processed \(RecursionError: line one line two"):
        extractor.extract(path, VOICE, text="")
