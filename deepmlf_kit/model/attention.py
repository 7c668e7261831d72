"""Attention over sequences as short as an utterance's: two batched products and a softmax.

Cross-attention is computed this way on every device, the LM's self-attention on CPU only: there PyTorch's fused kernel,
made for long sequences, costs more than the products (`python benchmarks/attention.py`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

SHORT = "short"  # registered with transformers under this name
#: Number of keys beyond which the fused kernel is no slower.
LONGEST = 128


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, *, scale: float, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention spelled out. B batch, h query heads, g key heads (h a multiple of g).

    Args:
        query: [B, h, T, e].
        key, value: [B, g, S, e]; h / g consecutive query heads share one key head, which is not copied.
        mask: added to the scores; broadcasts to [B, 1, T, S].
        scale: factor of the scores.
        dropout: probability that a weight is dropped.

    Returns:
        Output [B, h, T, e], and the weights before dropout [B, h, T, S].
    """
    batch, heads, length, _ = query.shape
    groups, keys = key.shape[1:3]
    rows = (query * scale).reshape(batch, groups, heads // groups * length, -1)
    scores = (rows @ key.transpose(-1, -2)).view(batch, groups, heads // groups, length, keys)
    weights = (scores + mask.unsqueeze(2)).softmax(dim=-1).flatten(1, 2)  # [B, h, T, S]
    output = F.dropout(weights, dropout).view(batch, groups, -1, keys) @ value  # [B, g, h / g T, e]
    return output.view(batch, heads, length, -1), weights


def attend_projected(
    query: Tensor,
    states: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    *,
    scale: float,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Attention over keys W_k a and values W_v a of narrow states a, in the cheaper order of products.

    The results are those of the usual order, to rounding; AV states are far narrower (d = 30) than all heads together
    (D), and fusion tokens fewer than AV steps, so that keys and values [B, K, D] are never made:

        usual     scores = q · (W_k a)         output = weights · (W_v a)       2 K d D products for keys and values
        here      scores = (W_k^T q) · a       output = W_v (weights · a)       2 F d D products for queries and output

    Args:
        query: [B, h, F, e].
        states: a [B, K, d].
        key, value: W_k and W_v of each head [h, e, d].
        mask: added to the scores; broadcasts to [B, 1, F, K].
        scale, dropout: as of `attend`.

    Returns:
        Output [B, h, F, e], and the weights before dropout [B, h, F, K].
    """
    query = torch.einsum("bhfe,hed->bhfd", query, key)  # W_k^T q
    shared = states.unsqueeze(1)  # [B, 1, K, d]: every head attends to the same states
    attended, weights = attend(query, shared, shared, mask, scale=scale, dropout=dropout)
    return torch.einsum("bhfd,hed->bhfe", attended, value), weights


def is_traced() -> bool:
    """Whether torch is making a graph of what runs (`torch.compile`, `torch.export`, `torch.jit.trace`): then Python may
    not branch on the values of tensors."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def attend_short(lm: PreTrainedModel) -> None:
    """Switch an LM on CPU from the fused kernel to `attend`; any other attention implementation is left as it is."""
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
) -> tuple[Tensor, Tensor | None]:
    """Attention function for transformers' `AttentionInterface`: [B, h, T, e] -> [B, T, h, e], and weights [B, h, T, S] where
    they are computed apart."""
    weights: Tensor | None = None
    unusual = any(kwargs.get(name) is not None for name in ("position_bias", "cache", "softcap"))
    if attention_mask is None or unusual or not query.is_cpu:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if attention_mask.is_floating_point() and key.shape[2] <= LONGEST and query.dtype != torch.float16:
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        output, weights = attend(query, key, value, attention_mask, scale=scale, dropout=dropout)
    else:  # on CPU the fused kernel takes grouped keys and values; transformers would copy them for every head
        output = F.scaled_dot_product_attention(
            query, key, value, attention_mask, dropout, scale=scaling, enable_gqa=True
        )
    return output.transpose(1, 2).contiguous(), weights


def _short_mask(**arguments: Any) -> Tensor:
    """Mask function for transformers' `AttentionMaskInterface`: a mask to add to the scores; a boolean mask where some
    query attends to nothing (an empty text), for the fused kernel, which gives zero there."""
    visible = sdpa_mask(**arguments | {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})
    assert visible is not None  # both ways to skip it are closed
    if is_traced() or not visible.any(dim=-1).all():  # a graph cannot depend on what the mask holds
        return visible
    dtype = arguments.get("dtype", torch.float32)
    return torch.where(visible, torch.zeros((), dtype=dtype, device=visible.device), torch.finfo(dtype).min)


AttentionInterface.register(SHORT, _short_attention)
AttentionMaskInterface.register(SHORT, _short_mask)
