"""Published results of other models, with their source, to set beside yours. They are not ours."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import yaml

from ..errors import DeepMLFError


@dataclass(frozen=True)
class Published:
    """A model's published results on one dataset: `metrics` by the kit's names, as fractions (0.83, not 83)."""

    model: str
    dataset: str
    metrics: dict[str, float]
    source: str
    note: str


def published(dataset: str) -> list[Published]:
    """Published results on `mosi`, `mosei` or `sims`.

    Raises:
        DeepMLFError: the kit has none for that dataset.
    """
    tree = yaml.safe_load((resources.files(__package__) / "published.yaml").read_text(encoding="utf-8"))
    found = []
    for table in tree["tables"]:
        for model, values in table["results"].get(dataset, {}).items():
            names = table["metrics"][dataset]
            metrics = {name: value / 100 for name, value in zip(names, values, strict=True)}
            found.append(Published(model, dataset, metrics, table["source"], table["note"]))
    if not found:
        known = sorted({name for table in tree["tables"] for name in table["results"]})
        raise DeepMLFError(
            f"No published numbers on {dataset!r} are in the kit; there are {', '.join(known)}."
        )
    return found
