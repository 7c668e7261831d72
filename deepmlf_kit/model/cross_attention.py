"""Cross-attention: the published fusion mechanism, by which fusion tokens read the AV states (paper, section 3.3).

Registered in `registry.FUSION_MECHANISMS`; `fusion_mechanism` in the configuration names another one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from .attention import attend_projected
from .registry import FUSION_MECHANISMS

if TYPE_CHECKING:
    from .config import DeepMLFConfig


@FUSION_MECHANISMS.register("cross_attention")
class CrossAttention(nn.Module):
    """Multi-head cross-attention of fusion tokens [B, F, D] over AV states [B, K, d], without biases.

    Args:
        config: `cross_attention_heads`, `attention_scale`, `attention_dropout`, `av_width`.
        width: D.
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
        """Attend to the AV states; the interface of every fusion mechanism.

        Args:
            fusion: [B, F, D], normed.
            av_states: [B, K, d].
            av_mask: steps that can be attended to [B, K], bool. Where a sample has none, the output is zero.
            need_weights: also return the attention weights.

        Returns:
            Output [B, F, D], and the attention weights [B, heads, F, K] where asked for.
        """
        query = self.query(fusion).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, h, F, D/h]
        key, value = self.key_value.weight.unflatten(0, (2, self.heads, -1))  # projections [h, D/h, d]
        attendable = av_mask.any(dim=1)  # [B]
        unmasked = av_mask | ~attendable.unsqueeze(1)  # a row of all False would give NaN; it is zeroed below
        mask = query.new_zeros(unmasked.shape).masked_fill(~unmasked, float("-inf"))  # [B, K]
        dropout = self.dropout if self.training else 0.0
        attended, weights = attend_projected(
            query, av_states, key, value, mask[:, None, None], scale=self.scale, dropout=dropout
        )  # [B, h, F, D/h]
        output = self.output(attended.transpose(1, 2).flatten(2))  # [B, F, D]
        output = F.dropout(output, dropout) * attendable[:, None, None]
        return output, weights if need_weights else None
