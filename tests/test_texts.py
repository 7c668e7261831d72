"""A CSV of texts and labels, without clips: prepared, inspected, trained on, with no word from streams that are absent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_lms import tiny_batch, tiny_model
from training_fixtures import TINY, tiny_lm

from deepmlf_kit.cli.frame import run as deepmlf
from deepmlf_kit.data.label_csv import LabelFileError
from deepmlf_kit.data.texts import prepare_texts
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.experiments.text_benchmark import text_benchmark, word_pairs
from deepmlf_kit.training import train
from deepmlf_kit.training.scoring import HEADS, head_values

WORDS = ("good", "bad", "fine", "awful")


def write(folder: Path, *lines: str, name: str = "texts.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def many(folder: Path, rows: int = 60, split: bool = True) -> Path:
    """Short texts of ten videos, with labels from -3 to 3."""
    header = "id,text,label" + (",split" if split else "")
    splits = ["train"] * 4 + ["valid", "test"]
    lines = [
        f'video{i % 10}_{i},"it was {WORDS[i % 4]}, really",{(i % 7) - 3}'
        + (f",{splits[i % 6]}" if split else "")
        for i in range(rows)
    ]
    return write(folder, header, *lines)


# Preparing ---------------------------------------------------------------------------------------------------


def test_a_csv_of_texts_becomes_a_dataset_without_voice_and_face(tmp_path: Path):
    file = write(
        tmp_path,
        "video_id,clip_id,text,label,split",
        'v1,3,"Yes, it was",1.5,train',
        "v1,4,no,-2,dev",
        "v2,1,well,,test",
    )
    prepared = prepare_texts(file, tmp_path / "out")
    row = prepared.dataset["train"].with_format("numpy")[0]
    assert (row["id"], row["text"], float(row["label"])) == ("v1$_$3", "Yes, it was", 1.5)
    assert row["audio"].shape == (0, 25) and row["vision"].shape == (0, 58)
    assert prepared.rows == {"train": 1, "valid": 1, "test": 1}
    assert np.isnan(prepared.dataset["test"][0]["label"])
    assert "clips" not in prepared.summary()


@pytest.mark.parametrize("separator", [";", "\t"])
def test_separators_are_those_of_label_files(tmp_path: Path, separator: str):
    lines = ("text,label,split", "yes,1,train", "no,-1,valid")
    file = write(tmp_path, *(line.replace(",", separator) for line in lines))
    assert prepare_texts(file, tmp_path / "out").rows == {"train": 1, "valid": 1}


def test_splits_are_drawn_by_video_and_do_not_depend_on_the_order_of_lines(tmp_path: Path):
    file = many(tmp_path, 600, split=False)
    first = prepare_texts(file, tmp_path / "a").dataset
    assert {name: 0.05 < len(part) / 600 < 0.2 for name, part in first.items() if name != "train"} == {
        "valid": True,
        "test": True,
    }
    videos = {name: {id.split("_")[0] for id in part["id"]} for name, part in first.items()}
    assert not videos["train"] & videos["valid"] and not videos["train"] & videos["test"]
    header, *lines = file.read_text().splitlines()
    write(tmp_path, header, *reversed(lines))
    again = prepare_texts(file, tmp_path / "b").dataset
    other = prepare_texts(file, tmp_path / "c", seed=1).dataset
    assert {n: set(p["id"]) for n, p in again.items()} == {n: set(p["id"]) for n, p in first.items()}
    assert set(other["test"]["id"]) != set(first["test"]["id"])


def test_lines_that_cannot_be_used_are_listed_with_their_reason(tmp_path: Path):
    file = write(
        tmp_path,
        "id,text,label,split",
        "a,good,1,train",
        "a,again,1,train",
        "b,,1,train",
        "c,word,much,train",
        "d,word,1,later",
        "e,fine,0,valid",
    )
    prepared = prepare_texts(file, tmp_path / "out")
    assert {failure.id: failure.reason for failure in prepared.failures} == {
        "a": "its id stands in the file twice; the first one is used",
        "b": "its text is empty",
        "c": "label is 'much', expected a number",
        "d": "split is 'later', expected train, valid or test",
    }
    assert prepared.rows == {"train": 1, "valid": 1}
    assert (tmp_path / "out" / "failures.csv").read_text().count("\n") == 5


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (("words,label", "yes,1"), "missing: text"),
        (("text,rating", "yes,1"), "missing: label"),
        (("text,label",), "no line below"),
        (("text,label,split", ",1,train"), "none of its 1 lines can be used"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, lines: tuple[str, ...], words: str):
    with pytest.raises(DeepMLFError, match=words):
        prepare_texts(write(tmp_path, *lines), tmp_path / "out")


def test_a_file_that_is_not_there_names_the_columns(tmp_path: Path):
    with pytest.raises(LabelFileError, match="columns text, label, split"):
        prepare_texts(tmp_path / "none.csv", tmp_path / "out")


def test_the_command_prepares_inspects_and_refuses_options_for_clips(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = many(tmp_path)
    assert deepmlf(["prepare", str(file), "--out", str(tmp_path / "out"), "--fps", "5"]) == 2
    assert "--fps is for a folder of clips" in capsys.readouterr().err
    assert deepmlf(["prepare", str(file), "--out", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == {"train": 40, "valid": 10, "test": 10}
    assert deepmlf(["inspect", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "no utterance has audio" in said and "no utterance has vision" in said
    assert said.count("no frame") == 0, "not one line for each of the dimensions that nobody has"


# Training ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("texts")
    return prepare_texts(many(folder), folder / "out").dataset


@pytest.mark.parametrize("model", ["fused", "text"])
def test_training_on_texts_reports_nothing_of_voice_and_face(texts: Any, tmp_path: Path, model: str):
    lm, tokenizer = tiny_lm(texts["train"]["text"])
    run = train(
        "sample",
        texts,
        tmp_path / "run",
        model=model,
        overrides={**TINY, "training.epochs": 2},
        lm=lm,
        tokenizer=tokenizer,
        progress=False,
        tensorboard=False,
    )
    assert np.isfinite(run.metrics["MAE"])
    told = [*run.metrics, *(key for epoch in run.history() for key in epoch), *run.predictions().columns]
    assert not [name for name in told if "av" in name.split("_")]
    if model == "fused":
        assert {"train_loss_text", "valid_loss_fusion"} <= set(told)


def test_the_av_encoder_is_not_pretrained_on_texts(texts: Any, tmp_path: Path):
    with pytest.raises(DeepMLFError, match="texts alone"):
        train("sample", texts, tmp_path / "run", model="av", progress=False, tensorboard=False)


def test_word_pairs_are_a_reference_that_reads_the_words(tmp_path: Path):
    lines = [
        f"it was {'not ' * (i % 2)}{word}, {i % 5},{sign * (1 - 2 * (i % 2))},{split}".replace(", ", " ", 1)
        for split, count in (("train", 40), ("valid", 10), ("test", 10))
        for i in range(count)
        for word, sign in (("good", 2), ("bad", -2))
    ]
    file = write(tmp_path, "text,label,split", *lines)
    found = word_pairs(prepare_texts(file, tmp_path / "out").dataset)
    assert (
        found["Corr"] > 0.95 and found["Non0_acc_2"] == 1
    )  # "not good" is a pair: single words say nothing here


def test_the_text_benchmark_writes_a_line_for_each_training(texts: Any, tmp_path: Path):
    told: list[str] = []
    text_benchmark(
        texts,
        tmp_path,
        presets=["sample"],
        ffw_on_text=(False,),
        seeds=(0, 1),
        overrides=["training.epochs=1", "fusion.layers=[7]"],
        progress=False,
        tell=told.append,
    )
    header, *lines = (tmp_path / "trainings.csv").read_text().splitlines()
    assert header == "lm,ffw_on_text,seed,MAE,Corr,Has0_acc_2,Non0_acc_2,Mult_acc_7,minutes"
    assert [line.split(",")[:3] for line in lines] == [["embedded", "False", "0"], ["embedded", "False", "1"]]
    assert told[0].startswith("words and word pairs, ridge regression: MAE ")


# The model where streams are absent ---------------------------------------------------------------------------


def without_av(batch: dict[str, Any], *rows: int) -> dict[str, Any]:
    masks = {name: batch[name].clone() for name in ("audio_mask", "vision_mask")}
    for mask in masks.values():
        mask[list(rows)] = False
    return {**batch, **masks}


@pytest.mark.parametrize("classes", [0, 3])
def test_the_av_head_is_neither_trained_nor_heard_where_there_is_no_stream(classes: int):
    model = tiny_model(num_classes=classes).train()
    batch = tiny_batch()
    batch["labels"] = torch.tensor([1.0, 2.0, 0.0])
    part = model(**without_av(batch, 0))
    silent = part.av_prediction.flatten(1).isnan().all(dim=1) if classes else part.av_prediction.isnan()
    assert silent.tolist() == [True, False, False]
    none = model(**without_av(batch, 0, 1, 2))
    assert none.av_prediction.isnan().all() and none.loss_av is None
    said = head_values(part, classes)[:, HEADS.index("av_prediction")]
    assert said.isnan().tolist() == [True, False, False], "not even a class"
    model.zero_grad()
    none.loss.backward()
    assert torch.isfinite(none.loss) and model.heads.av.weight.grad is None
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_the_loss_of_the_av_head_is_the_mean_over_those_with_a_stream():
    model, batch = tiny_model(), tiny_batch()
    batch["labels"] = torch.tensor([1.0, -2.0, 0.5])
    with torch.no_grad():
        output = model(**without_av(batch, 0))
    expected = (output.av_prediction[1:] - batch["labels"][1:]).abs().mean()
    torch.testing.assert_close(output.loss_av, expected)


def test_a_text_with_a_label_beyond_the_scale_is_a_failure(tmp_path: Path) -> None:
    lines = [f"this is text {n},{n % 3},{split}" for n, split in enumerate(["train"] * 30 + ["valid"] * 10)]
    file = tmp_path / "texts.csv"
    file.write_text("text,label,split\n" + "\n".join([*lines, "a slip of the keys,15,train"]) + "\n")
    for stated in (None, 3.0):
        prepared = prepare_texts(file, tmp_path / f"data-{stated}", label_scale=stated)
        assert len(prepared.dataset["train"]) == 30
        assert [failure.reason for failure in prepared.failures] == [
            "label is 15, expected a number in [-3, 3] (label_scale)"
        ]
    with pytest.raises(DeepMLFError, match="label_scale is -1"):
        prepare_texts(file, tmp_path / "none", label_scale=-1.0)
