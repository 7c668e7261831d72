"""Dry run: sizes, fusion points, memory and time of a training, from configs alone and before anything is downloaded.

The model is built on PyTorch's meta device, which knows shapes and holds no numbers, from the language model's config
(a few kilobytes; for the presets' models it comes with the kit); so a wrong fusion layer or head count is refused here,
in a second. Weights, gradients and optimiser states are counted; activations follow a rule (`_activation_bytes`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from ..model.config import DeepMLFConfig
from ..model.deepmlf import DeepMLFModel
from ..model.feed_forward import is_projection
from ..model.known_lms import lm_shape

if TYPE_CHECKING:
    from .presets import Preset

#: Bytes of a trained fp32 weight, of its gradient, and of AdamW's two moments.
TRAINED_BYTES = {"trained weights": 4, "gradients": 4, "optimiser": 8}


@dataclass(frozen=True)
class ModelPlan:
    """What `plan_model` finds.

    Attributes:
        lm: class of the language model; `layers`, `width` (D), `vocabulary` its sizes.
        fusion_layers: after which layers an MM Block stands.
        trained: trained weights by part; `frozen` weights of the language model.
        checkpoint_bytes: of the trained weights on disk (fp32).
        memory: bytes of a training on one device by part: `language model`, `trained weights`, `gradients`,
            `optimiser` (exact), and `activations` of a batch of the preset's size with texts of `text_tokens` tokens
            (by a rule). Python and its libraries, some hundred megabytes, come on top.
        flops_per_utterance: floating-point operations of a training step, forward and backward, counted from the
            matrix multiplications. An estimate, too.
    """

    lm: str
    layers: int
    width: int
    vocabulary: int
    fusion_layers: list[int]
    trained: dict[str, int]
    frozen: int
    checkpoint_bytes: int
    memory: dict[str, int]
    flops_per_utterance: float
    text_tokens: int
    batch_size: int

    @property
    def batch(self) -> str:
        """The batch that the activations are of, in words."""
        return f"{self.batch_size} utterances of {self.text_tokens} tokens"

    @property
    def memory_bytes(self) -> int:
        """The sum of `memory`."""
        return sum(self.memory.values())

    def seconds(self, utterances: int, flops_per_second: float) -> float:
        """Time of training on so many utterances once, at a rate of operations (`measured_rate`)."""
        return self.flops_per_utterance * utterances / flops_per_second

    def to_text(self, flops_per_second: float | None = None) -> str:
        """The plan to read."""
        total = sum(self.trained.values())
        marks = "".join("F" if i in self.fusion_layers else "." for i in range(self.layers))
        lines = [
            f"Language model   {self.lm}: {self.layers} layers, width {self.width}, vocabulary {self.vocabulary}",
            f"Fusion           {marks}  (F: an MM Block after this layer; {len(self.fusion_layers)} in all)",
            f"Frozen           {self.frozen:>14,} weights",
            f"Trained          {total:>14,} weights ({total / (total + self.frozen):.1%} of all)",
            *(f"  {name:<15}{count:>14,}" for name, count in self.trained.items()),
            f"Checkpoint       {_size(self.checkpoint_bytes)}",
            f"Memory           about {_size(self.memory_bytes)} to train, besides Python and its libraries",
            *(
                f"  {name:<15}{_size(count):>14}  {'by a rule, ' + self.batch if name == 'activations' else 'counted'}"
                for name, count in self.memory.items()
            ),
            f"Work             about {self.flops_per_utterance / 1e9:.1f} GFLOP an utterance and epoch, from the matrix sizes",
        ]
        if flops_per_second:
            lines.append(
                f"Time             {duration(self.seconds(1000, flops_per_second))} or more for 1,000 utterances and epoch "
                f"here: that work at the {flops_per_second / 1e9:.0f} GFLOP/s just measured for large matrices"
            )
        return "\n".join(lines)


def plan_model(preset: Preset, text_tokens: int | None = None) -> ModelPlan:
    """Plan the fused model of a preset from the config of its language model.

    Args:
        text_tokens: length of a text for the estimates; None: half of `max_text_tokens`.

    Raises:
        DeepMLFError: the config cannot be loaded, or does not fit the preset.
    """
    config = preset.model_config()
    lm_config = lm_shape(config)
    config.check_against_lm(lm_config.get_text_config())
    with torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(lm_config, trust_remote_code=False)
        model = DeepMLFModel(config, lm=lm)
    tokens = text_tokens or max(1, config.max_text_tokens // 2)
    trained = {
        "fusion tokens": model.fusion_tokens.numel(),
        "AV encoder": _trained(model.av_encoder),
        "MM Blocks": _trained(model.mm_blocks),
        "heads": _trained(model.heads),
    }
    frozen = sum(p.numel() for p in lm.parameters())
    total = sum(trained.values())
    language = model.language
    return ModelPlan(
        lm=type(lm).__name__,
        layers=len(language.layers),
        width=language.width,
        vocabulary=lm_config.get_text_config().vocab_size,
        fusion_layers=list(config.fusion_layers),
        trained=trained,
        frozen=frozen,
        checkpoint_bytes=4 * total,
        memory={
            "language model": _lm_bytes(lm, config),
            **{name: total * count for name, count in TRAINED_BYTES.items()},
            "activations": round(preset.training.batch_size * _activation_bytes(model, tokens)),
        },
        flops_per_utterance=_flops(model, tokens),
        text_tokens=tokens,
        batch_size=preset.training.batch_size,
    )


def _lm_bytes(lm: nn.Module, config: DeepMLFConfig) -> int:
    """Memory of the frozen weights; of a quantized LM only the matrices of its layers are small."""
    plain = {"float32": 4, "bfloat16": 2, "float16": 2}[config.lm_dtype]
    head = lm.get_output_embeddings()
    projections = [m for m in lm.modules() if is_projection(m) and m is not head]
    small = sum(p.numel() for m in projections for p in m.parameters() if p.dim() == 2)
    rest = sum(p.numel() for p in lm.parameters()) - small
    return round(rest * plain + small * (plain if config.lm_bits == 16 else config.lm_bits / 8))


def measured_rate(
    seconds: float = 0.2,
    *,
    size: int = 1024,
    device: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> float:
    """Floating-point operations a second of matrix multiplication here, the best of a moment's trials.

    Args:
        seconds: how long to try.
        size: rows and columns of the square matrices.
        device: `cpu` or `cuda`; None: the GPU where there is one.
        dtype: of the numbers.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    a = torch.randn(size, size, device=device, dtype=dtype)
    a @ a
    best, started = float("inf"), time.perf_counter()
    while time.perf_counter() - started < seconds:
        before = time.perf_counter()
        a @ a
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - before)
    return 2 * size**3 / best


