"""Each subcommand against the Python call that it wraps, on inputs small enough to be quick."""

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
    """The one JSON object that a subcommand prints under `--json`."""
    assert run([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_sample_writes_the_dataset_it_names(tmp_path: Path, capsys):
    from deepmlf_kit.data.schema import load

    folder = tmp_path / "sample"
    told = answer(capsys, "sample", "--out", folder, "--train", 6, "--valid", 3, "--test", 2, "--seed", 5)
    assert told["rows"] == {"train": 6, "valid": 3, "test": 2}
    assert told["dataset"] == str(folder)
    assert {split: part.num_rows for split, part in load(folder).items()} == told["rows"]


def test_sample_of_no_utterances_is_refused(tmp_path: Path, capsys):
    assert run(["sample", "--out", str(tmp_path / "sample"), "--train", "0"]) == 2
    assert "above 0" in capsys.readouterr().err
    assert not (tmp_path / "sample").exists()


def test_presets_lists_the_published_recipes(capsys):
    assert {"mosi", "mosei-base", "mosei-large", "sims", "sample"} <= set(answer(capsys, "presets"))


def test_presets_prints_one_as_yaml_that_loads_again(tmp_path: Path, capsys):
    from deepmlf_kit.training.presets import load_preset

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
    """A sample set of a few utterances, made by `deepmlf sample`."""
    folder = tmp_path_factory.mktemp("data") / "sample"
    assert run(["sample", "--out", str(folder), "--train", "24", "--valid", "8", "--test", "8"]) == 0
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


def test_inspect_tells_rows_and_labels_of_every_split(dataset: Path, capsys):
    capsys.readouterr()
    told = answer(capsys, "inspect", dataset, "--normalize", "train")
    assert {row["split"]: row["utterances"] for row in told["splits"]} == {"train": 24, "valid": 8, "test": 8}
    assert len(told["normalization"]) == 25 + 58


def test_prepare_converts_a_pickle_and_counts_what_it_set_to_zero(tmp_path: Path, capsys):
    import pickle

    import numpy as np

    def part(count: int) -> dict[str, Any]:
        rng = np.random.default_rng(count)
        return {
            "id": [f"video{i}$_$1" for i in range(count)],
            "raw_text": ["that was fine"] * count,
            "audio": rng.normal(size=(count, 6, 4)).astype(np.float32),
            "vision": rng.normal(size=(count, 6, 3)).astype(np.float32),
            "regression_labels": np.linspace(-3, 3, count),
        }

    content = {"train": part(5), "valid": part(3), "test": part(2)}
    content["train"]["audio"][0, 0, 0] = -np.inf
    (tmp_path / "mosi.pkl").write_bytes(pickle.dumps(content))
    told = answer(capsys, "prepare", tmp_path / "mosi.pkl", "--out", tmp_path / "out")
    assert {split: found["utterances"] for split, found in told["splits"].items()} == {
        "train": 5,
        "valid": 3,
        "test": 2,
    }
    assert told["splits"]["train"]["infinite"]["audio"] == 1
    assert run(["inspect", str(tmp_path / "out")]) == 0


def test_prepare_makes_a_dataset_of_clips_and_lists_what_failed(tmp_path: Path, clips: Path, capsys):
    folder = tmp_path / "clips"
    folder.mkdir()
    (folder / "broken.mp4").write_text("this is no video")
    (folder / "label.csv").write_text(
        f"path,text,label,split\n{clips / 'smile_short.mp4'},that was fine,1.0,train\nbroken.mp4,no,-1.0,train\n"
    )
    told = answer(
        capsys,
        "prepare",
        folder,
        "--out",
        tmp_path / "out",
        "--vision",
        "none",
        "--audio",
        "mfcc",
        "--workers",
        1,
    )
    assert told["rows"]["train"] == 1
    assert [failure["path"].endswith("broken.mp4") for failure in told["failures"]] == [True]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nothing at nowhere"),
        (["{file}", "--fps", "5"], "--fps is for a folder of clips"),
        (["{folder}", "--name", "mosi"], "--name is for an MMSA pickle"),
        (["{folder}", "--shard", "4/3"], "I/N"),
        (["{folder}", "--audio", "egmaps"], "egemaps"),
    ],
)
def test_prepare_refuses_in_one_line_what_it_cannot_do(
    tmp_path: Path, arguments: list[str], said: str, capsys
):
    (tmp_path / "some.pkl").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    given = [word.format(file=tmp_path / "some.pkl", folder=tmp_path / "folder") for word in arguments]
    assert run(["prepare", given[0], "--out", str(tmp_path / "out"), *given[1:]]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
