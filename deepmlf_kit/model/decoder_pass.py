"""One pass of a batch through the LM's layers and the MM Blocks: all tokens together, the text first, or packed.

    joint        [text ; fusion] ─► layer, MM Block ─► ... ─► layer, MM Block ─► final norm
    text first   text ─► layers, no gradient ─┐ keys, values
                 fusion ──────────────────────┴► layers ─► [text ; fusion] ─► layer, MM Block ─► ... ─► final norm
    packed       [different texts ; fusion of row 1 ; fusion of row 2 ; ...] ─► layer, MM Block ─► ... ─► final norm

All give the same numbers (DESIGN section 5): text states need no gradient before the first trained module. Where only
the last text token is used at the end, the last layer makes keys and values of the others and no more.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache

from ..errors import DeepMLFError
from .attention import is_traced
from .config import DeepMLFConfig
from .frozen_lm import LanguageStream, LayerCalls
from .mm_block import MMBlock
from .text_cache import TextCacheFile, TextStates


class DecoderPass:
    """A pass through the LM's layers and the MM Blocks, for one batch. B batch, L text, F fusion tokens, D LM width.

    Args:
        config: sizes and switches.
        language: the frozen LM.
        blocks: MM Block after each fusion layer, by the layer's number as text.
        text_mask: 1 for real tokens, 0 for padding [B, L].
        av_states, av_mask: what the MM Blocks attend to [B, K, d], [B, K].
        input_ids: text tokens [B, L], by which cached text states are looked up.
        text_cache: cached text states, where using them is exact.
        last_text: index of the one text token of each sample that is used at the end [B]; None: all are.
        return_states, return_attentions: fill `hidden_states`; `cross_attentions` and `attentions`.
        recompute: recompute activations in the backward pass instead of storing them.
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
        text_cache: TextCacheFile | None = None,
        last_text: Tensor | None = None,
        return_states: bool = False,
        return_attentions: bool = False,
        recompute: bool = False,
    ) -> None:
        self.config, self.language, self.blocks = config, language, blocks
        self.av_states, self.av_mask = av_states, av_mask
        self.input_ids, self.text_cache, self.last_text = input_ids, text_cache, last_text
        self.return_states, self.return_attentions = return_states, return_attentions
        self.recompute = recompute
        self.hidden_states: list[Tensor] = []
        self.cross_attentions: dict[int, Tensor] = {}
        self._rows: dict[int, list[Tensor | None]] = {}
        batch, self.length = text_mask.shape
        self.text_mask = text_mask
        self.fusion_mask = text_mask.new_ones(batch, config.fusion_tokens)  # (B, F)
        # Fusion token i stands at max_text_tokens + i whatever the padding: trimming it changes nothing.
        longest = config.max_text_tokens
        count = torch.arange(longest + config.fusion_tokens, device=text_mask.device).unsqueeze(0)
        self.text_positions = count[:, : self.length]  # (1, L)
        self.fusion_positions = count[:, longest:]  # (1, F)

    def joint(self, text: Tensor, fusion: Tensor) -> tuple[Tensor, Tensor]:
        """Text [B, L, D] and fusion tokens [B, F, D] together through every layer."""
        calls = self._prepare_joint(text, fusion)
        x = calls.hidden  # (B, L + F, D)
        self._record(x)
        for layer in range(len(self.language.layers)):
            x = self._layer_and_block(layer, x, calls)
            self._record(x)
        return self._finish(x)

    def text_first(self, text: Tensor, fusion: Tensor) -> tuple[Tensor, Tensor]:
        """The text alone, without a gradient, up to the first trained module; then the fusion tokens against its
        keys and values; from there on together. Results equal those of `joint`; with `last_text`, the text that is
        returned is that token alone [B, 1, D].
        """
        layers = len(self.language.layers)
        trained = self.config.text_is_trained
        frozen = layers_before_training(self.config, layers)
        with torch.no_grad():
            states, cache = self._text_alone(text, frozen)
        calls = self.language.prepare(
            fusion, torch.cat([self.text_mask, self.fusion_mask], dim=1), self.fusion_positions, cache
        )
        x_f = calls.hidden  # (B, F, D)
        self._record_pair(states[0], x_f)
        for layer in range(frozen):
            x_f = self._run_layer(layer, x_f, calls)
            if layer < frozen - 1 or not trained:
                x_f = self._block_on_fusion(layer, x_f)
                if self.return_states:
                    self._record_pair(states[layer + 1], x_f)
        if not trained:
            return self._finish(torch.cat([states[-1], x_f], dim=1))
        x_t = self._used_text(states[-1]) if frozen == layers else states[-1]
        x = self._block(frozen - 1, torch.cat([x_t, x_f], dim=1))
        self._record(x)
        if frozen < layers:
            calls = self._prepare_joint(text, fusion)
        for layer in range(frozen, layers):
            x = self._layer_and_block(layer, x, calls)
            self._record(x)
        return self._finish(x)

    def packed(self, text: Tensor, fusion: Tensor) -> tuple[Tensor, Tensor]:
        """All rows in one sequence without padding, which holds what they share once: whole texts and beginnings of texts.

        For rows that differ in voice and face, or whose texts are variants of one. No text may be empty.
        """
        places, seen_by, order = self._pack()
        rows, tokens = fusion.shape[:2]
        unique = len(order)  # N_t text tokens in the sequence
        x = torch.cat([text.flatten(0, 1)[order], fusion.flatten(0, 1)]).unsqueeze(0)  # (1, N_t + B F, D)
        positions = torch.cat([order % self.length, self.fusion_positions.expand(rows, -1).flatten()])
        mask = x.new_zeros(seen_by.shape).masked_fill(~seen_by, torch.finfo(x.dtype).min)
        calls = self.language.prepare(x, mask[None, None], positions.unsqueeze(0))
        x = calls.hidden
        for layer in range(len(self.language.layers)):
            x = self._run_layer(layer, x, calls)
            if str(layer) in self.blocks:
                x_t, x_f = x[:, :unique], x[:, unique:].unflatten(1, (rows, tokens)).squeeze(0)  # (B, F, D)
                x_f = self._cross_attend(layer, x_f).flatten(0, 1).unsqueeze(0)
                block = self.blocks[str(layer)]
                if self.config.text_is_trained:
                    x = block.apply_feed_forward(torch.cat([x_t, x_f], dim=1))
                else:
                    x = torch.cat([x_t, block.apply_feed_forward(x_f)], dim=1)
        x = self.language.finish(x)[0]
        return x[places], x[unique:].view(rows, tokens, -1)

    def _pack(self) -> tuple[Tensor, Tensor, Tensor]:
        """How the rows are packed, N_t text tokens and after them each row's fusion tokens.

        Returns:
            Where in the sequence each row's text tokens are [B, L] (anywhere for padding); which tokens each token sees
            [N_t + B F, N_t + B F], bool; and which of the batch's text tokens [B L] the sequence begins with [N_t].
        """
        real = self.text_mask.bool()
        # Sorted, texts that begin alike stand side by side: what each begins with as the one before need not be repeated.
        ids = self.input_ids.masked_fill(~real, -1)  # (B, L)
        texts, text_of = ids.unique(dim=0, return_inverse=True)  # (T, L), (B,)
        rows, lengths = torch.arange(len(real), device=real.device), (texts >= 0).sum(dim=1)
        first = rows.new_zeros(len(texts)).scatter_(0, text_of, rows)  # a row that has the text
        repeated = torch.zeros_like(texts, dtype=torch.bool)
        repeated[1:] = (texts[1:] == texts[:-1]).long().cumprod(dim=1).bool()
        owner, at = ((texts >= 0) & ~repeated).nonzero().unbind(dim=1)  # (N_t,)
        number = torch.arange(len(owner), device=real.device)
        places = torch.zeros_like(texts).index_put_((owner, at), number).cummax(dim=0).values  # (T, L)

        tokens, count = self.config.fusion_tokens, len(owner) + len(real) * self.config.fusion_tokens
        # Which text each token of the sequence reads, and how many tokens of it
        reads = torch.cat([owner, text_of.repeat_interleave(tokens)])
        until = torch.cat([at + 1, lengths[text_of].repeat_interleave(tokens)])
        beyond = torch.arange(self.length, device=real.device) >= until.unsqueeze(1)
        seen = places[reads].masked_fill(beyond, count)  # [N_t + B F, L]
        seen_by = real.new_zeros(count, count + 1).scatter_(1, seen, True)[:, :-1]
        row = rows.repeat_interleave(tokens)
        seen_by[len(owner) :, len(owner) :] = (row.unsqueeze(1) == row).tril()
        return places[text_of], seen_by, first[owner] * self.length + at

    # The text alone ------------------------------------------------------------------------------------------

    def _text_alone(self, text: Tensor, layers: int) -> tuple[list[Tensor], DynamicCache]:
        """The text through the first `layers` layers, computed or read from the text cache.

        Returns:
            Hidden states: the first layer's input and each layer's output [B, L, D]; only the last where they were
            cached. Keys and values of these layers.
        """
        if self.text_cache is not None and not (self.return_states or self.return_attentions):
            keys = self.text_cache.key(self.input_ids, self.text_mask)
            for _ in range(2):  # a second time where reading finds that a cached text is damaged
                for row in self.text_cache.lacking(keys):
                    # One text at a time: what is cached does not depend on the batch it was first met in, so that
                    # runs that share a cache stay equal to the bit.
                    length = int(self.text_mask[row].sum()) or 1
                    # A copy: a compiled layer would be compiled again for every offset of a view.
                    alone, cache = self._text_layers(
                        text[row : row + 1, :length].clone(), self.text_mask[row : row + 1, :length], layers
                    )
                    self.text_cache.save(keys[row], TextStates(alone[-1], cache))
                if (cached := self.text_cache.load(keys, self.length, text.device)) is not None:
                    return [cached.hidden], cached.cache
        return self._text_layers(text, self.text_mask, layers)

    def _text_layers(self, text: Tensor, mask: Tensor, layers: int) -> tuple[list[Tensor], DynamicCache]:
        cache = self.language.new_cache()
        calls = self.language.prepare(text, mask, self.text_positions[:, : text.shape[1]], cache)
        states = [calls.hidden]
        for layer in range(layers):
            states.append(self._run_layer(layer, states[-1], calls))
        return states, cache

    # Layers --------------------------------------------------------------------------------------------------

    def _prepare_joint(self, text: Tensor, fusion: Tensor) -> LayerCalls:
        positions = torch.cat([self.text_positions, self.fusion_positions], dim=1)  # (1, L + F)
        mask = torch.cat([self.text_mask, self.fusion_mask], dim=1)  # (B, L + F)
        return self.language.prepare(torch.cat([text, fusion], dim=1), mask, positions)

    def _layer_and_block(self, layer: int, x: Tensor, calls: LayerCalls) -> Tensor:
        """An LM layer and the MM Block after it, where there is one: (B, L + F, D) -> (B, L + F, D).

        Of the last layer with `last_text`: -> (B, 1 + F, D).
        """
        only_used = self.last_text is not None and layer == len(self.language.layers) - 1
        run_layer = self._run_on_used_tokens if only_used else self._run_layer

        def run(x: Tensor) -> Tensor:
            return self._block(layer, run_layer(layer, x, calls))

        if self.recompute and x.requires_grad:
            return checkpoint(run, x, use_reentrant=False)
        return run(x)

    def _run_layer(self, layer: int, x: Tensor, calls: LayerCalls) -> Tensor:
        if not self.return_attentions:
            return self.language.run_layer(layer, x, calls)
        x, weights = self.language.run_layer_with_attention(layer, x, calls)
        self._rows.setdefault(layer, []).append(weights)
        return x

    def attentions(self) -> tuple[Tensor, ...] | None:
        """Self-attention of each LM layer [B, heads, L + F, L + F], rows of the text and then of the fusion tokens, whichever
        way they were computed; None where the LM's kernel keeps its weights to itself."""
        layers = []
        for layer in range(len(self.language.layers)):
            rows = [part for part in self._rows.get(layer, []) if part is not None]
            if not rows or len(rows) != len(self._rows[layer]):
                return None
            if len(rows) > 1:
                keys = rows[-1].shape[-1]  # text tokens see no fusion token
                rows = [torch.cat([F.pad(part, (0, keys - part.shape[-1])) for part in rows], dim=2)]
            layers += rows
        return tuple(layers)

    def _run_on_used_tokens(self, layer: int, x: Tensor, calls: LayerCalls) -> Tensor:
        """An LM layer that makes no more than keys and values of text but the token that is used."""
        x_t, x_f = self._split(x)
        cache = self.language.keys_and_values(layer, x_t, self.text_mask, self.text_positions)
        if cache is None:
            x_t, x_f = self._split(self.language.run_layer(layer, x, calls))
            return torch.cat([self._used_text(x_t), x_f], dim=1)
        assert self.last_text is not None
        positions = torch.cat([self.last_text[:, None], self.fusion_positions.expand(len(x), -1)], dim=1)
        mask = torch.cat([self.text_mask, self.fusion_mask], dim=1)  # (B, L + F)
        x = torch.cat([self._used_text(x_t), x_f], dim=1)  # (B, 1 + F, D), as positions
        return self.language.run_layer(layer, x, self.language.prepare(x, mask, positions, cache))

    def _used_text(self, x_t: Tensor) -> Tensor:
        """With `last_text`, that token alone: (B, L, D) -> (B, 1, D)."""
        return x_t if self.last_text is None else select_tokens(x_t, self.last_text).unsqueeze(1)

    # MM Blocks -----------------------------------------------------------------------------------------------

    def _block(self, layer: int, x: Tensor) -> Tensor:
        """The MM Block after `layer`, on text and fusion tokens (B, L + F, D); x itself where there is none."""
        if str(layer) not in self.blocks:
            return x
        x_t, x_f = self._split(x)
        if not self.config.text_is_trained:
            return torch.cat([x_t, self._block_on_fusion(layer, x_f)], dim=1)
        x = torch.cat([x_t, self._cross_attend(layer, x_f)], dim=1)
        return self.blocks[str(layer)].apply_feed_forward(x)

    def _block_on_fusion(self, layer: int, x_f: Tensor) -> Tensor:
        if str(layer) not in self.blocks:
            return x_f
        return self.blocks[str(layer)].apply_feed_forward(self._cross_attend(layer, x_f))

    def _cross_attend(self, layer: int, x_f: Tensor) -> Tensor:
        x_f, weights = self.blocks[str(layer)].cross_attend(
            x_f, self.av_states, self.av_mask, self.return_attentions
        )
        if weights is not None:
            self.cross_attentions[layer] = weights
        return x_f

    # States --------------------------------------------------------------------------------------------------

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L + F, D) -> text (B, L, D) and fusion tokens (B, F, D)."""
        fusion = self.config.fusion_tokens
        text, tokens = x.split([x.shape[1] - fusion, fusion], dim=1)
        return text, tokens

    def _record(self, x: Tensor) -> None:
        """Record the tensor that is passed on, not a copy, so that gradients reach it."""
        if self.return_states:
            self.hidden_states.append(x)

    def _record_pair(self, x_t: Tensor, x_f: Tensor) -> None:
        """Record text and fusion tokens that are passed on apart: a copy, for values and not for gradients."""
        if self.return_states:
            self.hidden_states.append(torch.cat([x_t, x_f], dim=1))

    def _finish(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.language.finish(x)
        if self.return_states:
            self.hidden_states[-1] = x
        return self._split(x)


def layers_before_training(config: DeepMLFConfig, layers: int) -> int:
    """Number of LM layers that a text passes before the first trained module."""
    return config.fusion_layers[0] + 1 if config.text_is_trained else layers


def check_padded_right(attention_mask: Tensor) -> None:
    """Refuse padding before or between a text's tokens: positions and heads count tokens from the left.

    A traced model (`torch.compile`, `torch.export`) takes its masks on trust.

    Args:
        attention_mask: 1 for real tokens, 0 for padding [B, L].

    Raises:
        DeepMLFError: a text is padded elsewhere than on the right.
    """
    if is_traced():
        return
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


def select_tokens(x: Tensor, index: Tensor) -> Tensor:
    """The token of each sample that `index` [B] names: [B, T, D] -> [B, D]."""
    return x[torch.arange(x.shape[0], device=x.device), index]
