"""Many clips, or many texts, -> one CSV: batches, resuming, and failures that are listed."""

import csv
import json
import shutil
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import DatasetDict

sys.path.insert(0, str(Path(__file__).parent))
from clips_made import make_clip
from training_fixtures import TINY, tiny_lm

from deepmlf_kit import Predictor
from deepmlf_kit.cli.frame import run as deepmlf
from deepmlf_kit.data import extraction_process, schema
from deepmlf_kit.data.sample import make_sample
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.features import FeatureCache, FeatureRecipe
from deepmlf_kit.predict import fresh, many
from deepmlf_kit.predict.many import COLUMNS, predict_clips, predict_texts
from deepmlf_kit.predict.predictor import limit_threads, text_features
from deepmlf_kit.training import train


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fused run of voice (MFCC) and words, so that its clips need no optional model."""
    folder = tmp_path_factory.mktemp("many")
    recipe = FeatureRecipe(audio="mfcc", vision="none").to_dict()
    dataset = make_sample(seed=0, train=24, valid=8, test=8)
    lm, tokenizer = tiny_lm(dataset["train"]["text"])
    lm.save_pretrained(folder / "lm")
    tokenizer.save_pretrained(folder / "lm")
    rows = {
        split: [
            schema.utterance(
                id, text, np.ones((9, 33), np.float32), None, label, audio_dim=33, vision_dim=1, recipe=recipe
            )
            for id, text, label in zip(part["id"], part["text"], part["label"], strict=True)
        ]
        for split, part in dataset.items()
    }
    data = DatasetDict({split: schema.build_split(part, 33, 1) for split, part in rows.items()})
    sizes = {"av_encoder.audio_dim": 33, "av_encoder.vision_dim": 1, "training.epochs": 1}
    overrides = {**TINY, **sizes, "lm.name": str(folder / "lm")}
    train("sample", data, folder / "run", overrides=overrides, progress=False, tensorboard=False)
    return folder / "run"


@pytest.fixture(scope="module")
def predictor(run_folder: Path) -> Predictor:
    return Predictor(run_folder, device="cpu")


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two clips with words, one below in a folder without, one that is none, and what is no clip at all."""
    folder = tmp_path / "clips"
    for number, name in enumerate(("a.wav", "b.wav", "below/c.wav")):
        make_clip(folder / name, 0.5 + 0.05 * number, video=None, audio="pcm_s16le")
    (folder / "broken.wav").write_text("no clip")
    (folder / "notes.md").write_text("read me")
    lines = [
        "path,text",
        "a.wav,what a day",
        "b.wav,never again",
        "below/c.wav,so so",
        "broken.wav,oh",
        "gone.wav,x",
    ]
    (folder / "label.csv").write_text("\n".join(lines) + "\n")
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_folder_gives_a_line_for_each_clip_and_lists_what_failed(predictor, clips, tmp_path):
    cache = FeatureCache(tmp_path / "cache")
    result = predict_clips(predictor, [clips], tmp_path / "out.csv", cache=cache, workers=1)
    lines = table(tmp_path / "out.csv")
    assert tuple(lines[0]) == COLUMNS
    assert [(line["id"], line["text"], line["text_source"]) for line in lines] == [
        ("a", "what a day", "given"),
        ("b", "never again", "given"),
        ("below$_$c", "so so", "given"),
    ]
    assert (result.predicted, result.extracted) == (3, 3)
    failed = table(tmp_path / "out.failures.csv")
    assert [(line["id"], line["reason"].split(",")[0]) for line in failed] == [
        ("broken", "found text"),
        ("gone", f"no file at {clips / 'gone.wav'}"),
    ]
    assert "2 could not be used" in result.summary() and "broken: found text" in result.summary()


def test_clips_that_a_label_csv_does_not_list_are_left_out_and_said(predictor, clips, tmp_path):
    shutil.copy(clips / "a.wav", clips / "unlisted.wav")
    result = predict_clips(
        predictor, [clips], tmp_path / "out.csv", cache=FeatureCache(tmp_path / "cache"), workers=1
    )
    assert result.predicted == 3
    assert any(
        note == f"1 clips in {clips} are not in its label.csv and were left out" for note in result.notes
    )


