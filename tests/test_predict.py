"""From a clip, or its features, to an answer; and the command that prints it."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from training_fixtures import TINY, tiny_lm, tiny_sample

from deepmlf_kit import Predictor
from deepmlf_kit.cli import predict as command
from deepmlf_kit.cli.frame import run as deepmlf
from deepmlf_kit.cli.output import print_json
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.features.clip import ClipFeatures, ClipFound
from deepmlf_kit.predict import bundled
from deepmlf_kit.predict.bundled import best_at_hand
from deepmlf_kit.predict.prediction import disagreements, polarity
from deepmlf_kit.training import train
from deepmlf_kit.training.calibration import Calibration


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A fused run on a tiny LM that lies in a folder, as a user's would."""
    folder = tmp_path_factory.mktemp("predict")
    dataset = tiny_sample()
    lm, tokenizer = tiny_lm(dataset["train"]["text"])
    lm.save_pretrained(folder / "lm")
    tokenizer.save_pretrained(folder / "lm")
    overrides = {**TINY, "lm.name": str(folder / "lm")}
    return train("sample", dataset, folder / "run", overrides=overrides, progress=False, tensorboard=False)


@pytest.fixture(scope="module")
def predictor(trained):
    return Predictor(trained, device="cpu")


def features(text="what a lovely day", seconds=2.0, **lacking):
    generator = np.random.default_rng(0)
    audio, vision = generator.normal(size=(200, 25)), generator.normal(size=(20, 58))
    audio, vision = audio[: 0 if "audio" in lacking else None], vision[: 0 if "vision" in lacking else None]
    return ClipFeatures(
        audio=audio.astype(np.float32),
        audio_times=np.arange(len(audio)) / 100,
        vision=vision.astype(np.float32),
        vision_times=np.arange(len(vision)) / 10,
        text=text,
        words=[],
        text_source="given",
        found=ClipFound(seconds, "audio" not in lacking, "vision" not in lacking, 1.0, 0.5, notes=["a note"]),
        timings={"voice": 0.1},
    )


def test_an_answer_has_a_sentiment_heads_what_was_found_and_timings(predictor):
    answer = predictor.features(features())
    assert set(answer.heads) == {"text", "av", "fusion"}
    assert np.isfinite([answer.sentiment, *answer.heads.values(), *answer.fusion_tokens]).all()
    assert answer.heads["fusion"] == pytest.approx(np.mean(answer.fusion_tokens), abs=1e-5)
    assert answer.clip["seconds"] == 2.0
    assert answer.text == "what a lovely day"
    assert "a note" in answer.notes
    assert {"voice", "model"} <= set(answer.timings)
    assert json.loads(json.dumps(answer.to_dict()))["sentiment"] == answer.sentiment


def test_an_answer_says_how_sure_it_is_and_who_answered(predictor, trained, monkeypatch, capsys):
    unknown = predictor.features(features())
    assert unknown.interval is None and unknown.certain is None
    assert unknown.answered_by == {"checkpoint": "run", "lm": trained.preset.lm.name}
    said = abs(unknown.sentiment)
    for zone, certain in ((said + 0.1, False), (said - 1e-3, True)):
        measured = Calibration(0.8, {"any": 9.0, "text+audio+vision": 0.5}, {"any": zone}, {"any": 60})
        monkeypatch.setattr(predictor, "calibration", measured)
        sure = predictor.features(features())
        assert sure.interval == pytest.approx((sure.sentiment - 0.5, sure.sentiment + 0.5))
        assert sure.certain is certain
        command._show(sure)
        assert ("I cannot tell" in capsys.readouterr().out) is not certain
    assert predictor.features(features(), audio=False).interval == (-3.0, 3.0), "cut at the scale's ends"


