"""Baselines that fuse on the frozen LM without fusion tokens: soft prompt and cross-attention on language tokens.

* prefix (early concatenation): the AV states, projected to the LM's width, stand before the text as K soft prompt
  tokens, and the LM does the rest;
* flamingo: MM Blocks as DeepMLF's, at the same layers, but the text tokens themselves read the AV states.

Both answer by the text-only baseline's head on the last text token and learn from the task's loss alone, on the same
features, language model and trainer as DeepMLF.

    run = train("sample", dataset, "runs/flamingo", model="flamingo", av_encoder=av)
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import DeepMLFError
from .av_encoder import AVEncoder
from .baselines import TextOutput, TextSentimentModel
from .config import DeepMLFConfig
from .decoder_pass import last_tokens, pick
from .deepmlf import DeepMLFModel
from .losses import sentiment_loss
from .mm_block import MMBlock


class _WithAV(TextSentimentModel):
    """The text baseline's head on a last text token that has heard and seen; subclasses say how."""

    main_input_name = "input_ids"
    load_av_encoder = DeepMLFModel.load_av_encoder

    def __init__(
        self,
        config: DeepMLFConfig,
        lm: PreTrainedModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        super().__init__(config, lm=lm, tokenizer=tokenizer)
        self.av_encoder = AVEncoder(config)
        self._add_fusion()
        self.av_encoder.requires_grad_(config.av_trainable)
        self._keys_to_ignore_on_save = self._lm_keys()

    def keep_text_states(self, folder: str | Path, gigabytes: float = 1.0) -> None:
        """Nothing can be kept: what the text becomes depends on trained weights."""

    def _lm_keys(self) -> set[str]:
        return DeepMLFModel._lm_keys(self)  # type: ignore[arg-type]

    def train(self, mode: bool = True) -> _WithAV:
        """Training mode; the frozen LM, and a frozen AV encoder, stay in eval mode."""
        super().train(mode)
        if not self.config.av_trainable:
            self.av_encoder.eval()
        return self

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        audio: Tensor | None = None,
        audio_mask: Tensor | None = None,
        vision: Tensor | None = None,
        vision_mask: Tensor | None = None,
        labels: Tensor | None = None,
        audio_spans: Tensor | None = None,
        vision_spans: Tensor | None = None,
        **_: Tensor,
    ) -> TextOutput:
        """Batch as in `DeepMLFModel.forward`.

        Args:
            input_ids, attention_mask: [B, L], padded right.
            audio, vision, audio_mask, vision_mask: frames [B, La, da], [B, Lv, dv] and which are valid.
            labels: [B]; NaN where unknown.
            audio_spans, vision_spans: begin and end of each frame as shares of the utterance's length.
        """
        batch = input_ids.shape[0]
        last = last_tokens(attention_mask)  # [B]
        av_states, av_mask = self.av_encoder(
            audio, audio_mask, vision, vision_mask, batch, audio_spans, vision_spans
        )  # [B, K, d]
        states = self._text_states(self.language.embed(input_ids), attention_mask, av_states, av_mask)
        prediction = self.head(pick(states, last).float())  # [B, 1]
        prediction = prediction if self.config.num_classes else prediction.squeeze(-1)
        loss = None if labels is None else sentiment_loss(prediction, labels, self.config.num_classes)
        return TextOutput(loss=loss, prediction=prediction)

    def _add_fusion(self) -> None:
        raise NotImplementedError

    def _text_states(self, text: Tensor, mask: Tensor, av_states: Tensor, av_mask: Tensor) -> Tensor:
        """Text embeddings [B, L, D] -> text states after the LM's final norm [B, L, D]."""
        raise NotImplementedError


class PrefixSentimentModel(_WithAV):
    """Early concatenation: [K AV states as soft prompt tokens ; text] through the frozen LM."""

    def _add_fusion(self) -> None:
        config, lm_config = self.config, self.language.config
        needed = config.av_steps + config.max_text_tokens
        allowed = getattr(lm_config, "max_position_embeddings", None)
        if allowed is not None and needed > allowed:
            raise DeepMLFError(
                f"av_steps + max_text_tokens is {needed}, but the LM {config.lm!r} takes {allowed} positions: lower "
                f"av_encoder.steps to at most {allowed - config.max_text_tokens}."
            )
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


class FlamingoSentimentModel(_WithAV):
    """Cross-attention on language tokens: MM Blocks at the fusion layers in which the text reads the AV states."""

    def _add_fusion(self) -> None:
        config, language = self.config, self.language
        config.check_against_lm(language.config)
        self.mm_blocks = nn.ModuleDict(
            {
                str(layer): MMBlock(
                    config,
                    language.new_norm(),
                    language.new_norm(),
                    None if config.ffw == "none" else language.feed_forward(layer),
                    language.width,
                )
                for layer in config.fusion_layers
            }
        )

    def _text_states(self, text: Tensor, mask: Tensor, av_states: Tensor, av_mask: Tensor) -> Tensor:
        positions = torch.arange(text.shape[1], device=text.device).unsqueeze(0)
        calls = self.language.prepare(text, mask, positions)
        x = calls.hidden  # [B, L, D]
        for layer in range(len(self.language.layers)):
            x = self.language.run_layer(layer, x, calls)
            if str(layer) in self.mm_blocks:
                block = self.mm_blocks[str(layer)]
                x, _ = block.read_av(x, av_states, av_mask)
                x = block.think(x)
        return self.language.finish(x)
