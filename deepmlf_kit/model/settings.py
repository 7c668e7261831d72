"""Every knob of the model, declared once: its name, default, check and meaning, and its key in a preset.

The dataclasses here are the sections of a preset (`training.presets`) that concern the model; a field's name is the key
in that section. `DeepMLFConfig` takes its keyword arguments, checks and documentation from the same fields, under the
name that `knob` gives first: `fusion.tokens` of a preset is `fusion_tokens` of the configuration.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any, get_type_hints

from ..errors import DeepMLFError
from .modalities import BUILT_IN, modality
from .registry import AV_ENCODERS, FUSION_MECHANISMS, GATES, Registry

Check = Callable[[str, Any], None]


@dataclass(frozen=True)
class Knob:
    """One setting of the model.

    Attributes:
        setting: keyword argument and attribute of `DeepMLFConfig`.
        meaning: for the documentation.
        check: called with the name and a value of the kind; raises `DeepMLFError`.
        kind: type of the values.
        default: of `DeepMLFConfig`.
        section, key: where presets set it; empty where they do not.
    """

    setting: str
    meaning: str
    check: Check | None
    kind: Any
    default: Any
    section: str = ""
    key: str = ""

    def check_value(self, value: Any) -> None:
        """Refuse a value of another type or out of bounds.

        Raises:
            DeepMLFError: it is.
        """
        if not _is_of_kind(value, self.kind):
            kind = (
                getattr(self.kind, "__name__", str(self.kind))
                if "[" not in str(self.kind)
                else str(self.kind)
            )
            raise DeepMLFError(f"{self.setting} is {value!r:.80}, but must be of the type {kind}: set it so.")
        if self.check is not None:
            self.check(self.setting, value)


def knob(
    setting: str, default: Any, meaning: str, check: Check | None = None, *, preset: Any = MISSING
) -> Any:
    """A dataclass field that declares a knob.

    Args:
        setting: its name in `DeepMLFConfig`.
        default: of `DeepMLFConfig`, and of presets.
        meaning: one line for the documentation.
        check: of a value.
        preset: the default of presets, where it is another one.
    """
    metadata = {"knob": (setting, default, meaning, check)}
    default = default if preset is MISSING else preset
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def _is_of_kind(value: Any, kind: Any) -> bool:
    """Whether a value, of Python or from a JSON file, is of a knob's type; numbers must be finite."""
    if value is None:
        return kind in (str | None, int | None, bool | None)
    if kind in (bool, bool | None) or isinstance(value, bool):
        return kind in (bool, bool | None) and isinstance(value, bool)
    if kind in (int, int | None):
        return isinstance(value, Integral)
    if kind is float:
        return isinstance(value, Real) and math.isfinite(value)
    if kind == list[int]:
        listed = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
        return listed and all(_is_of_kind(item, int) for item in value)
    if kind == dict[str, int]:
        return isinstance(value, Mapping) and all(
            isinstance(key, str) and _is_of_kind(item, int) for key, item in value.items()
        )
    return isinstance(value, str | Path)


def one_of(*allowed: Any) -> Check:
    """The value is one of a few."""

    def check(name: str, value: Any) -> None:
        if value not in allowed:
            raise DeepMLFError(
                f"{name} is {value!r}, but must be one of {', '.join(map(repr, allowed))}: choose one."
            )

    return check


def registered(registry: Registry) -> Check:
    """The value names a registered part."""
    return lambda _, value: registry.check(value)


def positive(name: str, value: Any) -> None:
    """The value is at least 1."""
    if value < 1:
        raise DeepMLFError(f"{name} is {value}, but must be at least 1: set it higher.")


def at_most(limit: int) -> Check:
    """The value lies from 1 to a limit, beyond which it could only fill the memory."""

    def check(name: str, value: Any) -> None:
        positive(name, value)
        if value > limit:
            raise DeepMLFError(f"{name} is {value}, but must be at most {limit}: set it lower.")

    return check


def share(name: str, value: Any) -> None:
    """The value lies in [0, 1]."""
    if not 0 <= value <= 1:
        raise DeepMLFError(f"{name} is {value}, but is a share: choose from 0 to 1.")


def _distinct_layers(name: str, value: Sequence[int]) -> None:
    layers = sorted(int(layer) for layer in value)
    if not layers:
        raise DeepMLFError(f"{name} is empty, but fusion needs at least one LM layer: name one or more.")
    if len(set(layers)) != len(layers):
        raise DeepMLFError(f"{name} {layers} names a layer twice: name each layer once.")
    if layers[0] < 0:
        raise DeepMLFError(f"{name} {layers} has a negative entry, but layers count from 0: name them so.")


