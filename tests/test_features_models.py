"""Models that features need: where they are looked for, and what is said when they are not at hand."""

import dataclasses
import io
import os
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
from clips_made import make_clip, voice
from made_wheels import model_file

from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.features import (
    FaceModelMissing,
    FeatureRecipe,
    SpeechModelMissing,
    extract_clip,
    face_model,
    transcript,
)
from deepmlf_kit.features.face_model import find_face_model
from deepmlf_kit.features.quiet import without_startup_logs
from deepmlf_kit.features.transcript import transcribe
from deepmlf_kit.features.vision_blendshapes import FaceTracker


@pytest.fixture
def download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Sets what the download answers; the cache is empty and no model is named."""
    monkeypatch.delenv("DEEPMLF_FACE_MODEL", raising=False)
    monkeypatch.setenv("DEEPMLF_CACHE", str(tmp_path / "cache"))
    asked = []

    def answers(content: bytes | Exception) -> list[str]:
        def opened(request, timeout):
            asked.append(request.full_url)
            if isinstance(content, Exception):
                raise content
            return io.BytesIO(content)

        monkeypatch.setattr(urllib.request, "urlopen", opened)
        return asked

    return answers


def test_the_face_model_is_downloaded_once_and_checked(download, monkeypatch, tmp_path):
    content = b"a face model"
    file = model_file("face_landmarker.task", content)
    monkeypatch.setattr(face_model, "FACE_MODEL", dataclasses.replace(face_model.FACE_MODEL, files=[file]))
    asked = download(content)
    first = find_face_model()
    assert first.read_bytes() == content
    assert first.is_relative_to(tmp_path / "cache")
    assert find_face_model() == first
    assert asked == [face_model.FACE_MODEL_URL]
    first.write_bytes(b"damaged")
    assert find_face_model().read_bytes() == content
    assert len(asked) == 2


def test_a_download_with_another_checksum_is_not_kept(download, tmp_path):
    download(bytes(face_model.FACE_MODEL.size))
    with pytest.raises(FaceModelMissing, match="checksum"):
        find_face_model()
    found = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert {path.suffix for path in found} <= {".lock"}


def test_without_a_network_both_ways_are_said(download):
    download(OSError("Name or service not known"))
    with pytest.raises(FaceModelMissing) as missing:
        find_face_model()
    assert "connect this machine" in str(missing.value)
    assert "DEEPMLF_FACE_MODEL" in str(missing.value)


def test_a_given_face_model_is_taken_before_anything_else(download, monkeypatch, tmp_path):
    asked = download(b"")
    named, other = tmp_path / "named.task", tmp_path / "environment.task"
    for path in (named, other):
        path.write_bytes(b"PK\5\6" + bytes(18))  # an empty archive
    monkeypatch.setenv("DEEPMLF_FACE_MODEL", str(other))
    assert find_face_model(named) == named
    assert find_face_model() == other
    assert not asked
    monkeypatch.setenv("DEEPMLF_FACE_MODEL", str(tmp_path / "gone.task"))
    with pytest.raises(FaceModelMissing, match=r"gone\.task \(given by DEEPMLF_FACE_MODEL\)"):
        find_face_model()
    (tmp_path / "gone.task").write_text("no model")
    with pytest.raises(
        FaceModelMissing, match=r"gone\.task \(given by DEEPMLF_FACE_MODEL\) is no Face Landmarker"
    ):
        find_face_model()


def test_a_file_that_is_no_face_model_is_named(tmp_path):
    (tmp_path / "face.task").write_bytes(b"no model")
    with pytest.raises(DeepMLFError, match="is no Face Landmarker model"):
        FaceTracker(tmp_path / "face.task")


def test_a_missing_speech_model_says_what_to_do_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    stages = []
    clip = make_clip(tmp_path / "clip.mp4", 1.0)
    recipe = FeatureRecipe(vision="none", speech_model="nobody/nothing")
    with pytest.raises(SpeechModelMissing) as missing:
        extract_clip(clip, recipe, progress=lambda stage, share: stages.append(stage))
    for way in ("--text", "DEEPMLF_SPEECH_MODEL", "network"):
        assert way in str(missing.value)
    assert "\n" not in str(missing.value)
    assert set(stages) == {"open"}


def test_an_unknown_size_of_speech_model_names_the_sizes(tmp_path):
    with pytest.raises(SpeechModelMissing, match=r"tiny\.en"):
        transcribe(voice(1.0), model="gigantic")


def test_a_word_repeated_over_humming_is_no_transcript_and_costs_little(monkeypatch):
    """Whisper repeats a word until no more tokens are allowed; one that somebody repeats is kept."""

    def heard(word, end, **more):
        words = [SimpleNamespace(word=word, start=0.0, end=0.5)]
        return SimpleNamespace(text=word, words=words, end=end, avg_logprob=-0.2, **more)

    class Whisper:
        supported_languages = ("en", "hi")

        def transcribe(self, samples, **options):
            allowed.append(options["max_new_tokens"])
            looped = heard(" Right.", 2.0, compression_ratio=22.0, no_speech_prob=0.54)
            repeated = heard(" no no no", 4.0, compression_ratio=2.5, no_speech_prob=0.01)
            said = heard(" It is.", 6.0, compression_ratio=1.2, no_speech_prob=0.6)
            tail = heard(" I'm sorry.", 7.5, compression_ratio=5.0, no_speech_prob=0.8)

            def segments():
                yield from (looped, repeated, said, tail)
                asked.append("for the last half second")

            return segments(), SimpleNamespace(language=options["language"])

    allowed: list[int] = []
    asked: list[str] = []
    monkeypatch.setattr(transcript, "load_speech_model", lambda name: Whisper())
    found = transcript.transcribe(voice(8.0), language="en")
    assert found.text == "no no no It is." and len(found.words) == 2 and not asked
    transcript.transcribe(voice(8.0), language="hi")
    transcript.transcribe(voice(2.0), language="en")
    transcript.transcribe(voice(40.0), language="en")
    assert allowed == [112, 224, 40, 224]


def test_startup_logs_are_held_back_and_everything_else_is_passed_on(capfd):
    with without_startup_logs():
        os.write(2, b"W0000 00:00:1.0 1 graph.cc:1] Sets something\n")
        os.write(2, b"a real warning\n")
        with without_startup_logs():
            print("from Python", file=sys.__stderr__, flush=True)
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "a real warning\nfrom Python\nafterwards\n"


def test_the_quiet_stderr_is_given_back_after_an_error(capfd):
    with pytest.raises(ZeroDivisionError), without_startup_logs():
        raise ZeroDivisionError
    os.write(2, b"still here\n")
    assert capfd.readouterr().err == "still here\n"


def test_where_no_download_is_wanted_none_is_tried(download):
    asked = download(b"")
    with pytest.raises(FaceModelMissing, match="not to be downloaded"):
        find_face_model(download=False)
    assert asked == []
