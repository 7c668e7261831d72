"""Start the app: private by default, all its files in one folder that is gone when it ends."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .. import training
from ..errors import DeepMLFError
from ..features.face_model import find_face_model
from ..storage.optional import optional
from .access import Access, Gate
from .examples import FOLDER
from .models import Models
from .privacy import network_warning
from .sessions import Sessions
from .settings import Settings
from .ui import build, css, js, theme

if TYPE_CHECKING:
    import gradio as gr

middleware = optional("starlette.middleware")

_TIDY_EVERY = 60.0  # seconds
_folders: set[Path] = set()  # of this process's apps


@dataclass
class RunningApp:
    """An app that is being served. `close` ends it and deletes its files.

    Until then torch computes with `Settings.threads` in the whole process (`Models`).
    """

    url: str
    page: gr.Blocks
    models: Models
    sessions: Sessions
    folder: Path
    _closed: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        threading.Thread(target=self._tidy, name="tidy", daemon=True).start()

    def _tidy(self) -> None:
        while not self._closed.wait(_TIDY_EVERY):
            self.sessions.tidy()

    def close(self) -> None:
        """Stop serving, end all sessions and what is being loaded, delete all files."""
        self._closed.set()
        self.sessions.close_all()
        self.page.close(verbose=False)
        self.models.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def launch(
    checkpoint: str | Path | None = None,
    *,
    host: str = "127.0.0.1",
    allowed_hosts: Sequence[str] = (),
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
        allowed_hosts: names under which the app is used besides its own: a proxy's, a tunnel's, a share link's.
        port: None takes the first free one from 7860.
        face_model: path of the face model.
        settings: limits; its `host` is replaced by that given here.
        speech: False: words are always typed.
        open_browser: open a browser window.
        inline: show the app in the notebook's cell.
        block: return only when the app is stopped (Ctrl-C).

    Returns:
        The running app, where it does not block.

    Raises:
        DeepMLFError: no such checkpoint, no such face model, or the port is taken.
    """
    if checkpoint is not None and not (Path(checkpoint) / "run.json").is_file():
        training.Run.open(checkpoint)  # says what is wrong, before a browser opens
    if face_model is not None:
        find_face_model(face_model)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    folder = _new_folder()
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)

    space = os.environ.get("SPACE_HOST", "")  # set on Hugging Face Spaces, as SPACE_ID is
    settings = settings or Settings()
    settings = replace(
        settings,
        host=host,
        allowed_hosts=(*settings.allowed_hosts, *allowed_hosts, *filter(None, [space])),
        on_space="SPACE_ID" in os.environ,
    )
    models = Models(
        checkpoint,
        face_model=face_model,
        max_seconds=settings.max_seconds,
        speech=speech,
        threads=settings.threads,
    )
    sessions = Sessions(folder, settings.idle_hours * 3600, settings.max_disk_megabytes * 1e6)
    access = Access.of(settings, inline=inline)
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
            app_kwargs={"middleware": [middleware.Middleware(Gate, access, settings, sessions)]},
            height=900,
        )
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        where = f"port {port}" if port else "any of the ports from 7860"
        raise DeepMLFError(
            f"The app could not listen on {where} ({error}); choose another with --port."
        ) from error
    sessions.keep_present()
    app = RunningApp(url, page, models, sessions, folder)
    try:
        if not quiet:
            print(f"DeepMLF demo: {url}\nStop with Ctrl-C.", flush=True)
            if warning := network_warning(settings):
                print(warning, file=sys.stderr, flush=True)
        models.start()  # now, so that the page need not wait for torch's import
        if block:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that files are deleted then, too
            page.block_thread()
            app.close()
    except BaseException:
        app.close()
        raise
    return app


def _new_folder() -> Path:
    """A folder for this app's files, readable by this user only; what a killed app left behind is deleted."""
    for old in Path(tempfile.gettempdir()).glob("deepmlf-app-*-*"):
        owner = old.name.split("-")[2]
        # In a container every app has the same number: what bears this one's is older than it, but for its own.
        is_past = owner == str(os.getpid()) or (owner.isdigit() and not _alive(int(owner)))
        if is_past and old not in _folders:
            shutil.rmtree(old, ignore_errors=True)
    _folders.add(folder := Path(tempfile.mkdtemp(prefix=f"deepmlf-app-{os.getpid()}-")))
    return folder


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return True
