"""Held-out perplexity of a causal LM, beside n-gram models on the very same tokens."""

import numpy as np
import torch
from transformers import PreTrainedModel

from .ngrams import NGrams


@torch.no_grad()
def lm_log_probs(
    model: PreTrainedModel, stream: np.ndarray, block: int, batch: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """Log probabilities of a token stream by a causal LM, in windows that overlap by half.

    Every token is predicted from at least `block // 2` tokens before it, within one window of `block`.

    Args:
        model: causal LM.
        stream: token ids [n], n >= block.
        block: tokens of a window, an even number.

    Returns:
        Positions in the stream [m] and the natural log probabilities [m] of the tokens there: all from
        `block // 2` to the end of the last whole window.
    """
    model.eval()
    half = block // 2
    starts = np.arange(0, len(stream) - block + 1, half)
    rows = []
    for first in range(0, len(starts), batch):
        windows = np.stack([stream[s : s + block] for s in starts[first : first + batch]])
        ids = torch.from_numpy(windows.astype(np.int64))  # (b, block)
        logits = model(input_ids=ids, use_cache=False).logits[:, half - 1 : -1].float()  # (b, half, V)
        rows.append(logits.log_softmax(-1).gather(-1, ids[:, half:, None])[..., 0].numpy())
    positions = starts[:, None] + np.arange(half, 2 * half)
    return positions.reshape(-1), np.concatenate(rows).reshape(-1)


def compare(model: PreTrainedModel, train: np.ndarray, held_out: np.ndarray, block: int) -> dict[str, float]:
    """Perplexity per token of the LM, a trigram and a unigram model, all on the same held-out tokens.

    Args:
        model: causal LM.
        train: the stream [n] that the n-grams are counted on (the LM's training texts, each once).
        held_out: the stream [m] to measure on.
        block: tokens the LM sees at a time.

    Returns:
        `tokens` (how many were measured), `lm`, `trigram`, `unigram`.
    """
    positions, lm = lm_log_probs(model, held_out, block)
    ngrams = NGrams(train, model.config.vocab_size)
    trigram = ngrams.trigram_log_probs(held_out)[positions - 2]  # it starts at the third token
    unigram = ngrams.unigram_log_probs(held_out)[positions]
    by_name = {"lm": lm, "trigram": trigram, "unigram": unigram}
    return {"tokens": len(positions), **{name: float(np.exp(-v.mean())) for name, v in by_name.items()}}
