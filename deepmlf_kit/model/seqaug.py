"""SeqAug: permute some feature dimensions along time, a regulariser for sequences (paper, section 3.5)."""

from __future__ import annotations

import torch
from torch import Tensor


def seqaug(x: Tensor, mask: Tensor, p_feat: float, p_apply: float = 1.0) -> Tensor:
    """Permute a random subset of feature dimensions along time, over valid positions only.

    One draw decides for the whole batch whether anything happens; the subset of dimensions and the permutation
    are drawn for each sample.

    Args:
        x: sequences [B, T, C].
        mask: valid positions [B, T], bool.
        p_feat: share of dimensions that are permuted.
        p_apply: probability that the batch is touched.

    Returns:
        Augmented sequences [B, T, C]; x itself where nothing is done.
    """
    if p_feat <= 0 or p_apply <= 0 or (p_apply < 1 and torch.rand(()).item() >= p_apply):
        return x
    batch, _, channels = x.shape
    chosen = torch.rand(batch, 1, channels, device=x.device) < p_feat  # [B, 1, C]
    keys = torch.rand(mask.shape, device=x.device).masked_fill(~mask, 2.0)  # padding sorts last
    shuffled = keys.argsort(dim=1, stable=True)  # [B, T]: valid positions in random order, then padding
    in_order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)  # [B, T]: valid in order, then padding
    source = torch.empty_like(shuffled).scatter_(1, in_order, shuffled)  # [B, T]: where position t takes from
    permuted = x.gather(1, source.unsqueeze(-1).expand_as(x))
    return torch.where(chosen, permuted, x)
