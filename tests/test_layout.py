"""The package is built as `docs/layout.md` draws it: imports point down, in no circle, and stand at module level.

The drawing of the floors is read from that document, so that what is written there is what is enforced.
"""

from __future__ import annotations

import ast
import gc
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deepmlf_kit.storage.optional import EXTRAS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "deepmlf_kit"

# Third-party packages that may be imported inside a function, and why. Those of an extra are imported through
# `storage/optional.py`.
HEAVY = {
    "peft": "seconds to import, with bitsandbytes where that is installed; only for quantized weights",
    "sklearn": "half a second to import; only where F1 or a calibration is computed",
}
IMPORTERS = {"deepmlf_kit.storage.optional": "the one way to optional packages"}


@dataclass(frozen=True)
class Import:
    """One name that a module imports.

    `module` holds the import; `target` is the module of the package (None: third-party); `inside` names the function
    around it ("" at module level); `types_only` marks a TYPE_CHECKING block.
    """

    module: str
    line: int
    target: str | None
    name: str
    inside: str
    types_only: bool

    def __str__(self) -> str:
        where = f" in {self.inside}()" if self.inside else ""
        return f"{self.module}:{self.line} imports {self.name}{where}"


def parsed(text: str) -> ast.Module:
    """The syntax tree. Without garbage collection: CPython 3.11 fails where a finaliser parses in between (gh-106905)."""
    gc.disable()
    try:
        return ast.parse(text)
    finally:
        gc.enable()


class Package:
    """The modules of a package's folder and everything they import, read without importing anything."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self.trees: dict[str, ast.Module] = {}
        for path in sorted(folder.rglob("*.py")):
            parts = [folder.name, *path.relative_to(folder).with_suffix("").parts]
            self.trees[".".join(parts)] = parsed(path.read_text())
        self.imports = [found for module, tree in self.trees.items() for found in self._of(module, tree)]

    def folder(self, module: str) -> str:
        """The top-level folder (or top-level module) that a module belongs to."""
        return module.split(".")[1]

    def _of(self, module: str, tree: ast.Module) -> Iterator[Import]:
        def visit(node: ast.AST, inside: str, types_only: bool) -> Iterator[Import]:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.Import):
                    for alias in child.names:
                        yield Import(
                            module, child.lineno, self.find(alias.name), alias.name, inside, types_only
                        )
                elif isinstance(child, ast.ImportFrom):
                    base = self._base(module, child)
                    for alias in child.names:
                        name = f"{base}.{alias.name}"
                        yield Import(module, child.lineno, self.find(name), name, inside, types_only)
                elif isinstance(child, ast.Call) and inside and _is_import_call(child):
                    yield Import(module, child.lineno, None, ast.unparse(child), inside, types_only)
                yield from visit(
                    child,
                    child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else inside,
                    types_only or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)),
                )

        yield from visit(tree, "", False)

    def _base(self, module: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        above = module.split(".")[: -node.level]
        return ".".join([*above, *([node.module] if node.module else [])])

    def find(self, name: str) -> str | None:
        """The module that holds a dotted name; a lazy face (an `__init__` with `lazy_loader.attach`) is looked through."""
        parts = name.split(".")
        if parts[0] != self.name:
            return None
        for length in range(len(parts), 0, -1):
            stem = ".".join(parts[:length])
            if stem in self.trees:
                return stem
            face = f"{stem}.__init__"
            if face in self.trees:
                rest = parts[length:]
                lazy = _public(self.trees[face])
                if rest and rest[0] in lazy:
                    return self.find(f"{stem}.{lazy[rest[0]]}")
                return face
        return None

    def graph(self) -> dict[str, set[str]]:
        """Each module and those that it needs at run time, in functions too."""
        edges: dict[str, set[str]] = {module: set() for module in self.trees}
        for found in self.imports:
            if found.target is None or found.types_only:
                continue
            needed = {found.target}
            parts = found.target.split(".")[:-1]
            # Python runs the `__init__` of every package on the way, but for those that are being imported already.
            for length in range(1, len(parts) + 1):
                stem = ".".join(parts[:length])
                if not found.module.startswith(f"{stem}."):
                    needed.add(f"{stem}.__init__")
            edges[found.module] |= (needed & self.trees.keys()) - {found.module}
        return edges


def _is_import_call(call: ast.Call) -> bool:
    return ast.unparse(call.func) in ("import_module", "importlib.import_module", "__import__")


def _public(tree: ast.Module) -> dict[str, str]:
    """The names that `lazy_loader.attach` of an `__init__` gives, each with the module that holds it."""
    for node in tree.body:
        call = node.value if isinstance(node, ast.Assign) else None
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "lazy_loader.attach":
            (modules,) = (keyword.value for keyword in call.keywords if keyword.arg == "submod_attrs")
            return {name: module for module, names in ast.literal_eval(modules).items() for name in names}
    return {}


@dataclass(frozen=True)
class Floors:
    """The floors of a drawing: lines from top to bottom, rooms by `|`, a stack inside a room by `<`."""

    place: dict[
        str, tuple[int, int, int]
    ]  # folder -> (floor from the ground, room, place in the room's stack)

    @classmethod
    def read(cls, document: str) -> Floors:
        """Read the fenced block `floors` of a Markdown document."""
        drawing = re.search(r"^```floors\n(.*?)^```", document, re.S | re.M)
        assert drawing, "no fenced block `floors`"
        place = {}
        for floor, line in enumerate(reversed(drawing[1].strip().splitlines())):
            for room, stack in enumerate(line.split("#")[0].split("|")):
                for height, folder in enumerate(stack.split("<")):
                    assert folder.strip() not in place, f"{folder.strip()} is drawn twice"
                    place[folder.strip()] = (floor, room, height)
        return cls(place)

    def allow(self, upper: str, lower: str) -> bool:
        """Whether `upper` may import `lower`: a floor below, or lower in the same room's stack."""
        if upper == lower:
            return True
        (floor, room, height), (other_floor, other_room, other_height) = self.place[upper], self.place[lower]
        return floor > other_floor or (floor == other_floor and room == other_room and height > other_height)


