"""The tree of settings: one small dataclass a section, each key with its default and meaning.

The sections that concern the model are declared in `model.settings`; everything else is read by training and data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ... import model
from ...errors import DeepMLFError
from ...model.settings import (
    KNOBS,
    AVEncoderSettings,
    Compute,
    Fusion,
    Heads,
    LanguageModel,
    LossWeights,
    SeqAugSettings,
    TextLength,
)
from ..recipe import Recipe
from ..scales import SCALES
from .parsing import override

if TYPE_CHECKING:
    from ...model.config import DeepMLFConfig


@dataclass(frozen=True)
class Data(TextLength):
    """How the data is read and scored."""

    long_texts: str = "end"  # which part of a text beyond max_text_tokens is read: end, or start as published
    full_stop: bool = False  # read a text that ends without a mark with a full stop: then one moves no answer
    scale: str = "mosi"  # rules of the metrics: mosi, mosei or sims
    normalize: str = (
        "none"  # none, train (by the training split's mean and deviation), clip (and voice by its clip)
    )


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
        if self.data.normalize not in ("none", "train", "clip"):
            raise DeepMLFError(f"data.normalize is {self.data.normalize!r}, but must be none, train or clip.")
        if self.data.long_texts not in ("end", "start"):
            raise DeepMLFError(f"data.long_texts is {self.data.long_texts!r}, but must be end or start.")
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
        arguments = {k.setting: getattr(getattr(self, k.section), k.key) for k in KNOBS.values() if k.section}
        return model.DeepMLFConfig(
            **arguments, gradient_checkpointing_layers=self.training.gradient_checkpointing
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, as written to YAML and read back by `load_preset`."""
        return _plain(asdict(self))

    def with_overrides(self, overrides: Sequence[str] | dict[str, Any]) -> Preset:
        """A copy with some keys changed, e.g. `["fusion.tokens=12"]` or `{"fusion.tokens": 12}`."""
        return override(self, self.to_dict(), overrides)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
