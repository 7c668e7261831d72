"""Turn documents into equal blocks of tokens: what the pretraining loop reads.

The order of blocks depends on the seed alone, pass by pass, and not on how long the run is: a run that is
continued further, or ended sooner, has read the same blocks up to there.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from .corpora import Document


def encode(documents: Iterable[Document], tokenizer: PreTrainedTokenizerBase) -> list[np.ndarray]:
    """Token ids of every document, each closed by the end-of-text token; int32 [length]."""
    texts = [document.text for document in documents]
    ids: list[np.ndarray] = []
    for start in range(0, len(texts), 2000):
        batch = tokenizer(texts[start : start + 2000], return_attention_mask=False, verbose=False)[
            "input_ids"
        ]
        ids.extend(np.asarray([*row, tokenizer.eos_token_id], dtype=np.int32) for row in batch)
    return ids


def weight_of(source: str, weights: dict[str, float]) -> float:
    """How often a document is read in one pass: the weight of the longest name its source begins with."""
    names = [name for name in weights if source.startswith(name)]
    return weights[max(names, key=len)] if names else 1.0


def passes(encoded: list[np.ndarray], weights: np.ndarray, block: int, seed: int) -> Iterator[np.ndarray]:
    """Yield passes over the texts without end, each int32 [blocks, block] in its own random order.

    A document of weight 2.5 is read two or three times in a pass, by chance; the rest of a pass that fills
    no block is dropped.
    """
    number = 0
    while True:
        rng = np.random.default_rng([seed, number])
        times = np.floor(weights + rng.random(len(weights))).astype(int)
        order = rng.permutation(np.repeat(np.arange(len(encoded)), times))
        stream = np.concatenate([encoded[i] for i in order]) if len(order) else np.zeros(0, np.int32)
        blocks = stream[: len(stream) // block * block].reshape(-1, block)
        yield blocks[rng.permutation(len(blocks))]
        number += 1


class Blocks(Dataset):
    """Blocks [n, block] as next-token samples: `input_ids` and `labels`, int64 [block]."""

    def __init__(self, blocks: np.ndarray):
        self.blocks = blocks

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = torch.from_numpy(self.blocks[index].astype(np.int64))
        return {"input_ids": ids, "labels": ids}
