"""Who may use the app: foreign hosts and pages are refused, bodies and disk bounded, and what is said about it is true."""

from __future__ import annotations

import asyncio
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from deepmlf_kit.app import privacy
from deepmlf_kit.app.access import Access, Gate
from deepmlf_kit.app.privacy import network_warning, privacy_statement
from deepmlf_kit.app.sessions import DiskFull, Sessions
from deepmlf_kit.app.settings import Settings

LOCAL, LAN = Settings(), Settings(host="0.0.0.0")
SPACE = Settings(host="0.0.0.0", on_space=True, allowed_hosts=("somebody-demo.hf.space",))
NAMED = Settings(allowed_hosts=("Demo.example.org",))


def problem(settings: Settings, host: str, method: str = "GET", **headers: str) -> str:
    sent = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return Access.of(settings).problem([(n.encode(), v.encode()) for n, v in sent.items()], method)


# Hosts and pages ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "host", "is_taken"),
    [
        (LOCAL, "127.0.0.1:7860", True),
        (LOCAL, "localhost:7860", True),
        (LOCAL, "[::1]:7860", True),
        (LOCAL, "rebound.example:7860", False),
        (LOCAL, "192.168.0.7:7860", False),
        (LOCAL, "localhost.evil.example", False),
        (LOCAL, "127.0.0.1.evil.example", False),
        (LOCAL, "", False),
        (LOCAL, "[::1", False),
        (LAN, "192.168.0.7:7860", True),
        (LAN, "localhost:7860", True),
        (LAN, "rebound.example:7860", False),
        (NAMED, "demo.example.org", True),
        (SPACE, "somebody-demo.hf.space", True),
        (SPACE, "other-demo.hf.space", False),
    ],
)
def test_only_the_apps_own_names_are_answered(settings: Settings, host: str, is_taken: bool):
    assert (problem(settings, host) == "") is is_taken


def test_only_the_apps_own_page_is_answered():
    own = "127.0.0.1:7860"
    assert not problem(LOCAL, own, "POST", origin=f"http://{own}")
    assert not problem(LOCAL, own, "POST")  # no browser: gradio_client, curl
    for origin in ("http://evil.example", "null", "http://127.0.0.1:3000", "http://localhost:7860"):
        assert "other pages" in problem(LOCAL, own, "POST", origin=origin)
    behind_a_proxy = {"origin": "https://demo.example.org"}
    assert problem(LOCAL, own, "POST", **behind_a_proxy)
    assert not problem(NAMED, own, "POST", **behind_a_proxy)


def test_a_foreign_page_may_link_to_the_app_and_load_nothing_of_it():
    own = "127.0.0.1:7860"
    assert not problem(LOCAL, own, sec_fetch_site="cross-site", sec_fetch_mode="navigate")
    assert problem(LOCAL, own, sec_fetch_site="cross-site", sec_fetch_mode="no-cors")
    assert problem(LOCAL, own, "POST", sec_fetch_site="cross-site", sec_fetch_mode="navigate")


def test_nobody_frames_the_page_but_a_space_and_a_notebook():
    assert Access.of(LOCAL).frames == Access.of(LAN).frames == "'none'"
    assert "https://huggingface.co" in Access.of(SPACE).frames
    notebook = Access.of(NAMED, inline=True).frames
    assert "http://localhost:*" in notebook and "https://demo.example.org:*" in notebook
    assert "huggingface" not in notebook and " * " not in notebook


# Bodies ------------------------------------------------------------------------------------------------------


def exchange(
    sessions: Sessions, path: str, chunks: list[int], announced: bool = True, **settings: Any
) -> tuple[int, str, int]:
    """Status, text and bytes read of one POST of chunks of so many bytes, to an app that reads all of them."""
    read, sent = 0, []
    left = list(chunks)

    async def receive() -> dict:
        nonlocal read
        read += left[0]
        return {"type": "http.request", "body": bytes(left.pop(0)), "more_body": bool(left)}

    async def send(message: dict) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"read"})

    headers = [(b"host", b"127.0.0.1:7860")]
    if announced:
        headers.append((b"content-length", str(sum(chunks)).encode()))
    made = Settings(max_megabytes=2, max_request_megabytes=1, **settings)
    gate = Gate(app, Access.of(made), made, sessions)
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    asyncio.run(gate(scope, receive, send))
    assert b"frame-ancestors 'none'" in dict(sent[0]["headers"])[b"content-security-policy"]
    return sent[0]["status"], sent[1]["body"].decode(), read


def test_a_body_that_is_too_long_is_refused_before_it_is_read(tmp_path: Path):
    sessions = Sessions(tmp_path)
    assert exchange(sessions, "/gradio_api/queue/join", [1000]) == (200, "read", 1000)
    assert exchange(sessions, "/gradio_api/queue/join", [1_500_000]) == (413, "At most 1 MB are taken.", 0)
    assert exchange(sessions, "/gradio_api/upload", [1_500_000])[0] == 200
    assert exchange(sessions, "/gradio_api/upload", [3_500_000]) == (413, "At most 2 MB are taken.", 0)


def test_a_body_of_unknown_length_is_read_up_to_the_limit(tmp_path: Path):
    status, said, read = exchange(
        Sessions(tmp_path), "/gradio_api/queue/join", [600_000] * 9, announced=False
    )
    assert (status, said, read) == (413, "At most 1 MB are taken.", 1_200_000)


