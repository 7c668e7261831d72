"""Interventions: a forward pass in which each utterance of a batch has parts of its own replaced or silenced.

Where it stands: under `ablations` (parts of one utterance), `cumulative` (MM Blocks over a split), `patching` (a clean
run's activations in a corrupted run) and `deletion`. An `Intervention` says what happens to one row; `interventions`
turns those of a batch into hooks. What is replaced becomes zero, or what it was in another pass (`Source`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.clock import PADDING_SPAN
from ..model.av_encoder import even_spans, mean_state
from ..model.decoder_pass import check_padded_right
from ..model.deepmlf import DeepMLFModel
from ..model.modalities import input_names, registered_modalities
from .capturing import head_scores, text_mask_of, to_array
from .hooks import Hook, forward_hooks

SITES = ("cross_attention", "layer_states", "av_states")
"""What can be taken over from another pass."""


@dataclass
class Intervention:
    """What is changed in one row of a batch; K AV steps, M MM Blocks, F fusion tokens, N LM layers, L text tokens.

    Attributes:
        name: of the part.
        row: inputs that take the place of the utterance's own (`text_embeddings` [L, D] among them).
        masked_steps: AV steps that nothing attends to and no mean counts [K], bool.
        cross_attention: whose cross-attention adds the source's, or nothing where there is none [M, F], bool.
        feed_forward: MM Blocks whose feed-forward adds nothing [M], bool.
        no_readout: fusion token that the task head's mean leaves out.
        layer_states: states that leave an LM layer (before its MM Block) as the source's [N, L + F], bool.
        av_states: AV states taken from the source, as each MM Block (first) and the heads' mean (last) read them
            [M + 1, K], bool.
        source: row of the `Source`; None: there is none.
        stretch: AV steps from (inclusive) and to (exclusive) that the part is.
    """

    name: str = ""
    row: dict[str, Tensor] = field(default_factory=dict)
    masked_steps: Tensor | None = None
    cross_attention: Tensor | None = None
    feed_forward: Tensor | None = None
    no_readout: int | None = None
    layer_states: Tensor | None = None
    av_states: Tensor | None = None
    source: int | None = None
    stretch: tuple[int, int] | None = None


@dataclass
class Source:
    """Activations of another pass, of S utterances; only what was asked for.

    Attributes:
        cross_attention: what each MM Block's cross-attention added before its gate, M times [S, F, D].
        layer_states: what left each LM layer, N times [S, L + F, D].
        av_states, av_mask: of the AV encoder [S, K, d], [S, K].
    """

    cross_attention: dict[int, Tensor] = field(default_factory=dict)
    layer_states: dict[int, Tensor] = field(default_factory=dict)
    av_states: Tensor | None = None
    av_mask: Tensor | None = None


@torch.no_grad()
def source_of(model: DeepMLFModel, batch: Mapping[str, Any], *sites: str) -> Source:
    """Run a batch and keep activations of it, some of `SITES`."""
    found = Source()

    def keep(into: dict[int, Tensor], index: int) -> Hook:
        def hook(module: Any, args: Any, kwargs: Any, output: Any) -> None:
            into[index] = _states(output)

        return hook

    hooks: list[tuple[nn.Module, Hook]] = []
    if "cross_attention" in sites:
        hooks += [
            (block.cross_attention, keep(found.cross_attention, i)) for i, block in enumerate(_blocks(model))
        ]
    if "layer_states" in sites:
        hooks += [(layer, keep(found.layer_states, i)) for i, layer in enumerate(model.language.layers)]
    with forward_hooks(hooks):
        output = _jointly(model)(**batch) if "layer_states" in sites else model(**batch)
    if "av_states" in sites:
        found.av_states, found.av_mask = output.av_states, output.av_mask
    return found


def row_of(batch: Mapping[str, Any], index: int, model: DeepMLFModel) -> dict[str, Tensor]:
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


def pad(rows: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
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


@torch.no_grad()
def predict_interventions(
    model: DeepMLFModel,
    row: dict[str, Tensor],
    todo: Sequence[Intervention],
    source: Source | None = None,
    rows: int = 64,
) -> dict[str, np.ndarray]:
    """One utterance as it is (first) and under each intervention.

    Args:
        model: in eval mode.
        row: the utterance (`row_of`).
        todo: n interventions.
        source: where they have one.
        rows: utterances per forward pass.

    Returns:
        Each head's predictions [n + 1], of `fusion` [n + 1, F].
    """
    parts: list[dict[str, np.ndarray]] = []
    every = [Intervention(), *todo]
    for begin in range(0, len(every), rows):
        some = every[begin : begin + rows]
        batch = pad([{**row, **{k: v for k, v in one.row.items() if k != "text_embeddings"}} for one in some])
        if any("text_embeddings" in one.row for one in some):
            embeddings = model.language.embed(batch["input_ids"]).clone()
            for i, one in enumerate(some):
                if "text_embeddings" in one.row:
                    embeddings[i, : len(one.row["text_embeddings"])] = one.row["text_embeddings"]
            batch["text_embeddings"] = embeddings
        parts.append(predict_batch(model, batch, some, source))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@torch.no_grad()
def predict_batch(
    model: DeepMLFModel, batch: Mapping[str, Any], todo: Sequence[Intervention], source: Source | None = None
) -> dict[str, np.ndarray]:
    """Each head's predictions [B], of `fusion` [B, F], with the r-th intervention in row r."""
    jointly = any(one.layer_states is not None for one in todo)
    # A packed sequence has no rows in which a feed-forward could be silenced; many different texts make it long.
    alike = all(one.feed_forward is None and "input_ids" not in one.row for one in todo)
    with forward_hooks(_hooks(model, todo, source or Source())):
        output = _jointly(model)(**batch) if jointly else model(**batch, share_texts=alike)
    return {name: to_array(score) for name, score in head_scores(output, model.config.num_classes).items()}


