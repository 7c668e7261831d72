"""Baselines on the same features, language model and trainer, for a fair table beside DeepMLF.

* text only: the task head's shape on the frozen LM's last text token, no fusion tokens, no MM Blocks;
* AV only: the AV encoder with its linear head (`AVSentimentModel`), which is its pretraining;
* late fusion: the mean of their predictions (`evaluation.late_fusion`).

`training.train(..., model="text")` trains the first, `model="av"` the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import ModelOutput

from ..errors import DeepMLFError
from .config import DeepMLFConfig
from .decoder_pass import last_tokens, pick
from .frozen_lm import LanguageStream
from .heads import TaskNorm
from .lm_loading import load_lm, load_tokenizer
from .losses import sentiment_loss
from .text_cache import TextStoreFile, arithmetic


@dataclass
class TextOutput(ModelOutput):
    """What `TextSentimentModel` gives: `loss` (where labels were given), `prediction` [B] or [B, classes]."""

    loss: Tensor | None = None
    prediction: Tensor | None = None


class TextSentimentModel(PreTrainedModel):
    """Text only: Linear(D, 64), norm, ReLU, Linear(64, 1) on the frozen LM's last valid text token.

    Args:
        config: of the fused model it stands beside (`lm`, `task_hidden`, `task_norm`, `num_classes` are read).
        lm, tokenizer: where they are in memory already.
    """

    config_class = DeepMLFConfig
    base_model_prefix = "text"
    main_input_name = "input_ids"

    def __init__(
        self,
        config: DeepMLFConfig,
        lm: PreTrainedModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        super().__init__(config)
        self.language = LanguageStream(lm if lm is not None else load_lm(config))
        self._tokenizer = tokenizer
        self._kept: dict[bytes, Tensor] | None = None
        self._keep_bytes = 0.0
        norm = TaskNorm if config.task_norm == "batch" else nn.LayerNorm
        self.head = nn.Sequential(
            nn.Linear(self.language.width, config.task_hidden),
            norm(config.task_hidden),
            nn.ReLU(),
            nn.Linear(config.task_hidden, config.head_outputs),
        )
        self.post_init()
        self._keys_to_ignore_on_save = {name for name in self.state_dict() if name.startswith("language.")}

    def _init_weights(self, module: nn.Module) -> None:
        """Modules keep torch's own initialisation, and the LM its weights."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The LM's tokenizer."""
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self.config)
        return self._tokenizer

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor | None = None,
        **_: Tensor,
    ) -> TextOutput:
        """Batch as in `DeepMLFModel.forward`; audio and vision are taken and not read.

        Args:
            input_ids, attention_mask: [B, L], padded right.
            labels: [B]; NaN where unknown.
        """
        last_text = self._last_states(input_ids, attention_mask)  # [B, D]
        prediction = self.head(last_text)  # [B, 1]
        prediction = prediction if self.config.num_classes else prediction.squeeze(-1)
        loss = None if labels is None else sentiment_loss(prediction, labels, self.config.num_classes)
        return TextOutput(loss=loss, prediction=prediction)

    def keep_text_states(self, folder: str | Path, gigabytes: float = 1.0) -> None:
        """Compute the last state of a text once and keep it for all epochs: the frozen LM gives it anew otherwise.

        Args:
            folder: not used, a vector a text is small enough for memory.
            gigabytes: the most memory they may take; texts beyond it are computed each time.
        """
        self._kept, self._keep_bytes = {}, gigabytes * 1e9

    def _last_states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The last valid token after the LM's final norm, float32 [B, D]."""
        if self.language.is_trained:
            self._kept = None  # for good: they are no longer what this LM gives
        kept = self._kept
        if kept is None:
            return self._read(input_ids, attention_mask)
        how = arithmetic(input_ids.device, self.language.compiled).encode()
        keys = [how + key for key in TextStoreFile.key(input_ids, attention_mask)]
        new = [i for i, key in enumerate(keys) if key not in kept]
        found = dict(zip(new, self._read(input_ids[new], attention_mask[new]), strict=True)) if new else {}
        for i, state in found.items():
            if (len(kept) + 1) * state.numel() * state.element_size() <= self._keep_bytes:
                kept[keys[i]] = state.cpu()
        rows = [found[i] if i in found else kept[key] for i, key in enumerate(keys)]
        return torch.stack([row.to(input_ids.device) for row in rows])

    def _read(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        last = last_tokens(attention_mask)  # [B]
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).unsqueeze(0)
        states = self.language.decoder(
            inputs_embeds=self.language.embed(input_ids),
            attention_mask=attention_mask,
            position_ids=positions,
            use_cache=False,
        ).last_hidden_state  # [B, L, D]
        return pick(states, last).float()  # [B, D]

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        lm: PreTrainedModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> TextSentimentModel:
        """Load what `save_pretrained` wrote: the head; the LM by its name."""
        folder = Path(folder)
        if not (folder / "model.safetensors").is_file():
            raise DeepMLFError(f"No text baseline at {folder}: expected config.json and model.safetensors.")
        model = cls(DeepMLFConfig.from_pretrained(str(folder)), lm=lm, tokenizer=tokenizer)
        found = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
        if found.unexpected_keys or set(found.missing_keys) - model._keys_to_ignore_on_save:
            raise DeepMLFError(f"The checkpoint at {folder} is not one of the text baseline.")
        return model.eval()
