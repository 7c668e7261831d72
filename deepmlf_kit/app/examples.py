"""The example clips that the app brings along, so that it shows something without a camera.

They are real video files and go the same way as a clip of a person: decoded, searched for a face, listened to. The
face is drawn and the voice synthetic; it says no words, so each example comes with its text and word times. Beside each
clip lie a thumbnail and its features, so that the page has an answer before anybody has waited for one.
`scripts/make_examples.py` makes all of it anew.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..features.clip import ClipFeatures
from ..features.recipe import FeatureRecipe

FOLDER = Path(__file__).parents[1] / "assets" / "examples"


@dataclass(frozen=True)
class Example:
    """A bundled clip: its file, what it shows, and the words (with times in seconds) that go with it.

    Attributes:
        name: of its clip's file.
        recipe: `recipe_key` of the features beside it.
        varies: name of the example of which this is another form: the same clip with one stream turned round.
        clip: name of the clip's file, where it is that of another example.
        meant: 1 or -1, where it is clear whether it is meant well or ill; else 0.
    """

    name: str
    title: str
    about: str
    text: str
    words: list[dict[str, Any]]
    recipe: str = ""
    varies: str = ""
    clip: str = ""
    meant: int = 0

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.clip or self.name}.mp4"

    @property
    def thumbnail(self) -> str:
        """A still of it, as an address that needs no request."""
        picture = self.path.with_suffix(".jpg").read_bytes()
        return f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"

    def features(self, recipe: FeatureRecipe) -> ClipFeatures | None:
        """Its features, made when the example was; None where the recipe makes others."""
        path = self.path.with_suffix(".npz")
        if not path.is_file() or self.recipe != recipe_key(recipe):
            return None
        made = ClipFeatures.load(path)
        return replace(made, text=self.text, words=self.words, text_source="given", timings={})


def examples() -> list[Example]:
    """The bundled clips; none where the installation left them out."""
    return [example for example in _listed() if not example.varies]


def forms() -> list[Example]:
    """One clip in three forms: words and face agree, the words turned round, the face turned round."""
    varied = {example.varies for example in _listed()}
    return [example for example in _listed() if example.name in varied or example.varies]


def shown_examples() -> list[Example]:
    """What the page shows, each once: the forms of one clip first, then the others."""
    return list({example.name: example for example in (*forms(), *examples())}.values())


def recipe_key(recipe: FeatureRecipe) -> str:
    """Tells recipes apart that make different features of voice or face."""
    return f"{recipe.key('audio')} {recipe.key('vision')}"


def _listed() -> list[Example]:
    listed = FOLDER / "examples.json"
    if not listed.is_file():
        return []
    return [Example(**values) for values in json.loads(listed.read_text(encoding="utf-8"))]
