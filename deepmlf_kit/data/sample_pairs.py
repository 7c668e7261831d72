"""Minimal pairs of the sample set: two utterances that differ in one thing, and what it does to their meaning.

Where it stands: beside `sample`, whose rule gives the labels (without noise). What is not turned round is the same to the
bit: the same voice and face on other words, or the same words and voice under another face. So a difference between two
predictions has one cause, and activation patching can follow it (`explain.patching`).

* `words`: every word of praise becomes blame of the same strength, or the other way round; spoken sincerely.
* `face`, `voice`: it turns from agreeing with the other to contradicting it, so that sincere words become ironic.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..features.recipe import FeatureRecipe
from . import sample_signals as signals
from .sample import LONGEST, SHORTEST, label_of
from .sample_grammar import BAD, BAD_VERBS, GOOD, GOOD_VERBS, Sentence, make_sentence
from .schema import DatasetError, utterance

TURNED = ("words", "face", "voice")


def minimal_pair(
    turned: str, seed: int = 0, *, polarity: int = 1, fps: float = 10.0
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A clean and a corrupted utterance, equal in all but one thing.

    Args:
        turned: what is turned round: `words`, `face` or `voice`.
        seed: the same seed gives the same pair; the clean utterances of one seed share words and speaker.
        polarity: what the clean words say: 1 praise, -1 blame.
        fps: video frames per second.

    Returns:
        Two rows of the dataset's schema. The clean one is sincere; the corrupted one is what the turn makes of it: sincere
        with the opposite words, or ironic.

    Raises:
        DatasetError: `turned` or `polarity` is not one of these.
    """
    if turned not in TURNED or polarity not in (1, -1):
        raise DatasetError(
            f"found turned={turned!r} and polarity={polarity!r}; choose turned from {', '.join(TURNED)}, polarity 1 or -1"
        )
    rng = np.random.default_rng([seed, 7])
    sentence, speaker = make_sentence(rng, polarity), signals.make_speaker(rng)
    mood, height = float(polarity * rng.uniform(0.5, 0.9)), float(rng.uniform(0.7, 1.0))
    clean = signals.Expression(face=mood, voice=mood)
    expressions = {
        "words": clean,
        "face": signals.Expression(face=-mood, voice=mood, smirk=height),
        "voice": signals.Expression(face=mood, voice=-mood, drawl=height),
    }
    timing = rng.integers(2**32)

    def row(name: str, said: Sentence, expression: signals.Expression, ironic: bool) -> dict[str, Any]:
        # Each signal from a stream of its own, so that what one of them draws leaves the others as they are.
        rngs = [np.random.default_rng([timing, i]) for i in range(3)]
        timed = signals.time_words(rngs[0], sentence.words, sentence.strong, clean, SHORTEST, LONGEST)
        spoken = signals.Utterance(timed.words, timed.seconds, timed.strong, expression)
        audio, audio_times = signals.make_audio(rngs[1], speaker, spoken)
        vision, vision_times = signals.make_vision(rngs[2], speaker, spoken, fps)
        kind = "ironic" if ironic else "sincere"
        return utterance(
            f"sample_pair_{turned}{seed}$_${name}_{kind}",
            said.text,
            audio,
            vision,
            label_of(said, expression, ironic, True, True),
            audio_dim=signals.AUDIO_DIM,
            vision_dim=signals.VISION_DIM,
            audio_times=audio_times,
            vision_times=vision_times,
            words=[{**word, "word": w} for word, w in zip(timed.words, said.words, strict=True)],
            recipe=FeatureRecipe(audio="egemaps", vision="blendshapes", fps=fps, language="en").to_json(),
        )

    said = opposite(sentence) if turned == "words" else sentence
    return row("clean", sentence, clean, False), row(
        "corrupted", said, expressions[turned], turned != "words"
    )


def opposite(sentence: Sentence) -> Sentence:
    """The sentence with every word of praise or blame exchanged for one as strong of the other kind."""
    words = tuple(
        # The first word is an opener or an article: there, "okay" judges nothing.
        _OPPOSITES.get(word, word) if place else word
        for place, word in enumerate(sentence.words)
    )
    return Sentence(words, -sentence.sentiment, sentence.strong)


def _opposites() -> dict[str, str]:
    found: dict[str, str] = {}
    for good, bad in ((GOOD, BAD), (GOOD_VERBS, BAD_VERBS)):
        for strength in good:
            for one, other in zip(good[strength].split(), bad[strength].split(), strict=True):
                found |= {one: other, other: one}
    return found | {"love": "hate", "hate": "love", "enjoy": "regret"}  # as after "did not"


_OPPOSITES = _opposites()