def circles(package: Package) -> list[str]:
    """One line for each group of modules that need each other."""
    graph, groups = package.graph(), []
    reach = {module: _reached(graph, module) for module in graph}
    left = set(graph)
    while left:
        module = left.pop()
        group = {module} | {other for other in reach[module] if module in reach[other]}
        left -= group
        if len(group) > 1:
            groups.append(" <-> ".join(sorted(group)))
    return sorted(groups)


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for needed in graph[waiting.pop()] - seen:
            seen.add(needed)
            waiting.append(needed)
    return seen


def upward(package: Package, floors: Floors) -> list[str]:
    """Every import of a folder that the drawing does not set below, those for types alone included."""
    return [
        str(found)
        for found in package.imports
        if found.target is not None
        and not floors.allow(package.folder(found.module), package.folder(found.target))
    ]


def inside_functions(package: Package) -> list[str]:
    """Every import inside a function but in `cli/` and of the packages in `HEAVY`."""
    return [
        str(found)
        for found in package.imports
        if found.inside
        and package.folder(found.module) != "cli"
        and found.module not in IMPORTERS
        and found.name.split(".")[0] not in HEAVY
    ]


def directly(package: Package) -> list[str]:
    """Every import of an extra's package that does not go through `storage/optional.py`, but for those for types alone."""
    of_extras = {name for names in EXTRAS.values() for name in names}
    return [
        str(found)
        for found in package.imports
        if not found.types_only and found.name.split(".")[0] in of_extras
    ]


def lines(found: list[str]) -> str:
    return "\n".join(["", *found])


@pytest.fixture(scope="module")
def package() -> Package:
    return Package(PACKAGE)


@pytest.fixture(scope="module")
def floors() -> Floors:
    return Floors.read((ROOT / "docs" / "layout.md").read_text())


def test_the_drawing_shows_every_top_level_folder_and_module_and_no_other(package: Package, floors: Floors):
    assert {package.folder(module) for module in package.trees} == set(floors.place)


def test_no_modules_import_each_other_in_a_circle(package: Package):
    found = circles(package)
    assert not found, lines(found)


