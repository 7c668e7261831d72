"""Worker processes: what is sent and reported, how a death is noticed, and that none stays behind."""

from __future__ import annotations

import gc
import os
import queue
import sys
import threading
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from deepmlf_kit.workers.imports import left_out, without_collection
from deepmlf_kit.workers.parent import Reports, WorkerProcess, end_all, thread_limits

SOON = 120  # seconds within which a report must come, on a busy machine too


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    started: list[WorkerProcess] = []

    def begin(reports: Reports, module: str = "echo_worker", log: Path | None = None, **settings: Any) -> Any:
        started.append(WorkerProcess(module, settings, reports, log=log))
        return started[-1]

    yield begin
    end_all(started, patience=0)


def test_settings_and_messages_arrive_in_order_and_prints_go_to_the_log(start: Any, tmp_path: Path) -> None:
    reports: Reports = queue.SimpleQueue()
    worker = start(reports, log=tmp_path / "log", greeting="Grüß dich")
    assert reports.get(timeout=SOON) == (worker, {"settings": {"greeting": "Grüß dich"}})
    for number in range(3):
        worker.send({"number": number})
    assert [reports.get(timeout=SOON)[1] for _ in range(3)] == [{"echo": {"number": n}} for n in range(3)]
    worker.finish(SOON)
    assert reports.get(timeout=SOON) == (worker, None)
    assert worker.exit_code == 0
    said = (tmp_path / "log").read_text()
    assert "a library's greeting" in said and "not a report" in said


def test_workers_may_share_one_queue(start: Any) -> None:
    reports: Reports = queue.SimpleQueue()
    both = {start(reports, name=name): name for name in ("one", "other")}
    found = dict(reports.get(timeout=SOON) for _ in both)
    assert {worker: report["settings"]["name"] for worker, report in found.items()} == both


def test_a_death_is_reported_with_exit_code_and_last_line(start: Any) -> None:
    reports: Reports = queue.SimpleQueue()
    worker = start(reports)
    worker.send({"die": "out of luck"})
    assert "settings" in reports.get(timeout=SOON)[1]
    assert reports.get(timeout=SOON)[1] is None
    assert (worker.exit_code, worker.last_line) == (3, "out of luck")
    worker.send({"to": "nobody"})  # no error: the missing report has said it


def test_a_worker_that_cannot_start_says_why(start: Any) -> None:
    reports: Reports = queue.SimpleQueue()
    worker = start(reports, module="no_such_module")
    assert reports.get(timeout=SOON)[1] is None
    assert worker.exit_code == 1 and "no_such_module" in worker.last_line


def test_killing_a_worker_wakes_whoever_waits_for_it(start: Any) -> None:
    reports: Reports = queue.SimpleQueue()
    worker = start(reports)
    reports.get(timeout=SOON)
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.append(reports.get(timeout=SOON)))
    waiting.start()
    worker.kill()
    waiting.join()
    assert found == [(worker, None)] and worker.exit_code < 0


def test_no_process_stays_behind_even_one_that_ignores_the_request(start: Any) -> None:
    reports: Reports = queue.SimpleQueue()
    workers = [start(reports, ignores_sigterm=ignores) for ignores in (True, False)]
    for _ in workers:
        reports.get(timeout=SOON)
    end_all(workers, patience=0.2)
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker._process.pid, 0)


def test_a_worker_that_ends_with_its_parent_ends_when_its_stdin_does(start: Any) -> None:
    reports: Reports = queue.SimpleQueue()
    worker = start(reports, ends_with_parent=True)
    reports.get(timeout=SOON)
    worker.finish(SOON)
    assert reports.get(timeout=SOON)[1] is None
    assert worker.exit_code < 0  # SIGTERM, which it sent itself


def test_threads_are_limited_for_every_numerical_library() -> None:
    assert set(thread_limits(2).values()) == {"2"} and "OMP_NUM_THREADS" in thread_limits(2)


def test_a_package_left_out_imports_as_nothing_and_comes_back() -> None:
    """Whoever took something of it meanwhile is told so when it calls that."""
    name = "wave"
    there = sys.modules.pop(name, None)
    try:
        with left_out(name):
            from wave import Wave_read

            assert find_spec(name) is not None  # as for whoever asks whether it is installed
            with pytest.raises(ImportError, match=r"wave\.Wave_read: wave was left out of this process"):
                Wave_read("a.wav")
        assert name not in sys.modules
        assert import_module(name).Wave_read.__module__ == "wave"
    finally:
        if there is not None:
            sys.modules[name] = there


def test_what_is_imported_already_is_not_left_out() -> None:
    with left_out("json", "no_such_package"):
        assert import_module("json").loads("1") == 1
        assert find_spec("no_such_package") is None


@pytest.mark.parametrize("before", [True, False])
def test_the_collector_is_as_it_was_afterwards(before: bool) -> None:
    was = gc.isenabled()
    try:
        (gc.enable if before else gc.disable)()
        with without_collection():
            assert not gc.isenabled()
        assert gc.isenabled() == before
    finally:
        (gc.enable if was else gc.disable)()
