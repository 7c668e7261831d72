"""Tracks: the few curves of a voice and a face that a person can read, out of all dimensions of a frame.

Drawn under the timelines of `clip_views` and of the explorer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..features.recipe import FeatureRecipe, RecipeError, feature_names
from .style import COLOURS, SERIES, modality_label

NAMED: dict[str, dict[str, Any]] = {
    "audio": {
        "loudness": ("Loudness_sma3", "rms"),
        "pitch": ("F0semitoneFrom27.5Hz_sma3nz", "log_f0"),
    },
    "vision": {
        "smile": ("mouthSmileLeft", "mouthSmileRight"),
        "brows down": ("browDownLeft", "browDownRight"),
        "brows up": ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
        "eyes up": ("eyeLookUpLeft", "eyeLookUpRight"),
        "jaw open": ("jawOpen",),
    },
}
#: eGeMAPS's loudness is an estimate without a unit of its own.
_UNITS = {"loudness": "eGeMAPS", "pitch": "semitones"}
TRACK_COLOURS = {
    "loudness": COLOURS["audio"],
    "pitch": COLOURS["fusion"],
    "smile": COLOURS["vision"],
    "brows down": "#7c4dd6",
    "brows up": SERIES[6],
    "eyes up": SERIES[7],
    "jaw open": COLOURS["label"],
}


@dataclass(frozen=True)
class Track:
    """One curve: `values` [T] (NaN where missing) at `times` [T], its name, unit and modality."""

    name: str
    unit: str
    modality: str
    times: np.ndarray
    values: np.ndarray


def tracks_of(row: Mapping[str, Any], modality: str, times: np.ndarray | None = None) -> list[Track]:
    """The tracks of a modality of a row; empty where it is missing.

    Features without names (an encoder's) are drawn as one track: how far each frame is from the mean frame.

    Args:
        row: of the dataset's schema.
        times: where each frame lies on the axis that is drawn on [T] (`Reading.frame_times`); None: the row's seconds,
            or shares of the utterance where it has none.
    """
    frames = np.asarray(row[modality], np.float32)
    if frames.size == 0 or not frames.any():
        return []
    times = np.asarray(row.get(f"{modality}_times", ()), float) if times is None else times
    if len(times) != len(frames):
        times = (np.arange(len(frames)) + 0.5) / len(frames)
    valid = frames.any(axis=1)
    names = _names(row, modality)
    found = []
    for name, wanted in NAMED.get(modality, {}).items():
        places = [names.index(w) for w in wanted if w in names]
        if not places:
            continue
        values = np.where(valid, frames[:, places].mean(axis=1), np.nan)
        if name == "pitch":
            values = np.where(values > 0, values, np.nan)
        found.append(Track(name, _UNITS.get(name, "0 to 1"), modality, times, values))
    if not found:
        away = np.linalg.norm(frames - frames[valid].mean(axis=0), axis=1)
        what = f"{modality_label(modality)} features"
        found.append(
            Track(what, "distance from the mean frame", modality, times, np.where(valid, away, np.nan))
        )
    return found


def _names(row: Mapping[str, Any], modality: str) -> list[str]:
    """Names of a modality's dimensions, from the row's recipe; empty where it does not say."""
    try:
        recipe = json.loads(row.get("recipe") or "{}")
        if modality not in recipe:
            return []
        names = feature_names(FeatureRecipe.from_dict(recipe))[0 if modality == "audio" else 1] or []
    except (RecipeError, TypeError, ValueError):  # a recipe of another program
        return []
    return names if len(names) == np.asarray(row[modality]).shape[1] else []
