"""What the kit's models share: checkpoints without the frozen LM, its tokenizer, a pretrained AV encoder, one head's loss.

SentimentModel                      checkpoints, loss of a single head    AVSentimentModel
└── LanguageSentimentModel          the frozen LM and its tokenizer       text baseline
    └── AVLanguageSentimentModel    and an AV encoder                     DeepMLFModel, fusion baselines
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import ModelOutput

from ..errors import DeepMLFError
from .checkpoints import read_checkpoint
from .config import DeepMLFConfig
from .frozen_lm import LanguageStream
from .lm_loading import IN_MEMORY, load_lm, load_lm_config, load_tokenizer
from .losses import sentiment_loss
from .special_tokens import empty_text_ids, pad_token_id


@dataclass
class SentimentOutput(ModelOutput):
    """Output of a model with a single head: `loss` (with labels), `prediction` [B] or [B, classes]."""

    loss: Tensor | None = None
    prediction: Tensor | None = None


class SentimentModel(PreTrainedModel):
    """Base of all models: `save_pretrained` stores what was trained, `from_pretrained` reads it."""

    config_class = DeepMLFConfig
    supports_gradient_checkpointing = False
    _supports_sdpa = True
    #: For transformers' Trainer: losses are means over a batch, whatever else forward's keyword arguments take.
    accepts_loss_kwargs = False

    def _init_weights(self, module: nn.Module) -> None:
        """Modules keep torch's own initialisation, and the LM its weights."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        config: DeepMLFConfig | None = None,
        revision: str = "main",
        **parts: Any,
    ) -> Self:
        """Load a saved model: its LM by name, its trained weights from a folder or the hub.

        Args:
            pretrained_model_name_or_path: a folder that `save_pretrained` wrote, or a hub name.
            config: replaces the stored config.
            revision: branch, tag or commit on the hub.
            parts: `lm` and `tokenizer`, where they are in memory already.

        Raises:
            DeepMLFError: there is no checkpoint, or its weights are damaged or do not fit the model.
        """
        stored = read_checkpoint(pretrained_model_name_or_path, revision, config)
        stored.check_fits(
            lambda: cls(copy.deepcopy(stored.config), **cls._shapes_of(stored.config, parts)), cls.__name__
        )
        weights = stored.read()
        model = cls(stored.config, **parts)
        model.load_state_dict(weights, strict=False)  # all but the frozen LM's
        return model.eval()

    @classmethod
    def _shapes_of(cls, config: DeepMLFConfig, parts: Mapping[str, Any]) -> dict[str, Any]:
        """The parts that the constructor takes, of shapes alone; called on the meta device."""
        return {}

    def _output(self, prediction: Tensor, labels: Tensor | None) -> SentimentOutput:
        """The output of a single head: prediction [B, outputs], labels [B] or None."""
        classes = self.config.num_classes
        prediction = prediction if classes else prediction.squeeze(-1)
        loss = None if labels is None else sentiment_loss(prediction, labels, classes)
        return SentimentOutput(loss=loss, prediction=prediction)


