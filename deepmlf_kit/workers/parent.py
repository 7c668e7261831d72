"""The starting process's end: start a worker, send it work, read its reports, notice its death, end it.

stdin   first the settings, then any messages: JSON, one object per line; a worker ends when its stdin does
stdout  reports: JSON, one object per line
stderr  whatever it and its libraries print: the log, whose last line tells why it died
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Report = dict[str, Any]
Reports = queue.SimpleQueue[tuple["WorkerProcess", Report | None]]
"""Reports as they come, each with its worker; None after the last one of a worker that has ended."""

_PACKAGE_PARENT = Path(__file__).parents[2]


class WorkerProcess:
    """A worker, from the side of the process that started it.

    Args:
        module: what it runs, as `python -m module`.
        settings: the first line that it reads.
        reports: where its reports are put (by a thread of their own); several workers may share one queue.
        environment: variables to set, beside those of this process.
        log: file for what it prints; None: a temporary one.
        own_session: whether it gets a session of its own, so that Ctrl-C in the terminal does not reach it.
    """

    def __init__(
        self,
        module: str,
        settings: Mapping[str, Any],
        reports: Reports,
        *,
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
        own_session: bool = False,
    ) -> None:
        self._reports = reports
        # Open as long as the process lives
        self._log = tempfile.TemporaryFile() if log is None else log.open("w+b")  # noqa: SIM115
        path = os.pathsep.join(filter(None, (str(_PACKAGE_PARENT), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                module,
            ],  # -P: nothing is imported from the folder that one happens to be in
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **(environment or {}), "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
            encoding="utf-8",
            start_new_session=own_session,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self.send(settings)

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message; to a dead worker nothing happens, and the missing report says so."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    @property
    def peak_memory(self) -> float:
        """Most memory that it has taken so far, in MB; 0 where the system does not say, or when it has ended."""
        with contextlib.suppress(OSError, StopIteration):
            status = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
            return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1000
        return 0.0

    @property
    def exit_code(self) -> int:
        """Its exit code, negative for a signal; waits until it has ended."""
        return self._process.wait()

    @property
    def last_line(self) -> str:
        """The last line that it printed; empty where it printed nothing."""
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().decode("utf-8", "replace").splitlines()]
        return next(filter(None, reversed(lines)), "")

    def finish(self, patience: float = 5.0) -> None:
        """Send no more work, and wait for its end; kill it after `patience` seconds."""
        self._close_stdin()
        self.wait(patience)

    def terminate(self) -> None:
        """Ask it to end (SIGTERM)."""
        self._process.terminate()

    def wait(self, patience: float) -> None:
        """Wait until it has ended; kill it after `patience` seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        self.kill()

    def kill(self) -> None:
        """End it now, if it has not ended; whoever waits for a report gets None."""
        self._process.kill()
        self._process.wait()
        self._close_stdin()
        self._reports.put((self, None))

    def _close_stdin(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # what could not be written to a dead process
            self._process.stdin.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            try:
                for line in lines:
                    if not line.endswith("\n"):
                        break
                    self._reports.put((self, json.loads(line)))
            except (ValueError, OSError):  # garbage: what a dying process leaves
                self._process.kill()
        self._reports.put((self, None))


def end_all(workers: Sequence[WorkerProcess], patience: float) -> None:
    """Ask workers to end, and kill those that have not after `patience` seconds: no process stays behind."""
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.wait(patience)


def thread_limits(count: int) -> dict[str, str]:
    """Environment variables that limit the numerical libraries of a worker to `count` threads."""
    return {f"{name}_NUM_THREADS": str(count) for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")}