def test_the_best_checkpoint_at_hand_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "_ASSETS", tmp_path)
    monkeypatch.setattr(bundled, "PEOPLE", tmp_path / "people")
    with pytest.raises(DeepMLFError, match="brings none along"):
        best_at_hand()
    for name in ("people", "people-smollm2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
    monkeypatch.setattr(bundled, "lm_is_at_hand", lambda name: False)
    assert best_at_hand().name == "people"
    monkeypatch.setattr(bundled, "lm_is_at_hand", lambda name: name == "smollm2")
    assert best_at_hand().name == "people-smollm2"


def test_a_model_of_a_pickles_features_says_why_it_cannot_read_clips(predictor, monkeypatch):
    stored = {"source": "MMSA pickle", "file": "unaligned_50.pkl", "aligned": False, "label_scale": 3.0}
    monkeypatch.setitem(predictor.run.info["preprocessing"], "recipe", stored)
    with pytest.raises(DeepMLFError, match=r"MMSA pickle, .*does not say how they were made"):
        _ = predictor.recipe


def test_other_words_move_the_words_alone(predictor):
    clip = features()
    one, two = predictor.features(clip), predictor.features(clip, "I hate every minute of it")
    assert one.heads["text"] != two.heads["text"]
    assert one.heads["av"] == two.heads["av"]
    assert two.text == "I hate every minute of it"


def test_a_stream_that_is_left_out_is_as_good_as_absent(predictor):
    whole = features()
    for stream in ("audio", "vision"):
        without = predictor.features(whole, **{stream: False})
        assert without.sentiment == predictor.features(features(**{stream: None})).sentiment
        assert without.sentiment != predictor.features(whole).sentiment
        assert without.heads["text"] == predictor.features(whole).heads["text"]


def test_a_stream_that_the_recipe_leaves_out_is_as_good_as_absent(predictor):
    narrow = features(vision=None)
    narrow.vision = np.zeros((0, 0), np.float32)  # what `FeatureRecipe(vision="none")` gives
    assert predictor.features(narrow).sentiment == predictor.features(features(vision=None)).sentiment


def test_no_head_speaks_for_a_stream_that_is_not_there(predictor, capsys):
    words_alone = predictor.features(features(), audio=False, vision=False)
    assert words_alone.heads["av"] is None and isinstance(words_alone.heads["text"], float)
    no_words = predictor.features(features(text=" "))
    assert no_words.heads["text"] is None and isinstance(no_words.heads["av"], float)
    print_json(words_alone)
    assert '"av": null' in capsys.readouterr().out
    command._show(words_alone)
    line = next(line for line in capsys.readouterr().out.splitlines() if "voice and face" in line)
    assert line.split()[-1] == "–"


def test_a_clip_without_words_is_answered_with_a_remark(predictor):
    answer = predictor.features(features(text=""))
    assert any("no words" in note for note in answer.notes)


def test_heads_that_are_absent_make_no_remark(predictor):
    silent, unseen = predictor.features(features(text=" ")), predictor.features(features(audio=0, vision=0))
    assert silent.heads["text"] is None and unseen.heads["av"] is None
    assert not any("alone sound" in note for answer in (silent, unseen) for note in answer.notes)


def test_the_end_of_a_long_text_counts_and_what_was_read_is_said(predictor):
    known = list(tiny_sample()["train"]["text"])
    begin = " ".join(known[:8])
    one, other = (predictor.features(features(text=f"{begin} {known[i]}")) for i in (8, 9))
    assert one.heads["text"] != other.heads["text"]
    assert one.text_tokens["of"] > one.text_tokens["read"] == predictor.collator.max_text_tokens
    assert any(f"the last {one.text_tokens['read']} of" in note for note in one.notes)
    assert not any("tokens" in note for note in predictor.features(features()).notes)


@pytest.mark.parametrize("words", ["a [/b] c", "[laughs] no", "esc \x1b[31m", "[link=x]y"])
def test_words_are_shown_as_they_are(predictor, words, capsys):
    command._show(predictor.features(features(text=words)))
    assert repr(words) in " ".join(capsys.readouterr().out.split())


def test_answers_do_not_depend_on_who_else_asks(predictor):
    rows = [predictor.row(features(text)) for text in ("good", "that was a very long and boring evening", "")]
    together = predictor.rows(rows)["task"]
    for row, expected in zip(rows, together, strict=True):
        assert predictor.rows([row])["task"][0] == pytest.approx(expected, abs=1e-5)


def test_only_a_fused_run_answers(tmp_path):
    settings = {"model": "av", "overrides": TINY, "progress": False, "tensorboard": False}
    av = train("sample", tiny_sample(), tmp_path / "av", **settings)
    with pytest.raises(DeepMLFError, match="kind 'av', but prediction needs a fused model"):
        Predictor(av)


@pytest.mark.parametrize(
    ("value", "scale", "words"),
    [
        (0.2, 3, "neutral"),
        (-0.9, 3, "slightly negative"),
        (1.8, 3, "rather positive"),
        (9, 3, "strongly positive"),
        (-0.7, 1, "rather negative"),
    ],
)
def test_a_sentiment_in_words(value, scale, words):
    assert polarity(value, scale) == words


def test_heads_that_disagree_are_remarked_on():
    assert disagreements({"text": 2.0, "av": -1.5, "fusion": 0.0}, 3.0)
    assert not disagreements({"text": 2.0, "av": 1.5, "fusion": 0.0}, 3.0)
    assert not disagreements({"text": 2.0, "av": -0.1, "fusion": 0.0}, 3.0)


# The command -------------------------------------------------------------------------------------------------


def test_a_file_that_is_no_clip_gets_one_line_and_exit_code_2(trained, tmp_path, capsys):
    fake = tmp_path / "notes.mp4"
    fake.write_text("just some text")
    assert deepmlf(["predict", str(fake), "--text", "hello", "--checkpoint", str(trained.path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) == 1
    assert "notes.mp4" in captured.err


REAL = {
    "speech_address_1.mp4": (0.99, True),
    "smile_short.mp4": (0.9, True),
    "no_audio_face.mp4": (0.9, False),
    "no_face.mp4": (0.0, True),
    "speech_only.flac": (None, True),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_every_real_clip_gets_an_answer_as_json(name, trained, clips, face_model, capsys):
    face, audio = REAL[name]
    arguments = ["predict", str(clips / name), "--text", "I will tell you about it now", "--json"]
    assert deepmlf([*arguments, "--checkpoint", str(trained.path)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert np.isfinite(answer["sentiment"])
    assert set(answer["heads"]) == {"text", "av", "fusion"}
    assert answer["clip"]["has_audio"] is audio
    if face is None:
        assert answer["clip"]["has_video"] is False
    else:
        assert answer["clip"]["face_share"] >= face
        assert face > 0 or answer["clip"]["face_share"] == 0
    assert answer["timings"]["total"] > 0
