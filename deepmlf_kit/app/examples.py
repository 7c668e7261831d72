"""The three example clips that the app brings along, so that it shows something without a camera.

They are real video files and go the same way as a clip of a person: decoded, searched for a face, listened to. The
face is drawn and the voice synthetic; it says no words, so each example comes with its text and word times.
`scripts/make_examples.py` makes them anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "assets" / "examples"


@dataclass(frozen=True)
class Example:
    """A bundled clip: its file, what it shows, and the words (with times in seconds) that go with it."""

    name: str
    title: str
    about: str
    text: str
    words: list[dict[str, Any]]

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}.mp4"


def examples() -> list[Example]:
    """The bundled clips; none where the installation left them out."""
    listed = FOLDER / "examples.json"
    if not listed.is_file():
        return []
    return [Example(**values) for values in json.loads(listed.read_text(encoding="utf-8"))]
