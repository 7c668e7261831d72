"""The app without its page: what is taken, what a session forgets, reasons, live mode, what is shown."""

import base64
import csv
import io
import json
import shutil
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from app_fixtures import tiny_run
from clips_made import make_clip, voice
from test_predict import features

from deepmlf_kit import Predictor
from deepmlf_kit.app import views
from deepmlf_kit.app.answering import Answer, _checked, answer_example, answers, face_boxes, read_clip
from deepmlf_kit.app.downloads import write_files, write_page
from deepmlf_kit.app.examples import FOLDER, examples, forms, shown_examples
from deepmlf_kit.app.kept import kept_answers
from deepmlf_kit.app.live import LiveSession, LiveState, merged_words
from deepmlf_kit.app.models import Models
from deepmlf_kit.app.reasons import find_reasons, grouped_tokens, strongest
from deepmlf_kit.app.sessions import Sessions
from deepmlf_kit.app.settings import Settings
from deepmlf_kit.app.streams import Said, Streams, take_apart
from deepmlf_kit.app.timeline import live_curve, timeline, timeline_said
from deepmlf_kit.app.uploads import UploadRefused, check_upload
from deepmlf_kit.features.media import MediaInfo, probe
from deepmlf_kit.predict.bundled import PEOPLE
from deepmlf_kit.workers.cancel import Cancelled, CancelToken


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


def test_what_the_first_part_has_read_is_timed_in_the_answer(predictor, tmp_path):
    """Voice and words are read before the face, and then come from the cache: they are no steps that were not needed."""

    class Extractor:
        def probe(self, path, cancel):
            return probe(path, None)

        def extract(self, path, recipe, **more):
            timings = {"voice": 1.0, "transcript": 2.0} if recipe.vision == "none" else {"face": 3.0}
            return replace(features(), timings=timings)

    class Models:
        face_model = None

        def recipe(self):
            return predictor.recipe

    Models.predictor = SimpleNamespace(
        extractor=Extractor(),
        **{
            name: getattr(predictor, name)
            for name in ("row", "rows", "variants", "lock", "model", "collator")
        },
        **{name: getattr(predictor, name) for name in ("calibration", "scale", "recipe")},
    )
    clip = make_clip(tmp_path / "clip.mp4", 1.5)
    found = [item for item in read_clip(Models(), Settings(), clip, "so it is") if isinstance(item, Answer)]
    assert [answer.state for answer in found] == ["heard", "answered", "answered", "whole"]
    for answer in found[1:]:
        assert {"voice": 1.0, "transcript": 2.0, "face": 3.0}.items() <= answer.seconds.items()


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


def test_what_the_streams_add_makes_up_the_answer(predictor):
    clip = features()
    found = take_apart(predictor, clip, "what a lovely day")
    assert found.together.sentiment == pytest.approx(
        predictor.features(clip, "what a lovely day").sentiment, abs=1e-4
    )
    assert found.start + sum(found.adds.values()) == pytest.approx(found.together.sentiment, abs=1e-5)
    alone = predictor.features(clip, "what a lovely day", audio=False, vision=False).sentiment
    assert found.alone["text"].sentiment == pytest.approx(alone, abs=1e-4)
    silent = take_apart(predictor, clip, "", vision=False)
    assert silent.alone["text"] is silent.alone["vision"] is silent.adds["text"] is None
    assert silent.start + silent.adds["audio"] == pytest.approx(silent.together.sentiment, abs=1e-5)


def test_the_sum_ends_at_the_answer_that_is_shown(predictor, monkeypatch):
    """A bfloat16 LM answers a little differently in a larger batch; the page must not show two numbers for one answer."""
    rows = predictor.rows

    def uneven(batch, **more):
        found = rows(batch, **more)
        return found | {"task": found["task"] + 0.004 * len(batch)}

    monkeypatch.setattr(predictor, "rows", uneven)
    first = next(
        answers(SimpleNamespace(predictor=predictor), features(), predictor.recipe, "what a lovely day")
    )
    streams, shown = first.reasons.streams, first.prediction.sentiment
    assert streams.together.sentiment == shown
    assert streams.start + sum(streams.adds.values()) == pytest.approx(shown, abs=1e-6)


