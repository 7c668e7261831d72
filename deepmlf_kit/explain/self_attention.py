"""Attention of fusion tokens to the text, read inside the LM without switching its attention kernel.

Where it stands: used by `capture`. An LM that runs a fused kernel keeps its weights to itself.
The usual way out, switching the LM to eager attention, changes its numbers and the LM of every other thread.
Here the kernel's entry in transformers' table of attention functions is wrapped for a while: the wrapper
computes the weights of the last F queries (the fusion tokens) from the same queries, keys and mask, and passes
the call on untouched. An LM that runs eager attention gives its weights anyway, and those are taken.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..errors import DeepMLFError
from ..model.frozen_lm import LanguageStream, attention_of
from .hooks import forward_hooks

_one_at_a_time = threading.Lock()


@contextmanager
def recorded_self_attention(language: LanguageStream, tokens: int) -> Iterator[dict[int, Tensor]]:
    """Record the fusion tokens' attention in each LM layer.

    Args:
        language: the LM.
        tokens: F; the last F positions of a pass over text and fusion tokens are theirs.

    Yields:
        {layer: [B, heads, F, L + F]}, filled while passes run inside the `with` block.
    """
    found: dict[int, Tensor] = {}
    modules = [attention_of(layer) for layer in language.layers]
    index = {id(module): number for number, module in enumerate(modules)}
    owner = threading.get_ident()
    kernel = language.config._attn_implementation
    inner = ALL_ATTENTION_FUNCTIONS.get(kernel)  # None: eager attention, which stands in the LM's own file

    # In the fast path a layer runs twice, for the text and then for the fusion tokens: the later call counts.
    def wrapper(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
    ) -> Any:
        layer = index.get(id(module))
        readable = attention_mask is None or (
            isinstance(attention_mask, Tensor) and attention_mask.dim() == 4
        )
        if layer is not None and threading.get_ident() == owner and readable:
            found[layer] = _weights(query, key, attention_mask, kwargs.get("scaling"), tokens)
        assert inner is not None  # only then this stands in the table
        return inner(module, query, key, value, attention_mask, **kwargs)

    def eager(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if isinstance(weights, Tensor) and weights.dim() == 4:
            found[index[id(module)]] = weights[:, :, -tokens:].detach().float()

    with _one_at_a_time:
        if inner is not None:
            ALL_ATTENTION_FUNCTIONS[kernel] = wrapper
        try:
            with forward_hooks((module, eager) for module in modules):
                yield found
        finally:
            if inner is not None:
                del ALL_ATTENTION_FUNCTIONS[kernel]
    if len(found) != len(modules):
        raise DeepMLFError(
            f"The attention of {type(language.lm).__name__} runs as {language.config._attn_implementation!r}, which "
            "keeps its weights to itself: load the LM with attn_implementation='sdpa' or 'eager', or leave "
            "'self_attention' out of what is captured."
        )


@torch.no_grad()
def _weights(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float | None, tokens: int) -> Tensor:
    """Softmax weights of the last `tokens` queries [B, heads, F, S], in float32."""
    groups = query.shape[1] // key.shape[1]
    key = repeat_kv(key, groups)
    total, rows = query.shape[2], min(tokens, query.shape[2])
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    scores = (query[:, :, -rows:].float() @ key.float().transpose(-1, -2)) * scale  # [B, h, F, S]
    if mask is None:
        last = torch.arange(key.shape[2] - rows, key.shape[2], device=key.device).unsqueeze(1)
        allowed = torch.arange(key.shape[2], device=key.device).unsqueeze(0) <= last  # [F, S]
        scores = scores.masked_fill(~allowed, float("-inf"))
    else:
        part = mask[..., -rows:, : key.shape[2]] if mask.shape[-2] == total else mask
        bars = part.dtype == torch.bool
        scores = scores.masked_fill(~part, float("-inf")) if bars else scores + part.float()
    return scores.softmax(dim=-1)