def _classes(name: str, value: int) -> None:
    if value == 1 or value < 0:
        raise DeepMLFError(f"{name} is {value}, but must be 0 (a sentiment number) or at least 2 (classes).")


def _modalities(name: str, value: dict[str, int]) -> None:
    for key, features in value.items():
        if key in BUILT_IN:
            raise DeepMLFError(f"{name} names {key!r}, which is built in: set {key}_dim instead.")
        modality(key)
        positive(f"{name}[{key!r}]", features)


@dataclass(frozen=True)
class LanguageModel:
    """The frozen decoder language model."""

    name: str = knob(
        "lm",
        "embedded",
        "`embedded` (the kit's own), `smollm2` (after `deepmlf fetch`), a Hugging Face name or a local folder",
    )
    revision: str | None = knob(
        "lm_revision", None, "branch, tag or commit of the LM; filled in with what was loaded"
    )
    gguf_file: str | None = knob(
        "lm_gguf_file", None, "name of a GGUF file inside the LM's repository or folder"
    )
    dtype: str = knob(
        "lm_dtype",
        "float32",
        "precision of the frozen LM: `float32`, `bfloat16` or `float16`",
        one_of("float32", "bfloat16", "float16"),
    )
    bits: int = knob("lm_bits", 16, "16, or 8 or 4 to load the LM through bitsandbytes", one_of(16, 8, 4))


@dataclass(frozen=True)
class Fusion:
    """Fusion tokens and MM Blocks."""

    layers: list[int] = knob(  # noqa: RUF009 (a dataclass field)
        "fusion_layers",
        [3, 4, 5, 6, 7],
        "LM layers, from 0, after which an MM Block stands",
        _distinct_layers,
    )
    tokens: int = knob("fusion_tokens", 8, "F, the number of fusion tokens", positive)
    mechanism: str = knob(
        "fusion_mechanism",
        "cross_attention",
        "how fusion tokens read the AV states: `cross_attention` (published) or a registered one",
        registered(FUSION_MECHANISMS),
    )
    heads: int = knob(
        "cross_attention_heads",
        16,
        "heads of the gated cross-attention; must divide the LM's width D",
        positive,
    )
    attention_scale: str = knob(
        "attention_scale",
        "width",
        "`width` divides scores by sqrt(D) as published, `head` by sqrt(D / heads)",
        one_of("width", "head"),
    )
    dropout: float = knob(
        "attention_dropout", 0.1, "dropout on the cross-attention's weights and output", share
    )
    gating: str = knob(
        "gating", "sigmoid", "`sigmoid` (published), `tanh`, `none` or a registered gate", registered(GATES)
    )
    gate_init: float = knob("gate_init", 0.0, "starting value of both gates, before the gating function")
    ffw: str = knob(
        "ffw",
        "full",
        "the MM Block's feed-forward: `full` (a trained copy of the LM layer's own), `lora` (LoRA on its shared frozen "
        "weights) or `none` (ablation)",
        one_of("full", "lora", "none"),
    )
    ffw_form: str = knob(
        "ffw_form",
        "sum",
        "how the feed-forward joins the two branches of a gated LM's (Llama, Qwen, Gemma): `sum`, act(gate) + up, as in "
        "the authors' program and better in training (docs/experiments.md), or `product`, act(gate) * up, as in the LM",
        one_of("sum", "product"),
    )
    lora_r: int = knob("lora_r", 16, "LoRA's rank", positive)
    lora_alpha: float = knob("lora_alpha", 32.0, "LoRA's scale")
    lora_dropout: float = knob("lora_dropout", 0.05, "LoRA's dropout", share)
    ffw_on_text: bool = knob(
        "ffw_on_text",
        True,
        "whether the feed-forward also runs on text tokens, as published; False leaves the language stream exactly the "
        "frozen LM's",
    )