def test_the_answer_and_its_sum_come_first_from_one_pass(predictor, monkeypatch):
    passes = []
    forward = predictor.model.forward

    def counted(**batch):
        passes.append(len(batch["input_ids"]))
        return forward(**batch)

    monkeypatch.setattr(predictor.model, "forward", counted)
    clip, text = features(), "what a lovely day"
    made = answers(SimpleNamespace(predictor=predictor), clip, predictor.recipe, text)
    first = next(made)
    assert passes == [8]  # every choice of words, voice and face
    assert [word["effect"] for word in first.reasons.words] == [None] * 4
    html = views.transcript(first.reasons.streams)
    assert "lovely: not measured yet" in html and "<small>…</small>" in html
    *_, whole = made
    assert whole.prediction == first.prediction
    assert sum(passes) == 8 + 5 + 1 + (1 + len(whole.reasons.moments)) + (1 + len(whole.reasons.tokens))
    found = {word["name"]: word["effect"] for word in whole.reasons.words}
    less = predictor.features(clip, "what a day").sentiment
    assert found["lovely"] == pytest.approx(first.prediction.sentiment - less, abs=1e-4)


def test_fusion_tokens_that_do_the_same_are_one_row():
    tokens = [{"name": f"token {n}", "effect": e, "says": 1.0} for n, e in enumerate((0.1, 0.11, 0.9, 0.09))]
    found = grouped_tokens(tokens, 3.0)
    assert [group["name"] for group in found] == ["tokens 1 to 2, 4", "token 3"]
    assert found[0]["effect"] == pytest.approx(0.1)


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
    heatmap = next(trace for trace in figure.data if trace.type == "heatmap")
    assert np.mean(heatmap.z) == pytest.approx(1.0, abs=0.01) and "times even" in heatmap.hovertemplate
    assert figure.layout.title.text
    assert "times as much as with equal attention" in timeline_said(reasons)


def test_words_at_unknown_times_are_marked(predictor):
    typed = find_reasons(predictor, features(), predictor.recipe, "typed by hand")
    drawn = next(trace for trace in timeline(typed).data if trace.mode == "text")
    assert list(drawn.text) == ["≈typed", "≈by", "≈hand"]
    assert any("not known" in axis.title.text for axis in timeline(typed).select_yaxes(row=2))
    silent = find_reasons(predictor, features(), predictor.recipe, "")
    assert not next(trace for trace in timeline(silent).data if trace.mode == "text").text


def overlapping(trace, span, letter=0.025):
    """Pairs of drawn words of a trace that share a place, where a letter takes that share of the picture."""
    drawn = [(x, y, w) for x, y, w in zip(trace.x, trace.y, trace.text, strict=True) if y is not None]
    return [
        (one, other)
        for n, (x, y, one) in enumerate(drawn)
        for x2, y2, other in drawn[n + 1 :]
        if y == y2 and abs(x - x2) < 0.999 * letter * span * (len(one) + len(other)) / 2
    ]


def test_words_of_the_live_curve_never_overlap():
    said = [
        {"word": "wonderful" if n % 3 else "a", "start": n * 0.2, "end": n * 0.2 + 0.2} for n in range(150)
    ]
    trace = next(trace for trace in live_curve([(29.0, 0.1)], said, 3.0).data if trace.mode == "text")
    assert not overlapping(trace, 30.0)
    assert sum(y is not None for y in trace.y) > 40


