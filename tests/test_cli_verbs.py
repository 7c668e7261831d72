"""Each verb against the Python call that it wraps, on inputs small enough to be quick."""

import json
from pathlib import Path
from typing import Any

import pytest

from deepmlf_kit.cli.frame import run

TINY = [
    "fusion.layers=[1,2]",
    "fusion.tokens=3",
    "fusion.heads=2",
    "pretraining.epochs=1",
    "training.epochs=1",
]


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    """The one JSON object that a verb prints under `--json`."""
    assert run([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_sample_writes_the_dataset_it_names(tmp_path: Path, capsys):
    from deepmlf_kit.data.schema import load

    folder = tmp_path / "sample"
    told = answer(capsys, "sample", folder, "--train", 6, "--valid", 3, "--test", 2, "--seed", 5)
    assert told["rows"] == {"train": 6, "valid": 3, "test": 2}
    assert told["dataset"] == str(folder)
    assert {split: part.num_rows for split, part in load(folder).items()} == told["rows"]


def test_sample_of_no_utterances_is_refused(tmp_path: Path, capsys):
    assert run(["sample", str(tmp_path / "sample"), "--train", "0"]) == 2
    assert "above 0" in capsys.readouterr().err
    assert not (tmp_path / "sample").exists()


def test_presets_lists_the_published_recipes(capsys):
    assert {"mosi", "mosei-base", "mosei-large", "sims", "sample"} <= set(answer(capsys, "presets"))


def test_presets_prints_one_as_yaml_that_loads_again(tmp_path: Path, capsys):
    from deepmlf_kit.presets import load_preset

    assert run(["presets", "mosi"]) == 0
    copy = tmp_path / "mine.yaml"
    copy.write_text(capsys.readouterr().out)
    assert load_preset(copy).to_dict() == load_preset("mosi").to_dict() == answer(capsys, "presets", "mosi")


def test_misspelt_preset_is_one_line_that_names_the_right_one(capsys):
    assert run(["presets", "mosie-base"]) == 2
    err = capsys.readouterr().err
    assert "mosei-base" in err and err.count("\n") == 1


@pytest.fixture(scope="module")
def tiny_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random GPT-2 of 3 layers and a tokenizer of a few words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    words = Tokenizer(
        models.WordLevel({"<unk>": 0, "<eos>": 1, "the": 2, "was": 3, "i": 4}, unk_token="<unk>")
    )
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path_factory.mktemp("tiny-lm")
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<eos>").save_pretrained(
        folder
    )
    config = GPT2Config(
        vocab_size=5, n_positions=96, n_embd=16, n_layer=3, n_head=2, bos_token_id=1, eos_token_id=1
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample set of a few utterances, made by the verb."""
    folder = tmp_path_factory.mktemp("data") / "sample"
    assert run(["sample", str(folder), "--train", "24", "--valid", "8", "--test", "8"]) == 0
    return folder


def test_pretraining_then_training_leave_runs_that_build_on_each_other(
    tmp_path: Path, tiny_lm: Path, dataset: Path, capsys
):
    settings = [word for setting in (f"lm.name={tiny_lm}", *TINY) for word in ("--set", setting)]
    capsys.readouterr()
    av = answer(capsys, "pretrain-av", dataset, "--out", tmp_path / "av", *settings)
    fused = answer(
        capsys, "train", dataset, "--out", tmp_path / "fused", "--av-encoder", av["run"], *settings
    )
    for told in (av, fused):
        assert told["metrics"]["MAE"] > 0
        assert json.loads((Path(told["run"]) / "run.json").read_text())["state"] == "finished"
    assert json.loads((tmp_path / "fused" / "run.json").read_text())["av_encoder"]


def test_setting_that_does_not_exist_ends_before_anything_is_written(tmp_path: Path, dataset: Path, capsys):
    out = tmp_path / "run"
    assert run(["train", str(dataset), "--out", str(out), "--set", "fusion.token=12"]) == 2
    assert "fusion.tokens" in capsys.readouterr().err
    assert not out.exists()


def test_training_on_a_folder_that_is_no_dataset_says_how_to_make_one(tmp_path: Path, capsys):
    assert run(["train", str(tmp_path), "--out", str(tmp_path / "run")]) == 2
    assert "deepmlf prepare" in capsys.readouterr().err
