"""The processes that one training runs in: one, or several started by `accelerate launch` or `torchrun`."""

import torch
from accelerate import PartialState


def on_cpu() -> bool:
    """Whether torch sees no accelerator."""
    return not torch.accelerator.is_available()


def processes() -> PartialState:
    """Which process this is, of how many. By itself, accelerate finds several processes on GPUs only."""
    return PartialState(cpu=on_cpu())
