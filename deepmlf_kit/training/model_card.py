"""The model card of a run: what it is, what it was trained on, how well it does, and what it may not be used for.

Written beside the weights (`best/README.md`) when a training ends, so that it goes wherever they go.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..model.card import card_header
from ..rendering.tables import Table
from ..storage.files import write_text
from .metrics import HEADINGS
from .models import registered_model

if TYPE_CHECKING:
    from .run_folder import Run


def model_card(run: Run) -> str:
    """The card in Markdown, with the header that model hubs read. Holds no path of the machine."""
    preset, info = run.preset, run.info
    data = info["dataset"]
    recipe = (info.get("preprocessing") or {}).get("recipe") or {}
    synthetic = bool(recipe.get("synthetic"))
    metrics = {name: value for name, value in run.metrics.items() if name in HEADINGS}
    rows = [[HEADINGS[name][0], f"{value:.4f}"] for name, value in metrics.items()]
    splits = ", ".join(f"{count} {name}" for name, count in data["rows"].items())
    size = info.get("parameters", {})
    description = registered_model(run.kind).description
    lines = [
        card_header(preset.lm.name),
        f"# {run.path.name}",
        f"{description[0].upper()}{description[1:]}, trained with deepmlf-kit "
        f"{info['versions'].get('deepmlf-kit', '')}.",
        "## What it is",
        f"- Preset `{preset.name}`, seed {info['seed']}; the language model `{_shown(preset.lm.name)}` is not inside and is "
        "loaded by its name.\n"
        f"- {size.get('trained', 0):,} weights were trained, {size.get('frozen', 0):,} of the language model left as they "
        "are.\n"
        f"- Reads text of at most {preset.data.max_text_tokens} tokens, {data['audio_dim']} audio and "
        f"{data['vision_dim']} vision features a frame"
        + (f" (made by: {_features(recipe)})." if _features(recipe) else "."),
        "## What it was trained on",
        f"{splits} utterances (digest `{data['digest']}`)."
        + (
            " **The utterances are synthetic**: the scores say nothing about people, real speech or real faces."
            if synthetic or preset.name == "sample"
            else ""
        ),
        "## How well it does",
        Table(["best checkpoint", "test"], rows).markdown().rstrip(),
        "## How to use it",
        "```python\nfrom deepmlf_kit import Predictor\n\nPredictor('RUN_FOLDER').clip('clip.mp4')\n```\n"
        "Run it again: `deepmlf rerun RUN_FOLDER`.",
        "## What it is not for",
        "It guesses the sentiment of an utterance. It must not be used to judge, select, monitor or score people, nor to "
        "infer what somebody feels; errors differ between speakers, languages, cameras and microphones, and were not "
        "measured here for groups of people.",
    ]
    return "\n\n".join(lines) + "\n"


def write_card(run: Run) -> None:
    """Write the card beside the weights of the best checkpoint."""
    write_text(run.best / "README.md", model_card(run))


def _shown(name: str) -> str:
    """A hub name as it is; of a local path the last part only."""
    return name if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) else re.split(r"[\\/]", name.rstrip("\\/"))[-1]


def _features(recipe: dict[str, object]) -> str:
    return ", ".join(
        f"{name} {recipe[name]}" for name in ("audio", "vision") if isinstance(recipe.get(name), str)
    )
