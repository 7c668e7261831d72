"""Baselines on the same features, language model and trainer, for a fair table beside DeepMLF.

* text only: the task head's shape on the frozen LM's last text token, no fusion tokens, no MM Blocks;
* AV only: the AV encoder with its linear head (`AVSentimentModel`), which is its pretraining;
* late fusion: the mean of their predictions (`evaluation.late_fusion`).

`training.train(..., model="text")` trains the first, `model="av"` the second.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers.utils import can_return_tuple

from .base import LanguageSentimentModel, SentimentOutput
from .config import DeepMLFConfig
from .decoder_pass import last_tokens, select_tokens
from .heads import task_head
from .text_cache import TextCacheFile, arithmetic


class LastTextTokenModel(LanguageSentimentModel):
    """Base of the baselines: the task head on the last valid text token; subclasses say how its state is computed."""

    base_model_prefix = "text"

    def _add_modules(self, config: DeepMLFConfig) -> None:
        self.head = task_head(config, self.language.width)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor | None = None,
        **modalities: Tensor | None,
    ) -> SentimentOutput:
        """Batch as in `DeepMLFModel.forward`.

        Args:
            input_ids, attention_mask: [B, L], padded right.
            labels: [B]; NaN where unknown.
            modalities: `audio`, `audio_mask`, `audio_spans`, `vision`, ...; the text-only baseline ignores them.
        """
        return self._output(self.head(self._last_states(input_ids, attention_mask, **modalities)), labels)

    def _last_states(self, input_ids: Tensor, attention_mask: Tensor, **modalities: Tensor | None) -> Tensor:
        """The last valid token after the LM's final norm, float32 [B, D]."""
        raise NotImplementedError


class TextSentimentModel(LastTextTokenModel):
    """Text only: the head reads the frozen LM's own state of the text.

    Args:
        config: of the fused model it is compared with (`lm`, `task_hidden`, `task_norm`, `num_classes` are read).
        lm, tokenizer: where they are in memory already.
    """

    _cached: dict[bytes, Tensor] | None = None
    _cache_bytes = 0.0

    def cache_text_states(self, folder: str | Path, gigabytes: float = 1.0) -> None:
        """Compute the last state of a text once for all epochs.

        Args:
            folder: not used: one vector per text fits into memory.
            gigabytes: the most memory they may take (10^9 bytes); texts beyond it are computed each time.
        """
        self._cached, self._cache_bytes = {}, gigabytes * 1e9

    def _last_states(self, input_ids: Tensor, attention_mask: Tensor, **_: Tensor | None) -> Tensor:
        if self.language.is_trained:
            self._cached = None  # for good: the cached states are no longer this LM's
        cached = self._cached
        if cached is None:
            return self._compute_last_states(input_ids, attention_mask)
        setting = arithmetic(input_ids.device, self.language.compiled).encode()
        keys = [setting + key for key in TextCacheFile.key(input_ids, attention_mask)]
        new = [i for i, key in enumerate(keys) if key not in cached]
        computed: dict[int, Tensor] = {}
        if new:
            states = self._compute_last_states(input_ids[new], attention_mask[new])
            computed = dict(zip(new, states, strict=True))
        for i, state in computed.items():
            if (len(cached) + 1) * state.numel() * state.element_size() <= self._cache_bytes:
                cached[keys[i]] = state.cpu()
        rows = [computed[i] if i in computed else cached[key] for i, key in enumerate(keys)]
        return torch.stack([row.to(input_ids.device) for row in rows])

    def _compute_last_states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        last = last_tokens(attention_mask)  # [B]
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).unsqueeze(0)
        states = self.language.decoder(
            inputs_embeds=self.language.embed(input_ids),
            attention_mask=attention_mask,
            position_ids=positions,
            use_cache=False,
        ).last_hidden_state  # [B, L, D]
        return select_tokens(states, last).float()  # [B, D]
