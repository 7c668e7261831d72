"""DeepMLFConfig: every size and switch of the model, in one object that is checked when it is made.

What only the language model can tell (how many layers it has, its width, how many positions it takes) is
checked when `DeepMLFModel` is built, by `check_against_lm`.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from transformers import GenerationConfig, PreTrainedConfig

from ..errors import DeepMLFError

GATINGS = ("sigmoid", "tanh", "none")
FEED_FORWARDS = ("full", "lora", "none")
FFW_FORMS = ("sum", "product")
ATTENTION_SCALES = ("width", "head")
TASK_NORMS = ("batch", "layer")
MISSING_MODALITIES = ("learned", "zero")
#: What transformers takes or writes in a config file beside the attributes of its config class.
_TRANSFORMERS_KEYS = {
    *GenerationConfig().to_dict(),
    "attn_implementation",
    "auto_map",
    "experts_implementation",
    "keys_to_ignore_at_inference",
    "per_layer_config",
    "quantization_config",
    "task_specific_params",
    "tie_last_hidden_states",
    "tie_word_embeddings",
    "tokenizer_class",
}


class DeepMLFConfig(PreTrainedConfig):
    """Sizes and switches of a `DeepMLFModel` (paper, sections 3 and 4).

    Args:
        lm: the frozen decoder language model: `"embedded"` (the kit's own), a Hugging Face name such as
            `"gpt2"`, or a local folder.
        lm_revision: branch, tag or commit of the LM; filled in with the commit that was loaded.
        lm_gguf_file: name of a GGUF file inside `lm`.
        lm_dtype: `"float32"`, `"bfloat16"` or `"float16"`: the precision the frozen LM is kept in.
        lm_bits: 16 for the plain LM, 8 or 4 to load it through bitsandbytes.
        pad_token_id: the token that padded text positions hold, a target of the LM loss; None: the tokenizer's,
            filled in when first needed.
        fusion_layers: LM layers (counted from 0) after which an MM Block stands.
        fusion_tokens: F, the number of fusion tokens.
        max_text_tokens: the longest text, in tokens. Fusion token i stands at position
            `max_text_tokens + i` whatever the text's own length.
        cross_attention_heads: heads of the gated cross-attention; must divide the LM's width D.
        attention_scale: `"width"` divides scores by sqrt(D) as published, `"head"` by sqrt(D / heads).
        attention_dropout: dropout on the cross-attention's weights and output.
        gating: `"sigmoid"` (published), `"tanh"` or `"none"`.
        gate_init: starting value of both gates, before the gating function.
        ffw: the MM Block's feed-forward: `"full"` (a trained copy of the LM layer's own), `"lora"` (LoRA on
            its shared frozen weights) or `"none"` (ablation).
        ffw_form: how the MM Block's feed-forward joins the two branches of a gated LM's (Llama, Qwen, Gemma):
            `"sum"`, act(gate) + up, as in the authors' program and better in training (docs/experiments.md), or
            `"product"`, act(gate) * up, as in the LM itself. Without effect where the LM's is not gated (GPT-2, OPT).
        lora_r, lora_alpha, lora_dropout: LoRA's rank, scale and dropout.
        ffw_on_text: whether the feed-forward also runs on text tokens, as published. False leaves the
            language stream exactly the frozen LM's.
        ffw_as_published: biases of its own and exact GELU in the feed-forward, as in the authors'
            checkpoints; set by `convert`, not meant for training.
        audio_dim, vision_dim: feature dimensions da and dv.
        av_steps: K, the number of AV steps that audio and vision are pooled to.
        av_width, av_layers, av_heads, av_dropout: the AV encoder's d, depth, heads and dropout.
        av_batchnorm: BatchNorm over the raw features (the SIMS recipe).
        av_trainable: False keeps the AV encoder frozen (it then wants a pretraining checkpoint).
        missing_modality: what stands for a missing modality: a `"learned"` vector or `"zero"`.
        task_hidden: hidden units of the task head.
        task_norm: `"batch"` (published) or `"layer"` normalisation in the task head; `"layer"` makes a run on
            several processes equal to one on a single process.
        num_classes: 0 for a sentiment number (L1 losses), else that many classes (cross-entropy losses).
        loss_fusion, loss_av, loss_text, loss_lm: weights of the loss terms beside the task's (l_fusion,
            l_av, l_text and gamma in the paper).
        seqaug_text_p_feat, seqaug_text_p_apply: SeqAug on text embeddings: share of feature dimensions,
            probability per batch.
        seqaug_av_p_feat: SeqAug on raw audio and vision, at every training step.
        text_first: the fast path: the text runs through the layers below the first MM Block without a
            gradient and the fusion tokens follow against its keys and values. Equal to the plain path.
        gradient_checkpointing_layers: recompute LM layers and MM Blocks in the backward pass to save memory.
        kwargs: settings of transformers' own (`PreTrainedConfig`).

    Raises:
        DeepMLFError: a value is outside its bounds (the message says the value, the bound and what to do), or a
            setting does not exist (it says which was probably meant).
    """

    model_type = "deepmlf"
    #: Fields of `DeepMLFOutput` that a stock `Trainer` leaves out of its predictions: all but the prediction.
    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        "text_prediction",
        "fusion_prediction",
        "av_prediction",
        "loss_task",
        "loss_fusion",
        "loss_av",
        "loss_text",
        "loss_lm",
        "lm_logits",
        "text_states",
        "fusion_states",
        "av_states",
        "av_mask",
        "hidden_states",
        "cross_attentions",
    ]

    def __init__(
        self,
        lm: str = "embedded",
        lm_revision: str | None = None,
        lm_gguf_file: str | None = None,
        lm_dtype: str = "float32",
        lm_bits: int = 16,
        pad_token_id: int | None = None,
        fusion_layers: Sequence[int] = (3, 4, 5, 6, 7),
        fusion_tokens: int = 8,
        max_text_tokens: int = 50,
        cross_attention_heads: int = 16,
        attention_scale: str = "width",
        attention_dropout: float = 0.1,
        gating: str = "sigmoid",
        gate_init: float = 0.0,
        ffw: str = "full",
        ffw_form: str = "sum",
        lora_r: int = 16,
        lora_alpha: float = 32.0,
        lora_dropout: float = 0.05,
        ffw_on_text: bool = True,
        ffw_as_published: bool = False,
        audio_dim: int = 25,
        vision_dim: int = 58,
        av_steps: int = 50,
        av_width: int = 30,
        av_layers: int = 3,
        av_heads: int = 6,
        av_dropout: float = 0.1,
        av_batchnorm: bool = False,
        av_trainable: bool = True,
        missing_modality: str = "learned",
        task_hidden: int = 64,
        task_norm: str = "batch",
        num_classes: int = 0,
        loss_fusion: float = 0.4,
        loss_av: float = 0.8,
        loss_text: float = 0.8,
        loss_lm: float = 0.0,
        seqaug_text_p_feat: float = 0.0,
        seqaug_text_p_apply: float = 0.0,
        seqaug_av_p_feat: float = 0.2,
        text_first: bool = True,
        gradient_checkpointing_layers: bool = False,
        **kwargs: Any,
    ) -> None:
        _refuse_unknown(kwargs)
        self.lm = str(lm)
        self.lm_revision = lm_revision
        self.lm_gguf_file = lm_gguf_file
        self.lm_dtype = lm_dtype
        self.lm_bits = lm_bits
        self.pad_token_id = pad_token_id
        self.fusion_layers = sorted(int(layer) for layer in fusion_layers)
        self.fusion_tokens = fusion_tokens
        self.max_text_tokens = max_text_tokens
        self.cross_attention_heads = cross_attention_heads
        self.attention_scale = attention_scale
        self.attention_dropout = attention_dropout
        self.gating = gating
        self.gate_init = gate_init
        self.ffw = ffw
        self.ffw_form = ffw_form
        self.lora_r = lora_r
        self.lora_alpha = lora_alpha
        self.lora_dropout = lora_dropout
        self.ffw_on_text = ffw_on_text
        self.ffw_as_published = ffw_as_published
        self.audio_dim = audio_dim
        self.vision_dim = vision_dim
        self.av_steps = av_steps
        self.av_width = av_width
        self.av_layers = av_layers
        self.av_heads = av_heads
        self.av_dropout = av_dropout
        self.av_batchnorm = av_batchnorm
        self.av_trainable = av_trainable
        self.missing_modality = missing_modality
        self.task_hidden = task_hidden
        self.task_norm = task_norm
        self.num_classes = num_classes
        self.loss_fusion = loss_fusion
        self.loss_av = loss_av
        self.loss_text = loss_text
        self.loss_lm = loss_lm
        self.seqaug_text_p_feat = seqaug_text_p_feat
        self.seqaug_text_p_apply = seqaug_text_p_apply
        self.seqaug_av_p_feat = seqaug_av_p_feat
        self.text_first = text_first
        self.gradient_checkpointing_layers = gradient_checkpointing_layers
        self._check()
        super().__init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """A config from stored settings, as `from_pretrained` reads them; `kwargs` replace some.

        Stored settings of version 0.1.0 name no `ffw_form`: those models were trained with the product.

        Raises:
            DeepMLFError: as when the config is built from both.
        """
        replaced = {name: kwargs.pop(name) for name in _settings() if name in kwargs}
        if not kwargs.get("return_unused_kwargs"):
            _refuse_unknown(name for name in kwargs if name != "return_unused_kwargs")
        return super().from_dict({"ffw_form": "product", **config_dict, **replaced}, **kwargs)

    def _check(self) -> None:
        _one_of("gating", self.gating, GATINGS)
        _one_of("ffw", self.ffw, FEED_FORWARDS)
        _one_of("ffw_form", self.ffw_form, FFW_FORMS)
        _one_of("attention_scale", self.attention_scale, ATTENTION_SCALES)
        _one_of("task_norm", self.task_norm, TASK_NORMS)
        _one_of("missing_modality", self.missing_modality, MISSING_MODALITIES)
        _one_of("lm_dtype", self.lm_dtype, ("float32", "bfloat16", "float16"))
        _one_of("lm_bits", self.lm_bits, (16, 8, 4))
        for name in (
            "fusion_tokens",
            "max_text_tokens",
            "cross_attention_heads",
            "audio_dim",
            "vision_dim",
            "av_steps",
            "av_width",
            "av_layers",
            "av_heads",
            "task_hidden",
            "lora_r",
        ):
            if getattr(self, name) < 1:
                raise DeepMLFError(f"{name} is {getattr(self, name)}, but must be at least 1: set it higher.")
        for name in (
            "attention_dropout",
            "lora_dropout",
            "av_dropout",
            "seqaug_text_p_feat",
            "seqaug_text_p_apply",
            "seqaug_av_p_feat",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise DeepMLFError(f"{name} is {getattr(self, name)}, but is a share: choose from 0 to 1.")
        if not self.fusion_layers:
            raise DeepMLFError(
                "fusion_layers is empty, but fusion needs at least one LM layer: name one or more."
            )
        if len(set(self.fusion_layers)) != len(self.fusion_layers):
            raise DeepMLFError(
                f"fusion_layers {self.fusion_layers} names a layer twice: name each layer once."
            )
        if self.fusion_layers[0] < 0:
            raise DeepMLFError(
                f"fusion_layers {self.fusion_layers} has a negative entry, but layers count from 0: name them so."
            )
        if self.av_width % self.av_heads:
            raise DeepMLFError(
                f"av_heads {self.av_heads} does not divide av_width {self.av_width}: "
                f"choose one of {_divisors(self.av_width)} heads, or another width."
            )
        if self.num_classes == 1 or self.num_classes < 0:
            raise DeepMLFError(
                f"num_classes is {self.num_classes}, but must be 0 (a sentiment number) or at least 2 (classes)."
            )

    @property
    def head_outputs(self) -> int:
        """Numbers a head gives: 1 for a sentiment number, else one per class."""
        return self.num_classes or 1

    @property
    def text_is_trained(self) -> bool:
        """Whether an MM Block's feed-forward changes text states, which are the frozen LM's own otherwise."""
        return self.ffw_on_text and self.ffw != "none"

    @property
    def reads_only_last_text(self) -> bool:
        """Whether a training step reads no more than the last text token of what the LM's last layer gives."""
        return self.text_first and not self.loss_lm and self.text_is_trained

    def check_against_lm(self, lm_config: PreTrainedConfig) -> None:
        """Refuse what the chosen LM cannot do.

        Args:
            lm_config: the (text) config of the LM.

        Raises:
            DeepMLFError: a fusion layer the LM does not have, more positions than it takes, heads that do not
                divide its width, or a sliding window shorter than text plus fusion tokens.
        """
        name = self.lm
        layers, width = lm_config.num_hidden_layers, lm_config.hidden_size
        if self.fusion_layers[-1] >= layers:
            raise DeepMLFError(
                f"Fusion layer {self.fusion_layers[-1]} was asked for, but the LM {name!r} has {layers} layers "
                f"(0 to {layers - 1}): choose fusion_layers within them."
            )
        if width % self.cross_attention_heads:
            raise DeepMLFError(
                f"cross_attention_heads is {self.cross_attention_heads}, which does not divide the width {width} of "
                f"the LM {name!r}: choose one of {_divisors(width)}."
            )
        needed = self.max_text_tokens + self.fusion_tokens
        allowed = getattr(lm_config, "max_position_embeddings", None)
        if allowed is not None and needed > allowed:
            raise DeepMLFError(
                f"max_text_tokens + fusion_tokens is {needed}, but the LM {name!r} takes {allowed} positions: "
                f"lower max_text_tokens to at most {allowed - self.fusion_tokens}."
            )
        window = getattr(lm_config, "sliding_window", None)
        layer_types = getattr(lm_config, "layer_types", None)
        slides = window is not None and (layer_types is None or "sliding_attention" in layer_types)
        if slides and window < needed:
            raise DeepMLFError(
                f"The LM {name!r} has a sliding attention window of {window} tokens, but text plus fusion tokens "
                f"take {needed}: lower max_text_tokens to at most {window - self.fusion_tokens}."
            )


def _settings() -> list[str]:
    """Names of `DeepMLFConfig`'s own settings."""
    return [name for name in inspect.signature(DeepMLFConfig).parameters if name != "kwargs"]


def _refuse_unknown(names: Iterable[str]) -> None:
    """Raise for names that are no setting of transformers' own: a misspelt key would be kept and never read."""
    unknown = [
        name
        for name in names
        if not (name.startswith("_") or name in _TRANSFORMERS_KEYS or hasattr(PreTrainedConfig, name))
    ]
    if not unknown:
        return
    close = difflib.get_close_matches(unknown[0], _settings(), n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(_settings())}."
    others = f" ({len(unknown) - 1} more: {', '.join(unknown[1:])})" if len(unknown) > 1 else ""
    raise DeepMLFError(f"DeepMLFConfig has no setting {unknown[0]!r}{others}: {hint}")


def _one_of(name: str, value: Any, allowed: Sequence[Any]) -> None:
    if value not in allowed:
        raise DeepMLFError(
            f"{name} is {value!r}, but must be one of {', '.join(map(repr, allowed))}: choose one."
        )


def _divisors(n: int) -> list[int]:
    return [i for i in range(1, min(n, 64) + 1) if n % i == 0]
