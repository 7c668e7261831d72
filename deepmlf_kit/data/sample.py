"""The sample set: synthetic utterances that need words, voice and face together.

Where it stands: the dataset of the demo, the notebooks and the tests; made on the fly, in seconds, from a
seed. **Everything in it is synthetic**: words from `sample_grammar`, voice and face from `sample_signals`, in the
real extractors' spaces, so that a model trained on it takes real clips. It teaches how the model works; it
says nothing about people.

How a label comes about (`label_of`). An utterance is meant sincerely or ironically.

* Sincere: voice and face agree (both bright, both dark, or both calm), and the words count as they are.
* Ironic: voice and face disagree (a smile on a flat rough voice, or a stern face with a cheerful voice), and at
  the strong word the eyes roll over a one-sided smirk and the word is drawn out. The words then count the other
  way round. Praise is meant ironically more often than blame, as among people.
* With neutral words, voice and face are all there is: a smile and a bright voice are positive, lowered
  brows and a harsh voice negative.

So the words alone do not tell which way they count, voice and face alone do not tell what is being turned
round, and the mean of both guesses does not know either: the label is a product. Some utterances have a silent
track or no face in sight.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import DatasetDict

from ..features.recipe import FeatureRecipe
from . import sample_signals as signals
from .sample_grammar import Sentence, make_sentence
from .schema import DatasetError, build_split, utterance

DESCRIPTION = "Synthetic sample set of the DeepMLF kit: grammar text, synthetic voice and face features."
NEUTRAL_SHARE = 0.18
IRONY_SHARE = {1: 0.26, -1: 0.26}  # of positive and of negative words
NOISE = 0.2  # deviation of the label's noise: no model gets below it
SHORTEST, LONGEST = 1.5, 6.0  # seconds
KINDS = ("sincere", "ironic", "neutral")


def make_sample(
    seed: int = 0, train: int = 1200, valid: int = 200, test: int = 400, *, fps: float = 10.0
) -> DatasetDict:
    """Make the sample set.

    The same arguments give the same set. Speakers are not shared between splits.

    Args:
        seed: of all that is random.
        train, valid, test: utterances per split.
        fps: video frames per second.

    Returns:
        `DatasetDict` of the schema in `docs/layout.md`: audio [La, 25] at 100 Hz, vision [Lv, 58] at `fps`,
        1.5 to 6 s, labels in [-3, 3]; `id` ends in what kind of utterance it is (`_sincere`, `_ironic`,
        `_neutral`) so that it can be looked at by kind.

    Raises:
        DatasetError: a split without utterances, or fps not above 0.
    """
    sizes = {"train": train, "valid": valid, "test": test}
    if min(sizes.values()) < 1 or fps <= 0:
        raise DatasetError(f"found sizes {sizes} and fps={fps}; each must be above 0")
    recipe = _recipe(fps)
    splits = {}
    for number, (split, size) in enumerate(sizes.items()):
        rng = np.random.default_rng([seed, number])
        rows = _rows(rng, split, size, fps, recipe)
        splits[split] = build_split(rows, signals.AUDIO_DIM, signals.VISION_DIM)
        splits[split].info.description = DESCRIPTION
    return DatasetDict(splits)


def kind_of(id: str) -> str:
    """What kind of utterance an id of the sample set names: one of `KINDS`; empty for any other id."""
    kind = id.rpartition("_")[2]
    return kind if id.startswith("sample_") and kind in KINDS else ""


def label_of(
    sentence: Sentence, expression: signals.Expression, ironic: bool, voice: bool, face: bool
) -> float:
    """What an utterance means, before noise, in [-3, 3].

    The words count in full if sincere and the other way round if ironic; what voice and face show on top (their
    mean, or the one there is) counts most where the words are neutral.
    """
    shown = [v for v, there in ((expression.voice, voice), (expression.face, face)) if there]
    mood = float(np.mean(shown)) if shown else 0.0
    words = (-0.8 if ironic else 0.9) * sentence.sentiment
    return float(np.clip(words + (0.6 if sentence.sentiment else 2.2) * mood, -3, 3))


def make_utterance(rng: np.random.Generator, speaker: signals.Speaker, fps: float = 10.0) -> dict[str, Any]:
    """One random utterance as a dict: `sentence`, `expression`, `ironic`, `label`, `words`, and the signals."""
    polarity = 0 if rng.random() < NEUTRAL_SHARE else int(rng.choice([-1, 1]))
    sentence = make_sentence(rng, polarity)
    ironic = polarity != 0 and rng.random() < IRONY_SHARE[polarity]
    # One in twelve is filmed without sound, one in twenty-five recorded without a face; irony needs both.
    voice = ironic or rng.random() > 1 / 12
    face = ironic or not voice or rng.random() > 1 / 25
    expression = _expression(rng, polarity, ironic)
    spoken = signals.time_words(rng, sentence.words, sentence.strong, expression, SHORTEST, LONGEST)
    if voice:
        audio, audio_times = signals.make_audio(rng, speaker, spoken)
    else:
        audio, audio_times = signals.make_silence(rng, spoken.seconds)
    vision, vision_times = signals.make_vision(rng, speaker, spoken, fps)
    if not face:
        vision = np.zeros_like(vision)
    clean = label_of(sentence, expression, ironic, voice, face)
    return {
        "sentence": sentence,
        "expression": expression,
        "ironic": ironic,
        "label": float(np.clip(clean + rng.normal(0, NOISE), -3, 3)),
        "words": spoken.words,
        "audio": audio,
        "audio_times": audio_times,
        "vision": vision,
        "vision_times": vision_times,
    }


def _expression(rng: np.random.Generator, polarity: int, ironic: bool) -> signals.Expression:
    if ironic:
        side = 1.0 if rng.random() < 0.5 else -1.0
        return signals.Expression(
            face=side * rng.uniform(0.4, 1.0),
            voice=-side * rng.uniform(0.4, 1.0),
            smirk=rng.uniform(0.6, 1.0) * (rng.random() < 0.9),
            drawl=rng.uniform(0.5, 1.0) * (rng.random() < 0.9),
        )
    # Sincere: one mood, seen and heard. It leans to the words, but people also smile while they complain.
    mood = float(np.clip(0.15 * polarity + rng.normal(0, 0.55), -1, 1))
    seen, heard = np.clip(mood + rng.normal(0, 0.12, 2), -1, 1)
    return signals.Expression(face=float(seen), voice=float(heard))


def _rows(rng: np.random.Generator, split: str, size: int, fps: float, recipe: str):
    speaker, video, clip = None, 0, 0
    for _ in range(size):
        if speaker is None or rng.random() < 0.125:  # about 8 utterances a speaker
            speaker, video, clip = signals.make_speaker(rng), video + 1, 0
        clip += 1
        made = make_utterance(rng, speaker, fps)
        kind = "ironic" if made["ironic"] else "sincere" if made["sentence"].sentiment else "neutral"
        yield utterance(
            f"sample_{split}{video:04d}$_${clip}_{kind}",
            made["sentence"].text,
            made["audio"],
            made["vision"],
            made["label"],
            audio_dim=signals.AUDIO_DIM,
            vision_dim=signals.VISION_DIM,
            audio_times=made["audio_times"],
            vision_times=made["vision_times"],
            words=made["words"],
            recipe=recipe,
        )


def _recipe(fps: float) -> str:
    """The recipe a real clip must be extracted with, to be read by a model trained on this set."""
    return FeatureRecipe(audio="egemaps", vision="blendshapes", fps=fps, language="en").to_json()
