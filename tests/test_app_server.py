"""The served app, used by its HTTP interface: several users, bad files, nothing kept, nothing sent elsewhere."""

import json
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from app_fixtures import served, tiny_run
from clips_made import make_bad_clip, make_clip, voice


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
    """Read a sound file; returns (steps, answer, plot, reasons, three files, words, again)."""
    from gradio_client import handle_file

    return client.predict(None, handle_file(str(path)), words, True, True, None, api_name="/read")


def sentiment(result) -> float:
    assert "data-testid" in result[1], result[1]
    return json.loads(Path(result[4]).read_text())["sentiment"]


def test_a_clip_is_answered_with_words_reasons_and_tables(user, clip):
    result = read(user(), clip, "what a lovely day")
    assert -10 < sentiment(result) < 10
    assert "What the answer rests on" in result[3] and "lovely" in result[3]
    told = json.loads(Path(result[4]).read_text())
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
    result = user().predict(None, None, "", True, True, None, api_name="/read")
    assert "No clip yet" in result[1]


def test_closing_the_tab_deletes_the_upload_and_everything_made_of_it(app, user, clip):
    client = user()
    read(client, clip, "what a lovely day")
    session = app.sessions.get(client.session_hash)
    uploads, folder = set(session.uploads), session.folder
    assert uploads and all(path.is_file() for path in uploads) and any(folder.iterdir())
    heartbeat = urllib.request.urlopen(f"{app.url}gradio_api/heartbeat/{client.session_hash}")
    heartbeat.readline()
    heartbeat.close()  # what a closed tab does
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


def test_a_closed_app_leaves_no_files(tmp_path):
    with served(tiny_run(tmp_path), speech=False) as running:
        folder = running.folder
        assert folder.is_dir()
    assert not folder.exists()


def test_the_hosted_page_has_the_header_that_spaces_need():
    import yaml

    folder = Path(__file__).parents[1] / "apps"
    header = yaml.safe_load((folder / "README.md").read_text().split("---")[1])
    assert header["sdk"] == "gradio" and (folder / header["app_file"]).is_file()
    assert "deepmlf-kit" in (folder / "requirements.txt").read_text()
