"""The served app, used by its HTTP interface: several users, bad files, nothing kept, nothing sent elsewhere."""

import http.client
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from app_fixtures import served, tiny_run
from clips_made import make_bad_clip, make_clip, voice

from deepmlf_kit.data import extraction_process
from deepmlf_kit.data.extraction_process import ExtractionProcess


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPMLF_FACE_MODEL", "/nowhere/face_landmarker.task")
        with served(tiny_run(tmp_path_factory.mktemp("app")), speech=False) as running:
            yield running


@pytest.fixture
def user(app):
    """A function that opens another tab."""
    from gradio_client import Client

    opened = []

    def open_tab():
        opened.append(Client(app.url, verbose=False, analytics_enabled=False))
        return opened[-1]

    yield open_tab
    for client in opened:
        app.sessions.close(client.session_hash)


@pytest.fixture
def clip(tmp_path):
    return make_clip(tmp_path / "clip.wav", 1.0, video=None, audio="pcm_s16le")


def read(client, path, words=""):
    """Read a sound file; returns (steps, answer, words, plot, what it shows, reasons, four files, ...)."""
    from gradio_client import handle_file

    return client.predict(handle_file(str(path)), words, True, True, api_name="/read")


def sentiment(result) -> float:
    assert "data-testid" in result[1], result[1]
    return json.loads(Path(result[7]).read_text())["sentiment"]


def test_a_clip_is_answered_with_words_reasons_and_tables(user, clip):
    result = read(user(), clip, "what a lovely day")
    assert -10 < sentiment(result) < 10
    assert "What else it rests on" in result[5] and "lovely" in result[2]
    told = json.loads(Path(result[7]).read_text())
    assert told["text"] == "what a lovely day" and told["sentiment"] == pytest.approx(
        sentiment(result), abs=0.01
    )


def test_other_words_answer_again_without_extracting_again(app, user, clip, monkeypatch):
    client = user()
    first = read(client, clip, "what a lovely day")
    monkeypatch.setattr(app.models.predictor, "extractor", None)  # would fail if it were called
    again = client.predict("what a terrible day", True, True, api_name="/again")
    assert sentiment(again) != sentiment(first) and "was" in again[1]
    without_voice = client.predict("what a terrible day", False, True, api_name="/again")
    assert sentiment(without_voice) != sentiment(again)


def test_two_users_at_once_do_not_mix(app, user, tmp_path):
    texts = ["what a lovely day", "this was terrible"]
    clips = [
        make_clip(
            tmp_path / f"{n}.wav",
            1.0 + n,
            video=None,
            audio="pcm_s16le",
            sound=voice(1.0 + n, pitch=120 + 90 * n),
        )
        for n in range(2)
    ]
    alone = []
    for path, text in zip(clips, texts, strict=True):
        alone.append(sentiment(read(user(), path, text)))
    assert alone[0] != alone[1]
    clients = [user(), user()]
    found: list[list[float]] = [[], []]

    def use(n: int) -> None:
        for _ in range(3):
            found[n].append(sentiment(read(clients[n], clips[n], texts[n])))
            found[n].append(sentiment(clients[n].predict(texts[n], True, True, api_name="/again")))

    threads = [threading.Thread(target=use, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert found == [[alone[0]] * 6, [alone[1]] * 6]
    sessions = [app.sessions.get(client.session_hash) for client in clients]
    assert [session.prediction.text for session in sessions] == texts


def test_asking_again_before_any_clip_changes_nothing(user):
    assert "data-testid" not in str(user().predict("hello", True, True, api_name="/again"))


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "long"])
def test_a_bad_file_is_answered_with_one_line(user, tmp_path, kind):
    path = tmp_path / "clip.wav"
    whole = make_clip(tmp_path / "whole.flac", 1.0, video=None, audio="flac")
    make_bad_clip(path, kind, whole.read_bytes()[:60], seconds=61.5, video=None, audio="pcm_s16le")
    result = read(user(), path)
    assert 'role="alert"' in result[1] and "sentiment" not in result[1]
    assert str(tmp_path) not in result[1] and "Traceback" not in result[1]


def test_reading_without_a_clip_says_what_to_do(user):
    result = user().predict(None, "", True, True, api_name="/read")
    assert "No clip yet" in result[1]


