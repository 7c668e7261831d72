"""Capture: what happens inside one forward pass, under names that stay the same, without changing it.

Where it stands: between the model and everything that draws or compares. Nothing here touches a number of the
pass: weights and norms are computed beside it, in hooks that are removed afterwards, so that the output is
bitwise the output without capture.

What the measures mean, and what they do not:

* Attention says where a token *looked*. It does not say that what it saw changed the prediction (Jain & Wallace,
  "Attention is not Explanation", 2019): a gate may be closed, a value vector small, two tokens may cancel. Compare it
  with `effects` (`attention_vs_effect`) before telling a story.
* A norm says how far a branch *moves* a token, not in which direction, nor whether a head reads that direction.
* A sentiment at depth is the trained head applied to an earlier state (nostalgebraist's "logit lens", 2020): the head
  was trained on the last states only, so that early values show when the answer becomes readable, not an
  intermediate answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DeepMLFError
from ..model.av_encoder import mean_state
from ..model.deepmlf import DeepMLFModel, DeepMLFOutput
from .hooks import forward_hooks
from .self_attention import recorded_self_attention

MEASURES = ("cross_attention", "self_attention", "gates", "norms", "depth", "av_states")
"""What `capture(what=...)` takes."""


@dataclass
class Capture:
    """What was captured, as float32 arrays on the CPU; None where it was not asked for.

    B utterances, M MM Blocks, N LM layers, F fusion tokens, L text tokens (padded), K AV steps, d AV width.

    Attributes:
        output: the forward's own output, bitwise as without capture.
        fusion_layers: the LM layer (from 0) after which each MM Block stands [M].
        text_mask: which text positions are real [B, L], bool.
        av_mask: which AV steps are real [B, K], bool.
        cross_attention: weights of fusion tokens over AV steps [B, M, heads, F, K]; rows sum to 1. All zero
            for an utterance without voice and face: there is nothing to look at.
        self_attention: weights of fusion tokens over text tokens and fusion tokens up to themselves
            [B, N, heads, F, L + F]; rows sum to 1, padding is 0.
        gates: `cross_attention` and `feed_forward`: what scales each branch, after the gating function [M]; the mean over
            tokens of a gate that depends on its input; NaN where there is no branch.
        cross_attention_norms: norm of what cross-attention adds to a fusion token, gate included [B, M, F].
        feed_forward_norms: norm of what the feed-forward adds, gate included [B, M, L + F]; NaN where it does
            not run on text.
        state_norms: norm of a fusion token's state as it enters the MM Block [B, M, F], to compare with.
        fusion_sentiment: the fusion head applied to each fusion token at every depth [B, N + 1, F]; depth 0 is
            the input, depth i + 1 follows LM layer i and its MM Block.
        text_sentiment: the text head, likewise [B, N + 1].
        task_sentiment: the task head on that depth's fusion and text states [B, N + 1]; the last is the
            prediction.
        token_similarity: cosine between fusion tokens' states at every depth [B, N + 1, F, F].
        av_states: [B, K, d].

    For a model of classes, a sentiment is the expected class, stretched to [-1, 1].
    """

    output: DeepMLFOutput
    fusion_layers: tuple[int, ...]
    text_mask: np.ndarray
    av_mask: np.ndarray
    cross_attention: np.ndarray | None = None
    self_attention: np.ndarray | None = None
    gates: dict[str, np.ndarray] | None = None
    cross_attention_norms: np.ndarray | None = None
    feed_forward_norms: np.ndarray | None = None
    state_norms: np.ndarray | None = None
    fusion_sentiment: np.ndarray | None = None
    text_sentiment: np.ndarray | None = None
    task_sentiment: np.ndarray | None = None
    token_similarity: np.ndarray | None = None
    av_states: np.ndarray | None = None


def capture(model: DeepMLFModel, batch: Mapping[str, Any], what: str | Iterable[str] = MEASURES) -> Capture:
    """Run a forward pass and keep what happens inside.

    Args:
        model: in eval mode (dropout would make every pass another one).
        batch: what `DeepMLFModel.forward` takes; `labels` may be missing.
        what: some of `MEASURES`; only these cost anything.

    Raises:
        DeepMLFError: the model is in training mode, or `what` names something else.
    """
    wanted = {what} if isinstance(what, str) else set(what)
    if unknown := sorted(wanted - set(MEASURES)):
        raise DeepMLFError(f"what={unknown} cannot be captured: choose from {', '.join(MEASURES)}.")
    check_eval_mode(model)
    batch = to_device(batch, model)
    tokens = model.config.fusion_tokens
    layers = tuple(model.config.fusion_layers)
    blocks = [model.mm_blocks[str(layer)] for layer in layers]
    cross: dict[int, Tensor] = {}
    attended: dict[int, Tensor] = {}
    transformed: dict[int, Tensor] = {}
    entered: dict[int, Tensor] = {}
    gates: dict[str, dict[int, Tensor]] = {"cross_attention": {}, "feed_forward": {}}
    hooks: list[tuple[Any, Any]] = []

    def on_attention(index: int) -> Any:
        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if "cross_attention" in wanted:
                fusion, av_states, av_mask = args[:3]
                some = av_mask.any(dim=1)[:, None, None, None]
                # `forward`, not a call: the weights beside the pass, without this hook
                cross[index] = module.forward(fusion, av_states, av_mask, need_weights=True)[1] * some
            attended[index] = output[0]

        return hook

    def keep(into: dict[int, Tensor], index: int, of_input: bool = False) -> Any:
        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            into[index] = args[0] if of_input else output

        return hook

    def keep_gate(into: dict[int, Tensor], index: int) -> Any:
        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            into[index] = torch.as_tensor(output)

        return hook

    for index, block in enumerate(blocks):
        if wanted & {"gates", "norms"}:
            hooks.append((block.gate_1, keep_gate(gates["cross_attention"], index)))
            if block.feed_forward is not None:
                hooks.append((block.gate_2, keep_gate(gates["feed_forward"], index)))
        if wanted & {"cross_attention", "norms"}:
            hooks.append((block.cross_attention, on_attention(index)))
        if "norms" in wanted:
            hooks.append((block.norm_1, keep(entered, index, of_input=True)))
            if block.feed_forward is not None:
                hooks.append((block.feed_forward, keep(transformed, index)))
    with torch.no_grad(), ExitStack() as stack:
        attention: dict[int, Tensor] = {}
        if "self_attention" in wanted:
            attention = stack.enter_context(recorded_self_attention(model.language, tokens))
        stack.enter_context(forward_hooks(hooks))
        output = model(
            **batch,
            output_hidden_states="depth" in wanted,
            share_texts=wanted <= {"cross_attention", "av_states"},
        )

    seen = Capture(
        output=output,
        fusion_layers=layers,
        text_mask=text_mask_of(batch).cpu().numpy(),
        av_mask=output.av_mask.cpu().numpy(),
    )
    with torch.no_grad():
        if "cross_attention" in wanted:
            seen.cross_attention = to_array(torch.stack([cross[i] for i in range(len(blocks))], dim=1))
        if attention:
            seen.self_attention = to_array(torch.stack([attention[i] for i in sorted(attention)], dim=1))
        if wanted & {"gates", "norms"}:
            seen.gates = {branch: _mean_gates(found, len(blocks)) for branch, found in gates.items()}
        if "norms" in wanted:
            _add_norms(seen, attended, transformed, entered, gates)
        if "depth" in wanted:
            _add_depth(seen, model, output, batch)
        if "av_states" in wanted:
            seen.av_states = to_array(output.av_states)
    return seen


def _mean_gates(found: dict[int, Tensor], blocks: int) -> np.ndarray:
    """Each MM Block's gate, the mean over tokens and features where it has more than one value [M]; NaN: no branch."""
    means = [float(found[i].float().mean()) if i in found else float("nan") for i in range(blocks)]
    return np.asarray(means, np.float32)