def test_a_line_says_what_the_one_clip_is_told(predictor, clips, tmp_path, monkeypatch):
    """Whatever else is in its batch, and however the clips are cut into batches."""
    monkeypatch.setattr(many, "BATCH", 2)
    cache = FeatureCache(tmp_path / "cache")
    predict_clips(predictor, [clips], tmp_path / "out.csv", cache=cache, workers=1)
    for line in table(tmp_path / "out.csv"):
        alone = predictor.clip(line["path"], line["text"], cache=cache)
        assert float(line["sentiment"]) == pytest.approx(alone.sentiment, abs=1e-4)
        assert float(line["av_head"]) == pytest.approx(alone.heads["av"], abs=1e-4)
        assert line["polarity"] == alone.polarity and float(line["seconds"]) == alone.clip["seconds"]
        assert line["face_share"] == "" and float(line["voiced_share"] or 0) >= 0


def test_a_repeated_run_extracts_nothing_and_renews_the_list_of_failures(
    predictor, clips, tmp_path, monkeypatch
):
    options = {"cache": FeatureCache(tmp_path / "cache"), "workers": 1}
    predict_clips(predictor, [clips], tmp_path / "out.csv", **options)
    before = (tmp_path / "out.csv").read_bytes()
    monkeypatch.setattr(extraction_process, "WORKER", "no_such_module")  # a worker would fail at once
    text = (clips / "label.csv").read_text()
    (clips / "label.csv").write_text(text.replace("broken.wav,oh\n", "").replace("gone.wav,x\n", ""))
    again = predict_clips(predictor, [clips], tmp_path / "out.csv", **options)
    assert (again.predicted, again.extracted, again.failures) == (3, 0, [])
    assert (tmp_path / "out.csv").read_bytes() == before
    assert table(tmp_path / "out.failures.csv") == []


def test_of_a_folder_without_labels_every_clip_is_taken(clips, tmp_path):
    (clips / "label.csv").unlink()
    (clips / ".trash").mkdir()
    (clips / "a.wav").rename(clips / ".trash" / "a.wav")
    notes: list[str] = []
    found = many._clips_of(clips, notes)
    assert [(clip.id, clip.text) for clip in found] == [
        ("b.wav", None),
        ("below/c.wav", None),
        ("broken.wav", None),
    ]
    assert notes == [f"1 files in {clips} are no clips and were left out"]


def test_texts_alone_are_predicted_as_a_clip_of_words(predictor, tmp_path, monkeypatch):
    monkeypatch.setattr(many, "BATCH", 2)
    file = tmp_path / "texts.csv"
    file.write_text('id,text\none,"well, that was good"\ntwo,\nthree,not at all\nfour,I see\n')
    result = predict_texts(predictor, file, tmp_path / "out.csv")
    lines = table(tmp_path / "out.csv")
    assert [line["id"] for line in lines] == ["one", "three", "four"]
    assert [failure.id for failure in result.failures] == ["two"]
    for line in lines:
        alone = predictor.text(line["text"])
        assert float(line["sentiment"]) == pytest.approx(alone.sentiment, abs=1e-4)
        assert alone.heads["av"] is None and line["av_head"] == ""
        assert (line["text_source"], line["seconds"], line["face_share"]) == ("given", "", "")


def test_nothing_is_written_where_nothing_can_be_used(predictor, tmp_path):
    (tmp_path / "out.csv").write_text("of before")
    (tmp_path / "broken.mp4").write_text("no clip")
    (tmp_path / "label.csv").write_text("path,text\nbroken.mp4,well\n")
    with pytest.raises(
        DeepMLFError, match=r"none of 1 could be used; the reasons are in .*out\.failures\.csv"
    ):
        predict_clips(predictor, [tmp_path], tmp_path / "out.csv", workers=1)
    assert (tmp_path / "out.csv").read_text() == "of before"


def test_what_is_read_is_never_written_over(predictor, clips, tmp_path):
    for out in (clips / "label.csv", clips / "a.wav"):
        with pytest.raises(DeepMLFError, match="is read from"):
            predict_clips(predictor, [clips, clips / "a.wav"], out)
    with pytest.raises(DeepMLFError, match="is read from"):
        predict_texts(predictor, clips / "label.csv", clips / "label.csv")


# The command -------------------------------------------------------------------------------------------------


