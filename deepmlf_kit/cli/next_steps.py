"""What to type after `deepmlf prepare`: the command that trains on the dataset that was made."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import DatasetDict


def after_preparing(path: Path, dataset: DatasetDict, preset: str = "sample") -> str:
    """Two lines: look at the dataset, then train on it, with the settings in which it differs from the preset.

    Args:
        preset: a preset's name; `sample` trains on the language model that comes with the kit.
    """
    from ..training.dataset import incompatibilities
    from ..training.presets import load_preset

    words = ["deepmlf", "train", shlex.quote(str(path))]
    if preset != "sample":
        words += ["--preset", preset]
    words += ["--out", shlex.quote(str(Path("runs") / path.resolve().name))]
    for differing in incompatibilities(dataset, load_preset(preset)):
        words += ["--set", differing.setting]
    return f"Next: deepmlf inspect {shlex.quote(str(path))}\nThen: {' '.join(words)}"
