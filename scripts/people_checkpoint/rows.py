"""The training set: rated words, labelled faces and coloured voices put together by one rule.

What an utterance means (`meaning`), in [-3, 3]:

* What voice and face show together is CREMA-D's rule (`votes.py`), times `SHOWN`: with neutral words it is all there is.
* Words count as rated. The stronger they are, the less voice and face add: with words of strength 2 or more, half. This is an
  assumption; in CMU-MOSI and CMU-MOSEI the words alone explain most of the rating, so they lead here. `weighing.py` shows
  what an answer does as it varies.
* Irony: kind words said with the eyes rolled over a one-sided smirk, face and voice at odds. They then count the other way
  round. About one joint utterance in twelve: of turns in talk among friends 8 % are ironic (Gibbs, "Irony in talk among
  friends", Metaphor and Symbol, 2000).
* A stream that is not there adds nothing. Nothing said and nothing shown means 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DatasetDict

from deepmlf_kit.data import sample_signals as signals
from deepmlf_kit.data.schema import build_split, utterance
from deepmlf_kit.features.recipe import FeatureRecipe

from . import faces, sentences, told, voices
from .surface import variants
from .votes import MixedEvidence, mixed_evidence

SHOWN = 2.0  # of the scale's 3: a broad smile or a scowl with neutral words
IRONY_SHARE = 0.08
FPS = 10.0
#: What a row holds -> how many of them for each 100 rated sentences of the training split.
MIXTURE = {
    "words": 100,  # rated words alone
    "told": 120,  # words alone that the checkpoint on SmolLM2 rated (`told.py`), where there are any
    "lexicon": 25,  # rated words and short phrases of them
    "words_face_voice": 35,
    "words_face": 15,
    "words_voice": 10,
    "plain": 12,  # neutral words alone
    "plain_face_voice": 12,
    "plain_face": 25,
    "plain_voice": 14,
    "face": 4,  # no words
    "face_voice": 4,
    "nothing": 1,
}


@dataclass(frozen=True)
class Sources:
    """Everything that rows are drawn from, by split where it matters."""

    rated: dict[str, list[sentences.Rated]]
    told: list[sentences.Rated]
    lexicon: dict[str, list[sentences.Rated]]
    still: dict[str, list[faces.StillFace]]
    rest: np.ndarray
    along: voices.Directions
    evidence: MixedEvidence

    @classmethod
    def open(cls, people: Path, rated_by_model: Path | None = None) -> Sources:
        """Read the folder `people` (its README lists the files and their licences) and the CSV of `told.py`."""
        still = faces.still_faces(people)
        return cls(
            sentences.rated_sentences(people),
            told.read(rated_by_model) if rated_by_model else [],
            sentences.rated_words(),
            still,
            faces.resting_face(still["train"]),
            voices.directions(people),
            mixed_evidence(people),
        )


def shown(evidence: MixedEvidence, voice: float | None, face: float | None) -> float:
    """What voice and face show together, in [-`SHOWN`, `SHOWN`]; a stream that is absent (None) adds nothing."""
    return SHOWN * (evidence.voice * (voice or 0.0) + evidence.face * (face or 0.0))


def meaning(words: float, both: float, ironic: bool = False, shown_weight: float = 0.5) -> float:
    """What the utterance means, in [-3, 3].

    Args:
        words: their rating, in [-3, 3].
        both: what voice and face show (`shown`).
        ironic: the words count the other way round.
        shown_weight: what voice and face still count beside words of strength 2 or more.
    """
    if ironic:
        return float(np.clip(-0.7 * words, -3, 3))
    weight = 1 - (1 - shown_weight) * min(abs(words) / 2, 1.0)
    return float(np.clip(words + weight * both, -3, 3))


def make_dataset(
    people: Path, seed: int = 0, share: float = 1.0, rated_by_model: Path | None = None
) -> DatasetDict:
    """The training set, its validation and test split, as the kit's schema has them.

    Args:
        people: folder of the labelled people.
        seed: of all that is drawn.
        share: of the rows to make, for a quick look.
        rated_by_model: further words for the training split, `told.py`'s CSV.
    """
    sources = Sources.open(people, rated_by_model)
    recipe = FeatureRecipe(audio="egemaps", vision="blendshapes", fps=FPS, language="en").to_json()
    splits = {}
    for number, split in enumerate(sentences.SPLITS):
        rng = np.random.default_rng([seed, number])
        rows = _rows(rng, sources, split, share, recipe)
        splits[split] = build_split(rows, signals.AUDIO_DIM, signals.VISION_DIM)
    return DatasetDict(splits)


def _rows(
    rng: np.random.Generator, sources: Sources, split: str, share: float, recipe: str
) -> Iterator[dict[str, Any]]:
    rated = sources.rated[split]
    order = rng.permutation(len(rated))
    more = sources.told if split == "train" else []
    mixture = {kind: n for kind, n in MIXTURE.items() if more or kind != "told"}
    kinds = np.repeat(list(mixture), [round(n * len(rated) / 100 * share) for n in mixture.values()])
    taken = 0
    for number, kind in enumerate(rng.permutation(kinds)):
        sentence = None
        if kind.startswith("words"):
            sentence = rated[order[taken % len(rated)]]
            taken += 1
        if kind == "told" or (more and kind.startswith("words_") and rng.random() < 0.5):
            sentence = more[int(rng.integers(len(more)))]
        if kind == "lexicon":
            sentence = sentences.phrase(rng, sources.lexicon[split])
        text, words = ("", 0.0) if sentence is None else (sentence.text, sentence.rating)
        if kind.startswith("plain"):
            text = sentences.neutral_sentence(rng)
        made = make_row(rng, sources, split, variants(rng, text), words, "face" in kind, "voice" in kind)
        kind += "_ironic" * made.pop("ironic")
        made.pop("shown")
        yield utterance(
            f"{split}_{number}$_${kind}",
            **made,
            audio_dim=signals.AUDIO_DIM,
            vision_dim=signals.VISION_DIM,
            recipe=recipe,
        )


def make_row(
    rng: np.random.Generator, sources: Sources, split: str, text: str, words: float, face: bool, voice: bool
) -> dict[str, Any]:
    """One utterance: `text`, signals and their times, `words` with times, `label`, `ironic`, `shown`."""
    ironic = (
        face and voice and words > 0.8 and rng.random() < 2.5 * IRONY_SHARE
    )  # two fifths of the words are kind
    still = faces.balanced(rng, sources.still[split]) if face else None
    heard = None
    if voice:
        lean = still.valence if still is not None else 0.4 * np.sign(words)
        heard = float(np.clip(0.6 * lean + rng.normal(0, 0.5), -1, 1))
    if ironic and still is not None:
        while still.label == 0:
            still = faces.balanced(rng, sources.still[split])
        heard = -still.label * rng.uniform(0.4, 1.0)
    empty = {
        "audio": np.zeros((0, signals.AUDIO_DIM), np.float32),
        "vision": np.zeros((0, signals.VISION_DIM), np.float32),
    }
    none = np.zeros(0, np.float32)
    row: dict[str, Any] = {
        "text": text,
        "ironic": ironic,
        "words": [],
        **empty,
        "audio_times": none,
        "vision_times": none,
    }
    if face or voice:
        said = tuple(text.split()[:20]) or ("mm",)
        strong = int(np.argmax([len(word) for word in said])) if ironic else None
        mood = signals.Expression(0.0, 0.0, drawl=rng.uniform(0.5, 1.0) if ironic else 0.0)
        spoken = signals.time_words(rng, said, strong, mood, 1.5, 6.0)
        row["words"] = spoken.words
        if heard is not None:
            row["audio"], row["audio_times"] = voices.voice(rng, spoken, heard, sources.along)
        if still is not None:
            row["vision"], row["vision_times"] = faces.track(
                rng, still, spoken, sources.rest, fps=FPS, smirk=strong
            )
    seen = still.valence if still is not None else None
    row["shown"] = shown(sources.evidence, heard, seen)
    row["label"] = meaning(words, row["shown"], ironic)
    return row
