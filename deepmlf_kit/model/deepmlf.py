"""DeepMLFModel: the whole model, its forward in the order of the paper's figure.

audio, vision ─► AV encoder ─► AV states ──────────────┐ (read by MM Blocks)
text ─► LM embeddings ─┐                               ▼
fusion tokens ─────────┴─► LM layers, an MM Block after each fusion layer ─► final norm ─► heads ─► loss
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput, can_return_tuple

from ..errors import DeepMLFError
from .av_encoder import build_av_encoder, mean_state
from .base import AVLanguageSentimentModel
from .config import DeepMLFConfig
from .decoder_pass import DecoderPass, last_tokens, layers_before_training, select_tokens
from .heads import Heads
from .losses import next_token_loss, next_token_targets, sentiment_loss
from .mm_block import mm_blocks
from .seqaug import seqaug
from .text_cache import DEFAULT_GIGABYTES, TextCache, TextCacheFile, open_text_cache


@dataclass
class DeepMLFOutput(ModelOutput):
    """Output of a forward pass. B batch, L text tokens, F fusion tokens, D LM width, K AV steps, d AV width.

    As of any of transformers' models, `output[0]` is the loss where labels were given, and the prediction where not.
    A stock `Trainer` hands `compute_metrics` the prediction alone, [N] or [N, C] beside labels [N]: the other fields
    are `keys_to_ignore_at_inference` of `DeepMLFConfig` (`trainer.predict(rows, ignore_keys=[...])` asks for more).
    `hidden_states` and `cross_attentions` are part of the graph: gradients of the loss reach them. So they do `attentions`
    where `hidden_states` were asked for, too; alone, those are put together from parts, for their values.

    Attributes:
        loss: weighted sum of the loss terms, where labels were given.
        prediction: the task head's sentiment, on the dataset's scale [B]; class scores [B, C] for classes.
        text_prediction: the text head's, from the last text token [B] or [B, C].
        fusion_prediction: the fusion head's, for each fusion token [B, F] or [B, F, C].
        av_prediction: the AV head's, from the mean AV state [B] or [B, C]; NaN for a sample without any AV stream.
        loss_task, loss_fusion, loss_av, loss_text, loss_lm: the terms, before weighting; no loss_av where no sample of
            the batch has an AV stream.
        lm_logits: the LM head's logits at text positions [B, L, V], on request.
        text_states: text tokens after the LM's final norm [B, L, D]; None in a training step with `text_first` and
            without LM loss, which computes the last one only.
        fusion_states: fusion tokens after the LM's final norm [B, F, D].
        av_states: [B, K, d].
        av_mask: AV steps at which at least one modality is real [B, K].
        hidden_states: on request, layers + 1 tensors [B, L + F, D]: the input of the first layer, then each
            layer's output with its MM Block; the last is after the final norm.
        attentions: on request, self-attention of each LM layer, layers tensors [B, heads, L + F, L + F]; None where the LM's
            attention kernel keeps its weights to itself (load with `attn_implementation="eager"`).
        cross_attentions: on request, attention of fusion tokens over AV steps for each fusion layer
            {layer: [B, heads, F, K]}.
    """

    loss: Tensor | None = None
    prediction: Tensor | None = None
    text_prediction: Tensor | None = None
    fusion_prediction: Tensor | None = None
    av_prediction: Tensor | None = None
    loss_task: Tensor | None = None
    loss_fusion: Tensor | None = None
    loss_av: Tensor | None = None
    loss_text: Tensor | None = None
    loss_lm: Tensor | None = None
    lm_logits: Tensor | None = None
    text_states: Tensor | None = None
    fusion_states: Tensor | None = None
    av_states: Tensor | None = None
    av_mask: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: dict[int, Tensor] | None = None

    def head_predictions(self) -> dict[str, Any]:
        """Predictions by head: `task`, `text`, `av` [B] and `fusion` [B, F]; of classes, [.., C] each."""
        return {
            "task": self.prediction,
            "text": self.text_prediction,
            "av": self.av_prediction,
            "fusion": self.fusion_prediction,
        }


class DeepMLFModel(AVLanguageSentimentModel):
    """Sentiment from text, audio and vision: a frozen LM whose fusion tokens attend to AV states (paper, figure 2).

    `save_pretrained` stores what was trained and the LM's name and revision, never the LM; `from_pretrained`
    loads the LM from there and the trained weights from the folder or hub.

    Args:
        config: sizes and switches.
        lm: a language model already in memory; by default the one that `config.lm` names is loaded.
        tokenizer: its tokenizer; by default loaded from where the LM comes from, when first needed.

    Raises:
        DeepMLFError: the configuration does not fit the LM, or the LM cannot be loaded or understood.
    """

    base_model_prefix = "deepmlf"
    supports_gradient_checkpointing = True

    def _add_modules(self, config: DeepMLFConfig) -> None:
        config.check_against_lm(self.language.config)
        self._text_cache: TextCache | None = None
        width = self.language.width
        self.fusion_tokens = nn.Parameter(torch.randn(config.fusion_tokens, width) * 0.02)  # (F, D)
        self.av_encoder = build_av_encoder(config)
        self.mm_blocks = mm_blocks(config, self.language)
        self.heads = Heads(config, width)
        self.av_encoder.requires_grad_(config.av_trainable)

    def __getstate__(self) -> dict[str, Any]:
        """State for pickle and copy: without the text cache, whose file stays with this model."""
        return super().__getstate__() | {"_text_cache": None}

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        audio: Tensor | None = None,
        audio_mask: Tensor | None = None,
        vision: Tensor | None = None,
        vision_mask: Tensor | None = None,
        labels: Tensor | None = None,
        text_embeddings: Tensor | None = None,
        output_lm_logits: bool = False,
        output_hidden_states: bool | int | Sequence[int] | None = None,
        output_attentions: bool | None = None,
        audio_spans: Tensor | None = None,
        vision_spans: Tensor | None = None,
        share_texts: bool = False,
        **modalities: Tensor | None,
    ) -> DeepMLFOutput:
        """From text, audio and vision to a sentiment.

        Args:
            input_ids: text tokens [B, L], padded right, L at most `max_text_tokens`.
            attention_mask: 1 for real tokens, 0 for padding [B, L].
            audio, vision: frames [B, La, da], [B, Lv, dv]; None where the modality is missing for the batch.
            audio_mask, vision_mask: valid frames, bool; a sample without any lacks the modality.
            audio_spans, vision_spans: begin and end of each frame as shares of the utterance's length [B, La, 2],
                [B, Lv, 2], ascending, padding above 1 (the kit's Collator makes them of frame times); None: frames
                are spread evenly, up to the last valid one.
            labels: sentiments on the dataset's scale [B] (or class indices); NaN where unknown.
            text_embeddings: [B, L, D] in place of the LM's embeddings of `input_ids`, for gradients to words.
            output_lm_logits, output_hidden_states, output_attentions: also return these; None: as the config says. Of hidden
                states an index, or several, keep those alone (None stands for the others).
            share_texts: compute texts, and beginnings of texts, that several rows have in common once: for few rows of one
                utterance's variants, in eval mode. Same numbers; hooks on the LM's layers and on feed-forwards then see
                the packed sequence. Nothing is shared where states or attentions are returned or embeddings given.
            modalities: the same three inputs of each of `config.extra_modalities`; and `return_dict`, as of any of
                transformers' models.

        Raises:
            DeepMLFError: the text is longer than `max_text_tokens`, or padded on the left, or there are not as many spans
                as frames, or an input belongs to no modality of the model.
        """
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        chosen = _chosen_states(output_hidden_states, len(self.language.layers) + 1)
        if output_attentions is None:
            output_attentions = bool(self.config.output_attentions)
        batch, length = input_ids.shape
        if length > self.config.max_text_tokens:
            raise DeepMLFError(
                f"The text has {length} tokens, but max_text_tokens is {self.config.max_text_tokens}: "
                "truncate it (the kit's Collator does), or build the model with more."
            )
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        last = last_tokens(attention_mask)  # (B,)

        # Encode audio and vision
        av_states, av_mask = self.av_encoder(
            batch,
            audio=audio,
            audio_mask=audio_mask,
            audio_spans=audio_spans,
            vision=vision,
            vision_mask=vision_mask,
            vision_spans=vision_spans,
            **modalities,
        )  # (B, K, d), (B, K)

        # Embed the text and append the fusion tokens
        text = self.language.embed(input_ids) if text_embeddings is None else text_embeddings  # (B, L, D)
        if self.training:
            config = self.config
            text = seqaug(text, attention_mask.bool(), config.seqaug_text_p_feat, config.seqaug_text_p_apply)
        fusion = self.fusion_tokens.to(text.dtype).expand(batch, -1, -1)  # (B, F, D)

        # LM layers with MM Blocks between them
        returns_states = chosen is not None or output_attentions
        text_first = self._text_first_is_exact(text, chosen is not None)
        all_text = labels is None or returns_states or output_lm_logits
        only_last = self.training and text_first and self.config.uses_only_last_text and not all_text
        decoder = DecoderPass(
            self.config,
            self.language,
            self.mm_blocks,
            attention_mask,
            av_states,
            av_mask,
            input_ids=input_ids,
            text_cache=self.usable_text_cache() if text_embeddings is None else None,
            last_text=last if only_last else None,
            return_states=chosen is not None,
            return_attentions=output_attentions,
            recompute=self.config.gradient_checkpointing_layers and self.training,
        )
        run = decoder.text_first if text_first else decoder.joint
        shares = share_texts and text_embeddings is None and not (returns_states or self.training)
        if shares and self.language.takes_any_mask and bool(attention_mask[:, 0].all()):  # no text is empty
            run = decoder.packed
        text, fusion = run(text, fusion)  # (B, L, D) or only the last token (B, 1, D), (B, F, D)

        # Heads
        last_text = text[:, 0] if only_last else select_tokens(text, last)  # (B, D)
        predictions = self.heads(fusion, last_text, mean_state(av_states, av_mask))
        if not self.config.num_classes:
            # (B,), fusion (B, F)
            predictions = {name: value.squeeze(-1) for name, value in predictions.items()}

        has_av = av_mask.any(dim=1)  # (B,): where there is nothing to read, the AV head has nothing to say
        silent = ~has_av.view(-1, *[1] * (predictions["av"].dim() - 1))
        predictions["av"] = predictions["av"].masked_fill(silent, nan)

        # Loss
        terms = (
            {}
            if labels is None
            else self._losses(predictions, labels, has_av, text, input_ids, attention_mask)
        )

        return DeepMLFOutput(
            loss=self._total(terms) if terms else None,
            prediction=predictions["task"],
            text_prediction=predictions["text"],
            fusion_prediction=predictions["fusion"],
            av_prediction=predictions["av"],
            **terms,
            lm_logits=self.language.logits(text) if output_lm_logits else None,
            text_states=None if only_last else text,
            fusion_states=fusion,
            av_states=av_states,
            av_mask=av_mask,
            hidden_states=_only(chosen, decoder.hidden_states),
            attentions=decoder.attentions() if output_attentions else None,
            cross_attentions=dict(decoder.cross_attentions) if output_attentions else None,
        )

    def cache_text_states(self, folder: str | Path, gigabytes: float = DEFAULT_GIGABYTES) -> TextCache | None:
        """Cache hidden states and keys/values of the frozen LM, computed once per text (used on the fast path, `text_first`).

        Used wherever it is exact: not for a training batch under SeqAug on text, nor for `text_embeddings`. After a
        change of the LM's weights it must be called again.

        Args:
            folder: of the cache files; a later run with the same LM finds the states there.
            gigabytes: the most disk that all cache files of the folder may take (10^9 bytes); texts beyond it are
                computed each time.
        """
        self._text_cache = open_text_cache(folder, self.language.lm, self.layers_before_training, gigabytes)
        return self._text_cache

    def usable_text_cache(self) -> TextCacheFile | None:
        """The text cache, where using it now is exact: the text is not augmented, the LM is frozen."""
        augmented = self.config.seqaug_text_p_feat > 0 and self.config.seqaug_text_p_apply > 0
        if self._text_cache is not None and self.language.is_trained:
            self._text_cache = None  # for good: the cached states are no longer this LM's
        if self._text_cache is None or (self.training and augmented):
            return None
        return self._text_cache.file(self.fusion_tokens.device, self.language.compiled)

    @property
    def layers_before_training(self) -> int:
        """Number of LM layers that a text passes before the first trained module."""
        return layers_before_training(self.config, len(self.language.layers))

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether LM layers and MM Blocks are recomputed in the backward pass (`gradient_checkpointing_enable`)."""
        return self.config.gradient_checkpointing_layers

    def _set_gradient_checkpointing(self, enable: bool = True, **how: Any) -> None:
        """As transformers calls it; `how` is not needed: recomputing is never reentrant here, and of every layer."""
        self.config.gradient_checkpointing_layers = enable

    def _text_first_is_exact(self, text: Tensor, output_hidden_states: bool) -> bool:
        """Text first is exact where no gradient is wanted through the text: to its embeddings, its states or the LM."""
        gradient = text.requires_grad or output_hidden_states or self.language.is_trained
        wanted = self.config.takes_text_first(text.device.type)
        return wanted and not (gradient and torch.is_grad_enabled())

    def _losses(
        self,
        predictions: dict[str, Tensor],
        labels: Tensor,
        has_av: Tensor,
        text_states: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
    ) -> dict[str, Tensor]:
        """The loss terms by their names in `DeepMLFOutput`, before weighting."""
        config = self.config
        terms = {
            f"loss_{head}": sentiment_loss(predictions[head], labels, config.num_classes)
            for head in ("task", "fusion", "text")
        }
        if has_av.any():
            terms["loss_av"] = sentiment_loss(predictions["av"][has_av], labels[has_av], config.num_classes)
        if config.loss_lm:
            targets = next_token_targets(input_ids, attention_mask, config.max_text_tokens, self.pad_token_id)
            vocabulary = self.language.config.vocab_size
            terms["loss_lm"] = next_token_loss(text_states, targets, self.language.logits, vocabulary)
        return terms

    def _total(self, terms: dict[str, Tensor]) -> Tensor:
        """Weighted sum of the loss terms; the task's weight is 1."""
        weighted = (getattr(self.config, name) * term for name, term in terms.items() if name != "loss_task")
        return sum(weighted, start=terms["loss_task"])


def _chosen_states(asked: bool | int | Sequence[int] | None, count: int) -> set[int] | None:
    """Indices of the hidden states that `output_hidden_states` asks for; None: none at all.

    Raises:
        DeepMLFError: there are not so many.
    """
    if asked is None or asked is False:
        return None
    if asked is True:
        return set(range(count))
    indices = [asked] if isinstance(asked, int) else list(asked)
    if wrong := [index for index in indices if not -count <= index < count]:
        raise DeepMLFError(
            f"output_hidden_states asks for hidden state {wrong[0]}, but there are {count} (0, the embeddings, to {count - 1}): "
            "choose among them."
        )
    return {index % count for index in indices}


def _only(chosen: set[int] | None, states: Sequence[Tensor]) -> Any:
    """The chosen ones of the hidden states, None in place of the others."""
    if chosen is None:
        return None
    return tuple(state if index in chosen else None for index, state in enumerate(states))
