"""Whether a dataset fits a preset, and the settings that make it fit: `train` refuses, `prepare` says them ahead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .metrics import SCALES

if TYPE_CHECKING:
    from datasets import DatasetDict

    from .presets import Preset


@dataclass(frozen=True)
class Misfit:
    """`what` was found where the preset expects something else, and the `setting` (KEY=VALUE) that expects it."""

    what: str
    setting: str


def misfits(data: DatasetDict, preset: Preset) -> list[Misfit]:
    """All in which a dataset differs from what a preset expects: feature dims, and the scale of labels.

    A dataset of labels beyond [-3, 3] fits the rules of MOSI as well as any.
    """
    from ..data.schema import modality_dims, recipe_of

    found = []
    dims, settings = modality_dims(data), preset.av_encoder
    for name in ("audio", "vision"):
        expected = getattr(settings, f"{name}_dim")
        if dims[name] != expected:
            found.append(
                Misfit(
                    f"{dims[name]} {name} features a frame (preset {preset.name!r} expects {expected})",
                    f"av_encoder.{name}_dim={dims[name]}",
                )
            )
    extra = settings.extra_modalities
    there = {name: dims[name] for name in extra if name in dims}
    if there != extra:
        inline = "{" + ", ".join(f"{name}: {dim}" for name, dim in there.items()) + "}"
        found.append(
            Misfit(
                f"{there} features a frame (preset {preset.name!r} expects {extra})",
                f"av_encoder.extra_modalities={inline}",
            )
        )
    largest, expected = recipe_of(data).get("label_scale"), SCALES[preset.data.scale][1]
    rules = {1.0: "sims", 3.0: "mosi"}.get(largest)
    if rules is not None and largest != expected:
        found.append(
            Misfit(
                f"labels from {-largest:g} to {largest:g} (data.scale={preset.data.scale} expects {-expected:g} to "
                f"{expected:g})",
                f"data.scale={rules}",
            )
        )
    return found
