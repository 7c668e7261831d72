"""Attention over sequences as short as an utterance's: two batched products and a softmax.

Cross-attention runs so everywhere. The LM's self-attention does on CPU, where PyTorch's fused kernel, made for long
sequences, costs more than the products do (`python benchmarks/attention.py`); on a GPU the fused kernel stays.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

SHORT = "short"  # the name under which transformers knows it
#: Keys beyond which the fused kernel is no slower.
LONGEST = 128


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, *, scale: float, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention spelled out. B batch, h query heads, g key heads (h a multiple of g).

    Args:
        query: [B, h, T, e].
        key, value: [B, g, S, e]; h / g query heads in a row read the same ones, which are not copied.
        mask: what is added to the scores, anything that broadcasts to [B, 1, T, S].
        scale: of the scores.
        dropout: share of the weights that is left out.

    Returns:
        What was read [B, h, T, e], and the weights before dropout [B, h, T, S].
    """
    batch, heads, length, _ = query.shape
    groups, keys = key.shape[1:3]
    rows = (query * scale).reshape(batch, groups, heads // groups * length, -1)
    scores = (rows @ key.transpose(-1, -2)).view(batch, groups, heads // groups, length, keys)
    weights = (scores + mask.unsqueeze(2)).softmax(dim=-1).flatten(1, 2)  # [B, h, T, S]
    read = F.dropout(weights, dropout).view(batch, groups, -1, keys) @ value  # [B, g, h / g T, e]
    return read.view(batch, heads, length, -1), weights


def attend_short(lm: PreTrainedModel) -> None:
    """Let an LM on CPU attend by `attend` where it would run the fused kernel; any other choice is left as it is."""
    if lm.config.get_text_config()._attn_implementation == "sdpa" and not torch.accelerator.is_available():
        lm.set_attn_implementation(SHORT)


def _short_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """An entry of transformers' table of attention functions: [B, h, T, e] -> [B, T, h, e]."""
    unusual = any(kwargs.get(name) is not None for name in ("position_bias", "cache", "softcap"))
    if attention_mask is None or unusual or not query.is_cpu:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if attention_mask.is_floating_point() and key.shape[2] <= LONGEST and query.dtype == torch.float32:
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        read, _ = attend(query, key, value, attention_mask, scale=scale, dropout=dropout)
    else:  # on CPU the fused kernel takes grouped keys and values; transformers would copy them for every head
        read = F.scaled_dot_product_attention(
            query, key, value, attention_mask, dropout, scale=scaling, enable_gqa=True
        )
    return read.transpose(1, 2).contiguous(), None


def _short_mask(**arguments: Any) -> Tensor:
    """An entry of transformers' table of masks: what is added to scores; where some query sees nothing (an empty
    text), which of them count, for the fused kernel, which reads zero there."""
    counts = sdpa_mask(**arguments | {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})
    assert counts is not None  # both ways to skip it are closed
    if not counts.any(dim=-1).all():
        return counts
    dtype = arguments.get("dtype", torch.float32)
    return torch.where(counts, torch.zeros((), dtype=dtype, device=counts.device), torch.finfo(dtype).min)


AttentionInterface.register(SHORT, _short_attention)
AttentionMaskInterface.register(SHORT, _short_mask)
