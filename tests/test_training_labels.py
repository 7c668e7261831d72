"""What is said of a dataset's labels and texts before training, and not after hours."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from training_fixtures import TINY, pretrain_av, tiny_lm, tiny_sample

from deepmlf_kit.cli.next_steps import after_preparing
from deepmlf_kit.data import schema
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.training.dataset import check_dataset, remarks, scored_split
from deepmlf_kit.training.presets import load_preset

BY_CLASS = {"training.select_on": "loss", "pretraining.select_on": "loss"}


def changed(split, **columns):
    """The tiny sample set with other columns in one split; a number stands in every row, a function makes a list."""
    dataset = tiny_sample()
    audio_dim, vision_dim = schema.dims_of(dataset)
    rows = list(dataset[split].with_format("numpy"))
    for name, values in columns.items():
        for i, row in enumerate(rows):
            row[name] = values(i) if callable(values) else values
    for row in rows:
        row["words"] = []
    dataset[split] = schema.build_split(
        [{**row, "text": str(row["text"])} for row in rows], audio_dim, vision_dim
    )
    return dataset


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_split_without_a_label_is_refused_before_training(split):
    with pytest.raises(DeepMLFError, match=f"No utterance of the split '{split}' has a label"):
        check_dataset(changed(split, label=np.nan), load_preset("sample"))


@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize(("classes", "column"), [(3, "label_class"), (5, "label")])
def test_a_class_that_is_none_is_refused_before_training(split, classes, column):
    dataset = tiny_sample()
    for name in dataset:
        dataset[name] = changed(name, label=1.0)[name]
    dataset[split] = changed(split, **{"label": 1.0, column: 9.0})[split]
    preset = load_preset("sample", {"heads.classes": classes, **BY_CLASS})
    with pytest.raises(DeepMLFError, match=rf"split '{split}': found the {column} 9, expected a class index"):
        check_dataset(dataset, preset)


def test_infinite_labels_are_refused_before_training():
    with pytest.raises(DeepMLFError, match="infinite"):
        check_dataset(changed("test", label=np.inf), load_preset("sample"))


def test_missing_labels_are_counted_before_training():
    dataset = changed("valid", label=lambda i: np.nan if i < 3 else 1.0)
    check_dataset(dataset, load_preset("sample"))
    assert remarks(dataset, load_preset("sample"), {}) == [
        "3 of 16 utterances of the split 'valid' have no label and are left out"
    ]


def test_a_test_split_without_labels_is_said_and_training_ends_with_the_validation_table(tmp_path, capsys):
    dataset = changed("test", label=np.nan)
    assert scored_split(dataset) == "valid" and scored_split(tiny_sample()) == "test"
    _, tokenizer = tiny_lm(list(dataset["train"]["text"]))
    run = pretrain_av(dataset, tmp_path / "run", tokenizer, progress=True)
    assert "no utterance of the split 'test' has a label" in capsys.readouterr().err
    assert run.finished and json.loads((run.path / "table.json").read_text())["split"] == "valid"


def test_long_texts_are_said_and_the_command_that_trains_reads_them_whole():
    assert "max_text_tokens" not in after_preparing(Path("data"), tiny_sample())
    said = after_preparing(Path("data"), changed("train", text="a long text " * 40))
    assert "40 of 72 are longer than the preset's 50 tokens" in said
    limit = int(said.partition("data.max_text_tokens=")[2].split()[0])
    preset = load_preset("sample", {**TINY, "data.max_text_tokens": limit})
    assert "with that limit only their end is read" in said and limit % 10 == 0
    assert not remarks(tiny_sample(), preset, {"train": [limit]})
    assert "longer than" in remarks(tiny_sample(), preset, {"train": [limit + 1]})[0]


def test_a_published_preset_reads_long_texts_as_published():
    said = after_preparing(Path("data"), changed("train", text="a long text " * 40), "mosi")
    assert "beginning is read, as published" in said and "max_text_tokens" not in said