def score_of(prediction: Tensor, classes: int) -> Tensor:
    """A head's prediction as one number: itself [..], or for classes [.., C] the expected class in [-1, 1] [..]."""
    if not classes:
        return prediction
    values = torch.linspace(-1, 1, classes, device=prediction.device, dtype=prediction.dtype)
    return prediction.softmax(dim=-1) @ values


def head_scores(output: DeepMLFOutput, classes: int) -> dict[str, Tensor]:
    """`score_of` each head: `task`, `text` and `av` [B], `fusion` [B, F]."""
    predictions = output.head_predictions()
    return {name: score_of(prediction, classes) for name, prediction in predictions.items()}


def check_eval_mode(model: DeepMLFModel) -> None:
    """Raise `DeepMLFError` where the model is in training mode."""
    if model.training:
        raise DeepMLFError(
            "The model is in training mode, where dropout changes every pass: call model.eval()."
        )


def check_one_utterance(model: DeepMLFModel, batch: Mapping[str, Any]) -> None:
    """Raise `DeepMLFError` where the model is in training mode, or the batch is not one utterance."""
    check_eval_mode(model)
    if len(batch["input_ids"]) != 1:
        raise DeepMLFError(f"One utterance was expected, the batch has {len(batch['input_ids'])}: pass one.")


