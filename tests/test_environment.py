"""One environment, described three times: pyproject.toml (ranges), constraints.txt (pins), environment.yml."""

import re
import tomllib
from importlib.metadata import distributions, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
CONSTRAINT_LINES = [
    line.strip()
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line.strip() and not line.lstrip().startswith("#")
]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
REQUIREMENTS = [
    pytest.param(extra, Requirement(line), id=f"{extra}-{Requirement(line).name}")
    for extra, lines in {"kit": PROJECT["dependencies"], **EXTRAS}.items()
    for line in lines
    if Requirement(line).name != PROJECT["name"]  # an extra that another one brings
]


def pins() -> dict[str, Version]:
    found: dict[str, Version] = {}
    for line in CONSTRAINT_LINES:
        requirement = Requirement(line)
        (specifier,) = requirement.specifier
        found[canonicalize_name(requirement.name)] = Version(specifier.version)
    return found


def test_constraints_hold_plain_pins_only():
    for line in CONSTRAINT_LINES:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), f"not `name==version`: {line!r}"


def test_constraints_name_no_package_twice():
    names = [canonicalize_name(Requirement(line).name) for line in CONSTRAINT_LINES]
    assert sorted(names) == sorted(set(names))


def test_torch_is_pinned_to_the_tested_version():
    assert pins()["torch"] == Version("2.13.0")


@pytest.mark.parametrize(("extra", "requirement"), REQUIREMENTS)
def test_every_dependency_has_a_pin_within_its_range(extra: str, requirement: Requirement):
    name = canonicalize_name(requirement.name)
    assert name in pins(), f"{name} (of {extra}) has no line in constraints.txt"
    assert requirement.specifier.contains(pins()[name]), (
        f"{name}: constraints.txt has {pins()[name]}, pyproject.toml asks for {requirement.specifier}"
    )


def needed(**python: str) -> set[str]:
    """The whole tree of the kit and its extras, as far as installed here; `make test` installs the extras all and test.

    A package that its parent asks for at one exact version is left out: so torch fixes its CUDA libraries.

    Args:
        python: markers of another Python than this one, such as `python_version`.
    """
    here = {canonicalize_name(found.metadata["Name"]) for found in distributions()}
    whole = {
        extra
        for extra, lines in EXTRAS.items()
        if {canonicalize_name(Requirement(line).name) for line in lines} <= here
    }
    wanted = {"deepmlf-kit": {"all", "test"} | whole}
    seen: set[str] = set()
    while wanted:
        name, extras = wanted.popitem()
        if name in seen:
            continue
        seen.add(name)
        for line in requires(name) or [] if name in here else []:
            requirement = Requirement(line)
            applies = not requirement.marker or any(
                requirement.marker.evaluate({**python, "extra": extra}) for extra in extras | {""}
            )
            exact = any(part.operator == "==" and "*" not in part.version for part in requirement.specifier)
            if applies and not exact:
                wanted.setdefault(canonicalize_name(requirement.name), set()).update(requirement.extras)
    return seen - {"deepmlf-kit"}


def test_what_the_dependencies_need_is_pinned_too():
    assert needed() <= set(pins())


def test_what_the_newest_python_needs_is_pinned_too():
    """Modules that left Python 3.13's own library come as packages there (sound files, for librosa and Gradio)."""
    newer = needed(python_version="3.13", python_full_version="3.13.0") - needed(
        python_version="3.11", python_full_version="3.11.2"
    )
    assert {"audioop-lts", "standard-aifc"} <= newer <= set(pins())


def test_every_pinned_version_runs_on_the_oldest_python_we_name():
    """Debian 12 has 3.11.2: one pin that asks for a later 3.11 leaves its users with nothing to install."""
    oldest = PROJECT["requires-python"].removeprefix(">=")
    here = needed(python_version=oldest, python_full_version=f"{oldest}.0")
    refused = []
    for found in distributions():
        name, asked = canonicalize_name(found.metadata["Name"]), found.metadata["Requires-Python"]
        if name in pins() and name in here and asked and not SpecifierSet(asked).contains(f"{oldest}.0"):
            refused.append(f"{name} {found.version} asks for Python {asked}")
    assert not refused


def test_conda_environment_installs_the_project_with_its_pins():
    (pip_lines,) = [entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict)]
    assert "-c constraints.txt" in pip_lines
    editable = [line for line in pip_lines if line.startswith("-e ")]
    assert editable == ["-e .[all,test]"], "conda users get the kit, every extra and what its tests need"
    assert len(pip_lines) == 2, "a package named here would be a second description of pyproject.toml"
    assert CONDA["name"] == PROJECT["name"]


def test_conda_brings_python_and_pip_only():
    plain = [entry for entry in CONDA["dependencies"] if isinstance(entry, str)]
    assert {re.split(r"[=<>]", entry)[0] for entry in plain} == {"python", "pip"}
    (python,) = [entry for entry in plain if entry.startswith("python")]
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(python.split("=")[-1])


def test_no_file_of_the_environment_names_a_host_or_a_machine():
    for name in ("constraints.txt", "environment.yml", "pyproject.toml", "Makefile", ".ci/run"):
        text = (ROOT / name).read_text()
        assert "://" not in text, f"{name} names an address"
        assert not re.search(r"(?<![\w.$)/])/(home|root|tmp|work|opt)/", text), (
            f"{name} names a path of one machine"
        )


def test_files_beside_the_code_are_part_of_the_package():
    """Whatever is not Python in the package (presets, assets) is named under package-data, or a wheel lacks it."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    package = ROOT / "deepmlf_kit"
    named = {path for pattern in settings["deepmlf_kit"] for path in package.glob(pattern)}
    beside = {
        path
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    }
    assert sorted(str(path.relative_to(package)) for path in beside - named) == []