@dataclass(frozen=True)
class AVEncoderSettings:
    """The audio-visual encoder."""

    audio_dim: int = knob("audio_dim", 25, "da, audio features per frame", positive)
    vision_dim: int = knob("vision_dim", 58, "dv, vision features per frame", positive)
    extra_modalities: dict[str, int] = knob(  # noqa: RUF009 (a dataclass field)
        "extra_modalities", {}, "features per frame of further registered modalities, by name", _modalities
    )
    kind: str = knob(
        "av_encoder",
        "transformer",
        "`transformer` (published) or a registered AV encoder",
        registered(AV_ENCODERS),
    )
    steps: int = knob(
        "av_steps", 50, "K, the number of AV steps that each modality is pooled to", at_most(4096)
    )
    width: int = knob("av_width", 30, "d, the AV encoder's width", positive)
    layers: int = knob("av_layers", 3, "the AV encoder's depth", positive)
    heads: int = knob("av_heads", 6, "the AV encoder's heads; must divide its width", positive)
    dropout: float = knob("av_dropout", 0.1, "the AV encoder's dropout", share)
    batchnorm: bool = knob("av_batchnorm", False, "BatchNorm over the raw features (the SIMS recipe)")
    trainable: bool = knob("av_trainable", True, "False freezes the AV encoder (after its pretraining)")
    missing_modality: str = knob(
        "missing_modality",
        "learned",
        "what replaces a missing modality: a `learned` vector or `zero`",
        one_of("learned", "zero"),
    )


@dataclass(frozen=True)
class Heads:
    """The heads."""

    task_hidden: int = knob("task_hidden", 64, "hidden units of the task head", positive)
    task_norm: str = knob(
        "task_norm",
        "batch",
        "normalisation in the task head: `batch` (published), or `layer`, which makes a run on several processes equal "
        "to one on a single process",
        one_of("batch", "layer"),
    )
    classes: int = knob(
        "num_classes",
        0,
        "0 for a sentiment number (L1 losses), else that many classes (cross-entropy losses; then select_on: loss)",
        _classes,
    )


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss terms beside the task's own."""

    fusion: float = knob("loss_fusion", 0.4, "l_fusion, weight of the fusion head's loss", preset=1.0)
    av: float = knob("loss_av", 0.8, "l_av, weight of the AV head's loss", preset=1.0)
    text: float = knob("loss_text", 0.8, "l_text, weight of the text head's loss", preset=1.0)
    lm: float = knob("loss_lm", 0.0, "gamma, weight of the LM loss")


@dataclass(frozen=True)
class SeqAugSettings:
    """SeqAug: permute feature dimensions along time, in training."""

    text_p_feat: float = knob(
        "seqaug_text_p_feat", 0.0, "share of the text embeddings' dimensions that SeqAug permutes", share
    )
    text_p_apply: float = knob("seqaug_text_p_apply", 0.0, "probability of SeqAug on text, per batch", share)
    av_p_feat: float = knob(
        "seqaug_av_p_feat",
        0.2,
        "share of audio and vision features that SeqAug permutes, at every step",
        share,
    )


@dataclass(frozen=True)
class TextLength:
    """Longest text."""

    max_text_tokens: int = knob(
        "max_text_tokens",
        50,
        "the longest text, in tokens; fusion token i stands at position `max_text_tokens + i` whatever the text's length",
        at_most(1_000_000),
    )


@dataclass(frozen=True)
class Compute:
    """Faster ways to compute the same result."""

    text_first: bool | None = knob(
        "text_first",
        None,
        "the fast path: the text passes the layers below the first MM Block without a gradient, and the fusion tokens "
        "follow against its keys and values; None: on CPUs alone, since on a GPU its more and smaller steps take longer",
    )


@dataclass(frozen=True)
class _NotInPresets:
    """Knobs that no section of a preset sets."""

    pad_token_id: int | None = knob(
        "pad_token_id",
        None,
        "the token at padded text positions, a target of the LM loss; None: the tokenizer's, filled in when first needed",
    )
    ffw_as_published: bool = knob(
        "ffw_as_published",
        False,
        "biases of its own and exact GELU in the feed-forward, as in the authors' checkpoints; set by `convert`, not "
        "meant for training",
    )
    gradient_checkpointing_layers: bool = knob(
        "gradient_checkpointing_layers",
        False,
        "recompute LM layers and MM Blocks in the backward pass to save memory (`training.gradient_checkpointing` of a "
        "preset)",
    )


SECTIONS: dict[str, type] = {
    "lm": LanguageModel,
    "fusion": Fusion,
    "av_encoder": AVEncoderSettings,
    "heads": Heads,
    "loss": LossWeights,
    "seqaug": SeqAugSettings,
    "data": TextLength,
    "compute": Compute,
}


def _collect() -> dict[str, Knob]:
    found = {}
    for section, cls in [*SECTIONS.items(), ("", _NotInPresets)]:
        kinds = get_type_hints(cls)
        for each in fields(cls):
            setting, default, meaning, check = each.metadata["knob"]
            assert setting not in found, f"{setting} is declared twice"
            key = each.name if section else ""
            found[setting] = Knob(setting, meaning, check, kinds[each.name], default, section, key)
    return found


#: Every knob by its name in `DeepMLFConfig`.
KNOBS = _collect()
