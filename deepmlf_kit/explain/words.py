"""Tokens, words and seconds: which word a token belongs to, and when it is spoken.

Where it stands: the LM reads tokens, people read words, voice and face run in seconds. Every view of the
language stream goes through here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..model.special_tokens import kept_tokens, with_full_stop

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Scripts written without spaces: there, a character is a word.
_UNSPACED = "぀-ヿ㐀-䶿一-鿿豈-﫿"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


@dataclass(frozen=True)
class Words:
    """The words of one text, as the LM read it.

    Attributes:
        words: the words that the LM read at least one token of [W].
        tokens: the tokens, as text [L].
        word_of: index of each token's word [L]; -1 for a special token.
        start, end: seconds [W]; NaN where unknown.
        cut: how many words were not read, since the text is longer than the model takes.
    """

    words: list[str]
    tokens: list[str]
    word_of: np.ndarray
    start: np.ndarray
    end: np.ndarray
    cut: int = 0

    @property
    def labels(self) -> list[str]:
        """The words, each once: a word that comes again is numbered, so that it can name a place on an axis."""
        counts: dict[str, int] = {}
        labels = []
        for word in self.words:
            counts[word] = counts.get(word, 0) + 1
            labels.append(word if counts[word] == 1 else f"{word} ({counts[word]})")
        return labels

    def tokens_of(self, word: int) -> np.ndarray:
        """Indices of a word's tokens."""
        return np.flatnonzero(self.word_of == word)

    def sum_over_words(self, values: np.ndarray) -> np.ndarray:
        """Sum token values [..., L] into words [..., W]; special tokens are left out."""
        place = (self.word_of[:, None] == np.arange(len(self.words))).astype(values.dtype)  # [L, W]
        return values @ place


def words_of(
    text: str,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    timed: Iterable[Mapping[str, Any]] = (),
    *,
    long_texts: str = "end",
    full_stop: bool = False,
) -> Words:
    """Map a text's tokens to its words, and its words to seconds.

    Args:
        text: as the collator gets it.
        tokenizer: the LM's.
        max_tokens: of longer texts only a part is read, as in the collator.
        timed: words with `word`, `start` and `end` in seconds; they are matched to the text's by spelling, so
            that punctuation or a corrected word does not shift the others.
        long_texts: which part, their `end` or their `start`.
        full_stop: the text is read with a full stop, as in the collator; it belongs to no word.
    """
    spans = word_spans(text)
    start, end = word_times([text[a:b] for a, b in spans], list(timed))
    offsets, ids = _offsets(with_full_stop(text) if full_stop else text, tokenizer, max_tokens, long_texts)
    first = np.full(len(ids), -1)  # first and last span that a token reads from
    last = np.full(len(ids), -1)
    for token, (a, b) in enumerate(offsets):
        inside = [i for i, (c, d) in enumerate(spans) if a < d and c < b]
        if inside:
            first[token], last[token] = inside[0], inside[-1]
    # Spans that one token reads together cannot be told apart: they are one word.
    opens = np.ones(len(spans), bool)
    for token in range(len(ids)):
        opens[first[token] + 1 : last[token] + 1] = False
    group = np.cumsum(opens) - 1
    begins = np.flatnonzero(opens)
    ends = np.append(begins[1:], len(spans)) - 1
    places = group[first[first >= 0]]
    unread = int(places.min()) if len(places) else 0  # words before the part that is read
    read = slice(unread, int(group[last.max()]) + 1 if len(places) else 0)
    begins, ends = begins[read], ends[read]
    return Words(
        words=[text[spans[a][0] : spans[b][1]] for a, b in zip(begins, ends, strict=True)],
        tokens=[str(tokenizer.decode([token])) for token in ids],
        word_of=np.where(first >= 0, group[first] - unread, -1) if len(spans) else np.full(len(ids), -1),
        start=start[begins],
        end=end[ends],
        cut=int(opens.sum()) - len(begins),
    )


def _offsets(
    text: str, tokenizer: PreTrainedTokenizerBase, max_tokens: int, long_texts: str
) -> tuple[list[tuple[int, int]], list[int]]:
    fast = getattr(tokenizer, "is_fast", False)
    encoded = tokenizer(text, return_special_tokens_mask=True, return_offsets_mapping=fast, verbose=False)
    kept = kept_tokens(encoded["special_tokens_mask"], max_tokens, long_texts)
    ids = list(encoded["input_ids"])
    offsets: list[tuple[int, int]] = []
    if fast:
        offsets = [tuple(pair) for pair in encoded["offset_mapping"]]
        return [offsets[i] for i in kept], [ids[i] for i in kept]
    place = 0
    special = set(tokenizer.all_special_ids)
    for token in ids:  # a slow tokenizer has no offsets: look each token up behind the one before it
        piece = "" if token in special else tokenizer.decode([token]).strip()
        found = text.find(piece, place) if piece else -1
        offsets.append((found, found + len(piece)) if found >= 0 else (0, 0))
        place = offsets[-1][1] or place
    return [offsets[i] for i in kept], [ids[i] for i in kept]


def word_spans(text: str) -> list[tuple[int, int]]:
    """From which character to which each word of a text reaches; in scripts without spaces each character is a word."""
    return [(match.start(), match.end()) for match in _WORD.finditer(text)]


def word_times(words: list[str], timed: list[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """When words are said, by timed words that are spelt the same: start and end in seconds [W]; NaN where unknown."""
    start, end = np.full(len(words), np.nan), np.full(len(words), np.nan)
    mine = [_plain(word) for word in words]
    theirs = [_plain(str(entry["word"])) for entry in timed]
    matcher = difflib.SequenceMatcher(None, mine, theirs, autojunk=False)
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag == "equal" or (tag == "replace" and b - a == d - c):  # a corrected word keeps its time
            for i, j in zip(range(a, b), range(c, d), strict=True):
                start[i], end[i] = float(timed[j]["start"]), float(timed[j]["end"])
    return start, end


def _plain(word: str) -> str:
    return "".join(character for character in word.lower() if character.isalnum()) or word