def test_closing_the_tab_deletes_the_upload_and_everything_made_of_it(app, user, clip):
    client = user()
    read(client, clip, "what a lovely day")
    session = app.sessions.get(client.session_hash)
    uploads, folder = set(session.uploads), session.folder
    assert uploads and all(path.is_file() for path in uploads) and any(folder.iterdir())
    client.close()  # its heartbeat ends, as that of a closed tab
    deadline = time.monotonic() + 60
    while (folder.exists() or any(path.exists() for path in uploads)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not folder.exists() and not any(path.exists() for path in uploads)
    assert app.sessions.find(client.session_hash) is None


def test_the_server_is_private(app):
    assert app.url.startswith("http://127.0.0.1:")
    assert app.page.share_url is None
    with urllib.request.urlopen(app.url) as page:
        policy = page.headers["content-security-policy"]
        html = page.read().decode()
    assert "default-src 'self'" in policy and "http" not in policy
    assert "fonts.googleapis" not in html and "cdnjs" not in html
    assert app.folder.stat().st_mode & 0o077 == 0


def refused(app, path="/", **headers) -> int:
    """The status of a request with other headers than a browser's own page sends."""
    host = app.url.split("/")[2]
    connection = http.client.HTTPConnection(host, timeout=60)
    connection.putrequest("POST" if "Content_Length" in headers else "GET", path, skip_host=True)
    for name, value in {"Host": host, **headers}.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


def test_foreign_hosts_and_pages_are_refused_and_store_nothing(app):
    before = set(app.folder.rglob("*"))
    body = {"Content_Length": "1000", "Content_Type": "multipart/form-data; boundary=x"}
    assert refused(app) == 200
    assert refused(app, Host="rebound.example") == 403
    assert refused(app, "/gradio_api/upload", Origin="http://foreign.example", **body) == 403
    assert refused(app, "/gradio_api/upload", Host="rebound.example", **body) == 403
    assert set(app.folder.rglob("*")) == before


def test_a_request_of_200_mb_is_refused_before_it_is_sent(app):
    for path in ("/gradio_api/queue/join", "/gradio_api/upload"):
        assert refused(app, path, Content_Length="200000000", Content_Type="application/json") == 413


def test_the_interface_offers_what_it_names_and_nothing_else(app):
    assert list(app.page.get_api_info()["named_endpoints"]) == ["/read", "/again"]
    assert not any("lambda" in str(entry["api_name"]) for entry in app.page.config["dependencies"])


def test_an_answer_computes_in_one_thread(app):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 1


def test_closing_the_tab_ends_the_process_that_reads_its_clip(app, user, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("DEEPMLF_TEST", "faulty")  # so that no warm process is taken
    monkeypatch.setattr(extraction_process, "WORKER", "faulty_worker")
    reading, real = queue.SimpleQueue(), ExtractionProcess.ask

    def ask(process, job, progress=None):
        if not job.get("probe"):
            reading.put(process)
        return real(process, job, progress)

    monkeypatch.setattr(ExtractionProcess, "ask", ask)
    client = user()
    from gradio_client import handle_file

    hanging = make_clip(tmp_path / "hangs.wav", 1.0, video=None, audio="pcm_s16le")
    client.submit(handle_file(str(hanging)), "", True, True, api_name="/read")
    process = reading.get(timeout=120).process
    assert process.running
    app.sessions.close(client.session_hash)  # as when it is gone
    deadline = time.monotonic() + 60
    while process.running and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not process.running


@pytest.mark.parametrize("content", [None, b"no model"])
def test_a_bad_face_model_is_said_before_anything_starts(tmp_path, content):
    from deepmlf_kit.app import launch
    from deepmlf_kit.errors import DeepMLFError

    path = tmp_path / "face.task"
    if content:
        path.write_bytes(content)
    with pytest.raises(DeepMLFError, match=r"face\.task") as refusal:
        launch(face_model=path, block=False)
    assert "\n" not in str(refusal.value)


def test_an_app_for_others_says_so_on_the_terminal_and_on_the_page(tmp_path, capsys):
    from deepmlf_kit.app import launch

    app = launch(
        tiny_run(tmp_path), host="0.0.0.0", allowed_hosts=["demo.example"], speech=False, block=False
    )
    try:
        assert "everybody who can reach this machine" in capsys.readouterr().err
        port = app.url.rstrip("/").rpartition(":")[2]
        app.url = f"http://127.0.0.1:{port}/"
        assert refused(app, Host="demo.example") == 200 and refused(app, Host="rebound.example") == 403
        with urllib.request.urlopen(f"{app.url}config") as config:
            page = config.read().decode()
        assert "sent to the machine that serves this page" in page and "nothing of it leaves" not in page
    finally:
        app.close()


def test_the_queue_is_bounded(app):
    assert app.page._queue.max_size == 32


def test_what_the_server_has_is_said(app):
    from deepmlf_kit.app.views import status_line

    html = status_line(app.models.status)
    assert "No face model" in html and "Type the words" in html


def test_a_missing_checkpoint_is_said_before_anything_starts(tmp_path):
    from deepmlf_kit.app import launch
    from deepmlf_kit.errors import DeepMLFError

    with pytest.raises(DeepMLFError, match="No run at"):
        launch(tmp_path / "nothing", block=False)


def test_an_app_that_is_ended_while_its_models_load_says_nothing(tmp_path):
    """The face model asks for a thread while it loads, which a Python that is shutting down refuses."""
    with zipfile.ZipFile(tmp_path / "face.task", "w"):
        pass
    program = f"""
import time
from concurrent.futures import ThreadPoolExecutor
from deepmlf_kit.app import launch, models
class FaceTracker:
    def __init__(self, path):
        print("loading", flush=True)
        time.sleep(0.5)
        ThreadPoolExecutor(1).submit(int).result()
    def close(self):
        print("loaded", flush=True)
models.FaceTracker = FaceTracker
launch({str(tiny_run(tmp_path))!r}, face_model={str(tmp_path / "face.task")!r}, speech=False)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as process:
        assert process.stdout is not None
        assert any(line == "loading\n" for line in process.stdout)
        os.killpg(process.pid, signal.SIGTERM)
        out, err = process.communicate(timeout=120)
    assert out == "loaded\n" and err == "" and process.returncode == 0
    assert not [*tmp_path.glob("deepmlf-*")]


def test_a_closed_app_leaves_no_files(tmp_path):
    with served(tiny_run(tmp_path), speech=False) as running:
        folder = running.folder
        assert folder.is_dir()
    assert not folder.exists()
