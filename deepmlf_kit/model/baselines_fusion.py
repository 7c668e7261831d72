"""Baselines that fuse on the frozen LM without fusion tokens: soft prompt and cross-attention on language tokens.

* prefix (early concatenation): the AV states, projected to the LM's width, stand before the text as K soft prompt
  tokens, and the LM does the rest;
* flamingo: MM Blocks as DeepMLF's, at the same layers, but the text tokens themselves attend to the AV states.

Both answer by the text-only baseline's head on the last text token and learn from the task's loss alone, on the same
features, language model and trainer as DeepMLF.

    run = train("sample", dataset, "runs/flamingo", model="flamingo", av_encoder=av)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .av_encoder import build_av_encoder
from .base import AVLanguageSentimentModel
from .baselines import LastTextTokenModel
from .config import DeepMLFConfig
from .decoder_pass import last_tokens, select_tokens
from .mm_block import mm_blocks


class _FusionBaseline(LastTextTokenModel, AVLanguageSentimentModel):
    """The last text token is one that the AV states reached; subclasses implement how."""

    def _add_modules(self, config: DeepMLFConfig) -> None:
        super()._add_modules(config)
        self.av_encoder = build_av_encoder(config)
        self._add_fusion()
        self.av_encoder.requires_grad_(config.av_trainable)

    def _last_states(self, input_ids: Tensor, attention_mask: Tensor, **modalities: Tensor | None) -> Tensor:
        last = last_tokens(attention_mask)  # [B]
        av_states, av_mask = self.av_encoder(input_ids.shape[0], **modalities)  # [B, K, d], [B, K]
        states = self._text_states(self.language.embed(input_ids), attention_mask, av_states, av_mask)
        return select_tokens(states, last).float()

    def _add_fusion(self) -> None:
        raise NotImplementedError

    def _text_states(self, text: Tensor, mask: Tensor, av_states: Tensor, av_mask: Tensor) -> Tensor:
        """Text embeddings [B, L, D] -> text states after the LM's final norm [B, L, D]."""
        raise NotImplementedError


class PrefixSentimentModel(_FusionBaseline):
    """Early concatenation: [K AV states as soft prompt tokens ; text] through the frozen LM."""

    def _add_fusion(self) -> None:
        config = self.config
        config.check_positions(self.language.config, ("av_steps", "max_text_tokens"), "av_encoder.steps")
        self.project = nn.Linear(config.av_width, self.language.width)

    def _text_states(self, text: Tensor, mask: Tensor, av_states: Tensor, av_mask: Tensor) -> Tensor:
        prompt = self.project(av_states).to(text.dtype)  # [B, K, D]; a missing step holds its learned vector
        together = torch.cat([prompt, text], dim=1)  # [B, K + L, D]
        steps = prompt.shape[1]
        states = self.language.decoder(
            inputs_embeds=together,
            attention_mask=torch.cat([mask.new_ones(mask.shape[0], steps), mask], dim=1),
            position_ids=torch.arange(together.shape[1], device=text.device).unsqueeze(0),
            use_cache=False,
        ).last_hidden_state
        return states[:, steps:]


class FlamingoSentimentModel(_FusionBaseline):
    """Cross-attention on language tokens: MM Blocks at the fusion layers in which the text attends to the AV states."""

    def _add_fusion(self) -> None:
        self.config.check_against_lm(self.language.config)
        self.mm_blocks = mm_blocks(self.config, self.language)

    def _text_states(self, text: Tensor, mask: Tensor, av_states: Tensor, av_mask: Tensor) -> Tensor:
        positions = torch.arange(text.shape[1], device=text.device).unsqueeze(0)
        calls = self.language.prepare(text, mask, positions)
        x = calls.hidden  # [B, L, D]
        for layer in range(len(self.language.layers)):
            x = self.language.run_layer(layer, x, calls)
            if str(layer) in self.mm_blocks:
                block = self.mm_blocks[str(layer)]
                x, _ = block.cross_attend(x, av_states, av_mask)
                x = block.apply_feed_forward(x)
        return self.language.finish(x)
