"""Attention against effect: does the model use what it attends to?

Where it stands: over `capturing` and `ablations`. Both are measured on the same stretches of time (or words) and
compared by rank (Spearman), since their units differ. Near 1: what the model attends to most is what moves it most.
Near 0 or below: attention misleads here; believe the effect.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from ..errors import DeepMLFError
from .ablations import Effects
from .reading import Reading


@dataclass
class AttentionVsEffect:
    """Attention and effect of the same n parts.

    Attributes:
        of: `time` or `words`.
        names: of the parts [n].
        attention: share of all attention that the part gets [n], averaged over layers, heads and fusion tokens.
        effect: prediction minus prediction without it [n].
        rank_correlation: Spearman's, of attention with the size of the effect; NaN where one does not vary.
        p_value: of a rank correlation of 0; a handful of words says little.
        replacement: what replaced an ablated part, in words.
    """

    of: str
    names: list[str]
    attention: np.ndarray
    effect: np.ndarray
    rank_correlation: float
    p_value: float
    replacement: str

    @property
    def misleading(self) -> bool:
        """Whether attention says next to nothing about effect here (rank correlation below 0.3)."""
        return not self.rank_correlation >= 0.3


def attention_vs_effect(
    reading: Reading,
    effects: Effects,
    *,
    layer: int | None = None,
    head: int | None = None,
    token: int | None = None,
) -> AttentionVsEffect:
    """Compare attention with effect.

    Args:
        reading: with `cross_attention` (for time) or `self_attention` (for words) captured.
        effects: of `time` or `words` of the same utterance.
        layer: for time, index of one MM Block; for words, one LM layer; None: the mean of all.
        head, token: one of each; None: the mean of all.

    Raises:
        DeepMLFError: effects of another kind of part, or of another utterance.
    """
    if effects.of not in ("time", "words"):
        raise DeepMLFError(
            f"Effects of {effects.of} have no attention to compare with: measure of='time' or 'words'."
        )
    # [M, heads, F, K] or [N, heads, F, W]
    weights = reading.get("cross_attention") if effects.of == "time" else reading.attention_to_words()
    for axis, chosen in ((0, layer), (1, head), (2, token)):
        if chosen is not None:
            weights = np.take(weights, [chosen], axis=axis)
    share = weights.mean(axis=(0, 1, 2))
    if effects.of == "time":
        assert effects.start is not None and effects.end is not None
        share = np.array([share[a:b].sum() for a, b in zip(effects.start, effects.end, strict=True)])
    if len(share) != len(effects.effect):
        raise DeepMLFError(
            f"The reading has {len(share)} {effects.of}, the effects {len(effects.effect)}: take both of one utterance."
        )
    size = np.abs(effects.effect)
    rank, p_value = float("nan"), float("nan")
    if len(share) > 2 and np.ptp(share) > 0 and np.ptp(size) > 0:
        found = spearmanr(share, size)
        rank, p_value = float(found.statistic), float(found.pvalue)
    return AttentionVsEffect(
        of=effects.of,
        names=effects.names,
        attention=share.astype(np.float32),
        effect=effects.effect,
        rank_correlation=rank,
        p_value=p_value,
        replacement=effects.replacement,
    )