def test_words_of_the_timeline_never_overlap_and_stay_in_their_row(predictor):
    text = " ".join(["what a wonderful sunny day it is"] * 4)
    found = find_reasons(predictor, features(), predictor.recipe, text)
    figure = timeline(found)
    trace = next(trace for trace in figure.data if trace.mode == "text")
    steps = found.reading.steps
    assert not overlapping(trace, float(steps[-1] - steps[0]))
    row = next(figure.select_yaxes(row=2)).domain
    lanes = {y for y in trace.y if y is not None}
    inner = figure.layout.height - figure.layout.margin.t - figure.layout.margin.b
    assert (row[1] - row[0]) * inner / len(lanes) >= 12 and min(lanes) > 0 and max(lanes) < 1


def test_a_page_to_hand_on_works_without_a_network_and_holds_no_clip_unless_asked(
    predictor, reasons, tmp_path
):
    prediction = predictor.features(features(), "what a lovely day")
    page = write_page(tmp_path / "answer.html", prediction, reasons).read_text()
    assert "lovely" in page and "As a sum" in page and "<video" not in page
    assert "http://" not in page and "https://" not in page and "<script" not in page
    assert (
        "data:video/mp4;base64,"
        in write_page(tmp_path / "answer.html", prediction, reasons, examples()[0].path).read_text()
    )


def test_the_tables_can_be_read_back(predictor, reasons, tmp_path):
    clip = features()
    prediction = predictor.features(clip, "what a lovely day")
    answer, effects, frames = write_files(tmp_path, prediction, reasons, clip, predictor.recipe)
    told = json.loads(answer.read_text())
    assert told["sentiment"] == prediction.sentiment and told["effects"]["words"] == reasons.words
    assert np.shape(told["attention"]["fusion_tokens"]) == (3, 8)
    rows = list(csv.DictReader(effects.open()))
    assert told["streams"]["together"]["sentiment"] == pytest.approx(prediction.sentiment, abs=1e-4)
    assert {row["kind"] for row in rows} == {"words", "moments", "tokens", "modalities"}
    rows = list(csv.DictReader(frames.open()))
    assert sum(row["stream"] == "audio" for row in rows) == 200
    smiles = [float(row["mouthSmileLeft"]) for row in rows if row["stream"] == "vision"]
    assert len(smiles) == 20 and smiles[0] != 0


# What is shown -----------------------------------------------------------------------------------------------


def test_text_from_outside_is_escaped_everywhere(predictor, reasons):
    evil = "<img src=x onerror=alert(1)>"
    prediction = replace(predictor.features(features()), notes=[evil], polarity=evil)
    word = {"word": evil, "effect": 1.0, "start": None, "end": None}
    streams = replace(reasons.streams, text=evil, words=[word] * 3)
    found = replace(reasons, moments=[{"name": evil, "effect": 1.0, "start": None, "end": None}])
    state = LiveState(words=[{"word": evil, "start": 0, "end": 1}], ended=evil, prediction=prediction)
    for html in (
        views.answer(prediction, streams),
        views.answer(prediction, reasons.streams, held=streams),
        views.transcript(streams),
        views.transcript(streams, views.slots_given([{"word": evil, "off": True}])),
        views.reasons(found),
        views.problem(evil),
        views.live_answer(state),
    ):
        assert "<img" not in html and "&lt;img" in html


def test_an_answer_says_what_it_was_before(predictor, reasons):
    html = views.answer(predictor.features(features()), reasons.streams, changed=1.234)
    assert "was +1.23" in html


def calibrated(streams, zone=0.5):
    def sure(said):
        return said and replace(said, low=said.sentiment - 1, high=said.sentiment + 1, zone=zone)

    alone = {name: sure(said) for name, said in streams.alone.items()}
    return replace(streams, together=sure(streams.together), alone=alone)


