"""Gates of the MM Block: what scales a branch before it is added to the tokens (paper, section 3.3).

    x ──┬── norm ──┬── branch ──► × ──► + ──► x
        │          └── gate ──────┘     │
        └───────────────────────────────┘

Registered in `registry.GATES` under the names that `gating` takes. A new gate is one class here or in a file of your
own; it may look at the normed tokens that its branch reads (docs/extending.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .registry import GATES

if TYPE_CHECKING:
    from .config import DeepMLFConfig


class Gate(nn.Module):
    """Base class of gates.

    Args:
        config: of the model.
        width: D.
    """

    def __init__(self, config: DeepMLFConfig, width: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor | float:
        """The scale of a branch.

        Args:
            x: normed tokens that the branch reads [B, T, D].

        Returns:
            Anything that broadcasts to [B, T, D].
        """
        raise NotImplementedError

    @property
    def constant(self) -> float | None:
        """The gate's value where it is the same for every input; None where it depends on the input."""
        return None


class _ScalarGate(Gate):
    """A function of one learned number alpha, which starts at `gate_init`."""

    def __init__(self, config: DeepMLFConfig, width: int) -> None:
        super().__init__(config, width)
        self.alpha = nn.Parameter(torch.full((1,), float(config.gate_init)))

    @property
    def constant(self) -> float:
        return float(self(self.alpha).detach())


@GATES.register("sigmoid")
class SigmoidGate(_ScalarGate):
    """sigmoid(alpha), as published: 0.5 at alpha = 0."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.alpha)


@GATES.register("tanh")
class TanhGate(_ScalarGate):
    """tanh(alpha): closed at alpha = 0, so that training starts from the LM alone."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.alpha)


@GATES.register("none")
class NoGate(Gate):
    """No gate (ablation): branches are added as they are."""

    def forward(self, x: Tensor) -> float:
        return 1.0

    @property
    def constant(self) -> float:
        return 1.0
