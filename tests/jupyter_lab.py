"""A JupyterLab of a test's own, and its page in the browser; shared by the tests of notebooks.

The page is driven through the application object that `--expose-app-in-browser` puts there. Clicks on menus were
not reliable on a busy machine: a command that comes before the kernel is there is dropped without a word.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

THEMES = ("JupyterLab Light", "JupyterLab Dark")

_READY = """() => {
  const panel = window.jupyterapp?.shell.currentWidget, session = panel?.sessionContext;
  return Boolean(session?.isReady && panel.context.isReady && session.session?.kernel?.status === 'idle');
}"""
# What each code cell holds, as the document knows it (cells out of sight are not drawn).
_CELLS = """() => [...window.jupyterapp.shell.currentWidget.model.cells].map((cell, index) => ({ index, cell }))
  .filter(({ cell }) => cell.type === 'code').map(({ index, cell }) => {
    const outputs = cell.outputs.toJSON(), failed = outputs.find((o) => o.output_type === 'error');
    return { index, number: cell.executionCount, state: cell.executionState,
      error: failed ? `${failed.ename}: ${failed.evalue}` : '',
      printed: outputs.filter((o) => o.output_type === 'stream').flatMap((o) => o.text) };
  })"""
_SHOW = """async (index) => {
  const notebook = window.jupyterapp.shell.currentWidget.content;
  notebook.activeCellIndex = index; await notebook.scrollToItem(index, 'start');
}"""


@contextmanager
def jupyter_lab(home: Path, folder: Path, theme: str = THEMES[0], patience: float = 180.0) -> Iterator[str]:
    """Start JupyterLab on `folder`, with settings of its own in `home`; gives its address.

    Args:
        home: an empty folder for settings, workspaces and the log.
        folder: the folder whose notebooks it opens.
        theme: one of `THEMES`.
        patience: seconds until it must answer.
    """
    settings = home / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "themes.jupyterlab-settings").write_text(json.dumps({"theme": theme}))
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {
        "HOME": "home",
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    for name in places.values():
        (home / name).mkdir(exist_ok=True)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    command += ["--ServerApp.ip=127.0.0.1", "--ServerApp.port_retries=0", "--IdentityProvider.token="]
    command += ["--expose-app-in-browser", "--LabApp.news_url=None", "--LabApp.extension_manager=readonly"]
    log = home / "log.txt"
    with log.open("w") as written:
        server = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | {name: str(home / place) for name, place in places.items()},
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # its kernels end with it, below
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + patience
        while not _answers(address):
            if server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"JupyterLab did not start: {log.read_text()[-2000:]}")
            time.sleep(0.3)
        yield address
    finally:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait(30)


def open_notebook(page, address: str, name: str) -> None:
    """Open a notebook and wait until its kernel is idle."""
    page.goto(f"{address}/lab/tree/{name}")
    page.wait_for_function(_READY, polling=500)


def run_all(page, seconds: float) -> None:
    """Run all cells as the Run menu does, and wait until each has its number.

    Args:
        seconds: that the whole notebook may take.
    """
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    _wait(page, seconds, lambda cell: not cell["number"])


def run_cell(page, index: int, seconds: float) -> None:
    """Run one cell again, and wait until it has a new number."""
    before = code_cell(page, index)["number"]
    show(page, index)
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-cell'); }")
    _wait(page, seconds, lambda cell: cell["index"] == index and cell["number"] in (None, before))


def code_cell(page, index: int) -> dict:
    """`number`, `state`, `error` and what was `printed` of a code cell."""
    return next(cell for cell in page.evaluate(_CELLS) if cell["index"] == index)


def _wait(page, seconds: float, waits_for) -> None:
    deadline = time.monotonic() + seconds
    while True:
        cells = page.evaluate(_CELLS)
        failed = [cell for cell in cells if cell["error"]]
        assert not failed, failed
        left = [cell["index"] for cell in cells if waits_for(cell) or cell["state"] == "running"]
        if not left:
            return
        assert time.monotonic() < deadline, f"cells {left} have not run after {seconds} s"
        page.wait_for_timeout(500)


def show(page, index: int) -> None:
    """Bring a cell into sight."""
    page.evaluate(_SHOW, index)


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}/api", timeout=5).read()
    except OSError:
        return False
    return True