def to_device(batch: Mapping[str, Any], model: DeepMLFModel) -> dict[str, Any]:
    """The batch on the model's device, without its labels."""
    device = model.fusion_tokens.device
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items() if k != "labels"}


def text_mask_of(batch: Mapping[str, Any]) -> Tensor:
    """Real text positions [B, L], bool."""
    mask = batch.get("attention_mask")
    return torch.ones_like(batch["input_ids"]).bool() if mask is None else mask.bool()


def to_array(values: Tensor) -> np.ndarray:
    """A tensor as float32 on the CPU."""
    return values.detach().float().cpu().numpy()


def _add_norms(
    seen: Capture,
    attended: dict[int, Tensor],
    transformed: dict[int, Tensor],
    entered: dict[int, Tensor],
    gates: dict[str, dict[int, Tensor]],
) -> None:
    blocks, tokens = range(len(seen.fusion_layers)), attended[0].shape[1]
    length = seen.text_mask.shape[1]
    gate_1, gate_2 = gates["cross_attention"], gates["feed_forward"]
    added = [to_array((gate_1[i].to(attended[i].device) * attended[i]).norm(dim=-1)) for i in blocks]
    seen.cross_attention_norms = np.stack(added, axis=1).astype(np.float32)
    seen.state_norms = np.stack([to_array(entered[i].float().norm(dim=-1)) for i in blocks], axis=1)
    norms = np.full((len(seen.text_mask), len(blocks), length + tokens), np.nan, np.float32)
    for i, states in transformed.items():
        of_block = to_array((gate_2[i].to(states.device) * states.float()).norm(dim=-1))
        norms[:, i, -of_block.shape[1] :] = of_block
    norms[:, :, :length][~np.broadcast_to(seen.text_mask[:, None], norms[:, :, :length].shape)] = np.nan
    seen.feed_forward_norms = norms


def _add_depth(seen: Capture, model: DeepMLFModel, output: DeepMLFOutput, batch: Mapping[str, Any]) -> None:
    assert output.hidden_states is not None
    classes, tokens = model.config.num_classes, model.config.fusion_tokens
    last = (text_mask_of(batch).sum(dim=1) - 1).clamp(min=0)
    av_mean = mean_state(output.av_states, output.av_mask)
    rows = torch.arange(len(last), device=last.device)
    scores: dict[str, list[Tensor]] = {"fusion": [], "text": [], "task": []}
    similarity = []
    for depth, hidden in enumerate(output.hidden_states):
        state = hidden if depth == len(output.hidden_states) - 1 else model.language.finish(hidden)
        fusion = state[:, -tokens:]
        predictions = model.heads(fusion, state[rows, last], av_mean)
        for name, of_depth in scores.items():
            prediction = predictions[name] if classes else predictions[name].squeeze(-1)
            of_depth.append(score_of(prediction, classes))
        unit = torch.nn.functional.normalize(fusion.float(), dim=-1)
        similarity.append(unit @ unit.transpose(1, 2))
    seen.fusion_sentiment = to_array(torch.stack(scores["fusion"], dim=1))
    seen.text_sentiment = to_array(torch.stack(scores["text"], dim=1))
    seen.task_sentiment = to_array(torch.stack(scores["task"], dim=1))
    seen.token_similarity = to_array(torch.stack(similarity, dim=1))
