"""A sweep shared between processes: nothing is trained twice, nothing is missing, whoever dies or is stopped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from training_fixtures import tiny_sample

from deepmlf_kit.cli.frame import run as command
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.sweep import jobs as jobs_module
from deepmlf_kit.sweep import run_sweep, searching
from deepmlf_kit.sweep import trials as trials_module
from deepmlf_kit.sweep.plan import Point, SweepPlan
from deepmlf_kit.sweep.searching import search

TESTS = Path(__file__).parent
PLAN = """
description: Small enough for a test
preset: sample
sample: {train: 160, valid: 24, test: 40}
set: {training.epochs: 3, training.early_stop: 3, pretraining.epochs: 2}
grid: {depth: [1, 2]}
seeds: [0, 1]
"""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Run a sweep of three numbers of tokens with fake workers; what was told, and the result."""
    monkeypatch.setattr(jobs_module, "WORKER", "fake_sweep_worker")
    monkeypatch.setattr(trials_module, "digest_of", lambda _: "the same")
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    small = {"train": 8, "valid": 4, "test": 4}
    tokens = SweepPlan(grid={"fusion.tokens": [1, 2, 3]}, seeds=(0,), sample=small)

    def start(fate: str = "", plan: SweepPlan = tokens, **named: Any) -> tuple[list[str], Any]:
        monkeypatch.setenv("FATE", fate)
        told: list[str] = []
        return told, run_sweep(plan, None, tmp_path / "s", **{"jobs": 2, "tell": told.append, **named})

    return start


# How many, and what each gets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["0", "-1", "two", "1.5", ""])
def test_a_wrong_number_of_jobs_is_one_line(
    wrong: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command(["sweep", "depth", f"--jobs={wrong}", "--out", str(tmp_path / "s")]) == 2
    err = capsys.readouterr().err
    assert f"jobs is '{wrong}'" in err and "--jobs 2" in err and err.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_auto_is_a_process_for_each_gpu_or_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "_cores", lambda: 6)
    monkeypatch.setattr(jobs_module, "_gpus", lambda: [])
    assert jobs_module.job_count("auto") == 6
    monkeypatch.setattr(jobs_module, "_gpus", lambda: ["0", "1"])
    assert jobs_module.job_count("auto") == 2