def _trained(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _matrices(module: nn.Module) -> int:
    """Weights that a token is multiplied with."""
    return sum(p.numel() for p in module.parameters() if p.dim() >= 2)


def _text_rows(model: DeepMLFModel, index: int, tokens: int) -> int:
    """Text tokens that pass the MM Block after a layer together with the fusion tokens."""
    last = index == len(model.language.layers) - 1
    return 1 if last and model.config.takes_text_first("cpu") and model.config.uses_only_last_text else tokens


def _flops(model: DeepMLFModel, tokens: int) -> float:
    """Two operations a weight and token forward; as many again for the gradient of the input, and of the weight.

    The text goes forward only as far as nothing trained touches it (the kit's fast path).
    """
    config, layers = model.config, model.language.layers
    fused, apart = config.fusion_tokens, model.layers_before_training
    total = 0.0
    for index, layer in enumerate(layers):
        weights = _matrices(layer)
        total += 2 * weights * (2 * fused + (tokens if index < apart else 2 * tokens))
        if str(index) in model.mm_blocks:
            block = model.mm_blocks[str(index)]
            total += 6 * _matrices(block.cross_attention) * fused
            if block.feed_forward is not None:
                inside = _matrices(block.feed_forward)
                text = _text_rows(model, index, tokens)
                rows = fused + (text if config.ffw_on_text else 0)
                total += (6 if config.ffw == "full" else 4) * inside * rows
    total += 6 * _matrices(model.av_encoder) * config.av_steps
    if config.loss_lm:
        total += 4 * model.language.width * model.language.config.vocab_size * tokens
    return total


def _activation_bytes(model: DeepMLFModel, tokens: int) -> float:
    """Of one utterance: what the backward pass needs, in fp32.

    A rule: a token leaves 8 states of width D in an LM layer and 4 in an MM Block (norms, sums, attention), and of every
    matrix of width D four thirds of its other width (products and activations). Against the tensors that autograd
    really keeps it is between 7 % below and 35 % above, in eight models of the embedded LM and GPT-2.
    """
    config, language = model.config, model.language
    width, fused, apart = language.width, config.fusion_tokens, model.layers_before_training
    count = 0.0
    for index, layer in enumerate(language.layers):
        rows = fused + (tokens if index >= apart else 0)
        count += rows * (8 * width + 4 / 3 * _matrices(layer) / width)
        if str(index) not in model.mm_blocks:
            continue
        block = model.mm_blocks[str(index)]
        inside = _matrices(block.feed_forward) / width if block.feed_forward is not None else 0
        text = _text_rows(model, index, tokens)
        rows = fused + (text if config.ffw_on_text else 0)
        count += rows * (4 * width + 4 / 3 * inside)
        # cross-attention
        count += 6 * fused * width + 3 * config.cross_attention_heads * fused * config.av_width
    count += 2 * config.av_layers * config.av_steps * config.av_width * 16
    if config.loss_lm:
        count += 3 * tokens * language.config.vocab_size
    return 4 * count


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, in words."""
    for unit, length in (("s", 60.0), ("min", 60.0)):
        if seconds < 2 * length:
            return f"{seconds:.0f} {unit}"
        seconds /= length
    return f"{seconds:.1f} h"


def _size(count: float) -> str:
    for unit in ("bytes", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
