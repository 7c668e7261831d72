"""Activation patching: a clean run's activations put into a corrupted run, to see where what differs is carried.

Where it stands: beside `ablations`. Of a minimal pair (`data.sample_pairs`, or two utterances of one's own) the corrupted
one is predicted again and again, each time with one activation as it was in the clean run (Meng et al., 2022; Zhang &
Nanda, 2024). What is reported is the recovered share of the difference: 1 where the patch makes the corrupted utterance's
prediction the clean one's, 0 where it changes nothing, below 0 where it moves it the other way.

Single patches of redundant parts recover little, and shares do not add up: hence the column and row `all` (of words `all
words`, since "all" is a word).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import DeepMLFError
from ..model.deepmlf import DeepMLFModel
from .ablations import names_of, stretches_of
from .capturing import check_one_utterance, to_device
from .interventions import Intervention, predict_interventions, row_of, source_of
from .words import Words

PLACES = {
    "tokens": "states of fusion tokens as they leave an LM layer, before its MM Block",
    "words": "states of the words' tokens as they leave an LM layer, before its MM Block",
    "cross_attention": "what an MM Block's cross-attention adds to fusion tokens",
    "time": "AV states at some steps, as an MM Block's cross-attention (or the heads' mean) reads them",
}
"""What can be patched."""
ALL, ALL_WORDS = "all", "all words"


@dataclass
class Patching:
    """Recovered share of the difference of a pair, for each place that was patched.

    Attributes:
        of: one of `PLACES`.
        rows, columns: names, each once: LM layers or readers of the AV states [Y]; fusion tokens, words or stretches of time
            [X]. The last column is `all` (`all words`) of them together; so is the last row of `cross_attention` and `time`.
        recovered: (patched - corrupted) / (clean - corrupted), of the predictions [Y, X].
        clean, corrupted: predictions of the two utterances.
        start, end: for `time`, AV steps of each stretch, from (inclusive) and to (exclusive).
    """

    of: str
    rows: list[str]
    columns: list[str]
    recovered: np.ndarray
    clean: float
    corrupted: float
    start: np.ndarray | None = None
    end: np.ndarray | None = None


def patch(
    model: DeepMLFModel,
    clean: Mapping[str, Any],
    corrupted: Mapping[str, Any],
    of: str = "tokens",
    *,
    words: Words | None = None,
    width: int = 5,
    rows: int = 64,
) -> Patching:
    """Put activations of a clean run into a corrupted run, one place at a time.

    Args:
        model: in eval mode.
        clean, corrupted: one utterance each (B = 1), as `DeepMLFModel.forward` takes it.
        of: which activations, one of `PLACES`.
        words: of the corrupted utterance, for `of="words"`.
        width: AV steps of a stretch.
        rows: utterances per forward pass.

    Raises:
        DeepMLFError: more than one utterance, a place that does not exist, texts of different numbers of tokens where
            states are patched, or two predictions that do not differ.
    """
    if of not in PLACES:
        raise DeepMLFError(f"of={of!r} cannot be patched: choose from {', '.join(PLACES)}.")
    for batch in (clean, corrupted):
        check_one_utterance(model, batch)
    row, theirs = (row_of(to_device(batch, model), 0, model) for batch in (corrupted, clean))
    length, count = len(row["input_ids"]), model.config.fusion_tokens
    layers, blocks = len(model.language.layers), list(model.config.fusion_layers)
    starts = ends = None
    if of in ("tokens", "words"):
        if len(theirs["input_ids"]) != length:
            raise DeepMLFError(
                f"The clean text has {len(theirs['input_ids'])} tokens, the corrupted one {length}: states are exchanged "
                "place by place, so use a pair whose texts have as many tokens."
            )
        if of == "tokens":
            names, tokens = _numbers(count), [[length + i] for i in range(count)]
        elif words is None or not words.words:
            raise DeepMLFError(
                "of='words' needs to know the words: pass words=words_of(text, tokenizer, ...)."
            )
        else:
            names, tokens = words.labels, [words.tokens_of(i).tolist() for i in range(len(words.words))]
        places = [*tokens, [place for some in tokens for place in some]]
        masks = _masks(layers, length + count, places, together=False)
        site, rows_named = "layer_states", [f"layer {i}" for i in range(layers)]
    elif of == "cross_attention":
        names, places = _numbers(count), [*([i] for i in range(count)), list(range(count))]
        masks = _masks(len(blocks), count, places, together=True)
        site, rows_named = "cross_attention", [*(f"after layer {i}" for i in blocks), ALL]
    else:
        stretches = stretches_of(model.config.av_steps, width)
        starts, ends = np.array(stretches).T
        names = names_of(stretches)
        places = [*(list(range(a, b)) for a, b in stretches), list(range(model.config.av_steps))]
        masks = _masks(len(blocks) + 1, model.config.av_steps, places, together=True)
        site, rows_named = "av_states", [*(f"after layer {i}" for i in blocks), "heads", ALL]
    source = source_of(model, {name: value.unsqueeze(0) for name, value in theirs.items()}, site)
    todo = [Intervention(**{site: mask}, source=0) for mask in masks]
    predicted = predict_interventions(model, row, todo, source, rows)["task"]
    there = float(predict_interventions(model, theirs, [])["task"][0])
    here = float(predicted[0])
    if abs(there - here) < 1e-4:
        raise DeepMLFError(
            f"The model predicts {there:+.4f} for both utterances: there is no difference to follow. Use another pair."
        )
    recovered = ((predicted[1:] - here) / (there - here)).reshape(len(rows_named), len(places))
    columns = [*names, ALL_WORDS if of == "words" else ALL]
    return Patching(of, rows_named, columns, recovered.astype(np.float32), there, here, starts, ends)


def _numbers(count: int) -> list[str]:
    return [f"token {i}" for i in range(count)]


def _masks(rows: int, columns: int, places: list[list[int]], together: bool) -> list[torch.Tensor]:
    """A mask [rows, columns] for each row with each place; `together`: then for all rows with each place."""
    masks = []
    for row in [*range(rows), *([slice(None)] if together else [])]:
        for place in places:
            mask = torch.zeros(rows, columns, dtype=torch.bool)
            chosen = mask[row]  # a view
            chosen[..., place] = True
            masks.append(mask)
    return masks
