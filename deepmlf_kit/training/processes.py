"""The processes one training runs in: one, or several started by `accelerate launch` or `torchrun`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import PartialState


def on_cpu() -> bool:
    """True where torch sees no accelerator."""
    import torch

    return not torch.accelerator.is_available()


def processes() -> PartialState:
    """Which process this is, of how many. Left to itself, accelerate finds several processes on GPUs only."""
    from accelerate import PartialState

    return PartialState(cpu=on_cpu())
