"""`training.compile`: torch.compile for the parts that repeat, not for the whole model.

The decoder pass is Python (cached texts are looked up, the LM prepares masks); compiled as a whole, it breaks into graphs
that are recompiled for every batch. The LM layers, the parts of the MM Blocks and the AV encoder take the time, and each
is one graph for all batches.
"""

from __future__ import annotations

import torch
from torch import nn

from ..model.av_encoder import AVEncoder
from ..model.feed_forward import FeedForward
from ..model.frozen_lm import LanguageStream
from ..model.mm_block import MMBlock


def compile_layers(model: nn.Module) -> None:
    """Compile a model's LM layers, its MM Blocks' parts and its AV encoder in place, for batches of any size.

    Nothing is compiled before the first batch comes. Outputs, names of parameters and checkpoints stay as they are.
    """
    for module in list(model.modules()):
        if isinstance(module, LanguageStream):
            # A layer that reads or writes a cache is one graph for each place in it.
            limit = 8 * len(module.layers)
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, limit)
            for layer in module.layers:
                layer.compile(dynamic=True)
        elif isinstance(module, AVEncoder | FeedForward):
            module.compile(dynamic=True)
        elif isinstance(module, MMBlock):
            module.cross_attention.compile(dynamic=True)
