"""One pass of a batch through the LM's layers and the MM Blocks: all tokens together, or the text first.

    plain        [text ; fusion] ─► layer, MM Block ─► ... ─► layer, MM Block ─► final norm
    text first   text ─► layers, no gradient ─┐ keys, values
                 fusion ──────────────────────┴► layers ─► [text ; fusion] ─► layer, MM Block ─► ... ─► final norm

Both give the same numbers (DESIGN section 5). The text needs no gradient as far as nothing trained touches it; where
only the text's last token is read at the end, the last layer makes keys and values of the others and no more.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache

from ..errors import DeepMLFError
from .config import DeepMLFConfig
from .frozen_lm import LanguageStream, LayerCalls
from .mm_block import MMBlock
from .text_cache import TextStates, TextStoreFile


class Walk:
    """A pass through the LM's layers and the MM Blocks, for one batch. B batch, L text, F fusion tokens, D LM width.

    Args:
        config: sizes and switches.
        language: the frozen LM.
        blocks: MM Block after each fusion layer, by the layer's number as text.
        text_mask: 1 for real tokens, 0 for padding [B, L].
        av_states, av_mask: what the MM Blocks read [B, K, d], [B, K].
        input_ids: text tokens [B, L], the text's name in the store.
        store: kept text states, where using them is exact.
        only_text: the one text token of each sample that is read at the end [B]; None: all are.
        keep_states, keep_attentions: fill `hidden_states` and `cross_attentions`.
        again: compute activations again in the backward pass instead of keeping them.
    """

    def __init__(
        self,
        config: DeepMLFConfig,
        language: LanguageStream,
        blocks: Mapping[str, MMBlock],
        text_mask: Tensor,
        av_states: Tensor,
        av_mask: Tensor,
        *,
        input_ids: Tensor,
        store: TextStoreFile | None = None,
        only_text: Tensor | None = None,
        keep_states: bool = False,
        keep_attentions: bool = False,
        again: bool = False,
    ) -> None:
        self.config, self.language, self.blocks = config, language, blocks
        self.av_states, self.av_mask = av_states, av_mask
        self.input_ids, self.store, self.only_text = input_ids, store, only_text
        self.keep_states, self.keep_attentions, self.again = keep_states, keep_attentions, again
        self.hidden_states: list[Tensor] = []
        self.cross_attentions: dict[int, Tensor] = {}
        batch, self.length = text_mask.shape
        self.text_mask = text_mask
        self.fusion_mask = text_mask.new_ones(batch, config.fusion_tokens)  # (B, F)
        # Fusion token i stands at max_text_tokens + i whatever the padding: trimming it changes nothing.
        count = torch.arange(max(self.length, config.fusion_tokens), device=text_mask.device).unsqueeze(0)
        self.text_positions = count[:, : self.length]  # (1, L)
        self.fusion_positions = config.max_text_tokens + count[:, : config.fusion_tokens]  # (1, F)

    def plain(self, text: Tensor, fusion: Tensor) -> tuple[Tensor, Tensor]:
        """Text [B, L, D] and fusion tokens [B, F, D] together through every layer."""
        calls = self._joint(text, fusion)
        x = calls.hidden  # (B, L + F, D)
        self._keep(x)
        for layer in range(len(self.language.layers)):
            x = self._layer_and_block(layer, x, calls)
            self._keep(x)
        return self._finish(x)

    def text_first(self, text: Tensor, fusion: Tensor) -> tuple[Tensor, Tensor]:
        """The text alone, without a gradient, as far as nothing trained touches it; then the fusion tokens
        against its keys and values; from there on together, as in `plain`, whose results it equals.

        With `only_text` the text that is given back is that token alone [B, 1, D].
        """
        layers = len(self.language.layers)
        trained = self.config.text_is_trained
        apart = layers_before_training(self.config, layers)
        states, cache = self._text_alone(text, apart)
        calls = self.language.prepare(
            fusion, torch.cat([self.text_mask, self.fusion_mask], dim=1), self.fusion_positions, cache
        )
        x_f = calls.hidden
        self._keep_apart(states[0], x_f)
        for layer in range(apart):
            x_f = self.language.run_layer(layer, x_f, calls)
            if layer < apart - 1 or not trained:
                x_f = self._block_on_fusion(layer, x_f)
                if self.keep_states:
                    self._keep_apart(states[layer + 1], x_f)
        if not trained:
            return self._finish(torch.cat([states[-1], x_f], dim=1))
        x_t = states[-1]
        if self.only_text is not None and apart == layers:
            x_t = pick(x_t, self.only_text).unsqueeze(1)  # (B, 1, D)
        x = self._block(apart - 1, torch.cat([x_t, x_f], dim=1))  # (B, L + F, D)
        self._keep(x)
        if apart < layers:
            calls = self._joint(text, fusion)
        for layer in range(apart, layers):
            x = self._layer_and_block(layer, x, calls)
            self._keep(x)
        return self._finish(x)

    # The text alone ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _text_alone(self, text: Tensor, apart: int) -> tuple[list[Tensor], DynamicCache]:
        """The text through the first `apart` layers, or what the store kept of that.

        Returns:
            Hidden states: the first layer's input and each layer's output [B, L, D]; only the last where they were
            kept. Keys and values of these layers.
        """
        if self.store is not None and not self.keep_states:
            keys = self.store.key(self.input_ids, self.text_mask)
            for _ in range(2):  # a second time where reading finds that a kept text is damaged
                for row in self.store.lacking(keys):
                    # One text at a time: what is kept does not depend on the batch it was first met in, so that
                    # runs that share a store stay equal to the bit.
                    length = int(self.text_mask[row].sum()) or 1
                    alone, cache = self._text_layers(
                        text[row : row + 1, :length], self.text_mask[row : row + 1, :length], apart
                    )
                    self.store.save(keys[row], TextStates(alone[-1], cache))
                if (kept := self.store.load(keys, self.length, text.device)) is not None:
                    return [kept.hidden], kept.cache
        return self._text_layers(text, self.text_mask, apart)

    def _text_layers(self, text: Tensor, mask: Tensor, apart: int) -> tuple[list[Tensor], DynamicCache]:
        cache = self.language.new_cache()
        calls = self.language.prepare(text, mask, self.text_positions[:, : text.shape[1]], cache)
        states = [calls.hidden]
        for layer in range(apart):
            states.append(self.language.run_layer(layer, states[-1], calls))
        return states, cache

    # Layers --------------------------------------------------------------------------------------------------

    def _joint(self, text: Tensor, fusion: Tensor) -> LayerCalls:
        positions = torch.cat([self.text_positions, self.fusion_positions], dim=1)  # (1, L + F)
        mask = torch.cat([self.text_mask, self.fusion_mask], dim=1)  # (B, L + F)
        return self.language.prepare(torch.cat([text, fusion], dim=1), mask, positions)

    def _layer_and_block(self, layer: int, x: Tensor, calls: LayerCalls) -> Tensor:
        """An LM layer and the MM Block after it, where there is one: (B, L + F, D) -> (B, L + F, D).

        Of the last layer with `only_text`: -> (B, 1 + F, D).
        """
        last = layer == len(self.language.layers) - 1
        run = self._on_what_is_read if last and self.only_text is not None else self._on_all
        if self.again and x.requires_grad:
            return checkpoint(run, layer, x, calls, use_reentrant=False)
        return run(layer, x, calls)

    def _on_all(self, layer: int, x: Tensor, calls: LayerCalls) -> Tensor:
        return self._block(layer, self.language.run_layer(layer, x, calls))

    def _on_what_is_read(self, layer: int, x: Tensor, calls: LayerCalls) -> Tensor:
        """A layer for the text token that is read and the fusion tokens; of the others only keys and values."""
        assert self.only_text is not None
        x_t, x_f = self._split(x)
        cache = self.language.keys_and_values(layer, x_t, self.text_mask, self.text_positions)
        if cache is None:
            x_t, x_f = self._split(self.language.run_layer(layer, x, calls))
            return self._block(layer, torch.cat([pick(x_t, self.only_text).unsqueeze(1), x_f], dim=1))
        # The wanted token comes a second time, after the text: hide the first.
        index = self.only_text.unsqueeze(1)  # (B, 1)
        mask = torch.cat(
            [
                self.text_mask.scatter(1, index, 0),
                self.text_mask.gather(1, index),
                self.fusion_mask,
            ],
            dim=1,
        )  # (B, L + 1 + F)
        positions = torch.cat([index, self.fusion_positions.expand(len(index), -1)], dim=1)  # (B, 1 + F)
        rows = torch.cat([pick(x_t, self.only_text).unsqueeze(1), x_f], dim=1)  # (B, 1 + F, D)
        calls = self.language.prepare(rows, mask, positions, cache)
        return self._block(layer, self.language.run_layer(layer, rows, calls))

    # MM Blocks -----------------------------------------------------------------------------------------------

    def _block(self, layer: int, x: Tensor) -> Tensor:
        """The MM Block after `layer`, on text and fusion tokens (B, L + F, D); x itself where there is none."""
        if str(layer) not in self.blocks:
            return x
        x_t, x_f = self._split(x)
        if not self.config.text_is_trained:
            return torch.cat([x_t, self._block_on_fusion(layer, x_f)], dim=1)
        return self.blocks[str(layer)].think(torch.cat([x_t, self._read(layer, x_f)], dim=1))

    def _block_on_fusion(self, layer: int, x_f: Tensor) -> Tensor:
        if str(layer) not in self.blocks:
            return x_f
        return self.blocks[str(layer)].think(self._read(layer, x_f))

    def _read(self, layer: int, x_f: Tensor) -> Tensor:
        x_f, weights = self.blocks[str(layer)].read_av(
            x_f, self.av_states, self.av_mask, self.keep_attentions
        )
        if weights is not None:
            self.cross_attentions[layer] = weights
        return x_f

    # States --------------------------------------------------------------------------------------------------

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T + F, D) -> text (B, T, D) and fusion tokens (B, F, D)."""
        fusion = self.config.fusion_tokens
        text, tokens = x.split([x.shape[1] - fusion, fusion], dim=1)
        return text, tokens

    def _keep(self, x: Tensor) -> None:
        """Keep the very tensor that goes on, so that gradients reach it."""
        if self.keep_states:
            self.hidden_states.append(x)

    def _keep_apart(self, x_t: Tensor, x_f: Tensor) -> None:
        """Keep a copy of what goes on apart, text and fusion tokens: for values, not for gradients."""
        if self.keep_states:
            self.hidden_states.append(torch.cat([x_t, x_f], dim=1))

    def _finish(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.language.finish(x)
        if self.keep_states:
            self.hidden_states[-1] = x
        return self._split(x)


def layers_before_training(config: DeepMLFConfig, layers: int) -> int:
    """How many of an LM's layers a text passes before it meets something that is trained."""
    return config.fusion_layers[0] + 1 if config.text_is_trained else layers


def check_padded_right(attention_mask: Tensor) -> None:
    """Refuse padding before or between a text's tokens: positions and heads count tokens from the left.

    Args:
        attention_mask: 1 for real tokens, 0 for padding [B, L].

    Raises:
        DeepMLFError: a text is padded elsewhere than on the right.
    """
    real = attention_mask.bool()
    misplaced = (real[:, 1:] & ~real[:, :-1]).any(dim=1)  # [B]
    if misplaced.any():
        row = int(misplaced.nonzero()[0])
        raise DeepMLFError(
            f"Text {row} of the batch has padding before or between its tokens (attention_mask "
            f"{real[row].int().tolist()}), but texts are padded on the right: set tokenizer.padding_side = 'right', "
            "or use the kit's Collator."
        )


def last_tokens(attention_mask: Tensor) -> Tensor:
    """Index of each text's last real token [B], 0 for an empty text; refuses what `check_padded_right` does."""
    check_padded_right(attention_mask)
    return (attention_mask.sum(dim=1) - 1).clamp(min=0)


def pick(x: Tensor, index: Tensor) -> Tensor:
    """Of each sample the row that `index` [B] names: [B, T, D] -> [B, D]."""
    return x[torch.arange(len(x), device=x.device), index]
