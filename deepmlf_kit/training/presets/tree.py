"""The tree of settings: one small dataclass a section, each key with its default and meaning.

`MODEL_KEYS` says which `DeepMLFConfig` argument a key becomes; everything else is read by training and data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ... import model
from ...errors import DeepMLFError
from ..recipe import Recipe
from ..scales import SCALES
from .parsing import override

if TYPE_CHECKING:
    from ...model.config import DeepMLFConfig


@dataclass(frozen=True)
class LanguageModel:
    """The frozen decoder language model."""

    name: str = "embedded"  # `embedded`, a Hugging Face name or a local folder
    revision: str | None = None  # branch, tag or commit
    gguf_file: str | None = None  # a GGUF file inside `name`
    dtype: str = "float32"  # float32, bfloat16 or float16
    bits: int = 16  # 8 or 4: through bitsandbytes


@dataclass(frozen=True)
class Fusion:
    """Fusion tokens and MM Blocks."""

    layers: list[int] = field(
        default_factory=lambda: [3, 4, 5, 6, 7]
    )  # LM layers, from 0, before each MM Block
    tokens: int = 8
    heads: int = 16  # of the gated cross-attention
    attention_scale: str = "width"  # width (published) or head
    dropout: float = 0.1
    gating: str = "sigmoid"  # sigmoid (published), tanh or none
    gate_init: float = 0.0  # before the gating function
    ffw: str = "full"  # full, lora or none
    ffw_form: str = (
        "sum"  # sum (published) or product: how the two branches of a gated LM's feed-forward meet
    )
    lora_r: int = 16
    lora_alpha: float = 32.0
    lora_dropout: float = 0.05
    ffw_on_text: bool = True  # false: the language stream is exactly the frozen LM's


@dataclass(frozen=True)
class AVEncoderSettings:
    """The audio-visual encoder."""

    audio_dim: int = 25
    vision_dim: int = 58
    steps: int = 50  # K: audio and vision are pooled to so many steps
    width: int = 30
    layers: int = 3
    heads: int = 6
    dropout: float = 0.1
    batchnorm: bool = False  # BatchNorm over the raw features
    trainable: bool = True  # false: frozen after its pretraining
    missing_modality: str = "learned"  # learned or zero


@dataclass(frozen=True)
class Heads:
    """The heads."""

    task_hidden: int = 64
    task_norm: str = "batch"  # batch (published) or layer
    classes: int = 0  # 0: a sentiment number; 3: negative, neutral, positive (then select_on: loss)


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss terms beside the task's own."""

    fusion: float = 1.0
    av: float = 1.0
    text: float = 1.0
    lm: float = 0.0


@dataclass(frozen=True)
class SeqAugSettings:
    """SeqAug: permute feature dimensions along time, in training."""

    text_p_feat: float = 0.0  # share of the text embeddings' dimensions
    text_p_apply: float = 0.0  # probability per batch
    av_p_feat: float = 0.2  # share of audio and vision features, at every step


@dataclass(frozen=True)
class Data:
    """How the data is read and scored."""

    scale: str = "mosi"  # rules of the metrics: mosi, mosei or sims
    max_text_tokens: int = 50
    normalize: str = "none"  # none, or train: by the training split's mean and deviation per feature


@dataclass(frozen=True)
class Compute:
    """Ways to compute the same thing faster."""

    text_first: bool = True  # text states below the first MM Block without a gradient


@dataclass(frozen=True)
class Preset:
    """Everything that a run needs beside its data and its seed."""

    name: str = "custom"
    description: str = ""
    lm: LanguageModel = field(default_factory=LanguageModel)
    fusion: Fusion = field(default_factory=Fusion)
    av_encoder: AVEncoderSettings = field(default_factory=AVEncoderSettings)
    heads: Heads = field(default_factory=Heads)
    loss: LossWeights = field(default_factory=LossWeights)
    seqaug: SeqAugSettings = field(default_factory=SeqAugSettings)
    data: Data = field(default_factory=Data)
    compute: Compute = field(default_factory=Compute)
    training: Recipe = field(default_factory=Recipe)
    pretraining: Recipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        if self.data.scale not in SCALES:
            raise DeepMLFError(f"data.scale is {self.data.scale!r}, but must be one of {', '.join(SCALES)}.")
        if self.data.normalize not in ("none", "train"):
            raise DeepMLFError(f"data.normalize is {self.data.normalize!r}, but must be none or train.")
        by_mae = [name for name in ("training", "pretraining") if getattr(self, name).select_on == "mae"]
        if self.heads.classes and by_mae:
            raise DeepMLFError(
                f"{' and '.join(f'{name}.select_on' for name in by_mae)}: mae, but a model of {self.heads.classes} "
                f"classes has no MAE: add {' '.join(f'--set {name}.select_on=loss' for name in by_mae)}."
            )

    def model_config(self) -> DeepMLFConfig:
        """The `DeepMLFConfig` these settings describe.

        Raises:
            DeepMLFError: a size or switch is outside its bounds.
        """
        arguments = {}
        for section, keys in MODEL_KEYS.items():
            for key, argument in keys.items():
                arguments[argument] = getattr(getattr(self, section), key)
        return model.DeepMLFConfig(
            **arguments, gradient_checkpointing_layers=self.training.gradient_checkpointing
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, as written to YAML and read back by `load_preset`."""
        return _plain(asdict(self))

    def with_overrides(self, overrides: Sequence[str] | dict[str, Any]) -> Preset:
        """A copy with some keys changed, e.g. `["fusion.tokens=12"]` or `{"fusion.tokens": 12}`."""
        return override(self, self.to_dict(), overrides)


#: section -> key -> argument of DeepMLFConfig
MODEL_KEYS: dict[str, dict[str, str]] = {
    "lm": {
        "name": "lm",
        "revision": "lm_revision",
        "gguf_file": "lm_gguf_file",
        "dtype": "lm_dtype",
        "bits": "lm_bits",
    },
    "fusion": {
        "layers": "fusion_layers",
        "tokens": "fusion_tokens",
        "heads": "cross_attention_heads",
        "attention_scale": "attention_scale",
        "dropout": "attention_dropout",
        "gating": "gating",
        "gate_init": "gate_init",
        "ffw": "ffw",
        "ffw_form": "ffw_form",
        "lora_r": "lora_r",
        "lora_alpha": "lora_alpha",
        "lora_dropout": "lora_dropout",
        "ffw_on_text": "ffw_on_text",
    },
    "av_encoder": {
        "audio_dim": "audio_dim",
        "vision_dim": "vision_dim",
        "steps": "av_steps",
        "width": "av_width",
        "layers": "av_layers",
        "heads": "av_heads",
        "dropout": "av_dropout",
        "batchnorm": "av_batchnorm",
        "trainable": "av_trainable",
        "missing_modality": "missing_modality",
    },
    "heads": {"task_hidden": "task_hidden", "task_norm": "task_norm", "classes": "num_classes"},
    "loss": {"fusion": "loss_fusion", "av": "loss_av", "text": "loss_text", "lm": "loss_lm"},
    "seqaug": {
        "text_p_feat": "seqaug_text_p_feat",
        "text_p_apply": "seqaug_text_p_apply",
        "av_p_feat": "seqaug_av_p_feat",
    },
    "data": {"max_text_tokens": "max_text_tokens"},
    "compute": {"text_first": "text_first"},
}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
