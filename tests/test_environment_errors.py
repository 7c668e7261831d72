"""What the machine does to a command: full disks, odd names, signals, no home; each is one line, and caches are optional."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))
from training_fixtures import TINY

from deepmlf_kit.cli import frame
from deepmlf_kit.data import schema
from deepmlf_kit.data.sample import make_sample
from deepmlf_kit.features.cache import FeatureCache
from deepmlf_kit.model.text_cache import open_text_cache
from deepmlf_kit.storage.problems import environment_problem
from deepmlf_kit.training import train

SAMPLE = ["sample", "--train", "3", "--valid", "2", "--test", "2", "--out"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return schema.save(make_sample(0, 3, 2, 2), tmp_path_factory.mktemp("data") / "set")


def one_line(capfd: pytest.CaptureFixture[str]) -> str:
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and err.startswith("deepmlf: ") and "defect" not in err, err
    return err


# Names and places ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("file", "is a file, but a folder is to be written there"),
        ("file/inside", "file exists: a folder is needed there"),
        ("n" * 260, "file name too long: choose a shorter name"),
        ("m\udcff", "is not in UTF-8"),
        ("circle/x", "file exists: a folder is needed there"),
    ],
)
def test_a_place_that_cannot_be_written_is_one_line(
    name: str, told: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "circle").symlink_to("circle")
    assert frame.run([*SAMPLE, str(tmp_path / name)]) == 2
    assert told in one_line(capfd)
    assert (tmp_path / "file").read_text() == "mine" and sorted(os.listdir(tmp_path)) == ["circle", "file"]


@pytest.mark.parametrize("name", ["file", "file/inside", "n" * 260])
def test_a_run_folder_that_cannot_be_made_is_one_line(
    name: str, small: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    assert frame.run(["train", str(small), "--out", str(tmp_path / name)]) == 2
    one_line(capfd)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_name_of_250_characters_is_taken(tmp_path: Path) -> None:
    assert frame.run([*SAMPLE, str(tmp_path / ("n" * 250))]) == 0
    assert len(schema.load(tmp_path / ("n" * 250))["train"]) == 3


def test_a_full_disk_is_one_line_and_the_old_dataset_stays(small: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk's end: both stop a write half-way."""
    out = schema.save(schema.load(small), tmp_path / "set")
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
    code += "from deepmlf_kit.cli.frame import run; sys.exit(run(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, *SAMPLE, str(out), "--seed", "7"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "file too large" in done.stderr and os.listdir(tmp_path) == ["set"]
    assert schema.load(out)["train"]["text"][:] == schema.load(small)["train"]["text"][:]


@pytest.mark.slow
def test_a_disk_that_fills_in_a_training_is_a_line_of_its_own(small: Path, tmp_path: Path) -> None:
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
    code += "from deepmlf_kit.cli.frame import run; sys.exit(run(sys.argv[1:]))"
    tiny = ["--set", "training.epochs=1", "--set", "fusion.layers=[7]", "--set", "training.keep_text=0"]
    done = subprocess.run(
        [sys.executable, "-c", code, "train", str(small), "--out", str(tmp_path / "run"), *tiny],
        capture_output=True,
        text=True,
    )
    *_, last = done.stderr.splitlines()
    assert done.returncode == 2 and last.startswith("deepmlf: ") and "defect" not in last, done.stderr
    assert "Traceback" not in done.stderr


def test_libraries_words_for_a_full_disk_are_understood(tmp_path: Path) -> None:
    full = "no space left on device"
    assert full in (environment_problem(OSError(errno.ENOSPC, "x", "a.pt")) or "")
    told = "Error while serializing: I/O error: No space left on device (os error 28)"
    assert full in (environment_problem(RuntimeError(told)) or "")
    assert full in (environment_problem(RuntimeError("PytorchStreamWriter failed writing file data/0")) or "")
    with pytest.raises(Exception, match="os error") as raised:
        save_file({"a": torch.zeros(1)}, tmp_path / "gone" / "a.safetensors")
    assert "no such file" in (environment_problem(raised.value) or "")
    try:
        raise ValueError("while cleaning up") from PermissionError(errno.EACCES, "denied", "/etc/x")
    except ValueError as error:
        assert (environment_problem(error) or "").startswith("/etc/x: permission denied: choose a place")
    assert environment_problem(KeyError("ours")) is None
    missing = environment_problem(ModuleNotFoundError("No module named 'mediapipe'", name="mediapipe"))
    assert missing is not None and missing.startswith("the library mediapipe is missing")
    assert environment_problem(ImportError("gone", name="deepmlf_kit.data")) is None
    assert environment_problem(UnicodeEncodeError("ascii", "é", 0, 1, "no")) is None


# Signals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_command_says_one_line(sent: signal.Signals, code: int, tmp_path: Path) -> None:
    program = "import sys, time; from deepmlf_kit.cli import frame\n"
    program += "import deepmlf_kit.cli.sample as s\n"
    program += "def command():\n    print('at work', flush=True)\n    time.sleep(60)\n"
    program += "s.command = command; sys.exit(frame.run(['sample']))"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "at work\n"
        time.sleep(0.1)
        process.send_signal(sent)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err.startswith("deepmlf: stopped") and err.count("\n") == 1


# Caches are optional -------------------------------------------------------------------------------------------


def test_training_goes_on_where_the_cache_cannot_be_written(
    dataset: Any,
    language: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "home").write_text("no folder")
    monkeypatch.setenv("DEEPMLF_CACHE", str(tmp_path / "home" / "cache"))
    quiet = {"progress": False, "tensorboard": False, "overrides": {**TINY, "training.epochs": 1}}
    with caplog.at_level(logging.WARNING):
        assert train("sample", dataset, tmp_path / "run", **quiet, **language).finished
    assert "text states are not cached" in caplog.text


def test_a_text_cache_that_cannot_be_opened_is_none(language: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert open_text_cache(tmp_path / "file" / "states", language["lm"], 1) is None
    assert not FeatureCache(tmp_path / "file" / "features").is_writable()


def test_a_user_without_a_home_is_told_of_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    from deepmlf_kit.downloads.cache import CacheError, cache_folder

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("DEEPMLF_CACHE")
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(CacheError, match="DEEPMLF_CACHE"):
        cache_folder()
