"""Causes: how far the prediction moves when something is taken out.

Where it stands: beside `capturing`. Attention says where the model looked; this says what made a difference. What
takes the place of the thing that is taken out is part of the question, so every result says it (`Effects.how`):
a zero that the model never met in training can move it more than the thing itself did, which is why most of
them can also be resampled from other utterances ("interchange", Vig et al., 2020; Zhang & Nanda, 2024).

An effect is *this model's*, for *this utterance*, one thing at a time: two things that say the same hide each
other (each alone changes little), and effects do not add up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.clock import PADDING_SPAN
from ..errors import DeepMLFError
from ..model.av_encoder import even_spans, frames_of_steps
from ..model.decoder_pass import check_padded_right
from ..model.deepmlf import DeepMLFModel
from ..model.modalities import input_names, modality, registered_modalities
from .capturing import score_of, text_mask_of, to_device
from .hooks import forward_hooks
from .words import Words

HOWS = {
    "modalities": ("removed", "zeroed", "resampled"),
    "time": ("hidden", "mean", "zeroed", "resampled"),
    "words": ("removed", "zeroed", "resampled"),
    "tokens": ("deaf", "unread", "resampled"),
    "blocks": ("zeroed", "resampled"),
}
"""What can be taken out, and how; the first is the default."""

_MEANING = {
    ("modalities", "removed"): "the modality is missing (words: an empty text)",
    ("modalities", "zeroed"): "its frames or word embeddings are zero",
    ("modalities", "resampled"): "it is taken from another utterance, mean over draws",
    ("time", "hidden"): "its AV steps cannot be read by fusion tokens nor by the AV head",
    ("time", "mean"): "its frames are the utterance's mean frame",
    ("time", "zeroed"): "its frames are zero (the training mean where features are normalised)",
    ("time", "resampled"): "its frames come from the same place of another utterance, mean over draws",
    ("words", "removed"): "the word is cut out and the text closes up",
    ("words", "zeroed"): "the word's embeddings are zero, its place stays",
    ("words", "resampled"): "the word's tokens come from other utterances, mean over draws",
    ("tokens", "deaf"): "the fusion token reads nothing from voice and face in any MM Block",
    ("tokens", "unread"): "the task head's mean leaves the fusion token out; what it told later tokens stays",
    ("tokens", "resampled"): "the fusion token reads what it read in another utterance, mean over draws",
    ("blocks", "zeroed"): "the branch adds nothing",
    ("blocks", "resampled"): "cross-attention adds what it added in another utterance, mean over draws",
}


@dataclass
class Effects:
    """How far the prediction moves when each of n things is taken out, one at a time.

    Attributes:
        of: `modalities`, `time`, `words`, `tokens` or `blocks`.
        how: what took its place; `meaning` says it in words.
        names: of the things [n].
        effect: prediction minus prediction without it [n]: positive means that the thing pushed the sentiment
            up.
        spread: standard deviation of `effect` over draws [n]; 0 where there is nothing random.
        prediction: with everything in place.
        heads: effects on what the `text`, `fusion` (mean) and `av` heads say [n].
        fusion_tokens: effects on each fusion token's own sentiment [n, F].
        start, end: for `time`, AV steps from (inclusive) and to (exclusive) [n].
        draws: other utterances that a resampled effect is the mean over; 1 elsewhere.
    """

    of: str
    how: str
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
    def meaning(self) -> str:
        """What took the place of what was taken out, in words."""
        return _MEANING[(self.of, self.how)]

    def table(self) -> Any:
        """As a pandas DataFrame, the largest effect first."""
        import pandas as pd

        table = pd.DataFrame({"name": self.names, "effect": self.effect, "spread": self.spread})
        return table.sort_values("effect", key=abs, ascending=False, ignore_index=True)


def effects(
    model: DeepMLFModel,
    batch: Mapping[str, Any],
    of: str,
    how: str | None = None,
    *,
    words: Words | None = None,
    donors: Mapping[str, Any] | None = None,
    draws: int = 8,
    width: int = 5,
    seed: int = 0,
    rows: int = 64,
) -> Effects:
    """Take things out of one utterance (or out of the model), one at a time, in batches.

    Args:
        model: in eval mode.
        batch: one utterance (B = 1), as `DeepMLFModel.forward` takes it.
        of: what is taken out: `modalities`; `time`: stretches of `width` AV steps, voice and face together;
            `words` (needs `words`); `tokens`: fusion tokens; `blocks`: MM Blocks, each branch and both.
        how: what takes its place, see `HOWS`; the first there is the default.
        words: which token belongs to which word (`words_of`).
        donors: a batch of other utterances, for `how="resampled"`.
        draws: donors that each resampled effect is the mean over.
        width: AV steps of a stretch.
        seed: of the draws.
        rows: utterances per forward pass.

    Raises:
        DeepMLFError: a choice that does not exist, more than one utterance, or no donors to resample from.
    """
    if of not in HOWS:
        raise DeepMLFError(f"of={of!r} cannot be taken out: choose from {', '.join(HOWS)}.")
    how = how or HOWS[of][0]
    if how not in HOWS[of]:
        raise DeepMLFError(f"how={how!r} is not known for {of}: choose from {', '.join(HOWS[of])}.")
    if model.training:
        raise DeepMLFError(
            "The model is in training mode, where dropout changes every pass: call model.eval()."
        )
    if len(batch["input_ids"]) != 1:
        raise DeepMLFError(f"One utterance was expected, the batch has {len(batch['input_ids'])}: pass one.")
    if how == "resampled" and (donors is None or len(donors["input_ids"]) == 0):
        raise DeepMLFError(
            "how='resampled' needs other utterances to draw from: pass donors=, or another how."
        )
    with torch.no_grad():
        maker = _Variants(model, to_device(batch, model), words, donors, draws, width, seed)
        variants = getattr(maker, of)(how)
        said = _run(model, maker, variants, rows)
    return _summary(of, how, variants, said)


@dataclass
class _Variant:
    """One thing taken out once: what its row of the batch holds, and what hooks do to that row."""

    name: str
    row: dict[str, Tensor] = field(default_factory=dict)
    hidden_steps: Tensor | None = None  # [K] bool
    deaf: Tensor | None = None  # [M, F] bool: reads nothing there
    silent: Tensor | None = None  # [M] bool: feed-forward adds nothing there
    instead: int | None = None  # donor whose reads take the place of the deaf ones
    unread: int | None = None  # fusion token
    stretch: tuple[int, int] | None = None


class _Variants:
    """Makes the variants of one utterance."""

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
        self.model, self.spoken, self.draws, self.width = model, words, draws, width
        self.row = _row_of(batch, 0, model)
        self.rng = np.random.default_rng(seed)
        self.donors: list[dict[str, Tensor]] = []
        self.reads: dict[int, Tensor] = {}
        if donors is not None:
            moved = to_device(donors, model)
            self.donors = [_row_of(moved, i, model) for i in range(len(moved["input_ids"]))]

    def modalities(self, how: str) -> list[_Variant]:
        variants = [_Variant("words", row) for row in self._other_texts(how)]
        labels = {name: modality(name).label for name in self.model.config.modalities}
        together = ((" and ".join(labels.values()), tuple(labels)),)
        for name, streams in (*((label, (s,)) for s, label in labels.items()), *together):
            if how == "removed":
                rows = [{f"{s}_mask": torch.zeros_like(self.row[f"{s}_mask"]) for s in streams}]
            elif how == "zeroed":
                rows = [{s: torch.zeros_like(self.row[s]) for s in streams}]
            else:
                keys = [key for s in streams for key in (s, f"{s}_mask", f"{s}_spans")]
                pool = [d for d in self.donors if all(bool(d[f"{s}_mask"].any()) for s in streams)]
                rows = [{key: donor[key] for key in keys} for donor in self._draw(pool, name)]
            variants += [_Variant(name, row) for row in rows]
        return variants

    def _other_texts(self, how: str) -> list[dict[str, Tensor]]:
        ids = self.row["input_ids"]
        if how == "removed":
            return [{"input_ids": ids.new_tensor(self.model.empty_text_ids)}]
        if how == "zeroed":
            return [{"text_embeddings": torch.zeros_like(self.model.language.embed(ids))}]
        return [{"input_ids": donor["input_ids"]} for donor in self._draw(self.donors, "words")]

    def words(self, how: str) -> list[_Variant]:
        if self.spoken is None or not self.spoken.words:
            raise DeepMLFError(
                "of='words' needs to know the words: pass words=words_of(text, tokenizer, ...)."
            )
        ids = self.row["input_ids"]
        variants = []
        pool = torch.cat([donor["input_ids"] for donor in self.donors]) if self.donors else ids
        for index, name in enumerate(self.spoken.labels):
            place = torch.as_tensor(self.spoken.tokens_of(index), device=ids.device)
            if how == "removed":
                keep = torch.ones(len(ids), dtype=torch.bool, device=ids.device)
                keep[place] = False
                left = ids[keep] if bool(keep.any()) else ids.new_tensor(self.model.empty_text_ids)
                variants.append(_Variant(name, {"input_ids": left}))
            elif how == "zeroed":
                embeddings = self.model.language.embed(ids).clone()
                embeddings[place] = 0
                variants.append(_Variant(name, {"text_embeddings": embeddings}))
            else:
                for _ in range(self.draws):
                    changed = ids.clone()
                    changed[place] = pool[torch.as_tensor(self.rng.integers(len(pool), size=len(place)))]
                    variants.append(_Variant(name, {"input_ids": changed}))
        return variants

    def time(self, how: str) -> list[_Variant]:
        steps = self.model.config.av_steps
        variants = []
        for start in range(0, steps, self.width):
            end = min(start + self.width, steps)
            name = f"AV steps {start} to {end - 1}"
            if how == "hidden":
                hidden = torch.zeros(steps, dtype=torch.bool)
                hidden[start:end] = True
                variants.append(_Variant(name, hidden_steps=hidden, stretch=(start, end)))
                continue
            sources = self._draw(self.donors, name) if how == "resampled" else [None]
            for donor in sources:
                row = {s: self._with_stretch(s, start, end, how, donor) for s in self.model.config.modalities}
                variants.append(_Variant(name, row, stretch=(start, end)))
        return variants

    def _with_stretch(
        self, stream: str, start: int, end: int, how: str, donor: dict[str, Tensor] | None
    ) -> Tensor:
        frames, mask, spans = self.row[stream], self.row[f"{stream}_mask"], self.row[f"{stream}_spans"]
        read = frames_of_steps(spans.unsqueeze(0), mask.unsqueeze(0), self.model.config.av_steps)[0]  # [K, T]
        inside = read[start:end].any(dim=0)  # [T]
        frames = frames.clone()
        if how == "zeroed":
            frames[inside] = 0
        elif how == "mean":
            frames[inside] = frames[mask].mean(dim=0) if bool(mask.any()) else 0
        elif donor is not None:
            there = donor[f"{stream}_mask"]
            if bool(there.any()):
                middles, theirs = spans[inside].mean(dim=-1), donor[f"{stream}_spans"][there].mean(dim=-1)
                nearest = (middles.unsqueeze(1) - theirs).abs().argmin(dim=1)
                frames[inside] = donor[stream][there][nearest]
        return frames

    def tokens(self, how: str) -> list[_Variant]:
        count, blocks = self.model.config.fusion_tokens, len(self.model.config.fusion_layers)
        if how == "unread":
            if count == 1:
                raise DeepMLFError("The model has one fusion token, which the task head cannot leave out.")
            return [_Variant(f"token {i}", unread=i) for i in range(count)]
        variants = []
        for token in range(count):
            deaf = torch.zeros(blocks, count, dtype=torch.bool)
            deaf[:, token] = True
            for donor in self._donor_reads(how):
                variants.append(_Variant(f"token {token}", deaf=deaf, instead=donor))
        return variants

    def blocks(self, how: str) -> list[_Variant]:
        count, layers = self.model.config.fusion_tokens, self.model.config.fusion_layers
        has_ffw = self.model.config.ffw != "none"
        variants = []
        for index, layer in enumerate(layers):
            deaf = torch.zeros(len(layers), count, dtype=torch.bool)
            deaf[index] = True
            silent = torch.zeros(len(layers), dtype=torch.bool)
            silent[index] = True
            for donor in self._donor_reads(how):
                variants.append(_Variant(f"layer {layer}: cross-attention", deaf=deaf, instead=donor))
            if how == "zeroed" and has_ffw:
                variants.append(_Variant(f"layer {layer}: feed-forward", silent=silent))
                variants.append(_Variant(f"layer {layer}: both", deaf=deaf, silent=silent))
        return variants

    def _donor_reads(self, how: str) -> list[int | None]:
        if how != "resampled":
            return [None]
        if not self.reads:
            layers = self.model.config.fusion_layers

            def keep(index: int) -> Callable[..., None]:
                def hook(module: Any, args: Any, kwargs: Any, output: Any) -> None:
                    self.reads[index] = output[0]

                return hook

            pairs = [
                (self.model.mm_blocks[str(layer)].cross_attention, keep(i)) for i, layer in enumerate(layers)
            ]
            with forward_hooks(pairs):
                self.model(**_pad(self.donors))
        return [int(i) for i in self.rng.choice(len(self.donors), min(self.draws, len(self.donors)), False)]

    def _draw(self, pool: list[dict[str, Tensor]], name: str) -> list[dict[str, Tensor]]:
        if not pool:
            raise DeepMLFError(f"No donor has what it takes to resample {name}: pass other donors.")
        return [pool[i] for i in self.rng.choice(len(pool), min(self.draws, len(pool)), replace=False)]


def _row_of(batch: Mapping[str, Any], index: int, model: DeepMLFModel) -> dict[str, Tensor]:
    """One utterance of a batch without its padding; a modality that is not there has one masked frame."""
    text_mask = text_mask_of(batch)
    check_padded_right(text_mask)
    row = {"input_ids": batch["input_ids"][index, : int(text_mask[index].sum())]}
    for stream, features in model.config.modalities.items():
        frames = batch.get(stream)
        if frames is None:
            frames = model.fusion_tokens.new_zeros(1, features)
            row[stream] = frames
            row[f"{stream}_mask"] = torch.zeros(1, dtype=torch.bool, device=frames.device)
            row[f"{stream}_spans"] = even_spans(row[f"{stream}_mask"].unsqueeze(0))[0]
            continue
        mask = batch.get(f"{stream}_mask")
        mask = torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device) if mask is None else mask
        spans = batch.get(f"{stream}_spans")
        row[stream], row[f"{stream}_mask"] = frames[index], mask[index].bool()
        row[f"{stream}_spans"] = (even_spans(mask.bool()) if spans is None else spans)[index]
    return row


def _pad(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Rows -> one batch, padded right."""
    device = rows[0]["input_ids"].device
    pad = torch.nn.utils.rnn.pad_sequence
    lengths = torch.tensor([len(row["input_ids"]) for row in rows], device=device)
    batch = {"input_ids": pad([row["input_ids"] for row in rows], batch_first=True)}
    places = torch.arange(batch["input_ids"].shape[1], device=device)
    batch["attention_mask"] = (places < lengths.unsqueeze(1)).long()
    for name in set(rows[0]) & set(input_names(registered_modalities())):
        padding = PADDING_SPAN if name.endswith("_spans") else 0.0
        batch[name] = pad([row[name] for row in rows], batch_first=True, padding_value=padding)
    return batch


