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

from .attention import attend
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
    """Fusion tokens [B, F, D] read AV states [B, K, d]; multi-head, no biases.

    A head's keys are W_k a, so a query meets them as q (W_k a) = (W_k^T q) a, and what it reads is the weights' mean of
    W_v a, which is W_v times the mean of a. The AV states are far narrower than all heads together and the fusion
    tokens fewer than the steps: so queries are brought to width d and what was read back to D, and keys and values
    [B, K, D] are never made. Results are those of the usual order, to rounding.
    """

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
        to_key, to_value = self.key_value.weight.unflatten(0, (2, self.heads, -1)).unbind(0)  # [h, D/h, d]
        query = self.query(fusion).unflatten(-1, (self.heads, -1))  # [B, F, h, D/h]
        query = torch.einsum("bfhe,hed->bhfd", query, to_key)  # [B, h, F, d]
        some = av_mask.any(dim=1)  # [B]
        readable = av_mask | ~some.unsqueeze(1)  # a row of all False would give NaN; it is zeroed below
        hidden = query.new_zeros(readable.shape).masked_fill(~readable, float("-inf"))  # [B, K]
        steps = av_states.unsqueeze(1)  # [B, 1, K, d]: all heads meet the same AV states
        dropout = self.dropout if self.training else 0.0
        read, weights = attend(query, steps, steps, hidden[:, None, None], scale=self.scale, dropout=dropout)
        read = torch.einsum("bhfd,hed->bfhe", read, to_value).flatten(2)  # [B, F, D]
        read = F.dropout(self.output(read), dropout) * some[:, None, None]
        return read, weights if need_weights else None


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
