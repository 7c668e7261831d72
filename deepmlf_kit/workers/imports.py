"""What makes the imports of a fresh process quicker: no search for cycles meanwhile, and packages left out that it has no use for."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Without the garbage collector of cycles, in the whole process: what an import makes stays, and is else looked through
    again and again, which is a sixth of what torch and transformers take."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@contextlib.contextmanager
def left_out(*packages: str) -> Iterator[None]:
    """With modules that have nothing in them where `packages` are imported; without effect where one of them is already.

    Whatever is taken from them (`from package.part import function`) raises when it is called. Afterwards they can be
    imported as ever; what was imported meanwhile keeps what it took.
    """
    if not sys.modules.keys().isdisjoint(packages):
        yield
        return
    finder = _Nothing(packages)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in filter(finder.knows, list(sys.modules)):
            del sys.modules[name]


class _Nothing(MetaPathFinder, Loader):
    """Finds packages and whatever is below them, as modules with nothing in them."""

    def __init__(self, packages: Sequence[str]) -> None:
        self._packages = packages

    def knows(self, name: str) -> bool:
        """Whether a module is one of these."""
        return name.partition(".")[0] in self._packages

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if self.knows(name) else None

    def create_module(self, spec: ModuleSpec) -> None:
        """As for any module."""

    def exec_module(self, module: ModuleType) -> None:
        module.__getattr__ = lambda name: _missing(module.__name__, name)  # type: ignore[method-assign]


def _missing(module: str, name: str) -> Any:
    """What stands for something of a module that was left out."""
    if name.startswith("__"):
        raise AttributeError(name)

    def call(*_: Any, **__: Any) -> None:
        raise ImportError(f"{module}.{name}: {module} was left out of this process to start it sooner")

    return call
