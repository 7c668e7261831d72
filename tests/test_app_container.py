"""The container and the Space, read without an engine: every path, name and option that their files use is real."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import typer

from deepmlf_kit.cli import app as app_command
from deepmlf_kit.downloads.cache import cache_folder

APPS = Path(__file__).parents[1] / "apps"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's (instruction, arguments), lines that go on joined, comments left out."""
    lines = [line for line in (APPS / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line]


def arguments(instruction: str) -> list[str]:
    return [rest for name, rest in instructions() if name == instruction]


def parameters() -> list:
    """The parameters of `deepmlf app`."""
    app = typer.Typer()
    app.command()(app_command.command)
    return typer.main.get_command(app).params


def options() -> set[str]:
    return {option for parameter in parameters() for option in (*parameter.opts, *parameter.secondary_opts)}


@pytest.fixture
def environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for rest in arguments("ENV") for pair in shlex.split(rest))


def test_what_is_copied_is_there_and_is_what_runs():
    copied = [name for rest in arguments("COPY") for name in rest.split()[:-1]]
    assert copied and all((APPS / name).is_file() for name in copied)
    command = json.loads(arguments("CMD")[0])
    assert command[:2] == ["python", "demo.py"] and command[1] in copied
    assert {word for word in command if word.startswith("--")} <= options()
    installed = next(rest for rest in arguments("RUN") if rest.startswith("pip "))
    assert "requirements.txt" in installed and "requirements.txt" in copied
    assert "deepmlf-kit[app,gguf]" in (APPS / "requirements.txt").read_text().split()


def test_the_user_is_an_ordinary_one_who_owns_the_one_folder(environment: dict[str, str]):
    order = [name for name, _ in instructions()]
    (user,) = arguments("USER")
    (made,) = [rest for rest in arguments("RUN") if rest.startswith("useradd ")]
    assert user not in ("root", "0") and made.split()[-1] == user
    assert int(re.search(r"--uid (\d+)", made)[1]) > 0
    (folder,) = arguments("VOLUME")
    assert f"--home-dir {folder} --create-home" in made  # its owner, then, is the user
    assert order.index("USER") < order.index("CMD") and order.index("USER") > order.index("COPY")
    for name in ("HOME", "TMPDIR", "DEEPMLF_CACHE", "HF_HOME", "NUMBA_CACHE_DIR"):
        assert Path(environment[name]).is_relative_to(folder), name


def test_its_variables_are_those_that_the_kit_reads(environment: dict[str, str], monkeypatch):
    monkeypatch.setenv("DEEPMLF_CACHE", environment["DEEPMLF_CACHE"])
    assert str(cache_folder()) == environment["DEEPMLF_CACHE"]
    host = next(parameter for parameter in parameters() if "--host" in parameter.opts)
    assert host.envvar == "GRADIO_SERVER_NAME" and environment[host.envvar] == "0.0.0.0"


def test_its_health_is_the_page_at_its_port(monkeypatch: pytest.MonkeyPatch):
    (port,) = arguments("EXPOSE")
    command = json.loads(arguments("CMD")[0])
    assert command[command.index("--port") + 1] == port
    (check,) = arguments("HEALTHCHECK")
    python, _, program = json.loads(check[check.index("[") :])
    asked = []
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: asked.append(url))
    exec(program)
    assert python == "python" and asked == [f"http://127.0.0.1:{port}/config"]


def test_its_system_libraries_are_those_of_the_space(environment: dict[str, str]):
    wanted = (APPS / "packages.txt").read_text().split()
    installed = next(rest for rest in arguments("RUN") if "apt-get install" in rest)
    assert wanted and set(wanted) <= set(installed.split())


@pytest.mark.skipif(sys.platform != "linux", reason="MediaPipe's library for Linux")
def test_mediapipe_links_nothing_that_the_container_lacks():
    from importlib.util import find_spec

    found = find_spec("mediapipe")
    library = Path(found.origin).parent / "tasks" / "c" / "libmediapipe.so"
    if not library.is_file():
        pytest.skip("this MediaPipe has another library")
    if shutil.which("readelf") is None:
        pytest.skip("needs readelf")
    header = subprocess.run(["readelf", "-d", str(library)], capture_output=True, text=True).stdout
    linked = set(re.findall(r"\(NEEDED\).*\[lib(\w+)\.so\.\d+\]", header))
    packages = {"EGL": "libegl1", "GLESv2": "libgles2"}
    of_the_c_library = {"m", "pthread", "dl", "rt", "c"}
    assert "c" in linked
    needed = {packages[name] for name in linked - of_the_c_library}
    assert needed <= set((APPS / "packages.txt").read_text().split())


def test_the_instructions_name_what_is_there():
    text = (APPS / "README.md").read_text()
    (port,), (folder,) = arguments("EXPOSE"), arguments("VOLUME")
    assert f":{folder} --publish 127.0.0.1:{port}:{port}" in text
    tag = re.search(r"docker build --tag (\S+) (\S+)", text)
    assert tag and (APPS.parent / tag[2] / "Dockerfile").is_file()
    assert re.search(rf"docker run [^`]*? {tag[1]}\n", text)
    for name in re.findall(r"`(\w+\.(?:txt|py))`|`(Dockerfile)`", text):
        assert (APPS / "".join(name)).is_file(), name
    used = set(re.findall(r"deepmlf app[^#\n]*?(--[\w-]+)", text))
    assert used and used <= options()


def test_the_space_has_the_header_that_spaces_need():
    import yaml

    header = yaml.safe_load((APPS / "README.md").read_text().split("---")[1])
    assert header["sdk"] == "gradio" and (APPS / header["app_file"]).is_file()
    assert "deepmlf-kit[app,gguf]" in (APPS / "requirements.txt").read_text()
