"""What to type after `deepmlf prepare`: the command that trains on the dataset that was made."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import DatasetDict


def after_preparing(path: Path, dataset: DatasetDict, preset: str = "sample") -> str:
    """What to do next: look at the dataset, then train on it, with the settings in which it differs from the preset.

    A line before says how many texts are longer than the preset reads; the command then reads them whole, as far as the
    language model can, but for a published preset.

    Args:
        preset: a preset's name; `sample` trains on the language model that comes with the kit.
    """
    from ..training.dataset import incompatibilities
    from ..training.presets import load_preset
    from ..training.text_lengths import text_lengths

    words = ["deepmlf", "train", shlex.quote(str(path))]
    if preset != "sample":
        words += ["--preset", preset]
    words += ["--out", shlex.quote(str(Path("runs") / path.resolve().name))]
    chosen = load_preset(preset)
    for differing in incompatibilities(dataset, chosen):
        words += ["--set", differing.setting]
    texts = text_lengths(dataset, chosen)
    if texts.beyond and chosen.data.long_texts == "end":
        words += ["--set", f"data.max_text_tokens={texts.suggested}"]
    said = f"{texts}\n" if texts.beyond else ""
    return f"{said}Next: deepmlf inspect {shlex.quote(str(path))}\nThen: {' '.join(words)}"