def _hooks(model: DeepMLFModel, todo: Sequence[Intervention], source: Source) -> list[tuple[nn.Module, Hook]]:
    """Hooks that do in row r of a batch what the r-th intervention asks for."""
    device, config = model.fusion_tokens.device, model.config
    blocks, layers = _blocks(model), list(model.language.layers)
    has_source = torch.tensor([one.source is not None for one in todo], device=device)
    of_source = torch.tensor([one.source or 0 for one in todo], device=device)
    hooks: list[tuple[nn.Module, Hook]] = []

    masked = _stack([one.masked_steps for one in todo], (config.av_steps,), device)  # [rows, K]
    if masked is not None:

        def mask_steps(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
            states, mask = output
            return states, mask & ~masked

        hooks.append((model.av_encoder, mask_steps))

    attention = _stack([one.cross_attention for one in todo], (len(blocks), config.fusion_tokens), device)
    av = _stack(
        [one.av_states for one in todo], (len(blocks) + 1, config.av_steps), device
    )  # [rows, M + 1, K]

    def patched_av(states: Tensor, mask: Tensor, reader: int) -> tuple[Tensor, Tensor]:
        assert av is not None and source.av_states is not None and source.av_mask is not None
        taken = av[:, reader]  # [rows, K]
        states = torch.where(taken.unsqueeze(-1), source.av_states[of_source], states)
        return states, torch.where(taken, source.av_mask[of_source], mask)

    def change_attention(index: int) -> Hook:
        def hook(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
            added, weights = output
            if av is not None and bool(av[:, index].any()):
                # `forward`, not a call: again with other AV states, without this hook
                added = module.forward(args[0], *patched_av(args[1], args[2], index))[0]
            if attention is not None:
                other = torch.zeros_like(added)
                if source.cross_attention:
                    theirs = source.cross_attention[index][of_source]
                    other = torch.where(has_source[:, None, None], theirs, other)
                added = torch.where(attention[:, index, :, None], other, added)
            return added, weights

        return hook

    if attention is not None or av is not None:
        hooks += [(block.cross_attention, change_attention(i)) for i, block in enumerate(blocks)]

    feed_forward = _stack([one.feed_forward for one in todo], (len(blocks),), device)  # [rows, M]
    if feed_forward is not None:

        def silence(index: int) -> Hook:
            def hook(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
                return output.masked_fill(feed_forward[:, index, None, None], 0)

            return hook

        hooks += [
            (block.feed_forward, silence(i))
            for i, block in enumerate(blocks)
            if block.feed_forward is not None
        ]

    length = next((one.layer_states.shape[1] for one in todo if one.layer_states is not None), 0)
    states = _stack([one.layer_states for one in todo], (len(layers), length), device)  # [rows, N, L + F]
    if states is not None:

        def take_over(index: int) -> Hook:
            def hook(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
                mine = _states(output)
                taken = states[:, index, :, None]
                mixed = torch.where(taken, source.layer_states[index][of_source], mine)
                return (mixed, *output[1:]) if isinstance(output, tuple) else mixed

            return hook

        hooks += [(layer, take_over(i)) for i, layer in enumerate(layers)]

    if av is not None or any(one.no_readout is not None for one in todo):
        left_out = torch.tensor([-1 if o.no_readout is None else o.no_readout for o in todo], device=device)

        def change_readout(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
            fusion, last_text, av_mean = args
            if av is not None:
                patched = mean_state(*patched_av(encoded[0], encoded[1], len(blocks)))
                av_mean = torch.where(av[:, -1].any(dim=1, keepdim=True), patched, av_mean)
                output = module.forward(fusion, last_text, av_mean)
            ablated = torch.arange(fusion.shape[1], device=device) == left_out[:, None]  # [rows, F]
            kept = (~ablated).to(fusion.dtype).unsqueeze(-1)
            others = (fusion * kept).sum(dim=1, keepdim=True) / kept.sum(dim=1, keepdim=True)
            changed = torch.where(ablated.unsqueeze(-1), others, fusion)  # their mean is the others' mean
            return {**output, "task": module.forward(changed, last_text, av_mean)["task"]}

        hooks.append((model.heads, change_readout))
    if av is not None:
        encoded: list[Tensor] = []

        def keep_encoded(module: Any, args: Any, kwargs: Any, output: Any) -> None:
            encoded[:] = output

        hooks.append((model.av_encoder, keep_encoded))
    return hooks


def _stack(given: Iterable[Tensor | None], shape: tuple[int, ...], device: torch.device) -> Tensor | None:
    """Masks of all rows, [rows, *shape]; None where no row has one."""
    masks = list(given)
    if all(mask is None for mask in masks):
        return None
    never = torch.zeros(shape, dtype=torch.bool)
    return torch.stack([never if mask is None else mask for mask in masks]).to(device)


def _blocks(model: DeepMLFModel) -> list[Any]:
    return [model.mm_blocks[str(layer)] for layer in model.config.fusion_layers]


def _states(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _jointly(model: DeepMLFModel) -> DeepMLFModel:
    """The same modules, run on text and fusion tokens together through every layer.

    Text first gives equal outputs, but no pass of a layer in which all states stand side by side.
    """
    twin = copy.copy(model)
    twin.config = copy.copy(model.config)
    twin.config.text_first = False
    return twin
