"""Registries: the replaceable parts of the model by the names that a configuration gives them.

A new part is one class and one registration, in a file of its own; the setting then takes its name
(docs/extending.md shows each kind).

    @GATES.register("per_token")
    class PerTokenGate(Gate): ...

    DeepMLFConfig(gating="per_token")
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from ..errors import DeepMLFError

T = TypeVar("T")


class Registry:
    """Classes by name, for one setting of `DeepMLFConfig`.

    Args:
        setting: the setting that names one of them.
        built_in: names that the kit's own modules register; known before those modules are imported.
    """

    def __init__(self, setting: str, built_in: Sequence[str]) -> None:
        self.setting = setting
        self._names = list(built_in)
        self._parts: dict[str, Any] = {}

    def __iter__(self) -> Iterator[str]:
        """Names, the built-in ones first."""
        return iter(self._names)

    def register(self, name: str) -> Callable[[T], T]:
        """Class decorator that registers a part under `name`.

        Raises:
            DeepMLFError: another class has this name. The same class may be registered again (a notebook cell
                that is run twice).
        """

        def add(part: T) -> T:
            known = self._parts.get(name)
            if known is not None and _identity(known) != _identity(part):
                raise DeepMLFError(
                    f"{self.setting}={name!r} is registered as {'.'.join(_identity(known))}: choose another name for "
                    f"{'.'.join(_identity(part))}."
                )
            if name in self._names and known is None and not _identity(part)[0].startswith("deepmlf_kit."):
                raise DeepMLFError(f"{self.setting}={name!r} is built in: choose another name.")
            self._parts[name] = part
            if name not in self._names:
                self._names.append(name)
            return part

        return add

    def __getitem__(self, name: str) -> Any:
        """The class registered under `name`.

        Raises:
            DeepMLFError: there is none; the message lists those that are.
        """
        self.check(name)
        return self._parts[name]

    def check(self, name: Any) -> None:
        """Refuse a name that is not registered.

        Raises:
            DeepMLFError: the message lists the names that are.
        """
        if name not in self._names:
            raise DeepMLFError(
                f"{self.setting} is {name!r}, but must be one of {', '.join(map(repr, self._names))}: choose one, or "
                "import the module that registers it first."
            )


def _identity(part: Any) -> tuple[str, str]:
    return part.__module__, part.__qualname__


#: Gates of the MM Block (`gates.py`): class(config, width), forward(x) -> scale of a branch.
GATES = Registry("gating", ("sigmoid", "tanh", "none"))
#: How fusion tokens read the AV states (`cross_attention.py`): class(config, width), forward as `CrossAttention`'s.
FUSION_MECHANISMS = Registry("fusion_mechanism", ("cross_attention",))
#: AV encoders (`av_encoder.py`): subclasses of `AVEncoder`.
AV_ENCODERS = Registry("av_encoder", ("transformer",))
