"""Surface forms: the same words as people type them and as a speech recogniser writes them.

Case, punctuation, fillers and contractions must not turn an answer round, so a sentence is trained on in several of its forms.
"""

from __future__ import annotations

import contextlib
import html
import re

import numpy as np

CONTRACTIONS = {
    "do not": "don't", "does not": "doesn't", "did not": "didn't", "is not": "isn't", "are not": "aren't",
    "was not": "wasn't", "were not": "weren't", "have not": "haven't", "has not": "hasn't", "had not": "hadn't",
    "will not": "won't", "would not": "wouldn't", "could not": "couldn't", "should not": "shouldn't",
    "can not": "can't", "cannot": "can't", "i am": "i'm", "it is": "it's", "that is": "that's", "you are": "you're",
    "we are": "we're", "they are": "they're", "i have": "i've", "i will": "i'll", "there is": "there's",
}  # fmt: skip
FILLERS = ("um", "uh", "you know", "i mean", "like", "well", "so", "kind of", "actually", "uhm", "okay so")
_SPELLED = {short: long for long, short in CONTRACTIONS.items()}
_PAIRS = [
    (re.compile(rf"\b{re.escape(old)}\b", re.IGNORECASE), new)
    for old, new in [*CONTRACTIONS.items(), *_SPELLED.items()]
]


def clean(text: str) -> str:
    """A published sentence as plain text: entities, links, user names, tokenised punctuation and broken encodings undone."""
    text = html.unescape(text)
    with contextlib.suppress(UnicodeError):
        text = text.encode("cp1252").decode("utf-8")  # UTF-8 that was once read as Windows-1252
    text = re.sub(r"https?://\S+|www\.\S+|@\w+", " ", text)
    text = text.replace("’", "'").replace("‘", "'").replace("“", '"').replace("”", '"')
    text = re.sub(r"\s+('(?:s|re|ve|ll|d|m|t)\b|n't\b)", r"\1", text)
    text = re.sub(r"\s+([.,!?;:%)\]])", r"\1", text)
    text = re.sub(r"([(\[])\s+", r"\1", text)
    return re.sub(r"\s+", " ", text).strip()


def bare(text: str) -> str:
    """Lower case without punctuation, apostrophes kept, as CMU-MOSI's transcripts are."""
    return re.sub(r"\s+", " ", re.sub(r"[^\w\s']|_", " ", text.lower())).strip()


def spoken(text: str) -> str:
    """As a speech recogniser writes it: a capital in front, commas, one mark at the end."""
    text = re.sub(r"[^\w\s',.!?-]", "", text).strip()
    text = re.sub(r"[.!?]{2,}", ".", text).strip(" ,-")
    if not text:
        return text
    return text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")


def variants(rng: np.random.Generator, text: str) -> str:
    """One surface form of a clean sentence, drawn at random."""
    if rng.random() < 0.25:
        pattern, new = _PAIRS[int(rng.integers(len(_PAIRS)))]
        tries = [pair for pair in _PAIRS if pair[0].search(text)]
        if tries:
            pattern, new = tries[int(rng.integers(len(tries)))]
        text = pattern.sub(new, text)
    if rng.random() < 0.15:
        text = with_filler(rng, text)
    form = rng.random()
    if form < 0.35:
        return bare(text)
    if form < 0.70:
        return spoken(text)
    if form < 0.75:
        return text.upper()
    if form < 0.85:
        return text.rstrip(" .!?,;")
    if form < 0.90:
        return text.lower()
    return text


def with_filler(rng: np.random.Generator, text: str) -> str:
    """A hesitation in front of the sentence or between two words."""
    words = text.split(" ")
    at = 0 if rng.random() < 0.4 else int(rng.integers(len(words) + 1))
    filler = FILLERS[int(rng.integers(len(FILLERS)))]
    return " ".join([*words[:at], f"{filler}," if rng.random() < 0.5 else filler, *words[at:]])
