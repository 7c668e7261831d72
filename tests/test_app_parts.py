"""The app without its page: what is taken, what a session forgets, reasons, live mode, what is shown."""

import base64
import csv
import io
import json
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from app_fixtures import tiny_run
from clips_made import make_clip, voice
from test_predict import features

from deepmlf_kit import Predictor
from deepmlf_kit.app import views
from deepmlf_kit.app.answering import read_clip
from deepmlf_kit.app.downloads import write_files
from deepmlf_kit.app.examples import FOLDER, examples
from deepmlf_kit.app.live import LiveSession, LiveState, merged_words
from deepmlf_kit.app.reasons import find_reasons, strongest
from deepmlf_kit.app.sessions import Sessions
from deepmlf_kit.app.settings import Settings
from deepmlf_kit.app.timeline import live_curve, timeline
from deepmlf_kit.app.uploads import UploadRefused, check_upload
from deepmlf_kit.features.media import probe
from deepmlf_kit.workers.cancel import Cancelled


def look(path):
    return probe(path, None)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    return Predictor(tiny_run(tmp_path_factory.mktemp("app")), device="cpu")


@pytest.fixture(scope="module")
def reasons(predictor):
    return find_reasons(predictor, features(), predictor.recipe, "what a lovely day")


# What is taken -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mov", "clip.wav", "clip.flac", "clip.mp3", "clip.webm"])
def test_every_named_kind_of_clip_is_taken(tmp_path, name):
    codecs = {"wav": "pcm_s16le", "flac": "flac", "mp3": "mp3", "webm": "libopus"}
    suffix = name.split(".")[1]
    video = {"mp4": "mpeg4", "mov": "mpeg4", "webm": "libvpx"}.get(suffix)
    rate = 48000 if suffix == "webm" else 16000
    path = make_clip(tmp_path / name, 0.5, video=video, audio=codecs.get(suffix, "aac"), rate=rate)
    assert check_upload(path, Settings(), look).has_audio


def test_a_file_is_judged_by_its_content_not_its_name(tmp_path):
    good = make_clip(tmp_path / "clip.mp4", 0.5)
    disguised = good.rename(tmp_path / "notes.txt")
    assert check_upload(disguised, Settings(), look).has_video
    text = tmp_path / "clip.mp4"
    text.write_text("I am no clip.\n" * 50)
    with pytest.raises(UploadRefused, match=r"no clip: found text.*Give a video"):
        check_upload(text, Settings(), look)


@pytest.mark.parametrize("name", ["clip.avi", "clip.MTS", "clip.3gp", "clip"])
def test_whatever_can_be_read_is_taken_whatever_its_ending(tmp_path, name):
    made = make_clip(tmp_path / {"clip.MTS": "a.ts", "clip": "a.mkv"}.get(name, f"a.{name[-3:]}"), 0.5)
    assert check_upload(made.rename(tmp_path / name), Settings(), look).has_video


def test_empty_truncated_long_and_large_files_are_refused_with_what_to_do(tmp_path):
    empty = tmp_path / "empty.mp4"
    empty.touch()
    with pytest.raises(UploadRefused, match="empty"):
        check_upload(empty, Settings(), look)
    whole = make_clip(tmp_path / "whole.mp4", 2.0)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(UploadRefused, match="damaged or incomplete"):
        check_upload(cut, Settings(), look)
    with pytest.raises(UploadRefused, match=r"lasts 2 s; at most 1 s.*Cut out"):
        check_upload(whole, Settings(max_seconds=1), look)
    with pytest.raises(UploadRefused, match="MB"):
        check_upload(whole, Settings(max_megabytes=0), look)
    with pytest.raises(UploadRefused, match="no longer there"):
        check_upload(tmp_path / "gone.mp4", Settings(), look)


