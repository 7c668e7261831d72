"""What each extra brings: packages and megabytes on disk, of the environment that runs this.

    python scripts/extra_sizes.py

Prints the table of docs/install.md. All that the extras need must be installed. Sizes are sums of installed files, without the
bytecode that Python adds.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib.metadata import PathDistribution, distribution, distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
OURS = canonicalize_name(PROJECT["name"])
FOR_USERS = ("features", "app", "notebooks", "sweep", "quantized", "gguf", "all")


def closure(lines: Iterable[str]) -> set[str]:
    """Names of the packages that requirements install, with all that those need, as far as they are installed here."""
    here = {canonicalize_name(found.metadata["Name"]) for found in distributions()}
    found: set[tuple[str, str]] = set()  # each with an extra of its own, or none
    waiting = [Requirement(line) for line in lines]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name == OURS:  # an extra that brings others
            extras = PROJECT["optional-dependencies"]
            waiting += [Requirement(line) for extra in wanted.extras for line in extras[extra]]
            continue
        if name not in here:
            continue
        new = {(name, extra) for extra in ("", *wanted.extras)} - found
        found |= new
        for line in requires(name) or [] if new else ():
            needed = Requirement(line)
            if any(not needed.marker or needed.marker.evaluate({"extra": extra}) for _, extra in new):
                waiting.append(needed)
    return {name for name, _ in found}


def size(package: str) -> int:
    """Bytes of a package's installed files."""
    found = distribution(package)
    assert isinstance(found, PathDistribution)
    paths = (Path(str(file.locate())) for file in found.files or () if file.suffix != ".pyc")
    return sum(path.stat().st_size for path in paths if path.is_file())


def main() -> None:
    """Print the table."""
    core = closure(PROJECT["dependencies"])
    print(
        "| install | packages | size | more than the core | largest of these |\n| --- | --- | --- | --- | --- |"
    )
    for extra in ("", *FOR_USERS):
        packages = core | closure(PROJECT["optional-dependencies"][extra] if extra else ())
        own = sorted(packages - core if extra else core, key=size, reverse=True)
        largest = ", ".join(f"{package} {size(package) / 1e6:.0f} MB" for package in own[:4])
        whole, more = (sum(map(size, names)) / 1e6 for names in (packages, packages - core))
        print(
            f"| {f'`{extra}`' if extra else 'core'} | {len(packages)} | {whole:.0f} MB | {more:.0f} MB | {largest} |"
        )


if __name__ == "__main__":
    main()
