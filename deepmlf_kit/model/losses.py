"""The loss terms: sentiment (L1, or cross-entropy for classes) and next text token (paper, section 3.4)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

LOGITS_PER_CHUNK = 2**26


def sentiment_loss(prediction: Tensor, labels: Tensor, num_classes: int = 0) -> Tensor:
    """L1 between one number and the label, or cross-entropy between class scores and the class.

    Args:
        prediction: [B] or, for each of F tokens, [B, F]; class scores [B, C] or [B, F, C].
        labels: [B]; the dataset's scale, or class indices.
        num_classes: C; 0 for L1.

    Returns:
        A scalar, the mean over samples (and tokens) whose label is known (not NaN).
    """
    known = ~torch.isnan(labels)
    prediction, labels = _precise(prediction[known]), labels[known]
    if not len(labels):
        return prediction.sum() * 0.0
    if prediction.dim() == (3 if num_classes else 2):
        labels = labels.unsqueeze(1).expand(prediction.shape[:2])
    if num_classes:
        return F.cross_entropy(prediction.reshape(-1, num_classes), labels.reshape(-1).long())
    return F.l1_loss(prediction, labels.to(prediction.dtype))


def next_token_targets(
    input_ids: Tensor, attention_mask: Tensor, max_text_tokens: int, pad_token_id: int
) -> Tensor:
    """Targets of the LM loss as published: the ids of a row padded to `max_text_tokens`, rolled left by one.

    So the last real token of a short text is to predict padding, and a text of full length predicts token 0 at
    its end. Trimming the padding does not change it.

    Args:
        input_ids: [B, L].
        attention_mask: [B, L].

    Returns:
        Targets [B, L]; -100 where the input is padding.
    """
    batch = input_ids.shape[0]
    lengths = attention_mask.sum(dim=1)  # [B]
    end = torch.full((batch, 1), pad_token_id, device=input_ids.device, dtype=input_ids.dtype)
    targets = torch.cat([input_ids[:, 1:], end], dim=1)
    after_last = torch.where(lengths >= max_text_tokens, 0, pad_token_id).to(targets.dtype)  # [B]
    last = (lengths - 1).clamp(min=0).unsqueeze(1)
    targets = targets.scatter(1, last, after_last.unsqueeze(1))
    return targets.masked_fill(attention_mask == 0, -100)


def next_token_loss(
    states: Tensor, targets: Tensor, to_logits: Callable[[Tensor], Tensor], vocabulary: int
) -> Tensor:
    """Cross-entropy of the next text token, with logits computed only where there is a target, in chunks.

    Args:
        states: text states after the LM's final norm [B, L, D].
        targets: [B, L]; -100 is ignored.
        to_logits: the LM head, [N, D] -> [N, V].
        vocabulary: V.

    Returns:
        A scalar, the mean over targets.
    """
    wanted = targets != -100
    states, targets = states[wanted], targets[wanted]  # [N, D], [N]
    if not len(targets):
        return _precise(states).sum() * 0.0
    chunk = max(1, LOGITS_PER_CHUNK // vocabulary)

    def part(piece: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(_precise(to_logits(piece)), target, reduction="sum")

    total = _precise(states.new_zeros(()))
    pieces = list(zip(states.split(chunk), targets.split(chunk), strict=True))
    for piece, target in pieces:
        # Several chunks: their logits are recomputed in the backward pass instead of stored.
        recompute = len(pieces) > 1 and piece.requires_grad
        total = total + (
            checkpoint(part, piece, target, use_reentrant=False) if recompute else part(piece, target)
        )
    return total / len(targets)


def _precise(x: Tensor) -> Tensor:
    """Half precision to float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
