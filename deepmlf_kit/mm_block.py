"""The MM Block: fusion tokens read the AV states, then every token passes a feed-forward, both gated.

         x_t ────────────────────────────────┬──────────────┬─► x_t
                                             │  norm_2, FFW │
         x_f ──┬──────────────────────► + ───┴──────►───────+─► x_f
               └─ norm_1 ─► attention ──┘ gate_1      gate_2
                                ▲
                            AV states
(paper, figure 2 and section 3.3)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import DeepMLFConfig
from .feed_forward import FeedForward


class Gate(nn.Module):
    """One learned number that scales a branch: sigmoid(alpha), tanh(alpha), or nothing (ablation)."""

    def __init__(self, kind: str, start: float) -> None:
        super().__init__()
        self.kind = kind
        if kind != "none":
            self.alpha = nn.Parameter(torch.full((1,), float(start)))

    def forward(self) -> Tensor | float:
        """The gate's value now, [1]."""
        if self.kind == "none":
            return 1.0
        return torch.sigmoid(self.alpha) if self.kind == "sigmoid" else torch.tanh(self.alpha)


class CrossAttention(nn.Module):
    """Fusion tokens [B, F, D] read AV states [B, K, d]; multi-head, no biases."""

    def __init__(self, config: DeepMLFConfig, width: int) -> None:
        super().__init__()
        self.heads = config.cross_attention_heads
        self.scale = 1 / math.sqrt(width if config.attention_scale == "width" else width // self.heads)
        self.dropout = config.attention_dropout
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(config.av_width, 2 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)

    def forward(
        self, fusion: Tensor, av_states: Tensor, av_mask: Tensor, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Read the AV states.

        Args:
            fusion: [B, F, D], normed.
            av_states: [B, K, d].
            av_mask: steps that can be read [B, K], bool. Where a sample has none, the result is zero.
            need_weights: also give the attention weights.

        Returns:
            What was read [B, F, D], and the attention weights [B, heads, F, K] where asked for.
        """
        batch, tokens, width = fusion.shape
        query = self.query(fusion).view(batch, tokens, self.heads, -1).transpose(1, 2)  # [B, h, F, D/h]
        key, value = self.key_value(av_states).view(batch, -1, 2, self.heads, width // self.heads).unbind(2)
        key, value = key.transpose(1, 2), value.transpose(1, 2)  # [B, h, K, D/h]
        some = av_mask.any(dim=1)  # [B]
        readable = av_mask | ~some.unsqueeze(1)  # a row of all False would give NaN; it is zeroed below
        mask = readable[:, None, None, :]  # [B, 1, 1, K]
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = (query @ key.transpose(-1, -2)) * self.scale
            weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)  # [B, h, F, K]
            read = F.dropout(weights, dropout) @ value
        else:
            read = F.scaled_dot_product_attention(
                query, key, value, mask, dropout_p=dropout, scale=self.scale
            )
        read = self.output(read.transpose(1, 2).reshape(batch, tokens, width))  # [B, F, D]
        read = F.dropout(read, dropout) * some[:, None, None]
        return read, weights


class MMBlock(nn.Module):
    """Gated cross-attention of the fusion tokens to the AV states, then a gated feed-forward.

    Args:
        config: sizes and switches.
        norm_1, norm_2: fresh norms of the LM's own kind.
        lm_feed_forward: the feed-forward of the LM layer this block stands after; None for `ffw="none"`.
    """

    def __init__(
        self,
        config: DeepMLFConfig,
        norm_1: nn.Module,
        norm_2: nn.Module,
        lm_feed_forward: nn.Module | None,
        width: int,
    ) -> None:
        super().__init__()
        self.gate_1 = Gate(config.gating, config.gate_init)
        self.norm_1 = norm_1
        self.cross_attention = CrossAttention(config, width)
        self.feed_forward: FeedForward | None = None
        if lm_feed_forward is not None:
            self.gate_2 = Gate(config.gating, config.gate_init)
            self.norm_2 = norm_2
            self.feed_forward = FeedForward(lm_feed_forward, config)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the trained weights (the LM's hidden states may be kept in a lower one)."""
        return self.cross_attention.query.weight.dtype

    def read_av(
        self, fusion: Tensor, av_states: Tensor, av_mask: Tensor, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """The first half: x_f + gate_1 * attention(norm_1(x_f), AV). [B, F, D] -> [B, F, D], and the weights."""
        read, weights = self.cross_attention(
            self.norm_1(fusion.to(self.dtype)), av_states, av_mask, need_weights
        )
        return fusion + (self.gate_1() * read).to(fusion.dtype), weights

    def think(self, x: Tensor) -> Tensor:
        """The second half: x + gate_2 * FFW(norm_2(x)). [B, T, D] -> [B, T, D]."""
        if self.feed_forward is None:
            return x
        return x + (self.gate_2() * self.feed_forward(self.norm_2(x.to(self.dtype)))).to(x.dtype)
