"""Held-out perplexity of a causal LM, beside n-gram models on the very same tokens."""

import numpy as np
import torch
from transformers import PreTrainedModel

from .ngrams import NGrams


@torch.no_grad()
def lm_log_probs(model: PreTrainedModel, blocks: np.ndarray, batch: int = 32) -> np.ndarray:
    """Natural log probabilities [n, block - 1] of every token but a block's first; blocks [n, block]."""
    model.eval()
    rows = []
    for start in range(0, len(blocks), batch):
        ids = torch.from_numpy(blocks[start : start + batch].astype(np.int64))
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        rows.append(logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0].numpy())
    return np.concatenate(rows)


def compare(model: PreTrainedModel, train: np.ndarray, held_out: np.ndarray, block: int) -> dict[str, float]:
    """Perplexity per token of the LM, a trigram and a unigram model.

    All three are measured on the same tokens: those after the first of each block of the held-out stream.
    The LM sees the block only; the trigram always sees both tokens before.

    Args:
        model: causal LM.
        train: the stream [n] that the n-grams are counted on (the LM's training texts, each once).
        held_out: the stream [m] to measure on.
        block: tokens the LM sees at a time.

    Returns:
        `tokens` (how many were measured), `lm`, `trigram`, `unigram`.
    """
    count = len(held_out) // block
    blocks = held_out[: count * block].reshape(count, block)
    ngrams = NGrams(train, model.config.vocab_size)
    measured = np.zeros((count, block), bool)
    measured[:, 1:] = True
    measured[0, 1] = False  # the trigram has no two tokens before this one
    stream, measured = blocks.reshape(-1), measured.reshape(-1)
    lm = np.zeros((count, block))
    lm[:, 1:] = lm_log_probs(model, blocks)
    trigram = np.concatenate([[0.0, 0.0], ngrams.trigram_log_probs(stream)])
    by_name = {"lm": lm.reshape(-1), "trigram": trigram, "unigram": ngrams.unigram_log_probs(stream)}
    perplexity = {name: float(np.exp(-values[measured].mean())) for name, values in by_name.items()}
    return {"tokens": int(measured.sum()), **perplexity}