class LanguageSentimentModel(SentimentModel):
    """Base of the models around a frozen LM; the LM is never stored with them.

    Args:
        config: sizes and switches.
        lm: a language model already in memory; by default the one that `config.lm` names is loaded.
        tokenizer: its tokenizer; by default loaded from where the LM comes from, when first needed.
    """

    main_input_name = "input_ids"

    def __init__(
        self,
        config: DeepMLFConfig,
        lm: PreTrainedModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        super().__init__(config)
        if lm is None:
            lm = load_lm(config)
        elif config.lm == DeepMLFConfig().lm:
            config.lm = lm.config._name_or_path or IN_MEMORY
        self._tokenizer = tokenizer
        self.language = LanguageStream(lm)
        self._add_modules(config)
        self.post_init()
        self._keys_to_ignore_on_save = self._lm_keys()

    @classmethod
    def _shapes_of(cls, config: DeepMLFConfig, parts: Mapping[str, Any]) -> dict[str, Any]:
        lm = parts.get("lm")
        if lm is not None:
            shapes: dict[int, Any] = {
                id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in lm.parameters()
            }
            shapes |= {id(buffer): buffer.to("meta") for buffer in lm.buffers()}
            return {"lm": copy.deepcopy(lm, shapes)}
        return {"lm": AutoModelForCausalLM.from_config(load_lm_config(config), trust_remote_code=False)}

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """As of `PreTrainedModel`, without the LM's frozen tensors; adapters that PEFT added to it are stored."""
        self._keys_to_ignore_on_save = self._lm_keys()  # PEFT gives the tensors of adapted layers other names
        super().save_pretrained(*args, **kwargs)

    def _add_modules(self, config: DeepMLFConfig) -> None:
        """Add the modules beside the LM, which `self.language` holds already."""
        raise NotImplementedError

    def cache_text_states(self, folder: str | Path, gigabytes: float = 1.0) -> Any:
        """Compute text states that depend on nothing trained once, for all epochs; here there are none.

        Args:
            folder: of the cached states.
            gigabytes: the most that they may take (10^9 bytes).
        """

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The LM's tokenizer, padding on the right."""
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self.config)
        return self._tokenizer

    @property
    def pad_token_id(self) -> int:
        """The token at padded text positions."""
        if self.config.pad_token_id is None:
            self.config.pad_token_id = pad_token_id(self.tokenizer)
        return self.config.pad_token_id

    @property
    def empty_text_ids(self) -> list[int]:
        """The tokens of a text without words: the tokenizer's, as in the collator's batches.

        An LM in memory that came without a tokenizer reads one padding token.
        """
        unknown = self._tokenizer is None and self.config.lm == IN_MEMORY
        if unknown and self.config.pad_token_id is not None:
            return [self.config.pad_token_id]
        return empty_text_ids(self.tokenizer)

    def _lm_keys(self) -> set[str]:
        """Names of the LM's frozen tensors, the shared ones under MM Blocks among them."""
        lm = self.language.lm
        owned = {id(t) for t in [*lm.parameters(), *lm.buffers()] if not t.requires_grad}
        tensors = [
            *self.named_parameters(remove_duplicate=False),
            *self.named_buffers(remove_duplicate=False),
        ]
        # What is saved beside parameters and buffers belongs to quantized weights, and those are the LM's.
        beside = set(self.state_dict()) - {name for name, _ in tensors}
        return {name for name, tensor in tensors if id(tensor) in owned} | beside


class AVLanguageSentimentModel(LanguageSentimentModel):
    """Base of the models around a frozen LM that also have an `av_encoder`."""

    av_encoder: nn.Module

    def train(self, mode: bool = True) -> Self:
        """Training mode; the frozen LM, and a frozen AV encoder, stay in eval mode."""
        super().train(mode)
        if not self.config.av_trainable:
            self.av_encoder.eval()
        return self

    def load_av_encoder(self, folder: str | Path) -> None:
        """Start the AV encoder from a pretraining checkpoint (the fusion curriculum, paper section 4).

        Args:
            folder: what `AVSentimentModel.save_pretrained` wrote.

        Raises:
            DeepMLFError: there is no such checkpoint, it is damaged, or its sizes differ from this model's.
        """
        if not Path(folder).is_dir():
            raise DeepMLFError(
                f"No AV encoder checkpoint at {str(folder)!r}: expected the folder that `deepmlf pretrain-av` wrote."
            )
        stored = read_checkpoint(folder)
        pretrained = stored.config
        names = ("modalities", "av_encoder", "av_steps", "av_width", "av_layers", "av_heads", "av_batchnorm")
        differing = [
            f"{name} {getattr(pretrained, name)} there, {getattr(self.config, name)} here"
            for name in (*names, "missing_modality")
            if getattr(pretrained, name) != getattr(self.config, name)
        ]
        if differing:
            raise DeepMLFError(
                f"The AV encoder at {str(folder)!r} does not fit this model: {'; '.join(differing)}. "
                "Pretrain one with this model's settings."
            )
        self.av_encoder.load_state_dict(stored.read_part("av_encoder.", self.av_encoder))