def test_imports_point_down_the_drawing(package: Package, floors: Floors):
    found = upward(package, floors)
    assert not found, lines(found)


def test_imports_stand_at_module_level(package: Package):
    found = inside_functions(package)
    assert not found, lines(found)


def test_packages_of_an_extra_are_imported_in_the_one_way_that_names_it(package: Package):
    found = directly(package)
    assert not found, lines(found)


# The checks themselves, on made-up trees -----------------------------------------------------------------------------

DRAWING = """Some text.

```floors
cli
training          # stands on both
data | features < model
errors
```
"""


def make_package(folder: Path, modules: dict[str, str]) -> Package:
    for name, text in modules.items():
        path = folder / "kit" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Package(folder / "kit")


def test_a_drawing_is_read_from_the_ground_up():
    floors = Floors.read(DRAWING)
    assert list(floors.place) == ["errors", "data", "features", "model", "training", "cli"]
    assert floors.allow("training", "model") and floors.allow("model", "errors")
    assert floors.allow("model", "features") and not floors.allow("features", "model")
    assert not floors.allow("model", "data") and not floors.allow("data", "model")
    assert not floors.allow("errors", "cli")


def test_a_circle_is_seen_through_functions_and_lazy_faces(tmp_path: Path):
    face = '__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"run": ["Run"]})\n'
    made = make_package(
        tmp_path,
        {
            "a/__init__": face,
            "a/run": "def f():\n    from ..b.fit import fit\n",
            "b/fit": "from ..a import Run\n",
            "b/alone": "from .fit import fit\n",
        },
    )
    assert circles(made) == ["kit.a.run <-> kit.b.fit"]


def test_an_eager_init_closes_a_circle(tmp_path: Path):
    made = make_package(
        tmp_path,
        {
            "a/__init__": "from .one import x\n",
            "a/one": "import kit.b\n",
            "b": "from .a.two import y\n",
            "a/two": "",
        },
    )
    assert circles(made) == ["kit.a.__init__ <-> kit.a.one <-> kit.b"]


def test_imports_for_types_alone_make_no_circle(tmp_path: Path):
    types_only = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .a import A\n"
    assert circles(make_package(tmp_path, {"a": "from .b import B\n", "b": types_only})) == []


@pytest.mark.parametrize(
    ("module", "text", "found"),
    [
        ("model/block", "from ..training import fit\n", "kit.model.block:1 imports kit.training.fit"),
        ("model/block", "from kit.data import rows\n", "kit.model.block:1 imports kit.data.rows"),
        ("errors", "def f():\n    import kit.cli\n", "kit.errors:2 imports kit.cli in f()"),
        ("training/fit", "from ..model import block\nimport torch\n", None),
    ],
)
def test_an_upward_import_is_seen(tmp_path: Path, module: str, text: str, found: str | None):
    modules = {
        "cli/__init__": "",
        "training/__init__": "",
        "data/__init__": "",
        "model/__init__": "",
        "errors": "",
    }
    made = make_package(tmp_path, modules | {module: text})
    assert upward(made, Floors.read(DRAWING)) == ([found] if found else [])


@pytest.mark.parametrize(
    ("module", "text", "found"),
    [
        ("model/block", "class A:\n    def f(self):\n        import torch\n", "kit.model.block:3 imports torch in f()"),
        ("model/block", "def f():\n    return import_module('torch')\n", "kit.model.block:2 imports import_module('torch') in f()"),
        ("model/__init__", "def f():\n    import torch\n", "kit.model.__init__:2 imports torch in f()"),
        ("model/__init__", "def __getattr__(name):\n    from . import block\n", "kit.model.__init__:2 imports kit.model.block in __getattr__()"),
        ("cli/train", "def f():\n    import torch\n", None),
        ("model/block", "def f():\n    import mediapipe.tasks\n", "kit.model.block:2 imports mediapipe.tasks in f()"),
        ("model/block", "def f():\n    import peft.utils\n", None),
    ],
)  # fmt: skip
def test_an_import_inside_a_function_is_seen(tmp_path: Path, module: str, text: str, found: str | None):
    assert inside_functions(make_package(tmp_path, {module: text})) == ([found] if found else [])
