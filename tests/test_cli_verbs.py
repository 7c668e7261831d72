"""Each verb against the Python call that it wraps, on inputs small enough to be quick."""

import json
from pathlib import Path
from typing import Any

import pytest

from deepmlf_kit.cli.app import run


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
