"""The short names of a plan: `depth`, `place` and `curriculum` become settings of a preset.

* `depth: n`: n MM Blocks; `place` says after which LM layers: `late` (the last n, the default), `early` (the first
  n), `middle` (n in the middle) or `spread` (evenly, the last layer among them). Depth alone mixes two things: of the last n
  layers, more also begin earlier. Crossed with `place` (plan `place`) each has an effect of its own.
* `curriculum`: how the AV encoder is initialised: `random`, `pretrained` (then finetuned) or `frozen` (pretrained, not
  trained further).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..errors import DeepMLFError
from ..training.presets import Preset

SHORT = ("depth", "place", "curriculum")
PLACES = ("early", "middle", "late", "spread")
CURRICULA = ("random", "pretrained", "frozen")


def fusion_layers(depth: int, layers: int, place: str = "late") -> list[int]:
    """The LM layers, counted from 0, that are followed by an MM Block: `depth` of `layers`.

    Args:
        depth: number of MM Blocks.
        layers: number of decoder layers of the LM.
        place: one of `PLACES`.

    Raises:
        DeepMLFError: the LM has fewer layers, or `place` is not known.
    """
    if place not in PLACES:
        raise DeepMLFError(f"place is {place!r}, but must be one of {', '.join(PLACES)}.")
    if not 1 <= depth <= layers:
        raise DeepMLFError(f"depth is {depth}, but the LM has {layers} layers: choose from 1 to {layers}.")
    if place == "early":
        return list(range(depth))
    if place == "middle":
        first = (layers - depth) // 2
        return list(range(first, first + depth))
    if place == "late":
        return list(range(layers - depth, layers))
    return [round((i + 1) * layers / depth) - 1 for i in range(depth)]


def apply(
    preset: Preset, settings: Mapping[str, Any], lm_layers: int, curriculum: str = "pretrained"
) -> tuple[Preset, bool]:
    """The preset of one trial, and whether its AV encoder starts from a pretraining.

    Args:
        preset: of the sweep.
        settings: keys of the preset, and the short names.
        lm_layers: number of decoder layers of the LM.
        curriculum: default, where `settings` has none.

    Raises:
        DeepMLFError: a key or a value is not known.
    """
    plain = {key: value for key, value in settings.items() if key not in SHORT}
    preset = preset.with_overrides(plain)
    if "depth" in settings or "place" in settings:
        depth = int(settings.get("depth", len(preset.fusion.layers)))
        place = settings.get("place", "late")
        preset = preset.with_overrides({"fusion.layers": fusion_layers(depth, lm_layers, place)})
    start = settings.get("curriculum", curriculum)
    if start not in CURRICULA:
        raise DeepMLFError(f"curriculum is {start!r}, but must be one of {', '.join(CURRICULA)}.")
    if start == "frozen":
        preset = preset.with_overrides({"av_encoder.trainable": False})
    return preset, start != "random"


def av_preset(base: Preset, trial: Preset) -> Preset:
    """The settings of a trial that its AV pretraining depends on, the rest as in `base`.

    Trials with the same ones share one pretraining per seed.
    """
    return replace(
        base,
        av_encoder=replace(trial.av_encoder, trainable=True),
        seqaug=replace(base.seqaug, av_p_feat=trial.seqaug.av_p_feat),
        heads=replace(base.heads, classes=trial.heads.classes),
        data=replace(base.data, scale=trial.data.scale, normalize=trial.data.normalize),
        pretraining=trial.pretraining,
    )