def _run(model: DeepMLFModel, maker: _Variants, variants: list[_Variant], rows: int) -> dict[str, np.ndarray]:
    """What the heads say with everything in place (first) and without each variant's thing."""
    row, whole = maker.row, _Variant("")
    parts: list[dict[str, np.ndarray]] = []
    todo = [whole, *variants]
    for begin in range(0, len(todo), rows):
        some = todo[begin : begin + rows]
        batch = _pad(
            [{**row, **{k: v for k, v in one.row.items() if k != "text_embeddings"}} for one in some]
        )
        if any("text_embeddings" in one.row for one in some):
            embeddings = model.language.embed(batch["input_ids"]).clone()
            for i, one in enumerate(some):
                if "text_embeddings" in one.row:
                    embeddings[i, : len(one.row["text_embeddings"])] = one.row["text_embeddings"]
            batch["text_embeddings"] = embeddings
        with ExitStack() as stack:
            stack.enter_context(forward_hooks(_interventions(model, some, maker.reads)))
            output = model(**batch)
        classes = model.config.num_classes
        parts.append(
            {
                "task": score_of(output.prediction, classes).float().cpu().numpy(),
                "text": score_of(output.text_prediction, classes).float().cpu().numpy(),
                "av": score_of(output.av_prediction, classes).float().cpu().numpy(),
                "fusion": score_of(output.fusion_prediction, classes).float().cpu().numpy(),
            }
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _interventions(
    model: DeepMLFModel, some: list[_Variant], reads: dict[int, Tensor]
) -> list[tuple[Any, Any]]:
    """Hooks that do to row r of the batch what variant r asks for."""
    device = model.fusion_tokens.device
    config = model.config
    hooks: list[tuple[Any, Any]] = []

    if any(one.hidden_steps is not None for one in some):
        none = torch.zeros(config.av_steps, dtype=torch.bool)
        hidden = torch.stack([none if o.hidden_steps is None else o.hidden_steps for o in some]).to(device)

        def hide(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
            states, mask = output
            return states, mask & ~hidden

        hooks.append((model.av_encoder, hide))

    if any(one.deaf is not None for one in some):
        never = torch.zeros(len(config.fusion_layers), config.fusion_tokens, dtype=torch.bool)
        deaf = torch.stack([never if o.deaf is None else o.deaf for o in some]).to(device)  # [rows, M, F]
        donors = torch.tensor([0 if o.instead is None else o.instead for o in some], device=device)
        from_donor = torch.tensor([o.instead is not None for o in some], device=device)

        def deafen(index: int) -> Any:
            def hook(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
                read, weights = output
                other = torch.zeros_like(read)
                if reads:
                    other = torch.where(from_donor[:, None, None], reads[index][donors], other)
                return torch.where(deaf[:, index, :, None], other, read), weights

            return hook

        for index, layer in enumerate(config.fusion_layers):
            hooks.append((model.mm_blocks[str(layer)].cross_attention, deafen(index)))

    if any(one.silent is not None for one in some):
        loud = torch.zeros(len(config.fusion_layers), dtype=torch.bool)
        silent = torch.stack([loud if o.silent is None else o.silent for o in some]).to(device)  # [rows, M]

        def silence(index: int) -> Any:
            def hook(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
                return output.masked_fill(silent[:, index, None, None], 0)

            return hook

        for index, layer in enumerate(config.fusion_layers):
            if (body := model.mm_blocks[str(layer)].feed_forward) is not None:
                hooks.append((body, silence(index)))

    if any(one.unread is not None for one in some):
        unread = torch.tensor([-1 if o.unread is None else o.unread for o in some], device=device)

        def leave_out(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
            fusion, last_text, av_mean = args
            gone = torch.arange(fusion.shape[1], device=device) == unread[:, None]  # [rows, F]
            kept = (~gone).to(fusion.dtype).unsqueeze(-1)
            others = (fusion * kept).sum(dim=1, keepdim=True) / kept.sum(dim=1, keepdim=True)
            changed = torch.where(gone.unsqueeze(-1), others, fusion)  # the mean of all is the others' mean
            return {**output, "task": module.forward(changed, last_text, av_mean)["task"]}

        hooks.append((model.heads, leave_out))
    return hooks


def _summary(of: str, how: str, variants: list[_Variant], said: dict[str, np.ndarray]) -> Effects:
    order: dict[str, list[int]] = {}
    for i, variant in enumerate(variants):
        order.setdefault(variant.name, []).append(i)
    change = {name: values[0] - values[1:] for name, values in said.items()}

    def mean(values: np.ndarray) -> np.ndarray:
        return np.stack([values[rows].mean(axis=0) for rows in order.values()]).astype(np.float32)

    first = [variants[rows[0]] for rows in order.values()]
    stretches = [one.stretch for one in first if one.stretch is not None]
    return Effects(
        of=of,
        how=how,
        names=list(order),
        effect=mean(change["task"]),
        spread=np.array([change["task"][rows].std() for rows in order.values()], np.float32),
        prediction=float(said["task"][0]),
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
