"""A sweep's plan: which settings are varied, over which seeds, and the claims to compare the result with.

A plan is a YAML file (those of the package by name) or made on the command line:

    name: depth
    description: one line
    preset: sample
    set: {training.epochs: 6}          # for every training
    grid: {depth: [1, 3, 5, 7]}        # every combination; keys of the preset, or depth, place, curriculum
    arms: {no gates: {fusion.gating: none}}   # or variants by name, each with its settings
    search: {fusion.tokens: {low: 1, high: 32, log: true}}   # or ranges that optuna draws from
    samples: 20                        # how many optuna draws
    seeds: [0, 1, 2]
    claims: [{text: ..., source: ..., axis: depth, favoured: [5, 6, 7]}]
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from ..errors import DeepMLFError, did_you_mean, excerpt
from ..training.presets.parsing import settings_text, yaml_mapping

ARM = "variant"  # the column with the name of the arm


@dataclass(frozen=True)
class Claim:
    """A published claim about an axis: `favoured` are the values said to be best."""

    text: str
    source: str
    axis: str
    favoured: tuple[Any, ...]


@dataclass(frozen=True)
class Point:
    """One choice of settings: `shown` are the varied columns of the table, `settings` the changes to the preset."""

    shown: dict[str, Any]
    settings: dict[str, Any]


@dataclass(frozen=True)
class SweepPlan:
    """See the module's docstring; exactly one of `grid`, `arms` and `search` varies something, or `grid` with `arms`.

    Attributes:
        curriculum: default, where no axis varies it: `pretrained` (the AV encoder is initialised from its pretraining),
            `frozen` (and not trained further) or `random`.
        sample: sizes of the generated sample set where no dataset is given (`train`, `valid`, `test`).

    Raises:
        DeepMLFError: nothing is varied, or a value is of the wrong kind.
    """

    name: str = "custom"
    description: str = ""
    preset: str = "sample"
    set: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    arms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)
    samples: int = 20
    seeds: tuple[int, ...] = (0, 1, 2)
    curriculum: str = "pretrained"
    sample: Mapping[str, int] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()

    def __post_init__(self) -> None:
        if not (self.grid or self.arms or self.search):
            raise DeepMLFError(
                f"The sweep {self.name!r} varies nothing: give it grid, arms or search, for example "
                "--grid depth=1,3,5."
            )
        if self.search and (self.grid or self.arms):
            raise DeepMLFError(
                f"The sweep {self.name!r} has both search and grid or arms: optuna draws every setting of a search, "
                "so put them all there."
            )
        for key, values in self.grid.items():
            if not isinstance(values, (list, tuple)) or not values:
                raise DeepMLFError(
                    f"grid.{key} of the sweep {self.name!r} is {values!r}, but must be a list of values."
                )
        for name in self.arms:
            if not isinstance(name, str):
                raise DeepMLFError(
                    f"The sweep {self.name!r} has a variant named {name!r}, which YAML does not read as text: put the name "
                    'in quotes, for example "off".'
                )
        if not self.seeds:
            raise DeepMLFError(
                f"The sweep {self.name!r} has no seeds: give at least one, for example [0, 1, 2]."
            )
        if self.samples < 1:
            raise DeepMLFError(f"samples is {self.samples}, but must be at least 1.")

    @property
    def axes(self) -> list[str]:
        """The varied columns of the table, in order."""
        return [*self.grid, *([ARM] if self.arms else []), *self.search]

    def points(self) -> list[Point]:
        """Every choice of settings of a grid (with arms: for each arm), in order; none for a search."""
        if self.search:
            return []
        grids = [
            dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())
        ]
        arms: list[tuple[str | None, Mapping[str, Any]]] = [*self.arms.items()] or [(None, {})]
        return [
            Point(
                {**chosen, **({} if name is None else {ARM: name})},
                {**chosen, **(changes or {})},
            )
            for chosen in grids
            for name, changes in arms
        ]

    def changed(self, **changes: Any) -> SweepPlan:
        """A copy with some attributes replaced; those that are None stay."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})

    def with_settings(self, settings: Sequence[str]) -> SweepPlan:
        """A copy with some keys of every training changed, as on the command line: `["training.epochs=2"]`."""
        pairs = (item.partition("=") for item in settings)
        return replace(
            self, set={**self.set, **{key.strip(): yaml.safe_load(text) for key, _, text in pairs}}
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, as in YAML."""
        claims = [
            {"text": c.text, "source": c.source, "axis": c.axis, "favoured": list(c.favoured)}
            for c in self.claims
        ]
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**plain, "seeds": list(self.seeds), "claims": claims}


def available_plans() -> list[str]:
    """Names of the ready-made sweeps."""
    return sorted(p.name.removesuffix(".yaml") for p in _folder().iterdir() if p.name.endswith(".yaml"))


def load_plan(name_or_path: str | Path) -> SweepPlan:
    """A ready-made sweep by its name, or a YAML file.

    Raises:
        DeepMLFError: there is none, or it has an unknown key.
    """
    name = str(name_or_path)
    if name in available_plans():
        text = (_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    elif Path(name).is_file():
        text = settings_text(Path(name), f"sweep {name}")
    else:
        raise DeepMLFError(
            f"There is no sweep {name!r}: give a YAML file, or one of {', '.join(available_plans())}."
        )
    return plan_of({"name": Path(name).stem, **yaml_mapping(text, f"sweep {name}")})


def plan_of(tree: Mapping[str, Any]) -> SweepPlan:
    """A plan from plain containers.

    Raises:
        DeepMLFError: an unknown key.
    """
    known = [f.name for f in fields(SweepPlan)]
    for key in tree:
        if key not in known:
            raise DeepMLFError(f"A sweep has no key {key!r}: {did_you_mean(key, known)}")
    arguments = {key: value for key, value in tree.items() if value is not None}
    try:
        claims = tuple(
            Claim(str(c["text"]), str(c["source"]), str(c["axis"]), tuple(c["favoured"]))
            for c in arguments.get("claims", ())
        )
    except (KeyError, TypeError) as error:
        raise DeepMLFError(
            "Every claim of a sweep needs text, source, axis and favoured (a list)."
        ) from error
    seeds = arguments.get("seeds", (0, 1, 2))
    seeds = tuple(range(seeds)) if isinstance(seeds, int) else tuple(int(seed) for seed in seeds)
    return SweepPlan(**{**arguments, "claims": claims, "seeds": seeds})


def known_claims(axes: Sequence[str]) -> tuple[Claim, ...]:
    """The claims of the ready-made sweeps about these axes."""
    claims = [claim for name in available_plans() for claim in load_plan(name).claims]
    return tuple(claim for claim in claims if claim.axis in axes and claim.axis != ARM)


def grid_of(items: Sequence[str]) -> dict[str, list[Any]]:
    """`["depth=1,3,5", "fusion.gating=sigmoid,none"]` as a grid; a value that is a list stands in brackets.

    Raises:
        DeepMLFError: an item is not `KEY=VALUES`.
    """
    grid = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key.strip() or not text.strip():
            raise DeepMLFError(
                f"{item!r} varies nothing: write a key and its values, for example depth=1,3,5."
            )
        try:
            grid[key.strip()] = yaml_mapping(f"values: [{text}]", "values")["values"]
        except DeepMLFError as error:
            raise DeepMLFError(
                f"The values in {excerpt(item)!r} cannot be read: separate them by commas."
            ) from error
    return grid


def _folder() -> Any:
    return resources.files(__package__) / "plans"
