"""Start the app: private by default, all its files in one folder that is gone when it ends."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DeepMLFError
from ..storage.optional import optional
from ..training import Run
from .examples import FOLDER
from .models import Models
from .sessions import Sessions
from .settings import Settings
from .ui import build, css, js, theme

if TYPE_CHECKING:
    import gradio as gr

middleware = optional("starlette.middleware")

# What the page may load and whom it may talk to: this server alone.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; worker-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self' data: blob:"
)


@dataclass
class RunningApp:
    """An app that is being served. `close` ends it and deletes its files."""

    url: str
    page: gr.Blocks
    models: Models
    sessions: Sessions
    folder: Path

    def close(self) -> None:
        """Stop serving, end all sessions, delete all files."""
        self.sessions.close_all()
        self.page.close(verbose=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def launch(
    checkpoint: str | Path | None = None,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    face_model: str | Path | None = None,
    settings: Settings | None = None,
    speech: bool = True,
    open_browser: bool = False,
    inline: bool = False,
    block: bool = True,
    quiet: bool = False,
) -> RunningApp:
    """Serve the live demo. There is never a public link, and no analytics.

    Args:
        checkpoint: a run of the kit; None: the bundled demo checkpoint.
        host: address to listen on; the default can be reached from this machine only.
        port: None takes the first free one from 7860.
        face_model: path of the face model.
        settings: limits.
        speech: False: words are always typed.
        open_browser: open a browser window.
        inline: show the app in the notebook's cell.
        block: return only when the app is stopped (Ctrl-C).

    Returns:
        The running app, where it does not block.

    Raises:
        DeepMLFError: no such checkpoint, or the port is taken.
    """
    if checkpoint is not None and not (Path(checkpoint) / "run.json").is_file():
        Run.open(checkpoint)  # says what is wrong, before a browser opens
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    folder = _new_folder()
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)

    settings = settings or Settings()
    models = Models(checkpoint, face_model=face_model, max_seconds=settings.max_seconds, speech=speech)
    sessions = Sessions(folder, settings.idle_hours * 3600)
    page = build(models, sessions, settings)
    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            inline=inline,
            inbrowser=open_browser,
            prevent_thread_lock=True,
            quiet=True,
            show_error=True,
            max_file_size=settings.max_megabytes * 1_000_000,
            allowed_paths=[str(FOLDER)],
            enable_monitoring=False,
            run_history=False,
            footer_links=[],
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            theme=theme(),
            css=css(),
            js=js(),
            app_kwargs={"middleware": [middleware.Middleware(PrivatePage)]},
            height=900,
        )
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        where = f"port {port}" if port else "any of the ports from 7860"
        raise DeepMLFError(
            f"The app could not listen on {where} ({error}); choose another with --port."
        ) from error
    app = RunningApp(url, page, models, sessions, folder)
    if not quiet:
        print(f"DeepMLF demo: {url}\nStop with Ctrl-C.", flush=True)
    if block:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that files are deleted then, too
        try:
            page.block_thread()
        finally:
            app.close()
    return app


def _new_folder() -> Path:
    """A folder for this app's files, readable by this user only; what a killed app left behind is deleted."""
    for old in Path(tempfile.gettempdir()).glob("deepmlf-app-*-*"):
        owner = old.name.split("-")[2]
        if owner.isdigit() and not _alive(int(owner)):
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"deepmlf-app-{os.getpid()}-"))


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return True


class PrivatePage:
    """Adds to every response that the page may load from and talk to this server only."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"content-security-policy", _POLICY.encode()),
                    (b"referrer-policy", b"no-referrer"),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        await self.app(scope, receive, send_with_policy if scope["type"] == "http" else send)
