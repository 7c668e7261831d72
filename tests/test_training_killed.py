"""A training that is killed without warning, and one on two processes: both end with the weights they should."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from deepmlf_kit.training import Run

SCRIPT = Path(__file__).parent / "training_script.py"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def best_weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.best / "model.safetensors")


def test_a_killed_process_resumes_to_the_same_weights(tmp_path: Path) -> None:
    settings = json.dumps({"training.epochs": 12, "training.early_stop": 12})
    command = [sys.executable, str(SCRIPT)]
    whole = subprocess.Popen([*command, str(tmp_path / "whole"), settings])
    history = tmp_path / "run" / "metrics.jsonl"
    killed_after = []
    for wanted in (2, 5):  # killed twice, some epochs apart
        process = subprocess.Popen([*command, str(tmp_path / "run"), settings])
        deadline = time.monotonic() + 900
        while not (history.exists() and len(history.read_text().splitlines()) >= wanted):
            assert process.poll() is None, "the training ended before it could be killed"
            assert time.monotonic() < deadline, "the training did not get that far in a quarter of an hour"
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        killed_after.append(len(history.read_text().splitlines()))
        assert not Run.open(tmp_path / "run").finished
    assert killed_after[-1] < 12
    subprocess.run([*command, str(tmp_path / "run"), settings], check=True, timeout=900)
    assert whole.wait(timeout=900) == 0

    one, other = Run.open(tmp_path / "whole"), Run.open(tmp_path / "run")
    ours, theirs = best_weights(one), best_weights(other)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    assert one.metrics == other.metrics
    assert [row["valid_MAE"] for row in one.history()] == [row["valid_MAE"] for row in other.history()]


def test_two_processes_train_like_one_with_the_same_global_batch(tmp_path: Path) -> None:
    calm = {
        "heads.task_norm": "layer",
        "fusion.dropout": 0,
        "av_encoder.dropout": 0,
        "seqaug.text_p_apply": 0,
        "seqaug.av_p_feat": 0,
        "training.epochs": 2,
        "training.accumulation": 1,
        "training.group_by_length": False,
    }
    alone = {**calm, "training.batch_size": 8}
    together = {**calm, "training.batch_size": 4}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "one"), json.dumps(alone)], check=True, env=environment
    )
    # `--multi_gpu` is accelerate's name for several processes on one machine; without a GPU they talk by gloo.
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    subprocess.run(
        [*launch, "--main_process_port", "29713", str(SCRIPT), str(tmp_path / "two"), json.dumps(together)],
        check=True,
        env=environment,
        timeout=600,
    )
    one, two = Run.open(tmp_path / "one"), Run.open(tmp_path / "two")
    for ours, theirs in zip(one.history(), two.history(), strict=True):
        assert ours["step"] == theirs["step"]
        for name in ("train_loss", "valid_loss", "valid_MAE"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4), name
    # AdamW makes whole steps of gradients that differ only in rounding, so weights are compared by what they say.
    for name in ("MAE", "loss"):
        assert one.metrics[name] == pytest.approx(two.metrics[name], rel=1e-3), name