def test_the_command_predicts_a_folder_and_says_so_as_json(run_folder, clips, tmp_path, capsys):
    arguments = ["predict", str(clips), "--csv", str(tmp_path / "out.csv"), "--checkpoint", str(run_folder)]
    assert deepmlf([*arguments, "--workers", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["path"], told["predicted"]) == (str(tmp_path / "out.csv"), 3)
    assert [failure["id"] for failure in told["failures"]] == ["broken", "gone"]


def test_the_command_predicts_texts_and_one_text(run_folder, tmp_path, capsys):
    file = tmp_path / "texts.csv"
    file.write_text("text\nwhat a lovely day\n")
    arguments = ["--checkpoint", str(run_folder)]
    assert deepmlf(["predict", "--text-only", str(file), "--csv", str(tmp_path / "o.csv"), *arguments]) == 0
    assert "1 predictions" in capsys.readouterr().out
    assert deepmlf(["predict", "--text", "what a lovely day", "--json", *arguments]) == 0
    told = json.loads(capsys.readouterr().out)
    assert f"{told['sentiment']:.4f}" == f"{float(table(tmp_path / 'o.csv')[0]['sentiment']):.4f}"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["clips"], "--csv OUT.csv"),
        (["a.wav", "b.wav"], "--csv OUT.csv"),
        (["--text-only", "texts.csv"], "--csv OUT.csv"),
        ([], "name a clip"),
        (["--csv", "o.csv"], "name clips or folders"),
        (["clips", "--csv", "o.csv", "--text", "x"], "--text is for one clip"),
        (["texts.csv", "--csv", "o.csv"], "add --text-only"),
        (["gone", "--csv", "o.csv"], "found no such file or folder"),
        (["--text-only", "clips/label.csv", "x.csv", "--csv", "o.csv"], "name one CSV file of texts"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    arguments: list[str], told: str, run_folder, clips, capsys, monkeypatch
):
    monkeypatch.chdir(clips.parent)
    Path("texts.csv").write_text("text\nhello\n")
    assert deepmlf(["predict", *arguments, "--checkpoint", str(run_folder)]) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1


# One clip from a fresh process --------------------------------------------------------------------------------


def test_a_clip_is_extracted_while_the_model_is_opened(predictor, clips, monkeypatch):
    begun = threading.Event()

    class Extractor:
        def extract_at_hand(self, *arguments, **named):
            begun.set()
            return text_features("what a day")

    def opened(checkpoint, extractor):
        assert begun.wait(30), "the model was opened before the extraction had begun"
        return predictor

    monkeypatch.setattr(fresh, "ClipExtractor", Extractor)
    monkeypatch.setattr(fresh, "predict", SimpleNamespace(Predictor=opened, limit_threads=limit_threads))
    said = fresh.predict_clip(predictor.run.path, clips / "a.wav", "what a day")
    assert said.sentiment == predictor.text("what a day").sentiment


def test_a_clip_from_a_fresh_process_is_answered_as_by_a_predictor(predictor, clips, monkeypatch):
    expected = predictor.clip(clips / "a.wav", "what a day").sentiment
    namespace = SimpleNamespace(
        Predictor=lambda checkpoint, extractor: predictor, limit_threads=limit_threads
    )
    monkeypatch.setattr(fresh, "predict", namespace)
    assert fresh.predict_clip(predictor.run.path, clips / "a.wav", "what a day").sentiment == expected
    # A run whose features are others than was guessed: the clip is extracted again.
    assert fresh.predict_clip(None, clips / "a.wav", "what a day").sentiment == expected
    monkeypatch.setattr(namespace, "Predictor", Predictor)
    with pytest.raises(DeepMLFError, match="No run at"):
        fresh.predict_clip(clips / "gone", clips / "a.wav", "what a day")


@pytest.mark.parametrize("ask", ["clip", "text"])
def test_a_fresh_process_opens_and_answers_on_one_thread(predictor, clips, monkeypatch, ask):
    """Where other programs keep the cores busy, several threads wait for each other: 30 s in place of 13."""
    seen = []

    def opened(checkpoint, **options):
        seen.append(torch.get_num_threads())
        return predictor

    whole = predictor.rows
    monkeypatch.setattr(
        predictor, "rows", lambda *rows, **how: seen.append(torch.get_num_threads()) or whole(*rows, **how)
    )
    namespace = SimpleNamespace(Predictor=opened, limit_threads=limit_threads)
    monkeypatch.setattr(fresh, "predict", namespace)
    before = limit_threads(3)
    try:
        if ask == "clip":
            fresh.predict_clip(predictor.run.path, clips / "a.wav", "what a day")
        else:
            fresh.predict_text(predictor.run.path, "what a day")
        assert torch.get_num_threads() == 3
    finally:
        limit_threads(before)
    assert seen == [1, 1]
