"""The MM Block's feed-forward: that LM layer's own, trained as a full copy or by LoRA on its shared weights.

full:   copy of the LM layer's feed-forward, float32, every weight trained
lora:   shared frozen W, plus a trained low-rank path       x ──► W ───────────► + ──► y
                                                            └──► A (r) ──► B ──┘  (times alpha / r)

A gated LM's feed-forward (Llama, Qwen, Gemma) has two branches that meet before the last projection:
product:  down(act(gate(x)) * up(x))     as in the LM
sum:      down(act(gate(x)) + up(x))     as in the authors' program; trains better (docs/experiments.md)
"""

from __future__ import annotations

import copy
import math
from typing import Any

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from .config import DeepMLFConfig


class FeedForward(nn.Module):
    """[B, T, D] -> [B, T, D], started from an LM layer's own feed-forward (paper, section 3.3).

    Args:
        lm_feed_forward: the LM layer's feed-forward; its weights are not changed.
        config: `ffw` says `full` or `lora`; `ffw_form` says how a gated LM's two branches meet.
    """

    def __init__(self, lm_feed_forward: nn.Module, config: DeepMLFConfig) -> None:
        super().__init__()
        body = (_own_copy if config.ffw == "full" else _sharing_copy)(lm_feed_forward)
        if config.ffw_as_published:
            _as_published(body, trained=config.ffw == "full")
        if config.ffw_form == "sum" and is_gated(body):
            body = SummedGate(body)
        if config.ffw == "lora":
            for name, module in list(body.named_modules()):
                if is_projection(module) and ".lora_" not in name:  # nor what PEFT put into the LM
                    body.set_submodule(name, LoRA(module, config))
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        dtype = next(p.dtype for p in self.body.parameters() if p.is_floating_point())
        return self.body(x.to(dtype))


class LoRA(nn.Module):
    """A frozen projection W and a trained path of low rank: W x + (alpha / r) B A x (Hu et al., 2021, arXiv 2106.09685).

    Weights have the names, the start and the precision that PEFT's layer gives them. Not PEFT's own, so that a prediction does
    not wait for its import.

    Args:
        base: the projection; its weights are not changed.
        config: `lora_r`, `lora_alpha`, `lora_dropout`.
    """

    def __init__(self, base: nn.Module, config: DeepMLFConfig) -> None:
        super().__init__()
        ins, outs = (base.nx, base.nf) if isinstance(base, Conv1D) else (base.in_features, base.out_features)
        self.base_layer = base
        self.scaling = config.lora_alpha / config.lora_r
        self.lora_dropout = nn.ModuleDict({"default": nn.Dropout(config.lora_dropout)})
        self.lora_A = nn.ModuleDict({"default": nn.Linear(ins, config.lora_r, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(config.lora_r, outs, bias=False)})
        nn.init.kaiming_uniform_(self.lora_A["default"].weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B["default"].weight)
        precision = base.weight.dtype if base.weight.is_floating_point() else None  # None: quantized
        for path in (self.lora_A, self.lora_B):
            path.to(base.weight.device, precision)

    def forward(self, x: Tensor) -> Tensor:
        given: Tensor = self.base_layer(x)
        down, up = self.lora_A["default"], self.lora_B["default"]
        low = up(down(self.lora_dropout["default"](x.to(down.weight.dtype))))
        return (given + low * self.scaling).to(given.dtype)


class SummedGate(nn.Module):
    """A gated feed-forward whose branches are added: down(act(gate(x)) + up(x)). [B, T, D] -> [B, T, D].

    Its parts keep the names they have in the LM, so that checkpoints of both forms look alike.

    Args:
        gated: a feed-forward for which `is_gated` holds.
    """

    def __init__(self, gated: nn.Module) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = gated.gate_proj, gated.up_proj, gated.down_proj
        self.act_fn = gated.act_fn

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) + self.up_proj(x))


def is_gated(module: nn.Module) -> bool:
    """Whether a feed-forward multiplies two branches, with the parts' names that transformers gives them."""
    return all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj", "act_fn"))


def is_projection(module: nn.Module) -> bool:
    """Whether a module is a plain weight matrix: Linear (quantized ones too) or GPT-2's Conv1D."""
    return isinstance(module, nn.Linear | Conv1D)


def _own_copy(module: nn.Module) -> nn.Module:
    """A copy with weights of its own in float32, trained; quantized weights are turned back into numbers."""
    body = copy.deepcopy(module)
    for name, child in list(body.named_modules()):
        if isinstance(child, nn.Linear) and not child.weight.is_floating_point():
            from peft.utils.integrations import dequantize_module_weight

            plain = nn.Linear(child.in_features, child.out_features, bias=False, device="meta")
            plain.weight = nn.Parameter(dequantize_module_weight(child).detach())
            plain.bias = child.bias
            body.set_submodule(name, plain)
    return body.float().requires_grad_(True)


def _sharing_copy(module: nn.Module) -> nn.Module:
    """A copy of the module tree that shares its tensors: new modules, the same (frozen) weights."""
    shared: list[Any] = [*module.parameters(), *module.buffers()]
    # What bitsandbytes keeps of a quantized weight beside it.
    shared += [
        vars(m)[name] for m in module.modules() for name in ("state", "quant_state") if name in vars(m)
    ]
    return copy.deepcopy(module, memo={id(part): part for part in shared})


def _as_published(body: nn.Module, trained: bool) -> None:
    """Biases of its own and exact GELU, as the authors' GPT-2 checkpoints have them."""
    for name, child in list(body.named_modules()):
        if is_projection(child) and child.bias is not None:
            child.bias = nn.Parameter(child.bias.detach().float().clone(), requires_grad=trained)
        elif "gelu" in type(child).__name__.lower():
            parent = body.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], nn.GELU())