# Disk --------------------------------------------------------------------------------------------------------


def stored(path: Path, size: int, age: float = 0.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_an_upload_without_room_is_refused_in_one_sentence(tmp_path: Path):
    sessions = Sessions(tmp_path, max_bytes=3000)
    sessions.add_upload(sessions.get("a"), stored(tmp_path / "a" / "clip.mp4", 2500, age=9000))
    status, said, read = exchange(sessions, "/gradio_api/upload", [1000])
    assert (status, read) == (507, 0) and said.startswith("There is no room") and "\n" not in said
    sessions.close("a")
    assert exchange(sessions, "/gradio_api/upload", [1000])[0] == 200


def test_what_nobody_needs_makes_room_the_oldest_first(tmp_path: Path):
    sessions = Sessions(tmp_path, max_bytes=3500)
    session = sessions.get("a")
    used = stored(tmp_path / "a" / "used.mp4", 1000, age=9000)
    sessions.add_upload(session, used)
    download = stored(session.folder / "frames.csv", 100, age=9000)
    oldest, older = stored(tmp_path / "b" / "b.webm", 1000, 900), stored(tmp_path / "c" / "c.wav", 1000, 300)
    with sessions.room_for(1000):
        assert used.exists() and download.exists() and older.exists() and not oldest.parent.exists()
        with pytest.raises(DiskFull), sessions.room_for(2000):  # what is under way counts
            pass
    stored(tmp_path / "d" / "d.wav", 1000)  # has just come: its page has not told of it yet
    with pytest.raises(DiskFull), sessions.room_for(1500):
        pass
    assert (tmp_path / "d" / "d.wav").exists()


def test_a_session_needs_its_last_uploads_only(tmp_path: Path):
    sessions = Sessions(tmp_path, max_bytes=10_500)
    clips = [stored(tmp_path / str(n) / "clip.mp4", 1000, age=9000) for n in range(10)]
    for clip in clips:
        sessions.add_upload(sessions.get("a"), clip)
    with sessions.room_for(1000):
        assert [clip.exists() for clip in clips] == [False] + [True] * 9
    with pytest.raises(DiskFull), sessions.room_for(8000):
        pass
    assert all(clip.exists() for clip in clips[-4:])


def test_uploads_that_no_page_told_of_go_when_nobody_comes_too(tmp_path: Path):
    sessions = Sessions(tmp_path)
    own = stored(tmp_path / "page" / "thumbnail.jpg", 10, age=9000)
    sessions.keep_present()
    left, new = stored(tmp_path / "a" / "clip.mp4", 10, age=9000), stored(tmp_path / "b" / "clip.mp4", 10)
    sessions.tidy()
    assert not left.parent.exists() and new.exists() and own.exists()


# Tabs --------------------------------------------------------------------------------------------------------


def test_a_tab_that_is_cut_off_and_comes_back_keeps_its_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("deepmlf_kit.app.sessions._RETURN", 0.2)
    sessions = Sessions(tmp_path)
    gate = Gate(None, Access.of(LOCAL), LOCAL, sessions)
    reading = sessions.get("tab").begin()

    async def hold(seconds: float) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await asyncio.sleep(seconds)

        gate.app = app
        headers = [(b"host", b"127.0.0.1:7860")]
        scope = {"type": "http", "method": "GET", "path": "/gradio_api/heartbeat/tab", "headers": headers}
        await gate(scope, None, None)

    async def come_back() -> None:
        await asyncio.gather(hold(0.1), hold(1.0))  # the second begins before the first has ended
        await hold(1.0)  # again, soon after

    asyncio.run(come_back())
    assert sessions.find("tab") is not None and not reading.cancelled
    deadline = time.monotonic() + 30
    while sessions.find("tab") is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sessions.find("tab") is None and reading.cancelled


# What is said ------------------------------------------------------------------------------------------------


def test_the_page_says_where_a_clip_goes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(privacy, "can_refuse_network", lambda: True)
    local, lan, space = (privacy_statement(settings) for settings in (LOCAL, LAN, SPACE))
    assert "nothing of it leaves it" in local
    for said in (lan, space):
        assert "nothing of it leaves" not in said and "sent" in said
    assert "Hugging Face" in space and "Hugging Face" not in lan
    assert not any("Google" in said for said in (local, lan, space))


def test_nothing_else_of_the_page_makes_promises_about_where_clips_go():
    folder = Path(privacy.__file__).parent
    promise = re.compile(r"[Nn]othing (of it )?(leaves|is sent)|stays on (this|the|your) machine")
    files = [path for path in folder.iterdir() if path.suffix in (".py", ".js", ".md")]
    assert [path.name for path in files if promise.search(path.read_text())] == ["privacy.py"]


def test_the_page_says_so_where_the_face_readers_reports_cannot_be_stopped(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(privacy, "can_refuse_network", lambda: False)
    for settings in (LOCAL, LAN, SPACE):
        assert "MediaPipe, may report" in privacy_statement(settings)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "lab.example.org"])
def test_whoever_opens_the_app_to_others_is_warned(host: str):
    warning = network_warning(Settings(host=host))
    assert host in warning and "password" in warning and "\n" not in warning


@pytest.mark.parametrize("settings", [LOCAL, SPACE, Settings(host="localhost"), Settings(host="::1")])
def test_nobody_is_warned_who_need_not_be(settings: Settings):
    assert network_warning(settings) == ""