def test_cores_are_shared_evenly_and_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "_cores", lambda: 7)
    monkeypatch.setattr(jobs_module, "_gpus", lambda: ["2", "GPU-5f"])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    three = jobs_module.shares(3)
    assert [share["OMP_NUM_THREADS"] for share in three] == ["2"] * 3
    assert [share["CUDA_VISIBLE_DEVICES"] for share in three] == ["2", "GPU-5f", "2"]
    assert jobs_module.shares(20)[0]["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(jobs_module, "_gpus", lambda: [])
    assert jobs_module.shares(2)[0]["OMP_NUM_THREADS"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in jobs_module.shares(2)[0]


def test_what_lies_in_memory_cannot_be_shared(tmp_path: Path) -> None:
    plan = SweepPlan(grid={"depth": [1]})
    with pytest.raises(DeepMLFError, match="in memory"):
        run_sweep(plan, tiny_sample(), tmp_path / "s", jobs=2)
    assert not (tmp_path / "s").exists()


# With fake workers ---------------------------------------------------------------------------------------------


def test_every_trial_is_told_once_and_the_report_has_all(started: Any) -> None:
    told, result = started()
    assert result.missing == 0 and set(result.table["fusion.tokens"]) == {1, 2, 3}
    assert sorted(line.split()[0] for line in told) == ["1/3", "2/3", "3/3"]
    assert sorted(line.split()[1] for line in told) == [f"tokens={n}_seed=0:" for n in (1, 2, 3)]
    assert result.report.is_file()
    assert started()[0] == ["3 of 3 trainings are finished already."]


def test_the_trial_of_a_dead_worker_goes_to_the_others(started: Any) -> None:
    told, result = started(fate="first is killed")
    assert result.missing == 0
    (said,) = (line for line in told if line.startswith("worker"))
    assert "SIGKILL" in said and "the others take its trial" in said and ".log" in said


def test_where_all_workers_die_the_user_is_told_to_repeat(started: Any) -> None:
    with pytest.raises(DeepMLFError, match=r"exit code 3: out of luck.*repeat the command"):
        started(fate="all fail")
    _, result = started()
    assert result.missing == 0


def test_a_failed_trial_is_tried_once_and_again_with_the_next_command(started: Any) -> None:
    told, result = started(fate="trial 2 fails")
    assert result.missing == 1
    assert sum("failed: bad luck" in line for line in told) == 1 and len(told) == 3
    told, result = started()
    assert result.missing == 0 and told[0].startswith("2 of 3") and told[1].startswith("3/3 tokens=2")


def test_jobs_share_one_machines_shard(started: Any) -> None:
    _, result = started(shard=(1, 2))
    assert set(result.table["fusion.tokens"]) == {1, 3} and result.missing == 1


def test_an_interrupt_ends_all_workers(started: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    ids = tmp_path / "ids"
    ids.mkdir()
    monkeypatch.setenv("PROCESS_IDS", str(ids))
    with pytest.raises(KeyboardInterrupt):
        started(fate="trial 2 hangs", tell=interrupt)
    found = [int(path.name) for path in ids.iterdir()]
    assert found and not any(map(alive, found))


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_workers_draw_from_one_study(started: Any, tmp_path: Path) -> None:
    space = {"fusion.tokens": {"low": 1, "high": 64}}
    plan = SweepPlan(
        search=space, samples=5, seeds=(0,), curriculum="random", sample={"train": 8, "valid": 4, "test": 4}
    )
    _, result = started(plan=plan)
    assert result.missing == 0 and 2 <= len(result.table) <= 5  # a draw may repeat
    assert states(plan, tmp_path / "s") == {"COMPLETE": 5}


# Searches ------------------------------------------------------------------------------------------------------


class FakeRun:
    def __init__(self, value: float) -> None:
        self.info = {"best": {"value": value}}


def drawn_points(out: Path, samples: int, stop_at: int | None = None) -> list[dict[str, Any]]:
    """What a search draws when it is stopped at its n-th draw."""
    plan = SweepPlan(name="s", search={"depth": {"low": 1, "high": 1000}}, samples=samples, seeds=(0,))
    points: list[dict[str, Any]] = []

    def train(point: Point) -> list[Any]:
        points.append(point.settings)
        if len(points) == stop_at:
            raise KeyboardInterrupt
        return [FakeRun(point.settings["depth"])]

    out.mkdir(exist_ok=True)
    with contextlib.suppress(KeyboardInterrupt):
        search(plan, out, train)
    return points


def test_a_stopped_search_draws_what_a_whole_one_does(tmp_path: Path) -> None:
    whole = drawn_points(tmp_path / "whole", 4)
    before = drawn_points(tmp_path / "stopped", 4, stop_at=3)
    after = drawn_points(tmp_path / "stopped", 4)
    assert len({point["depth"] for point in whole}) == 4
    assert before == whole[:3] and after == whole[2:]


def test_a_draw_that_another_process_trains_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Waits(Exception):
        pass

    def waits(seconds: float) -> None:
        raise Waits

    monkeypatch.setattr(searching.time, "sleep", waits)
    plan = SweepPlan(name="s", search={"depth": {"low": 1, "high": 1000}}, samples=3, seeds=(0,))
    ours, theirs = [], []

    def train_theirs(point: Point) -> list[Any]:
        theirs.append(point.settings["depth"])
        return [FakeRun(2.0)]

    def train_ours(point: Point) -> list[Any]:
        ours.append(point.settings["depth"])
        with pytest.raises(Waits):  # until ours is finished: it might fail
            search(plan, tmp_path, train_theirs)
        return [FakeRun(1.0)]

    search(plan, tmp_path, train_ours)
    assert len(ours) == 1 and len(theirs) == 2 and len({*ours, *theirs}) == 3
    assert states(plan, tmp_path) == {"COMPLETE": 3}


def states(plan: SweepPlan, out: Path) -> dict[str, int]:
    """How many draws of a study came to which end."""
    return dict(Counter(draw.state.name for draw in searching._study(plan, out).get_trials(deepcopy=False)))


# Killed, and under accelerate ----------------------------------------------------------------------------------


def sweep(plan: Path, out: Path, *more: str, launch: tuple[str, ...] = ("-m",), **named: Any) -> Any:
    """`deepmlf sweep` in a process group of its own, with one thread a process."""
    return subprocess.Popen(
        [sys.executable, *launch, "deepmlf_kit", "sweep", str(plan), "--out", str(out), *more],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
        text=True,
        **named,
    )


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(PLAN)
    return path


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_sweep_ends_with_the_numbers_of_a_whole_one(plan_file: Path, tmp_path: Path) -> None:
    with sweep(plan_file, tmp_path / "whole", "--jobs", "2") as whole:
        assert whole.wait(timeout=600) == 0
    killed = tmp_path / "killed"
    with sweep(plan_file, killed, "--jobs", "2") as process:
        deadline = time.monotonic() + 600
        while not (finished(killed) and in_training(killed)):
            assert process.poll() is None, "the sweep ended before it could be killed"
            assert time.monotonic() < deadline, "no trial was finished in ten minutes"
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    before = {path: (path.stat().st_mtime_ns, path.read_text()) for path in finished(killed)}
    assert 1 <= len(before) < 4
    with sweep(plan_file, killed, "--jobs", "2", "--json", stdout=subprocess.PIPE) as process:
        said, _ = process.communicate(timeout=600)
    assert process.returncode == 0
    assert json.loads(said)["missing"] == 0 and said.count("\n") == 1
    for path, found in before.items():
        assert (path.stat().st_mtime_ns, path.read_text()) == found
    one, other = (
        pd.read_csv(out / "results.csv").drop(columns="seconds") for out in (tmp_path / "whole", killed)
    )
    assert len(one) == 4
    pd.testing.assert_frame_equal(one, other, check_exact=True)


def finished(out: Path) -> list[Path]:
    """`run.json` of every trial whose training is finished."""
    found = (out / "trials").glob("*/run.json")
    return [path for path in found if json.loads(path.read_text())["state"] == "finished"]


def in_training(out: Path) -> bool:
    """Whether a trial has an epoch behind it and others before it."""
    rows = [path.read_text().count("\n") for path in (out / "trials").glob("*/metrics.jsonl")]
    return any(0 < count < 3 for count in rows)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_under_accelerate_write_and_tell_once(plan_file: Path, tmp_path: Path) -> None:
    launch = (
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--main_process_port",
        "29741",
        "-m",
    )
    more = ("--seeds", "0", "--json")
    with sweep(plan_file, tmp_path / "s", *more, launch=launch, stdout=subprocess.PIPE) as process:
        said, _ = process.communicate(timeout=800)
    assert process.returncode == 0
    assert json.loads(said)["finished"] == 2 and said.count("\n") == 1
    table = pd.read_csv(tmp_path / "s" / "results.csv")
    assert list(table["depth"]) == [1, 2] and table[["MAE", "Corr"]].notna().all(axis=None)
    assert (tmp_path / "s" / "report.html").is_file()
    assert not list((tmp_path / "s").glob("*.tmp"))
