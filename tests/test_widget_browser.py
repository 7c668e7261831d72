"""The explorer in a real browser: the exported page offline, and the widget in JupyterLab, light and dark."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from explain_fixtures import tiny_lens

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(2400)]
PATIENCE = 600_000  # milliseconds; a busy machine is slow, not wrong
PICTURE = """() => { const c = document.querySelector('.dmlf-chart');
  return JSON.stringify([c.data.map((t) => [t.z, t.y, t.type]), c.layout.title.text]); }"""


def watch(page):
    troubles = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    return troubles


def drawn(page):
    return int(page.locator(".dmlf-explorer").get_attribute("data-drawn"))


def redrawn(page, act):
    """Do something, wait for the picture to be drawn again, and return the picture."""
    before = drawn(page)
    act()
    page.wait_for_function(
        "n => Number(document.querySelector('.dmlf-explorer').dataset.drawn) > n", arg=before
    )
    return page.evaluate(PICTURE)


def pick(page, name, value):
    return redrawn(page, lambda: page.select_option(f"[data-name={name}]", value))


@pytest.fixture(scope="module")
def exported(tmp_path_factory, clips):
    from deepmlf_kit.widgets import Explorer

    lens = tiny_lens()
    row = lens.row(2)
    clip = clips / "smile_short.mp4"
    lens.row = lambda which, inner=lens.row: (
        {**inner(which), "clip": str(clip)} if which == 2 else inner(which)
    )
    assert row["clip"] == ""
    explorer = Explorer(lens, progress=False)
    path = explorer.export_html(tmp_path_factory.mktemp("page") / "explorer.html", [1, 2, 3])
    explorer.close()
    return path


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_exported_page_works_offline(chromium, exported, theme):
    context = chromium.new_context(color_scheme=theme, offline=True, viewport={"width": 1200, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    troubles, asked = watch(page), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(exported.as_uri())
    page.wait_for_selector("[data-drawn]")
    pictures = [page.evaluate(PICTURE)]
    pictures += [pick(page, "layer", "0"), pick(page, "layer", "1"), pick(page, "head", "1")]
    pictures += [pick(page, "view", "heads"), pick(page, "token", "3")]
    for view in ("words", "layers", "sentiment", "reads", "similarity", "effects"):
        pictures.append(pick(page, "view", view))
    pictures.append(pick(page, "effects_of", "words"))
    assert len(set(pictures)) == len(pictures)  # every control changes the picture

    whole = page.inner_text("[data-name=sentiment]")
    redrawn(page, lambda: page.uncheck("[data-name=voice]"))
    redrawn(page, lambda: page.uncheck("[data-name=words]"))
    assert page.inner_text("[data-name=sentiment]") != whole
    redrawn(page, lambda: page.click("[data-name=reset]"))
    assert page.inner_text("[data-name=sentiment]") == whole

    pick(page, "view", "timeline")
    page.evaluate(
        "() => { window.places = new Set(); const needle = document.querySelector('.dmlf-cursor');"
        "new MutationObserver(() => window.places.add(needle.style.transform)).observe(needle, {attributes: true}); }"
    )
    page.click("[data-name=play]")
    page.wait_for_function("window.places.size > 2 && !document.querySelector('.dmlf-cursor').hidden")

    redrawn(page, lambda: page.select_option("[data-name=utterance]", "2"))  # the one with a clip
    page.wait_for_function("document.querySelector('video')?.readyState >= 2")
    page.evaluate("document.querySelector('video').currentTime = 1.0")
    page.wait_for_function(
        "x => { const c = document.querySelector('.dmlf-chart')._fullLayout.xaxis;"
        "const want = c._offset + c.l2p(1.0); const is = document.querySelector('.dmlf-cursor').style.transform;"
        "return Math.abs(parseFloat(is.slice(11)) - want) < 2; }"
    )
    page.fill("[data-name=search]", "no such words")
    assert "nothing found" in page.inner_text("[data-name=utterance]")
    assert not troubles
    assert all(url.startswith(("file:", "blob:", "data:")) for url in asked)
    context.close()


@pytest.fixture(scope="module", params=["JupyterLab Light", "JupyterLab Dark"])
def lab(request, tmp_path_factory):
    """A JupyterLab server on a small notebook; gives its address."""
    import nbformat

    home = tmp_path_factory.mktemp("lab")
    settings = home / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "themes.jupyterlab-settings").write_text(json.dumps({"theme": request.param}))
    (settings / "notification.jupyterlab-settings").write_text(
        json.dumps({"fetchNews": "false", "checkForUpdates": False})
    )
    notebook = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    notebook.cells = [
        nbformat.v4.new_code_cell(
            f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            "from explain_fixtures import tiny_lens\nfrom deepmlf_kit.widgets import Explorer\n"
            "explorer = Explorer(tiny_lens(), progress=False)\nexplorer"
        ),
        nbformat.v4.new_code_cell("print('view is', explorer.view, 'and words', explorer.text)"),
    ]
    (home / "work").mkdir()
    nbformat.write(notebook, home / "work" / "explore.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    command += ["--IdentityProvider.token=", "--ServerApp.port_retries=0", "--ServerApp.ip=127.0.0.1"]
    with open(home / "log.txt", "w") as log:
        server = subprocess.Popen(
            command,
            cwd=home / "work",
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + PATIENCE / 1000
        while True:
            try:
                urllib.request.urlopen(f"{address}/api", timeout=5).read()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"JupyterLab did not start: {(home / 'log.txt').read_text()[-2000:]}")
                time.sleep(0.5)
        yield address, request.param
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)


def test_the_widget_works_in_jupyterlab(chromium, lab):
    address, theme = lab
    context = chromium.new_context(viewport={"width": 1400, "height": 1300})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    troubles = watch(page)
    page.goto(f"{address}/lab/tree/explore.ipynb")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]")  # the kernel is there
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator(".lm-Menu-item[data-command='runmenu:run-all']").click()
    page.wait_for_selector(".dmlf-explorer[data-drawn]")
    pictures = [page.evaluate(PICTURE)]
    pictures += [pick(page, "layer", "1"), pick(page, "head", "0"), pick(page, "view", "words")]

    before = page.inner_text("[data-name=sentiment]")
    page.fill("[data-name=text]", "I hate this terrible film")
    page.wait_for_function("t => document.querySelector('[data-name=sentiment]').innerText !== t", arg=before)
    page.wait_for_function("document.querySelector('.dmlf-chart').data[0].x.length === 5")
    pictures.append(page.evaluate(PICTURE))
    redrawn(page, lambda: page.uncheck("[data-name=face]"))
    redrawn(page, lambda: page.select_option("[data-name=utterance]", "5"))
    pictures.append(page.evaluate(PICTURE))
    page.select_option("[data-name=view]", "effects")
    page.wait_for_function("document.querySelector('.dmlf-chart').data[0]?.type === 'bar'")
    pictures.append(page.evaluate(PICTURE))
    page.select_option("[data-name=order]", "error")
    assert len(set(pictures)) == len(pictures)
    assert not page.inner_text(".dmlf-answer").count("error") and not troubles

    page.locator(".jp-Cell").nth(1).locator(".cm-content").click()  # Python sees what was set in the browser
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("text=view is effects")
    if folder := os.environ.get("DEEPMLF_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / f"{theme.replace(' ', '_')}.png"))
    context.close()