def test_all_marks_of_the_chart_stand_on_one_scale():
    said = {"text": Said(1.5, 0.5, 2.5, 0.6), "audio": None, "vision": Said(-3.0, -3.0, -2.0, 0.6)}
    adds = {"text": 0.75, "audio": None, "vision": -1.5}
    html = views.chart(Streams(Said(-0.75, -1.75, 0.25, 0.6), said, adds, 0.0, {}))
    assert '<b class="text" style="left:75.0%">' in html and '<b class="vision" style="left:0.0%">' in html
    assert '<i class="bar text" style="left:50.0%;width:12.5%">' in html
    assert (
        '<i class="bar vision" style="left:37.5%;width:25.0%">' in html
    )  # begins where the words' bar ended
    assert html.count("<td>–</td>") == 2  # the voice, by itself and in the sum
    assert '<i class="zone" style="left:40.0%;width:20.0%">' in html and "I cannot tell" in html


def test_an_answer_too_near_to_0_is_none(predictor, reasons):
    prediction = replace(predictor.features(features()), certain=False, interval=(-1.0, 1.1), coverage=0.8)
    html = views.answer(prediction, calibrated(reasons.streams))
    assert "I cannot tell" in html and "-1.00 to +1.10" in html and "80%" in html
    assert "was not measured" in views.answer(replace(prediction, interval=None), reasons.streams)


def test_a_held_answer_is_compared_stream_by_stream(predictor, reasons):
    prediction = predictor.features(features())
    then = replace(reasons.streams, adds={"text": 1.0, "audio": None, "vision": 0.0}, text="it was good")
    now = replace(reasons.streams, adds={"text": -1.0, "audio": 0.5, "vision": 0.0})
    html = views.answer(prediction, now, held=then)
    assert 'class="ring"' in html and "words -2.00" in html and "it was good" in html
    assert "face" not in html.split("Against")[1].split("</p>")[0] and 'class="ring"' not in views.answer(
        prediction, now
    )


def test_words_can_be_dropped_replaced_and_put_back():
    slots = views.slots_of("Well, this was good.")
    assert [slot["word"] for slot in slots] == ["Well,", "this", "was", "good."]
    slots[3]["word"] = "really bad."
    slots[0]["off"] = True
    given = views.slots_given(slots)
    assert views.text_of(given) == "this was really bad." and len(given) == 5
    given[0]["off"] = False
    assert views.text_of(views.slots_given(given)) == "Well, this was really bad."
    assert views.slots_of("") == views.slots_given(None) == [] and views.slots_given([3, {"word": ""}]) == []


def test_a_dropped_word_stays_to_be_put_back(predictor):
    slots = views.slots_of("what a lovely day")
    slots[2]["off"] = True
    html = views.transcript(take_apart(predictor, features(), views.text_of(slots)), slots)
    assert html.count('data-n="') == 4 and "lovely: left out" in html


def test_examples_show_what_the_model_answers_to_them(predictor):
    shown = forms()
    said = replace(
        predictor.features(features()), sentiment=1.234, polarity="slightly positive", certain=None
    )
    html = views.cards(shown, {shown[0].name: said})
    assert "+1.23 slightly positive" in html and html.count("…</em>") == len(shown) - 1
    unsure = {shown[0].name: replace(said, certain=False)}
    assert "+1.23 I cannot tell" in views.cards(shown, unsure)


def test_steps_say_which_is_under_way_and_which_is_not_needed():
    html = views.steps({"open": 0.1}, "voice", 0.4, {"transcript"})
    assert 'aria-current="step"' in html and "40%" in html and "not needed" in html


def test_what_is_too_short_or_a_single_picture_is_not_judged(predictor, tmp_path):
    class Extractor:
        def probe(self, path, cancel):
            return probe(path, None)

        def extract(self, path, recipe, **more):
            whole = features()
            found = replace(whole.found, has_audio=False, seconds=2.0)
            nothing = {"audio": whole.audio[:0], "audio_times": whole.audio_times[:0]}
            return replace(
                whole, vision=whole.vision[:1], vision_times=whole.vision_times[:1], found=found, **nothing
            )

    class Models:
        face_model = None

        def recipe(self):
            return predictor.recipe

    Models.predictor = type("Predictor", (), {"extractor": Extractor()})()
    blink = make_clip(tmp_path / "blink.wav", 0.3, video=None, audio="pcm_s16le")
    with pytest.raises(UploadRefused, match="which is too short to judge"):
        list(read_clip(Models(), Settings(), blink, "yes"))
    still = make_clip(tmp_path / "still.mp4", 2.0, audio=None)
    with pytest.raises(UploadRefused, match="single picture"):
        list(read_clip(Models(), Settings(), still, "yes"))


