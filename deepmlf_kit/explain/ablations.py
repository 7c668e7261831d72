"""Ablations: how far the prediction moves when a part of the utterance or of the model is ablated.

Where it stands: beside `capturing`. Attention shows where the model looked; this shows what made a difference. The
replacement is part of the question, so every result names it (`Effects.replacement`): a zero that the model never met
in training can move it more than the ablated part itself did, which is why most parts can also be resampled from other
utterances ("interchange", Vig et al., 2020; Zhang & Nanda, 2024).

An effect is *this model's*, for *this utterance*, one part at a time: two redundant parts hide each other (each alone
changes little), and effects do not add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..errors import DeepMLFError
from ..model.av_encoder import frames_of_steps
from ..model.deepmlf import DeepMLFModel
from .capturing import check_one_utterance, to_device
from .interventions import Intervention, Source, pad, predict_interventions, row_of, source_of
from .words import Words

ABLATIONS = {
    "modalities": ("removed", "zeroed", "resampled"),
    "time": ("masked", "mean", "zeroed", "resampled"),
    "words": ("removed", "zeroed", "resampled"),
    "tokens": ("cross_attention", "readout", "resampled"),
    "blocks": ("zeroed", "resampled"),
}
"""What can be ablated, and how; the first is the default."""

_REPLACEMENTS = {
    ("modalities", "removed"): "the modality is missing (text: an empty text)",
    ("modalities", "zeroed"): "its frames or word embeddings are zero",
    ("modalities", "resampled"): "it is taken from another utterance, mean over draws",
    ("time", "masked"): "its AV steps are masked for the fusion tokens and the AV head",
    ("time", "mean"): "its frames are the utterance's mean frame",
    ("time", "zeroed"): "its frames are zero (the training mean where features are normalised)",
    ("time", "resampled"): "its frames come from the same place of another utterance, mean over draws",
    ("words", "removed"): "the word is deleted and the text closes up",
    ("words", "zeroed"): "the word's embeddings are zero, its position stays",
    ("words", "resampled"): "the word's tokens come from other utterances, mean over draws",
    ("tokens", "cross_attention"): "the token's cross-attention is zero in every MM Block",
    ("tokens", "readout"): "the task head's mean leaves the token out; later tokens still attend to it",
    ("tokens", "resampled"): "the token's cross-attention comes from another utterance, mean over draws",
    ("blocks", "zeroed"): "the branch adds nothing",
    ("blocks", "resampled"): "cross-attention adds what it added in another utterance, mean over draws",
}


@dataclass
class Effects:
    """How far the prediction moves when each of n parts is ablated, one at a time.

    Attributes:
        of: `modalities`, `time`, `words`, `tokens` or `blocks`.
        ablation: one of `ABLATIONS[of]`; `replacement` describes it.
        names: of the parts [n].
        effect: prediction minus prediction without the part [n]: positive means that it pushed the sentiment up.
        spread: standard deviation of `effect` over draws [n]; 0 where there is nothing random.
        prediction: with everything in place.
        heads: effects on the predictions of the `text`, `fusion` (mean) and `av` heads [n].
        fusion_tokens: effects on each fusion token's own sentiment [n, F].
        start, end: for `time`, AV steps from (inclusive) and to (exclusive) [n].
        draws: other utterances that a resampled effect is the mean over; 1 elsewhere.
    """

    of: str
    ablation: str
    names: list[str]
    effect: np.ndarray
    spread: np.ndarray
    prediction: float
    heads: dict[str, np.ndarray]
    fusion_tokens: np.ndarray
    start: np.ndarray | None = None
    end: np.ndarray | None = None
    draws: int = 1

    @property
    def replacement(self) -> str:
        """What replaced the ablated part, in words."""
        return _REPLACEMENTS[(self.of, self.ablation)]

    def table(self) -> pd.DataFrame:
        """One row per part, the largest effect first."""
        table = pd.DataFrame({"name": self.names, "effect": self.effect, "spread": self.spread})
        return table.sort_values("effect", key=abs, ascending=False, ignore_index=True)


def effects(
    model: DeepMLFModel,
    batch: Mapping[str, Any],
    of: str,
    ablation: str | None = None,
    *,
    words: Words | None = None,
    donors: Mapping[str, Any] | None = None,
    draws: int = 8,
    width: int = 5,
    seed: int = 0,
    rows: int = 64,
) -> Effects:
    """Ablate parts of one utterance or of the model, one at a time, in batches.

    Args:
        model: in eval mode.
        batch: one utterance (B = 1), as `DeepMLFModel.forward` takes it.
        of: what is ablated: `modalities`; `time`: stretches of `width` AV steps, audio and vision together;
            `words` (needs `words`); `tokens`: fusion tokens; `blocks`: MM Blocks, each branch and both.
        ablation: how, one of `ABLATIONS[of]`; the first is the default.
        words: which token belongs to which word (`words_of`).
        donors: a batch of other utterances, for `ablation="resampled"`.
        draws: donors that each resampled effect is the mean over.
        width: AV steps of a stretch.
        seed: of the draws.
        rows: utterances per forward pass.

    Raises:
        DeepMLFError: a choice that does not exist, more than one utterance, or no donors to resample from.
    """
    if of not in ABLATIONS:
        raise DeepMLFError(f"of={of!r} cannot be ablated: choose from {', '.join(ABLATIONS)}.")
    ablation = ablation or ABLATIONS[of][0]
    if ablation not in ABLATIONS[of]:
        raise DeepMLFError(
            f"ablation={ablation!r} is not known for {of}: choose from {', '.join(ABLATIONS[of])}."
        )
    check_one_utterance(model, batch)
    if ablation == "resampled" and (donors is None or len(donors["input_ids"]) == 0):
        raise DeepMLFError(
            "ablation='resampled' needs other utterances to draw from: pass donors=, or another ablation."
        )
    with torch.no_grad():
        maker = _Variants(model, to_device(batch, model), words, donors, draws, width, seed)
        variants = getattr(maker, of)(ablation)
        predictions = predict_interventions(model, maker.row, variants, maker.source, rows)
    return _summary(of, ablation, variants, predictions)


def stretches_of(steps: int, width: int) -> list[tuple[int, int]]:
    """Stretches of `width` AV steps, from (inclusive) and to (exclusive)."""
    return [(start, min(start + width, steps)) for start in range(0, steps, width)]


def names_of(stretches: Iterable[tuple[int, int]]) -> list[str]:
    """Names of stretches of AV steps."""
    return [f"AV steps {start} to {end - 1}" for start, end in stretches]


def without_words(model: DeepMLFModel, ids: Tensor, words: Words, deleted: Iterable[int]) -> Tensor:
    """Token ids [L] of a text without some of its words; of an empty text where none is left."""
    gone = set(deleted)
    kept = ids[torch.as_tensor(~np.isin(words.word_of, list(gone)), device=ids.device)]
    # Tokens of no word (a space of its own) are no text by themselves.
    empty = len(gone) == len(words.words) or not len(kept)
    return ids.new_tensor(model.empty_text_ids) if empty else kept


class _Variants:
    """The variants of one utterance: one method for each kind of part."""

    def __init__(
        self,
        model: DeepMLFModel,
        batch: dict[str, Any],
        words: Words | None,
        donors: Mapping[str, Any] | None,
        draws: int,
        width: int,
        seed: int,
    ) -> None:
        self.model, self.known_words, self.draws, self.width = model, words, draws, width
        self.row = row_of(batch, 0, model)
        self.rng = np.random.default_rng(seed)
        self.donors: list[dict[str, Tensor]] = []
        self.source: Source | None = None
        if donors is not None:
            moved = to_device(donors, model)
            self.donors = [row_of(moved, i, model) for i in range(len(moved["input_ids"]))]

    def modalities(self, ablation: str) -> list[Intervention]:
        variants = [Intervention("text", row) for row in self._other_texts(ablation)]
        names = self.model.config.modalities
        for name, streams in (*((name, (name,)) for name in names), (" and ".join(names), tuple(names))):
            if ablation == "removed":
                rows = [{f"{s}_mask": torch.zeros_like(self.row[f"{s}_mask"]) for s in streams}]
            elif ablation == "zeroed":
                rows = [{s: torch.zeros_like(self.row[s]) for s in streams}]
            else:
                keys = [key for s in streams for key in (s, f"{s}_mask", f"{s}_spans")]
                pool = [d for d in self.donors if all(bool(d[f"{s}_mask"].any()) for s in streams)]
                rows = [{key: donor[key] for key in keys} for donor in self._draw(pool, name)]
            variants += [Intervention(name, row) for row in rows]
        return variants

    def _other_texts(self, ablation: str) -> list[dict[str, Tensor]]:
        ids = self.row["input_ids"]
        if ablation == "removed":
            return [{"input_ids": ids.new_tensor(self.model.empty_text_ids)}]
        if ablation == "zeroed":
            return [{"text_embeddings": torch.zeros_like(self.model.language.embed(ids))}]
        return [{"input_ids": donor["input_ids"]} for donor in self._draw(self.donors, "text")]

    def words(self, ablation: str) -> list[Intervention]:
        if self.known_words is None or not self.known_words.words:
            raise DeepMLFError(
                "of='words' needs to know the words: pass words=words_of(text, tokenizer, ...)."
            )
        ids = self.row["input_ids"]
        variants = []
        pool = torch.cat([donor["input_ids"] for donor in self.donors]) if self.donors else ids
        for index, name in enumerate(self.known_words.labels):
            place = torch.as_tensor(self.known_words.tokens_of(index), device=ids.device)
            if ablation == "removed":
                left = without_words(self.model, ids, self.known_words, [index])
                variants.append(Intervention(name, {"input_ids": left}))
            elif ablation == "zeroed":
                embeddings = self.model.language.embed(ids).clone()
                embeddings[place] = 0
                variants.append(Intervention(name, {"text_embeddings": embeddings}))
            else:
                for _ in range(self.draws):
                    changed = ids.clone()
                    changed[place] = pool[torch.as_tensor(self.rng.integers(len(pool), size=len(place)))]
                    variants.append(Intervention(name, {"input_ids": changed}))
        return variants

    def time(self, ablation: str) -> list[Intervention]:
        steps = self.model.config.av_steps
        variants = []
        for start, end in stretches_of(steps, self.width):
            (name,) = names_of([(start, end)])
            if ablation == "masked":
                masked = torch.zeros(steps, dtype=torch.bool)
                masked[start:end] = True
                variants.append(Intervention(name, masked_steps=masked, stretch=(start, end)))
                continue
            sources = self._draw(self.donors, name) if ablation == "resampled" else [None]
            for donor in sources:
                row = {
                    s: self._with_stretch(s, start, end, ablation, donor)
                    for s in self.model.config.modalities
                }
                variants.append(Intervention(name, row, stretch=(start, end)))
        return variants

    def _with_stretch(
        self, stream: str, start: int, end: int, ablation: str, donor: dict[str, Tensor] | None
    ) -> Tensor:
        frames, mask, spans = self.row[stream], self.row[f"{stream}_mask"], self.row[f"{stream}_spans"]
        read = frames_of_steps(spans.unsqueeze(0), mask.unsqueeze(0), self.model.config.av_steps)[0]  # [K, T]
        inside = read[start:end].any(dim=0)  # [T]
        frames = frames.clone()
        if ablation == "zeroed":
            frames[inside] = 0
        elif ablation == "mean":
            frames[inside] = frames[mask].mean(dim=0) if bool(mask.any()) else 0
        elif donor is not None:
            there = donor[f"{stream}_mask"]
            if bool(there.any()):
                middles, theirs = spans[inside].mean(dim=-1), donor[f"{stream}_spans"][there].mean(dim=-1)
                nearest = (middles.unsqueeze(1) - theirs).abs().argmin(dim=1)
                frames[inside] = donor[stream][there][nearest]
        return frames

    def tokens(self, ablation: str) -> list[Intervention]:
        count, blocks = self.model.config.fusion_tokens, len(self.model.config.fusion_layers)
        if ablation == "readout":
            if count == 1:
                raise DeepMLFError("The model has one fusion token, which the task head cannot leave out.")
            return [Intervention(f"token {i}", no_readout=i) for i in range(count)]
        variants = []
        for token in range(count):
            ablated = torch.zeros(blocks, count, dtype=torch.bool)
            ablated[:, token] = True
            for donor in self._cross_attention_donors(ablation):
                variants.append(Intervention(f"token {token}", cross_attention=ablated, source=donor))
        return variants

    def blocks(self, ablation: str) -> list[Intervention]:
        count, layers = self.model.config.fusion_tokens, self.model.config.fusion_layers
        has_ffw = self.model.config.ffw != "none"
        variants = []
        for index, layer in enumerate(layers):
            attention = torch.zeros(len(layers), count, dtype=torch.bool)
            attention[index] = True
            feed_forward = torch.zeros(len(layers), dtype=torch.bool)
            feed_forward[index] = True
            for donor in self._cross_attention_donors(ablation):
                name = f"layer {layer}: cross-attention"
                variants.append(Intervention(name, cross_attention=attention, source=donor))
            if ablation == "zeroed" and has_ffw:
                variants += [
                    Intervention(f"layer {layer}: feed-forward", feed_forward=feed_forward),
                    Intervention(
                        f"layer {layer}: both", cross_attention=attention, feed_forward=feed_forward
                    ),
                ]
        return variants

    def _cross_attention_donors(self, ablation: str) -> list[int | None]:
        if ablation != "resampled":
            return [None]
        if self.source is None:
            self.source = source_of(self.model, pad(self.donors), "cross_attention")
        return [int(i) for i in self.rng.choice(len(self.donors), min(self.draws, len(self.donors)), False)]

    def _draw(self, pool: list[dict[str, Tensor]], name: str) -> list[dict[str, Tensor]]:
        if not pool:
            raise DeepMLFError(f"No donor has what it takes to resample {name}: pass other donors.")
        return [pool[i] for i in self.rng.choice(len(pool), min(self.draws, len(pool)), replace=False)]


def _summary(
    of: str, ablation: str, variants: list[Intervention], predictions: dict[str, np.ndarray]
) -> Effects:
    order: dict[str, list[int]] = {}
    for i, variant in enumerate(variants):
        order.setdefault(variant.name, []).append(i)
    change = {name: values[0] - values[1:] for name, values in predictions.items()}

    def mean(values: np.ndarray) -> np.ndarray:
        return np.stack([values[rows].mean(axis=0) for rows in order.values()]).astype(np.float32)

    first = [variants[rows[0]] for rows in order.values()]
    stretches = [one.stretch for one in first if one.stretch is not None]
    return Effects(
        of=of,
        ablation=ablation,
        names=list(order),
        effect=mean(change["task"]),
        spread=np.array([change["task"][rows].std() for rows in order.values()], np.float32),
        prediction=float(predictions["task"][0]),
        heads={
            "text": mean(change["text"]),
            "fusion": mean(change["fusion"]).mean(axis=1),
            "av": mean(change["av"]),
        },
        fusion_tokens=mean(change["fusion"]),
        start=np.array([a for a, _ in stretches]) if stretches else None,
        end=np.array([b for _, b in stretches]) if stretches else None,
        draws=max(len(rows) for rows in order.values()),
    )