def test_a_refusal_names_no_path_of_the_server(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_text("text")
    with pytest.raises(UploadRefused) as refused:
        check_upload(path, Settings(), look)
    assert str(tmp_path) not in str(refused.value)


# Sessions ----------------------------------------------------------------------------------------------------


def test_closing_a_session_deletes_its_files_and_no_others(tmp_path):
    sessions = Sessions(tmp_path)
    mine, yours = sessions.get("mine"), sessions.get("yours")
    alone, both = tmp_path / "a" / "alone.mp4", tmp_path / "b" / "both.mp4"
    for path in (alone, both):
        path.parent.mkdir()
        path.write_bytes(b"clip")
    sessions.add_upload(mine, alone)
    for session in (mine, yours):
        sessions.add_upload(session, both)
    (mine.folder / "answer.json").write_text("{}")
    sessions.close("mine")
    assert not alone.exists() and not alone.parent.exists() and not mine.folder.exists()
    assert both.exists() and yours.folder.exists()
    sessions.close("yours")
    assert not both.exists() and len(sessions) == 0


def test_files_outside_the_app_are_never_deleted(tmp_path):
    sessions = Sessions(tmp_path / "app")
    example = tmp_path / "example.mp4"
    example.write_bytes(b"clip")
    sessions.add_upload(sessions.get("a"), example)
    sessions.close("a")
    assert example.exists()


def test_an_idle_session_is_closed_when_another_comes(tmp_path):
    sessions = Sessions(tmp_path, idle_seconds=0.05)
    first = sessions.get("first")
    time.sleep(0.1)
    sessions.get("second")
    assert sessions.find("first") is None and not first.folder.exists()


def kept(session, ticket, name):
    return session.keep(ticket, Path(name), f"features {name}", f"prediction {name}", f"reasons {name}")


def test_the_newest_request_wins_and_the_older_is_stopped_and_dropped(tmp_path):
    session = Sessions(tmp_path).get("a")
    first = session.begin()
    second = session.begin()
    assert (first.number, second.number) == (1, 2)
    assert first.cancelled and not second.cancelled
    assert kept(session, second, "new") and not kept(session, first, "old")
    assert (session.clip, session.prediction) == (Path("new"), "prediction new")
    third = session.begin()  # whatever it comes to: the answer of before is there until then
    third.cancel()
    assert not kept(session, third, "cancelled") and session.prediction == "prediction new"


def test_another_clip_and_a_closed_tab_stop_the_request(tmp_path):
    sessions = Sessions(tmp_path)
    session = sessions.get("a")
    reading = session.begin()
    session.forget_clip()
    assert reading.cancelled and not kept(session, reading, "old") and session.features is None
    reading = session.begin()
    stopped = []
    with pytest.raises(Cancelled), reading.stopping(lambda: stopped.append("work")):
        sessions.close("a")
        raise OSError("what a killed process leaves")
    assert stopped == ["work"]
    with pytest.raises(Cancelled), reading.stopping(lambda: stopped.append("later")):
        raise AssertionError("should not begin")
    assert stopped == ["work"]


def test_closing_the_iterator_stops_the_extraction(predictor, tmp_path):
    class Extractor:
        stopped = threading.Event()

        def probe(self, path, cancel):
            return probe(path, None)

        def extract(self, path, recipe, *, progress, cancel, **more):
            with cancel.stopping(self.stopped.set):
                progress("voice", 0.5)
                self.stopped.wait(60)

    class Models:
        face_model = None
        predictor = type("Predictor", (), {"extractor": Extractor()})()

        def recipe(self):
            return predictor.recipe

    clip = make_clip(tmp_path / "clip.wav", 0.5, video=None, audio="pcm_s16le")
    steps = read_clip(Models(), Settings(), clip, "so it is")
    assert next(steps).stage == "voice"
    steps.close()
    assert Extractor.stopped.wait(30)


def test_a_request_without_a_tab_is_refused(tmp_path):
    with pytest.raises(ValueError):
        Sessions(tmp_path).get(None)


# Reasons, figures, files -------------------------------------------------------------------------------------


def test_reasons_are_the_changes_of_the_prediction(predictor, reasons):
    clip = features()
    whole = predictor.features(clip, "what a lovely day").sentiment
    silent = predictor.features(clip, "what a lovely day", audio=False).sentiment
    effect = {entry["name"]: entry["effect"] for entry in reasons.modalities}
    assert effect["voice"] == pytest.approx(whole - silent, abs=1e-4)
    without = predictor.features(clip, "what a day").sentiment
    effect = {entry["name"]: entry["effect"] for entry in reasons.words}
    assert effect["lovely"] == pytest.approx(whole - without, abs=1e-4)
    assert len(reasons.tokens) == predictor.model.config.fusion_tokens


def test_moments_cover_the_clip(reasons):
    assert reasons.moments[0]["start"] == pytest.approx(0.0, abs=0.15)
    assert reasons.moments[-1]["end"] == pytest.approx(2.0, abs=0.15)
    for before, after in zip(reasons.moments, reasons.moments[1:], strict=False):
        assert before["end"] == pytest.approx(after["start"], abs=0.01)


def test_the_strongest_come_first():
    entries = [{"effect": value} for value in (0.1, -0.5, 0.3)]
    assert [e["effect"] for e in strongest(entries, 2)] == [-0.5, 0.3]


def test_without_voice_and_face_only_words_are_reasons(predictor):
    found = find_reasons(predictor, features(), predictor.recipe, "a lovely day", audio=False, vision=False)
    assert not found.has_av and not found.moments and not found.tokens
    assert [entry["name"] for entry in found.modalities] == ["words"]


def test_the_timeline_has_attention_words_voice_and_face(reasons):
    figure = timeline(reasons)
    names = {trace.name for trace in figure.data if trace.name}
    assert {"loudness", "smile"} <= names
    assert any(trace.type == "heatmap" for trace in figure.data)
    assert figure.layout.title.text


def test_the_tables_can_be_read_back(predictor, reasons, tmp_path):
    clip = features()
    prediction = predictor.features(clip, "what a lovely day")
    answer, effects, frames = write_files(tmp_path, prediction, reasons, clip, predictor.recipe)
    told = json.loads(answer.read_text())
    assert told["sentiment"] == prediction.sentiment and told["effects"]["words"] == reasons.words
    assert np.shape(told["attention"]["fusion_tokens"]) == (3, 8)
    rows = list(csv.DictReader(effects.open()))
    assert {row["kind"] for row in rows} == {"words", "moments", "tokens", "modalities"}
    rows = list(csv.DictReader(frames.open()))
    assert sum(row["stream"] == "audio" for row in rows) == 200
    smiles = [float(row["mouthSmileLeft"]) for row in rows if row["stream"] == "vision"]
    assert len(smiles) == 20 and smiles[0] != 0


# What is shown -----------------------------------------------------------------------------------------------


def test_text_from_outside_is_escaped_everywhere(predictor, reasons):
    evil = "<img src=x onerror=alert(1)>"
    prediction = replace(predictor.features(features()), notes=[evil], polarity=evil)
    found = replace(reasons, words=[{"name": evil, "effect": 1.0, "start": None, "end": None}])
    state = LiveState(words=[{"word": evil, "start": 0, "end": 1}], ended=evil, prediction=prediction)
    for html in (
        views.answer(prediction),
        views.reasons(found),
        views.problem(evil),
        views.live_answer(state),
    ):
        assert "<img" not in html and "&lt;img" in html


def test_an_answer_says_what_it_was_before(predictor):
    html = views.answer(predictor.features(features()), changed=1.234)
    assert "was +1.23" in html


def test_steps_say_which_is_under_way_and_which_is_not_needed():
    html = views.steps({"open": 0.1}, "voice", 0.4, {"transcript"})
    assert 'aria-current="step"' in html and "40%" in html and "not needed" in html


# Examples ----------------------------------------------------------------------------------------------------


def test_three_small_examples_come_with_the_kit():
    found = examples()
    assert len(found) == 3
    for example in found:
        assert example.path.stat().st_size < 300_000
        info = check_upload(example.path, Settings(), look)
        assert info.has_video and info.has_audio and 2 <= info.seconds <= 5
        assert " ".join(word["word"] for word in example.words) == example.text.rstrip(".").lower().replace(
            "i really", "I really"
        )


def test_examples_show_the_face_that_they_were_drawn_from(face_model):
    from deepmlf_kit.features import FeatureRecipe, extract_clip, feature_names

    names = feature_names(FeatureRecipe())[1]
    smile, brows = names.index("mouthSmileLeft"), names.index("browDownLeft")
    seen = {
        name: extract_clip(FOLDER / f"{name}.mp4", FeatureRecipe(), text="")
        for name in ("praise", "complaint")
    }
    for clip in seen.values():
        assert clip.found.face_share > 0.9 and clip.found.voiced_share > 0.3
    means = {name: clip.vision.mean(axis=0) for name, clip in seen.items()}
    assert means["praise"][smile] > means["complaint"][smile] + 0.3
    assert means["complaint"][brows] > means["praise"][brows] + 0.05


# Live --------------------------------------------------------------------------------------------------------


def packet(start: float, seconds: float, picture: bytes = b"", fps: float = 10.0) -> dict:
    """What the browser sends for a stretch of time."""
    sound = (voice(seconds) * 32767).astype("<i2").tobytes()
    frames = [
        [start + n / fps, base64.b64encode(picture).decode()]
        for n in range(round(seconds * fps) if picture else 0)
    ]
    return {"sound": base64.b64encode(sound).decode(), "sound_end": start + seconds, "frames": frames}


@pytest.fixture
def live(predictor):
    recipe = replace(predictor.recipe, transcribe=False, vision="none")
    session = LiveSession(predictor, recipe, Settings(), text="what a lovely day")
    yield session
    session.stop()
    session.thread.join(5)


def wait_for(live: LiveSession, wanted, seconds: float = 20.0) -> LiveState:
    found: list[LiveState] = []

    def watch() -> None:
        for state in live.states():
            if wanted(state):
                found.append(state)
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    thread.join(seconds)
    assert found, "the state did not come"
    return found[0]


def test_live_answers_every_two_seconds_about_the_last_six(live, predictor):
    for start in range(0, 8):
        assert live.push(packet(start, 1.0)) == {"go": True}
        if start % 2 == 1:
            state = wait_for(live, lambda state, n=(start + 1) // 2: state.answers >= n)
    assert state.answers == 4
    assert [round(t) for t, _ in state.points] == [2, 4, 6, 8]
    assert state.prediction.clip["seconds"] == pytest.approx(6.0, abs=0.1)
    assert state.prediction.text == "what a lovely day"


def test_live_skips_what_it_cannot_do_in_time(live):
    for start in range(0, 30):  # half a minute at once: it answers about the newest, not fifteen times
        live.push(packet(start, 1.0))
    state = wait_for(live, lambda state: state.answers and state.points[-1][0] > 25)
    assert state.answers <= 3


def test_live_drops_pictures_rather_than_keeping_them(live):
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (32, 24)).save(buffer, "JPEG")
    with live._changed:  # its thread cannot look meanwhile
        live.push(packet(0, 6.0, buffer.getvalue()))
        assert len(live._pending) == 20 and live._state.dropped == 40


def test_live_stops_at_once_and_takes_nothing_more(live):
    live.push(packet(0, 1.0))
    live.stop("The tab was closed.")
    assert live.push(packet(1, 1.0)) == {"go": False}
    live.thread.join(5)
    assert not live.thread.is_alive()
    assert [state.ended for state in live.states()] == ["The tab was closed."]


def test_live_ends_by_itself_when_nothing_comes(live, monkeypatch):
    monkeypatch.setattr("deepmlf_kit.app.live._PACKET_TIMEOUT", 0.2)
    state = wait_for(live, lambda state: state.ended)
    assert "nothing came" in state.ended


def test_damaged_pictures_are_dropped_and_counted(live):
    class Tracker:
        def row(self, frame):
            raise AssertionError("no picture should reach the tracker")

    live._look(Tracker(), 0.0, b"not a jpeg")
    assert live._state.dropped == 1


def test_words_of_overlapping_windows_are_not_said_twice():
    def words(*said):
        return [{"word": word, "start": start, "end": start + 0.3} for word, start in said]

    first = merged_words([], words(("I", 0.2), ("was", 0.6), ("there", 1.0), ("tod", 1.8)), 0.0)
    second = merged_words(first, words(("there", 1.05), ("today", 1.8), ("with", 2.4)), 0.0)
    assert [w["word"] for w in second] == ["there", "today", "with"]
    later = merged_words(
        words(("I", 0.2), ("was", 0.6), ("there", 1.2), ("today", 3.1)),
        words(("ere", 1.4), ("today", 3.15), ("with", 3.6)),
        1.3,
    )
    assert [w["word"] for w in later] == ["I", "was", "there", "today", "with"]


def test_the_live_curve_keeps_a_minute():
    figure = live_curve([(float(t), 0.1) for t in range(0, 200, 2)], [], 3.0)
    curve = next(trace for trace in figure.data if trace.name == "Sentiment")
    assert min(curve.x) >= 138 and max(curve.x) == 198