def test_a_small_face_gets_a_hint_and_a_box():
    clip = features()
    rows = np.zeros((20, 58), np.float32)
    rows[:, 45], rows[:, -3:] = 0.5, (0.0, 10.0, -120.0)
    far = _checked(replace(clip, vision=rows), MediaInfo(2.0, True, True))
    assert any("come closer" in note for note in far.found.notes)
    near = rows.copy()
    near[:, -1] = -40.0
    assert _checked(replace(clip, vision=near), MediaInfo(2.0, True, True)).found.notes == clip.found.notes
    _, x, y, size = face_boxes(replace(clip, vision=near))[0]
    assert x == 0 and -0.25 < y < -0.15 and 0.3 < size < 0.6  # above the middle, half of the picture's height


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


def test_the_first_example_is_answered_before_a_model_is_loaded():
    models = Models(PEOPLE)  # not started: asking for its predictor would wait for ever
    first = shown_examples()[0]
    said = next(answer_example(models, first, audio=True, vision=True, cancel=CancelToken()))
    assert said.state == "answered" and said.prediction == models.predictions[first.name]
    assert first.text == said.prediction.text == said.reasons.streams.text
    html = views.cards(shown_examples(), models.predictions)
    assert "…</em>" not in html and said.prediction.verdict in html


def test_a_kept_answer_is_the_only_one(monkeypatch):
    """It is not computed again after it was shown: neither for the cards nor for the answer in full."""
    models = Models(PEOPLE, speech=False)
    models._predictor = kept_by = Predictor(PEOPLE, device="cpu")
    models._set(ready=True)
    asked = []
    monkeypatch.setattr(kept_by, "variants", lambda *given, **more: asked.append(given))
    models._answer_examples(kept_by.recipe)
    assert {name: kept.prediction for name, kept in models.kept.items()} == models.predictions
    first = shown_examples()[0]
    *_, whole = answer_example(models, first, audio=True, vision=True, cancel=CancelToken())
    assert whole.state == "whole" and whole.reasons.moments and whole.reasons.tokens
    assert whole.prediction == models.kept[first.name].prediction
    assert whole.reasons.streams == models.kept[first.name].streams
    assert not asked


def test_another_checkpoint_has_no_kept_answers(predictor, tmp_path):
    assert kept_answers(predictor.run.path) == {} and kept_answers(tmp_path) == {}
    other = tmp_path / "edited"
    shutil.copytree(PEOPLE, other)
    assert kept_answers(other)
    (other / "run.json").write_text((other / "run.json").read_text() + "\n")
    assert kept_answers(other) == {}


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


def test_live_tells_how_far_it_is_before_its_first_answer(live):
    states = live.states()
    assert next(states).seconds == 0
    live.push(packet(0, 1.0))
    state = next(states)
    assert state.seconds == pytest.approx(1.0) and not state.answers
    assert "1 s, 0 answers" in views.live_answer(state) and "took" not in views.live_answer(state)


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


def test_the_live_curve_keeps_thirty_seconds():
    figure = live_curve([(float(t), 0.1) for t in range(0, 200, 2)], [], 3.0)
    curve = next(trace for trace in figure.data if trace.name == "Sentiment")
    assert min(curve.x) >= 168 and max(curve.x) == 198
    heard = live_curve([(1.0, 0.1)], [{"word": "so", "start": 0.1, "end": 0.5}], 3.0)
    assert figure.layout.height < heard.layout.height - 50  # no empty rows where nobody speaks
