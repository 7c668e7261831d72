"""DeepMLFConfig: every size and switch of the model, in one object that is checked when it is made.

The settings themselves are declared in `settings.py`.

What only the language model can tell (how many layers it has, its width, how many positions it takes) is
checked when `DeepMLFModel` is built, by `check_against_lm`.
"""

from __future__ import annotations

import copy
import difflib
import inspect
import logging
import re
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from transformers import GenerationConfig, PreTrainedConfig

from .. import __version__
from ..errors import DeepMLFError, did_you_mean
from .settings import KNOBS

_log = logging.getLogger(__name__)

#: Keys that transformers accepts or writes in a config file beside the attributes of its config class.
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


#: Where a config file says which version of the kit wrote it.
_VERSION_KEY = "deepmlf_version"


class DeepMLFConfig(PreTrainedConfig):
    """Sizes and switches of a `DeepMLFModel` (paper, sections 3 and 4).

    Args:
        {knobs}
        kwargs: settings of transformers' own (`PreTrainedConfig`).

    Raises:
        DeepMLFError: a value is outside its bounds (the message gives value, bound and what to do), or a
            setting does not exist (the message suggests one).
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
        "attentions",
        "cross_attentions",
    ]

    def __init__(self, **kwargs: Any) -> None:
        values = {name: kwargs.pop(name, copy.copy(knob.default)) for name, knob in KNOBS.items()}
        kwargs.pop(_VERSION_KEY, None)  # of the file: what is written next is of this version
        _refuse_unknown(kwargs)
        for name, value in values.items():
            KNOBS[name].check_value(value)
        values["lm"] = str(values["lm"])
        values["fusion_layers"] = sorted(int(layer) for layer in values["fusion_layers"])
        values["extra_modalities"] = dict(values["extra_modalities"])
        for name, value in values.items():
            setattr(self, name, value)
        if self.av_width % self.av_heads:
            raise DeepMLFError(
                f"av_heads {self.av_heads} does not divide av_width {self.av_width}: "
                f"choose one of {_divisors(self.av_width)} heads, or another width."
            )
        super().__init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """A config from stored settings, as `from_pretrained` reads them; `kwargs` replace some.

        Stored settings of version 0.1.0 name no `ffw_form`: those models were trained with the product. Attributes that
        somebody gave a config beside its settings come back with it.

        Raises:
            DeepMLFError: as when the config is built from both.
        """
        # `AutoModel.from_pretrained(folder, lm=...)` hands on a language model in memory, which is no setting
        in_memory = {"lm": kwargs.pop("lm")} if not isinstance(kwargs.get("lm", ""), str | Path) else {}
        replaced = {name: kwargs.pop(name) for name in KNOBS if name in kwargs}
        if not kwargs.get("return_unused_kwargs"):
            _refuse_unknown([*in_memory, *(name for name in kwargs if name != "return_unused_kwargs")])
        stored = {"ffw_form": "product", **config_dict, **replaced}
        beside = {name: stored.pop(name) for name in _attributes_beside(stored)}
        loaded: Any = super().from_dict(stored, **kwargs)
        config = loaded[0] if isinstance(loaded, tuple) else loaded
        for name, value in beside.items():
            setattr(config, name, value)
        return (config, loaded[1] | in_memory) if in_memory else loaded

    def to_dict(self) -> dict[str, Any]:
        """All settings, and the version of the kit that knows them."""
        return {**super().to_dict(), _VERSION_KEY: __version__}

    @property
    def output_attentions(self) -> bool | None:
        """Whether a forward returns attention unasked; transformers allows it for eager attention alone, which ours needs not."""
        return self._output_attentions

    @output_attentions.setter
    def output_attentions(self, value: bool | None) -> None:
        self._output_attentions = value

    def validate_output_attentions(self) -> None:
        """Any attention implementation will do."""

    @property
    def modalities(self) -> dict[str, int]:
        """The continuous modalities that the AV encoder reads, and their features per frame."""
        return {"audio": self.audio_dim, "vision": self.vision_dim, **self.extra_modalities}

    @property
    def head_outputs(self) -> int:
        """Outputs of a head: 1 for a sentiment number, else one per class."""
        return self.num_classes or 1

    @property
    def text_is_trained(self) -> bool:
        """Whether text states pass trained modules (an MM Block's feed-forward); otherwise they are the frozen LM's."""
        return self.ffw_on_text and self.ffw != "none"

    @property
    def uses_only_last_text(self) -> bool:
        """Whether the losses use no more than the last text token of the last layer's states."""
        return self.text_is_trained and not self.loss_lm

    def takes_text_first(self, device: str) -> bool:
        """Whether the fast path is taken where it is exact, on a `device` type (`cpu`, `cuda`, ...)."""
        return device == "cpu" if self.text_first is None else self.text_first

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
        needed = self.check_positions(lm_config, ("max_text_tokens", "fusion_tokens"), "max_text_tokens")
        window = getattr(lm_config, "sliding_window", None)
        layer_types = getattr(lm_config, "layer_types", None)
        slides = window is not None and (layer_types is None or "sliding_attention" in layer_types)
        if slides and window < needed:
            raise DeepMLFError(
                f"The LM {name!r} has a sliding attention window of {window} tokens, but text plus fusion tokens "
                f"take {needed}: lower max_text_tokens to at most {window - self.fusion_tokens}."
            )

    def check_positions(self, lm_config: PreTrainedConfig, parts: tuple[str, str], lowered: str) -> int:
        """Refuse a sequence longer than the LM's positions.

        Args:
            lm_config: the (text) config of the LM.
            parts: the two fields that add up to the sequence; a message tells to lower the first.
            lowered: name of the first one's setting.

        Returns:
            The positions needed.

        Raises:
            DeepMLFError: the LM takes fewer.
        """
        rest = getattr(self, parts[1])
        needed = getattr(self, parts[0]) + rest
        allowed = getattr(lm_config, "max_position_embeddings", None)
        if allowed is not None and needed > allowed:
            raise DeepMLFError(
                f"{' + '.join(parts)} is {needed}, but the LM {self.lm!r} takes {allowed} positions: "
                f"lower {lowered} to at most {allowed - rest}."
            )
        return needed


def _refuse_unknown(names: Iterable[str]) -> None:
    """Raise for names that are no setting of transformers' own: a misspelt key would be stored and never read."""
    unknown = _unknown(names)
    if not unknown:
        return
    others = f" ({len(unknown) - 1} more: {', '.join(unknown[1:])})" if len(unknown) > 1 else ""
    raise DeepMLFError(
        f"DeepMLFConfig has no setting {unknown[0]!r}{others}: {did_you_mean(unknown[0], KNOBS)}"
    )


def _unknown(names: Iterable[str]) -> list[str]:
    """The names that are neither a setting of ours nor one of transformers' own."""
    known = {*KNOBS, *_TRANSFORMERS_KEYS, _VERSION_KEY}
    return [n for n in names if not (n.startswith("_") or n in known or hasattr(PreTrainedConfig, n))]


def _attributes_beside(stored: Mapping[str, Any]) -> list[str]:
    """Names in a config file that somebody added to a config.

    In a file of this version of the kit, or of an earlier one that wrote which, an unknown name can be no setting, unless it
    is misspelt: then the right one is missing, or a warning is logged.
    """
    if not _release(__version__) >= _release(stored.get(_VERSION_KEY)) > ():
        return []
    beside = []
    for name in _unknown(stored):
        meant = difflib.get_close_matches(name, KNOBS, n=1)
        if meant and meant[0] not in stored:
            continue
        if meant:
            _log.warning(
                "config.json: %r is no setting of DeepMLFConfig (%r is one): it has no effect", name, *meant
            )
        beside.append(name)
    return beside


def _release(version: object) -> tuple[int, ...]:
    """The numbers of a version such as 0.1.0; () of anything else."""
    found = re.match(r"\d{1,4}(\.\d{1,4}){2}", version) if isinstance(version, str) else None
    return tuple(map(int, found[0].split("."))) if found else ()


def _divisors(n: int) -> list[int]:
    return [i for i in range(1, min(n, 64) + 1) if n % i == 0]


def _document() -> None:
    """Signature and documentation of `DeepMLFConfig`, from the knobs."""
    lines = [
        f"{k.setting}: {k.meaning}{f' ({k.section}.{k.key})' if k.section else ''}." for k in KNOBS.values()
    ]
    wrapped = [textwrap.fill(line, 110, initial_indent=" " * 4, subsequent_indent=" " * 8) for line in lines]
    written = inspect.cleandoc(DeepMLFConfig.__doc__ or "")  # Python 3.13 does so by itself
    DeepMLFConfig.__doc__ = written.replace("    {knobs}", "\n".join(wrapped))
    parameters = [
        inspect.Parameter(k.setting, inspect.Parameter.KEYWORD_ONLY, default=k.default)
        for k in KNOBS.values()
    ]
    parameters.append(inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD))
    DeepMLFConfig.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]


_document()
