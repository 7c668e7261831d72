"""A release: sdist and wheel hold the whole package and nothing else, and the wheel works away from the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import release
from clips_made import make_clip

from deepmlf_kit import __version__


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return release.build(tmp_path_factory.mktemp("dist"))


def test_a_release_holds_the_whole_package_and_nothing_else(built: tuple[Path, Path]) -> None:
    assert release.problems(*built) == []
    assert [path.name for path in built] == [
        f"deepmlf_kit-{__version__}.tar.gz",
        f"deepmlf_kit-{__version__}-py3-none-any.whl",
    ]


def test_what_is_wrong_with_a_release_is_named(built: tuple[Path, Path], tmp_path: Path, monkeypatch) -> None:
    sdist, wheel = built
    other = tmp_path / wheel.name.replace(__version__, "9.9")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(other, "w") as new:
        for name in old.namelist():
            if name != "deepmlf_kit/py.typed":
                new.writestr(name, old.read(name))
        new.writestr("tests/test_x.py", "")
    monkeypatch.setattr(release, "MEGABYTES", 0.1)
    told = "\n".join(release.problems(sdist, other))
    assert "not named after the version" in told and "lacks deepmlf_kit/py.typed" in told
    assert "holds tests/test_x.py" in told and told.count("at most 0.1 are allowed") == 2


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel installed into a folder of its own, beside this environment's other packages."""
    target = tmp_path_factory.mktemp("installed")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
    ]
    subprocess.run([*pip, str(built[1])], check=True)
    return target


def deepmlf(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The installed command, run in an empty folder."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "DEEPMLF_CACHE": str(folder / "cache")}
    command = [sys.executable, "-P", str(installed / "bin" / "deepmlf"), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_wheel_predicts_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    where = "import deepmlf_kit; print(deepmlf_kit.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    said = subprocess.run(
        [sys.executable, "-P", "-c", where], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert Path(said.stdout.strip()).is_relative_to(installed)
    assert deepmlf(installed, tmp_path, "--version").stdout == f"deepmlf {__version__}\n"
    make_clip(tmp_path / "a.wav", 1.0, video=None, audio="pcm_s16le")
    done = deepmlf(installed, tmp_path, "predict", "a.wav", "--text", "what a great day", "--json")
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout)["sentiment"], float)


@pytest.mark.slow
def test_the_wheel_runs_the_demo_and_the_app_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    done = deepmlf(installed, tmp_path, "demo", "--quick", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.html").is_file()
    assert deepmlf(installed, tmp_path, "app", "--help").returncode == 0
    start = (
        "from deepmlf_kit.app import launch\n"
        "app = launch(open_browser=False, block=False)\nprint(app.url)\napp.close()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed), "GRADIO_ANALYTICS_ENABLED": "False"}
    said = subprocess.run(
        [sys.executable, "-P", "-c", start], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert said.returncode == 0 and "http://127.0.0.1:" in said.stdout, said.stderr
