"""Who may use the app and for what: only its own page, from names that are its own, with bodies of bounded size.

Any page in a user's browser can send requests to a server on the same machine, and by DNS rebinding (its own name pointed at
127.0.0.1) read the answers. So `Gate` refuses requests for another host name or from another page before anything of them
is read, lets nobody frame the page who has no reason to, and has the page itself load from and talk to this server alone.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..storage.optional import optional
from .sessions import DiskFull, Sessions
from .settings import Settings, as_address, is_loopback

concurrency = optional("starlette.concurrency")

# What the page may load and whom it may talk to: this server alone.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; worker-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self' data: blob:; frame-ancestors "
)
_NOTEBOOKS = (
    "'self' http://localhost:* https://localhost:* http://127.0.0.1:* https://127.0.0.1:* vscode-webview:"
)
_SPACE = "'self' https://huggingface.co https://*.hf.space"
_HEARTBEAT = re.compile(r"/heartbeat/([\w-]+)/?$")  # the connection that a tab holds while it is open
_ENVELOPE = 1_000_000  # bytes that a form adds to its files


@dataclass(frozen=True)
class Access:
    """The names under which one app is used.

    Attributes:
        host: address that it listens on.
        names: further host names, in small letters.
        frames: who may frame the page, as `frame-ancestors` has it.
    """

    host: str
    names: frozenset[str]
    frames: str

    @classmethod
    def of(cls, settings: Settings, *, inline: bool = False) -> Access:
        """The access that settings describe.

        Args:
            inline: whether a notebook frames the page.
        """
        names = {name.lower() for name in settings.allowed_hosts}
        frames = "'none'"
        if settings.place == "space":
            frames = _SPACE
        elif inline:
            frames = " ".join([_NOTEBOOKS, *(f"http://{name}:* https://{name}:*" for name in sorted(names))])
        if not is_loopback(settings.host):
            names |= {settings.host.lower(), socket.gethostname().lower()}
        return cls(settings.host, frozenset(names), frames)

    def problem(self, headers: Iterable[tuple[bytes, bytes]], method: str = "GET") -> str:
        """Why a request with these headers is refused; empty where it is not."""
        found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
        host = found.get("host", "")
        if not self._is_own(_hostname(f"//{host}")):
            return (
                f"This app is not to be used as {host[:100] or 'nothing'}: open it by its address, or start it with "
                "--allow-host NAME."
            )
        origin = found.get("origin")
        if origin is not None and not self._is_own_page(origin, host):
            return f"This app does not answer other pages ({origin[:100]}); --allow-host NAME allows one."
        opens = method == "GET" and found.get("sec-fetch-mode") == "navigate"
        if origin is None and found.get("sec-fetch-site") == "cross-site" and not opens:
            return "This app does not answer other pages."
        return ""

    def _is_own(self, name: str) -> bool:
        """Whether a request's host is a name of this app: numbers cannot be rebound, names only if they are known."""
        if is_loopback(name) or name in self.names:
            return True
        return not is_loopback(self.host) and as_address(name) is not None

    def _is_own_page(self, origin: str, host: str) -> bool:
        """Whether a page is this app's own, or one of the names allowed (before a proxy that changes the host)."""
        return urlsplit(origin).netloc.lower() == host.lower() or _hostname(origin) in self.names


class Gate:
    """Middleware: refuses what `Access` refuses (403), bodies that are too long (413) and uploads without room (507)."""

    def __init__(self, app: Any, access: Access, settings: Settings, sessions: Sessions) -> None:
        self.app, self.access, self.settings, self.sessions = app, access, settings, sessions
        self._headers = [
            (b"content-security-policy", (_POLICY + access.frames).encode()),
            (b"referrer-policy", b"no-referrer"),
            (b"x-content-type-options", b"nosniff"),
        ]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        problem = self.access.problem(scope["headers"], scope.get("method", "GET"))
        if scope["type"] == "websocket":
            if problem:
                await send({"type": "websocket.close", "code": 1008, "reason": problem[:120]})
            else:
                await self.app(scope, receive, send)
            return
        answer = _Answer(send, self._headers)
        if problem:
            await answer.refuse(403, problem)
            return
        await self._bounded(scope, receive, answer)

    async def _bounded(self, scope: Any, receive: Any, answer: _Answer) -> None:
        """Pass a request on, if its body is not too long and there is room for it."""
        is_upload = scope["path"].rstrip("/").endswith("/upload")
        megabytes = self.settings.max_megabytes if is_upload else self.settings.max_request_megabytes
        limit = megabytes * 1_000_000 + (_ENVELOPE if is_upload else 0)
        too_long = f"At most {megabytes} MB are taken."
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        length = int(announced) if announced.isdigit() else None
        if length is not None and length > limit:
            await answer.refuse(413, too_long)
            return
        with ExitStack() as held:
            if heartbeat := _HEARTBEAT.search(scope["path"]):
                held.enter_context(self.sessions.present(heartbeat[1]))
            if is_upload and scope["method"] == "POST":
                room = self.sessions.room_for(limit if length is None else length)
                try:
                    await concurrency.run_in_threadpool(held.enter_context, room)
                except DiskFull as error:
                    await answer.refuse(507, str(error))
                    return
            try:
                await self.app(scope, _counted(receive, limit), answer)
            except _TooLong:
                await answer.refuse(413, too_long)


class _TooLong(Exception):
    """A body that did not announce its length is longer than allowed."""


def _counted(receive: Callable[[], Awaitable[Any]], limit: int) -> Callable[[], Awaitable[Any]]:
    """The messages of a request, until its body is longer than the limit."""
    taken = 0

    async def next_message() -> Any:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > limit:
            raise _TooLong
        return message

    return next_message


class _Answer:
    """The way back of one request: adds headers to what the app sends, or refuses."""

    def __init__(self, send: Any, headers: list[tuple[bytes, bytes]]) -> None:
        self._send, self._headers, self._begun = send, headers, False

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._begun = True
            message["headers"] = [*message.get("headers", []), *self._headers]
        await self._send(message)

    async def refuse(self, status: int, why: str) -> None:
        """Answer with one sentence, unless an answer is on its way."""
        if self._begun:
            return
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
        await self({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": why.encode()})


def _hostname(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""
