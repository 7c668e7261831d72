"""Build the sdist and the wheel into dist/ and check them: version, files, size. `make release` runs it.

Built from a copy of what belongs into a release, so that nothing left in the checkout (an old build/ folder, caches) gets in.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARTS = ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "deepmlf_kit")
MEGABYTES = 20.0  # the embedded LM has 8, each of the two people checkpoints up to 6
"""Largest size of either file. The embedded language model takes 7 of them."""


def build(out: Path) -> tuple[Path, Path]:
    """Build sdist and wheel with setuptools' own hooks; nothing is downloaded.

    Returns:
        Their paths in `out`.
    """
    out.mkdir(parents=True, exist_ok=True)
    code = "import sys; from setuptools import build_meta as b; print(getattr(b, sys.argv[1])(sys.argv[2]))"
    made = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "source"
        for part in PARTS:
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                copy.mkdir(exist_ok=True)
                shutil.copy(ROOT / part, copy / part)
        for hook in ("build_sdist", "build_wheel"):
            command = [sys.executable, "-c", code, hook, str(out.absolute())]
            done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{hook} failed:\n{done.stdout}{done.stderr}")
            made.append(out / done.stdout.splitlines()[-1])
    return made[0], made[1]


def contents(archive: Path) -> dict[str, int]:
    """Path (in an sdist without its top folder) and bytes of every file in an sdist or wheel."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {item.filename: item.file_size for item in wheel.infolist() if not item.is_dir()}
    with tarfile.open(archive) as sdist:
        return {item.name.partition("/")[2]: item.size for item in sdist.getmembers() if item.isfile()}


def problems(sdist: Path, wheel: Path) -> list[str]:
    """What is wrong with a release; empty where nothing is."""
    from deepmlf_kit import __version__

    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "deepmlf_kit").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    found = []
    for archive in (sdist, wheel):
        names = set(contents(archive))
        if f"deepmlf_kit-{__version__}" not in archive.name:
            found.append(f"{archive.name} is not named after the version {__version__}")
        if missing := package - names:
            found.append(f"{archive.name} lacks {', '.join(sorted(missing))}")
        others = {
            name
            for name in names - package
            if name.startswith(("deepmlf_kit/", "tests/", "notebooks/", "scripts/")) or name.endswith(".pyc")
        }
        if others:
            found.append(f"{archive.name} holds {', '.join(sorted(others))}, which do not belong there")
        if (size := archive.stat().st_size / 1e6) > MEGABYTES:
            found.append(f"{archive.name} has {size:.1f} MB, at most {MEGABYTES:g} are allowed")
    return found


def summary(archive: Path) -> str:
    """Size of an archive, and what takes most of it."""
    sizes = Counter[str]()
    files = contents(archive)
    for name, size in files.items():
        sizes["/".join(name.split("/")[:3] if "assets" in name else name.split("/")[:1])] += size
    parts = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sizes.most_common(6))
    return f"{archive.name}: {archive.stat().st_size / 1e6:.1f} MB packed, {len(files)} files ({parts})"


def main() -> None:
    sdist, wheel = build(ROOT / "dist")
    print(f"{summary(sdist)}\n{summary(wheel)}")
    if found := problems(sdist, wheel):
        raise SystemExit("\n".join(found))
    print("Checked: the version, that every file of the package is in, that nothing else is, and the size.")


if __name__ == "__main__":
    main()
