"""Unigram and trigram models over the embedded LM's tokens: what its perplexity is set beside.

The trigram is interpolated Kneser-Ney with one discount per order (Chen and Goodman 1999, section 4.1.6),
counted on the LM's own training tokens; the unigram has add-one smoothing.
"""

import numpy as np


class NGrams:
    """Unigram and trigram probabilities of a token stream.

    Args:
        tokens: training stream [n], n >= 3, ids in [0, vocab_size).
        vocab_size: size of the tokenizer.
    """

    def __init__(self, tokens: np.ndarray, vocab_size: int):
        self.size = vocab_size
        t = tokens.astype(np.int64)
        self.unigram = (np.bincount(t, minlength=vocab_size) + 1) / (len(t) + vocab_size)
        self.tri, tri_count = np.unique(self._key(t[:-2], t[1:-1], t[2:]), return_counts=True)
        self.tri_count = tri_count.astype(np.float64)
        # Below the highest order, a gram counts by the number of different tokens that come before it.
        self.bi, bi_count = np.unique(self.tri % vocab_size**2, return_counts=True)
        self.bi_count = bi_count.astype(np.float64)
        before = np.bincount(self.bi % vocab_size, minlength=vocab_size).astype(np.float64)
        self.tri_discount, self.bi_discount = _discount(self.tri_count), _discount(self.bi_count)
        # Contexts: how often (sum) and with how many different continuations (types).
        self.tri_context, self.tri_sum, self.tri_types = _contexts(self.tri // vocab_size, self.tri_count)
        self.bi_context, self.bi_sum, self.bi_types = _contexts(self.bi // vocab_size, self.bi_count)
        # The lowest order, interpolated with the uniform distribution.
        discount = _discount(before[before > 0])
        spare = discount * np.count_nonzero(before) / before.sum()
        self.continuation = np.maximum(before - discount, 0) / before.sum() + spare / vocab_size

    def _key(self, *ids: np.ndarray) -> np.ndarray:
        key = np.zeros_like(ids[0])
        for i in ids:
            key = key * self.size + i
        return key

    def unigram_log_probs(self, tokens: np.ndarray) -> np.ndarray:
        """Natural log probabilities [n] of tokens [n]."""
        return np.log(self.unigram[tokens])

    def trigram_log_probs(self, tokens: np.ndarray) -> np.ndarray:
        """Natural log probabilities [n - 2] of tokens[2:], each given the two tokens before it."""
        a, b, c = (tokens[i : len(tokens) - 2 + i].astype(np.int64) for i in range(3))
        lower = self._interpolate(
            self.continuation[c], self._key(b, c), b, self.bi, self.bi_count, self.bi_discount,
            self.bi_context, self.bi_sum, self.bi_types,
        )  # fmt: skip
        return np.log(
            self._interpolate(
                lower, self._key(a, b, c), self._key(a, b), self.tri, self.tri_count, self.tri_discount,
                self.tri_context, self.tri_sum, self.tri_types,
            )
        )  # fmt: skip

    @staticmethod
    def _interpolate(lower, gram, context, grams, counts, discount, contexts, sums, types):
        count = _lookup(grams, counts, gram)
        total = _lookup(contexts, sums, context)
        kinds = _lookup(contexts, types, context)
        seen = total > 0
        total = np.where(seen, total, 1)
        mixed = np.maximum(count - discount, 0) / total + discount * kinds / total * lower
        return np.where(seen, mixed, lower)


def _discount(counts: np.ndarray) -> float:
    once, twice = np.count_nonzero(counts == 1), np.count_nonzero(counts == 2)
    return once / (once + 2 * twice) if once else 0.5


def _contexts(keys: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    contexts, start, types = np.unique(keys, return_index=True, return_counts=True)
    return contexts, np.add.reduceat(counts, start), types.astype(np.float64)


def _lookup(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0.0)
