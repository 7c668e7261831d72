"""The MM Block: fusion tokens attend to the AV states, then every token passes a feed-forward, both gated.

         x_t ────────────────────────────────┬──────────────┬─► x_t
                                             │  norm_2, FFW │
         x_f ──┬──────────────────────► + ───┴──────►───────+─► x_f
               └─ norm_1 ─► attention ──┘ gate_1      gate_2
                                ▲
                            AV states
(paper, figure 2 and section 3.3)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import DeepMLFConfig
from .cross_attention import FUSION_MECHANISMS
from .feed_forward import FeedForward
from .frozen_lm import LanguageStream
from .gates import GATES


class MMBlock(nn.Module):
    """Gated cross-attention of the fusion tokens over the AV states, then a gated feed-forward.

    Args:
        config: sizes and switches.
        norm_1, norm_2: fresh norms of the LM's own kind.
        lm_feed_forward: the feed-forward of the LM layer this block stands after; None for `ffw="none"`.
        width: D.

    Attributes:
        cross_attention: the fusion mechanism, whichever `config.fusion_mechanism` names.
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
        self.gate_1 = GATES[config.gating](config, width)
        self.norm_1 = norm_1
        self.cross_attention = FUSION_MECHANISMS[config.fusion_mechanism](config, width)
        self.feed_forward: FeedForward | None = None
        if lm_feed_forward is not None:
            self.gate_2 = GATES[config.gating](config, width)
            self.norm_2 = norm_2
            self.feed_forward = FeedForward(lm_feed_forward, config)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the trained weights (the LM's hidden states may be in a lower one)."""
        return next(self.norm_1.parameters()).dtype

    def cross_attend(
        self, fusion: Tensor, av_states: Tensor, av_mask: Tensor, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """First half: x_f + gate_1 * attention(norm_1(x_f), AV).

        Args:
            fusion, av_states, av_mask, need_weights: as of `CrossAttention.forward`.

        Returns:
            Fusion tokens [B, F, D], and the attention weights where asked for.
        """
        x = self.norm_1(fusion.to(self.dtype))
        attended, weights = self.cross_attention(x, av_states, av_mask, need_weights)
        return fusion + (self.gate_1(x) * attended).to(fusion.dtype), weights

    def apply_feed_forward(self, x: Tensor) -> Tensor:
        """Second half: x + gate_2 * FFW(norm_2(x)). [B, T, D] -> [B, T, D]."""
        if self.feed_forward is None:
            return x
        normed = self.norm_2(x.to(self.dtype))
        return x + (self.gate_2(normed) * self.feed_forward(normed)).to(x.dtype)


def mm_blocks(config: DeepMLFConfig, language: LanguageStream) -> nn.ModuleDict:
    """An MM Block for each of `config.fusion_layers`, by the layer's number as text."""
    return nn.ModuleDict(
        {
            str(layer): MMBlock(
                config,
                language.new_norm(),
                language.new_norm(),
                None if config.ffw == "none" else language.feed_forward(layer),
                language.width,
            )
            for layer in config.fusion_layers
        }
    )
