"""The model card that `save_pretrained` leaves beside the weights; a training writes a fuller one (`training.model_card`)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..storage.files import write_text

if TYPE_CHECKING:
    from .base import SentimentModel

CARD_FILE = "README.md"


def card_header(lm: str) -> str:
    """The header that model hubs read.

    Args:
        lm: name of the LM; a local one is not named.
    """
    header: dict[str, Any] = {
        "library_name": "deepmlf-kit",
        "pipeline_tag": "text-classification",
        "tags": ["multimodal-sentiment-analysis", "deepmlf"],
    }
    if lm not in ("embedded", "in-memory") and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", lm):
        header["base_model"] = lm
    return f"---\n{yaml.safe_dump(header, sort_keys=False)}---"


def write_card(model: SentimentModel, folder: Path) -> None:
    """Write a card into a folder that has none."""
    if not folder.is_dir() or (folder / CARD_FILE).exists():
        return
    name = type(model).__name__
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    lines = [
        card_header(model.config.lm),
        f"# {name}",
        f"A model of deepmlf-kit: multimodal sentiment analysis from text, voice and face. {trained:,} trained weights are "
        "stored here; the frozen language model is not, it is loaded by the name and revision in config.json.",
        "## How to use it",
        "```python\nimport deepmlf_kit\nfrom transformers import AutoModel\n\n"
        "model = AutoModel.from_pretrained('THIS_FOLDER_OR_HUB_NAME')\n```",
        "## What it was trained on, and how well it does",
        "Not said: fill in the data, its splits and the scores.",
        "## What it is not for",
        "It guesses the sentiment of an utterance. It must not be used to judge, select, monitor or score people, nor to "
        "infer what somebody feels.",
    ]
    write_text(folder / CARD_FILE, "\n\n".join(lines) + "\n")
