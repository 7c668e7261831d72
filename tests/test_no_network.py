"""What reads clips has no network: workers, and MediaPipe wherever it runs. Watched from outside where that is allowed."""

from __future__ import annotations

import json
import queue
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from clips_made import make_clip

from deepmlf_kit.data import extraction_process
from deepmlf_kit.data.extraction_process import ClipExtractor
from deepmlf_kit.features import FeatureRecipe, SpeechModelMissing
from deepmlf_kit.features.vision_blendshapes import FaceTracker
from deepmlf_kit.workers.network import can_refuse_network, refuse_network
from deepmlf_kit.workers.parent import Reports, WorkerProcess

HERE = Path(__file__).parent
refusing = pytest.mark.skipif(not can_refuse_network(), reason="this system refuses no sockets")


def reached() -> str:
    """What becomes of a socket and of a name look-up here."""
    said = []
    for attempt in (socket.socket, lambda: socket.getaddrinfo("localhost.example", 80)):
        try:
            attempt()
            said.append("open")
        except OSError as error:
            said.append(type(error).__name__)
    return " ".join(said)


@refusing
def test_a_thread_without_a_network_leaves_none_to_what_it_starts_and_the_others_alone():
    found: dict[str, Any] = {}

    def sealed() -> None:
        found["refused"] = refuse_network()
        found["itself"] = reached()
        below = threading.Thread(target=lambda: found.update(thread=reached()))
        below.start()
        below.join()
        child = [sys.executable, "-c", "import socket; socket.socket()"]
        found["process"] = subprocess.run(child, capture_output=True, text=True).stderr.splitlines()[-1]
        found["pair"] = bool(socket.socketpair())

    thread = threading.Thread(target=sealed)
    thread.start()
    thread.join()
    assert found["refused"] and found["pair"]
    assert found["itself"] == found["thread"] == "PermissionError gaierror"
    assert found["process"].startswith("PermissionError")
    socket.socket().close()


@refusing
def test_mediapipe_runs_in_a_thread_without_a_network(monkeypatch: pytest.MonkeyPatch):
    def opened(self: FaceTracker, model: str) -> Any:
        found.append(reached())
        return type("Landmarker", (), {"close": lambda self: found.append(reached())})()

    found: list[str] = []
    monkeypatch.setattr(FaceTracker, "_open", opened)
    with FaceTracker("face_landmarker.task"):
        pass
    assert found == ["PermissionError gaierror"] * 2


@refusing
def test_a_worker_that_extracts_gets_no_socket(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    reports: Reports = queue.SimpleQueue()
    settings = {"recipe": None, "cache": None, "face_model": None, "speech": False}
    worker = WorkerProcess("curious_worker", settings, reports)
    try:
        assert reports.get(timeout=120)[1] == {"ready": True}
        worker.send({"path": "clip.wav", "probe": True})
        answer = reports.get(timeout=120)[1]
    finally:
        worker.kill()
    assert answer is not None and answer["failed"].endswith("PermissionError gaierror).")


def test_a_missing_model_is_asked_for_by_a_process_that_may_download(tmp_path: Path, monkeypatch):
    clip = make_clip(tmp_path / "clip.wav", 1.0, video=None, audio="pcm_s16le")
    started = []
    real = extraction_process.WorkerProcess

    def noted(module: str, settings: dict, reports: Reports, **more: Any) -> Any:
        started.append((settings.get("download"), more["environment"].get("HF_HUB_OFFLINE")))
        return real(module, settings, reports, **more)

    monkeypatch.setattr(extraction_process, "WorkerProcess", noted)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    extractor = ClipExtractor()
    try:
        with pytest.raises(SpeechModelMissing, match="no-such-model"):
            extractor.extract(clip, FeatureRecipe(vision="none", speech_model="no-such-model"))
    finally:
        extractor.close()
    assert started == [(None, "1"), ("SpeechModelMissing", None)]


# Watched from outside ----------------------------------------------------------------------------------------


def asked(*code: str) -> list[str]:
    """The names that a Python program asks for, and `connected` for each connection it makes."""
    program = [sys.executable, "-c", "\n".join(code)]
    witness = ["unshare", "-rn", sys.executable, str(HERE / "network_witness.py"), *program]
    done = subprocess.run(witness, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def can_watch() -> bool:
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not can_watch(), reason="needs a network namespace (unshare -rn)")
def test_a_real_face_tracker_and_a_real_worker_ask_nobody(face_model: Path):
    example = Path(extraction_process.__file__).parents[1] / "assets" / "examples" / "praise.mp4"
    plain = asked("import socket", "print(socket.getaddrinfo('example.org', 80))")
    assert "example.org" in plain  # the witness hears
    here = asked(
        "import time",
        "from deepmlf_kit.features import FeatureRecipe, extract_clip",
        f"made = extract_clip({str(example)!r}, FeatureRecipe(), text='', face_model={str(face_model)!r})",
        "assert made.found.face_share > 0.5",
        "time.sleep(3)",  # reports are sent when the task has ended
    )
    worker = asked(
        "import time",
        "from deepmlf_kit.data.extraction_process import ClipExtractor",
        "from deepmlf_kit.features import FeatureRecipe",
        f"made = ClipExtractor().extract({str(example)!r}, FeatureRecipe(), text='', face_model={str(face_model)!r})",
        "assert made.found.face_share > 0.5",
        "time.sleep(3)",
    )
    assert here == worker == []
