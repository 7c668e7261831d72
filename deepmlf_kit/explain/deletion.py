"""Deletion curves: the prediction as the most important parts are taken away first, against random order.

Where it stands: over `ablations` and whatever ranks words or moments (attention, effects, gradients). A ranking is faithful
as far as the prediction moves earlier along it than along random orders (Samek et al., 2017; Petsiuk et al., 2018, "RISE").
The area between the curves is its worth in the label's units; random orders say how large an area chance gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import DeepMLFError
from ..model.deepmlf import DeepMLFModel
from .ablations import names_of, stretches_of, without_words
from .capturing import check_one_utterance, to_device
from .interventions import Intervention, predict_interventions, row_of
from .words import Words

RANKINGS = ("effect", "attention", "gradients")
"""What `Lens.deletion` can rank by."""


@dataclass
class DeletionCurve:
    """How far the prediction is from the whole utterance's with 0 to n parts deleted.

    Attributes:
        of: `time` or `words`.
        names: of the parts, most important first [n].
        change: size of the prediction's change, most important first [n + 1].
        random: the same along random orders [orders, n + 1].
        prediction: of the whole utterance.
        ranking: what the order is by, in words.
    """

    of: str
    names: list[str]
    change: np.ndarray
    random: np.ndarray
    prediction: float
    ranking: str = ""

    @property
    def area(self) -> float:
        """Mean height of the curve above the mean of random orders, in the label's units; 0: no better than chance."""
        return float((self.change - self.random.mean(axis=0))[1:-1].mean()) if len(self.names) > 1 else 0.0

    @property
    def p_value(self) -> float:
        """How often a random order does as well, by its own area (permutation test)."""
        heights = self.random[:, 1:-1].sum(axis=1)
        as_good = int((heights >= self.change[1:-1].sum() - 1e-9).sum())
        return (1 + as_good) / (1 + len(heights))


def deletion(
    model: DeepMLFModel,
    batch: Mapping[str, Any],
    importance: Sequence[float] | np.ndarray,
    of: str = "time",
    *,
    words: Words | None = None,
    width: int = 5,
    orders: int = 20,
    seed: int = 0,
    rows: int = 64,
) -> DeletionCurve:
    """Delete the parts of one utterance one after another, most important first, and along random orders.

    Args:
        model: in eval mode.
        batch: one utterance (B = 1), as `DeepMLFModel.forward` takes it.
        importance: of each part [n]; its size counts, not its sign.
        of: `time`: stretches of `width` AV steps, masked; `words`: deleted, so that the text closes up.
        words: which token belongs to which word, for `of="words"`.
        width: AV steps of a stretch.
        orders: random orders to compare with.
        seed: of the random orders.
        rows: utterances per forward pass.

    Raises:
        DeepMLFError: other parts, not one importance a part, or more than one utterance.
    """
    if of not in ("time", "words"):
        raise DeepMLFError(f"of={of!r} cannot be deleted in order: choose from time, words.")
    check_one_utterance(model, batch)
    if of == "words" and (words is None or not words.words):
        raise DeepMLFError("of='words' needs to know the words: pass words=words_of(text, tokenizer, ...).")
    row = row_of(to_device(batch, model), 0, model)
    stretches = stretches_of(model.config.av_steps, width)
    names = words.labels if words is not None and of == "words" else names_of(stretches)
    size = np.abs(np.asarray(importance, float))
    if size.shape != (len(names),):
        raise DeepMLFError(f"{len(size)} importances were given for {len(names)} {of}: give one a part.")

    def without(parts: np.ndarray) -> Intervention:
        if of == "words":
            assert words is not None
            return Intervention(row={"input_ids": without_words(model, row["input_ids"], words, parts)})
        masked = torch.zeros(model.config.av_steps, dtype=torch.bool)
        for part in parts:
            masked[slice(*stretches[part])] = True
        return Intervention(masked_steps=masked)

    rng = np.random.default_rng(seed)
    ranked = np.argsort(-size, kind="stable")
    every = [ranked, *(rng.permutation(len(names)) for _ in range(orders))]
    todo = [without(order[:n]) for order in every for n in range(1, len(names) + 1)]
    predicted = predict_interventions(model, row, todo, rows=rows)["task"]
    change = np.abs(predicted[1:] - predicted[0]).reshape(len(every), len(names))
    change = np.c_[np.zeros(len(every)), change]
    return DeletionCurve(of, [names[i] for i in ranked], change[0], change[1:], float(predicted[0]))
