"""Every preset trains, by the command a user types, on a tiny LM of its kind and with every other setting its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import DatasetDict
from preset_lms import save_like

from deepmlf_kit.cli.frame import run
from deepmlf_kit.data.schema import build_split, save, utterance
from deepmlf_kit.training.presets import Preset, available_presets, load_preset

ENGLISH = ["that was fine", "i did not like it at all", "great", ""]
CHINESE = ["这部电影很好看", "我不喜欢", "好", ""]


def dataset_for(preset: Preset, folder: Path) -> Path:
    """A few utterances with the preset's features and scale of labels."""
    texts = CHINESE if preset.data.scale == "sims" else ENGLISH
    top = 1 if preset.data.scale == "sims" else 3
    audio_dim, vision_dim = preset.av_encoder.audio_dim, preset.av_encoder.vision_dim
    rng = np.random.default_rng(0)

    def rows(split: str, count: int) -> Any:
        for i in range(count):
            yield utterance(
                f"{split}{i}$_$1",
                texts[i % len(texts)],
                rng.normal(size=(20, audio_dim)),
                rng.normal(size=(15, vision_dim)),
                float(np.linspace(-top, top, count)[i]),
                audio_dim=audio_dim,
                vision_dim=vision_dim,
            )

    splits = {name: build_split(rows(name, 8), audio_dim, vision_dim) for name in ("train", "valid", "test")}
    return save(DatasetDict(splits), folder)


@pytest.mark.parametrize("name", available_presets())
def test_every_preset_takes_a_training_step_by_the_command_a_user_types(name, tmp_path, capsys):
    preset = load_preset(name)
    dataset = dataset_for(preset, tmp_path / "data")
    epochs = ["--set", "training.epochs=1", "--set", "pretraining.epochs=1"]
    given = [dataset, "--preset", name, "--json", *epochs]
    if preset.lm.name != "embedded":
        lm = save_like(preset.lm.name, tmp_path / "lm", CHINESE if name == "sims" else ENGLISH)
        given += ["--set", f"lm.name={lm}"]
    for command in (
        ["pretrain-av", *given, "--out", tmp_path / "av"],
        ["train", *given, "--out", tmp_path / "run", "--av-encoder", tmp_path / "av"],
    ):
        capsys.readouterr()
        assert run([str(word) for word in command]) == 0, capsys.readouterr().err
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert np.isfinite(metrics["MAE"]) and np.isfinite(metrics["loss"])
    assert ("loss_lm" in metrics) == bool(preset.loss.lm)


def test_the_lm_loss_needs_no_setting_but_its_weight(tmp_path, capsys):
    dataset = dataset_for(load_preset("sample"), tmp_path / "data")
    settings = ["--set", "loss.lm=1.0", "--set", "training.epochs=1"]
    command = ["train", str(dataset), "--out", str(tmp_path / "run"), "--json", *settings]
    assert run(command) == 0, capsys.readouterr().err
    assert np.isfinite(json.loads(capsys.readouterr().out)["metrics"]["loss_lm"])
