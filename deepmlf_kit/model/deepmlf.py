"""DeepMLFModel: the whole model, its forward in the order of the paper's figure.

audio, vision ─► AV encoder ─► AV states ──────────────┐ (read by MM Blocks)
text ─► LM embeddings ─┐                               ▼
fusion tokens ─────────┴─► LM layers, an MM Block after each fusion layer ─► final norm ─► heads ─► loss
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import ModelOutput
from transformers.utils.hub import cached_file

from ..errors import DeepMLFError
from .av_encoder import AVEncoder, AVSentimentModel, mean_state
from .config import DeepMLFConfig
from .decoder_pass import Walk, last_tokens, layers_before_training, pick
from .frozen_lm import LanguageStream
from .heads import Heads
from .lm_loading import IN_MEMORY, load_lm, load_tokenizer
from .losses import next_token_loss, next_token_targets, sentiment_loss
from .mm_block import MMBlock
from .seqaug import seqaug
from .special_tokens import empty_text_ids, pad_token_id
from .text_cache import DEFAULT_GIGABYTES, TextStore, TextStoreFile, open_text_store

WEIGHTS_FILE = "model.safetensors"


@dataclass
class DeepMLFOutput(ModelOutput):
    """All that a forward gives. B batch, L text tokens, F fusion tokens, D LM width, K AV steps, d AV width.

    As of any of transformers' models, `output[0]` is the loss where labels were given, and the prediction where not.
    A stock `Trainer` hands `compute_metrics` the prediction alone, [N] or [N, C] beside labels [N]: the other fields
    are `keys_to_ignore_at_inference` of `DeepMLFConfig` (`trainer.predict(rows, ignore_keys=[...])` asks for more).
    `hidden_states` and `cross_attentions` are part of the graph: gradients of the loss reach them.

    Attributes:
        loss: weighted sum of the loss terms, where labels were given.
        prediction: the task head's sentiment, on the dataset's scale [B]; class scores [B, C] for classes.
        text_prediction: the text head's, from the last text token [B] or [B, C].
        fusion_prediction: the fusion head's, for each fusion token [B, F] or [B, F, C].
        av_prediction: the AV head's, from the mean AV state [B] or [B, C].
        loss_task, loss_fusion, loss_av, loss_text, loss_lm: the terms, before weighting.
        lm_logits: the LM head's logits at text positions [B, L, V], on request.
        text_states: text tokens after the LM's final norm [B, L, D]; None in a training step that computes the last
            one only (see `DeepMLFModel.forward`).
        fusion_states: fusion tokens after the LM's final norm [B, F, D].
        av_states: [B, K, d].
        av_mask: AV steps at which voice or face is real [B, K].
        hidden_states: on request, layers + 1 tensors [B, L + F, D]: the input of the first layer, then each
            layer's output with its MM Block; the last is after the final norm.
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
    cross_attentions: dict[int, Tensor] | None = None


class DeepMLFModel(PreTrainedModel):
    """Sentiment from words, voice and face: a frozen LM whose fusion tokens read AV states (paper, figure 2).

    `save_pretrained` stores what was trained and the LM's name and revision, never the LM; `from_pretrained`
    loads the LM from there and the trained weights from the folder or hub.

    Args:
        config: sizes and switches.
        lm: a language model already in memory; by default the one that `config.lm` names is loaded.
        tokenizer: its tokenizer; by default loaded where the LM comes from, when first asked for.

    Raises:
        DeepMLFError: the configuration does not fit the LM, or the LM cannot be loaded or understood.
    """

    config_class = DeepMLFConfig
    base_model_prefix = "deepmlf"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = False
    _supports_sdpa = True

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
        config.check_against_lm(lm.config.get_text_config())
        self._tokenizer = tokenizer
        self._text_store: TextStore | None = None
        self.language = LanguageStream(lm)
        width = self.language.width
        self.fusion_tokens = nn.Parameter(torch.randn(config.fusion_tokens, width) * 0.02)  # (F, D)
        self.av_encoder = AVEncoder(config)
        self.mm_blocks = nn.ModuleDict(
            {
                str(layer): MMBlock(
                    config,
                    self.language.new_norm(),
                    self.language.new_norm(),
                    None if config.ffw == "none" else self.language.feed_forward(layer),
                    width,
                )
                for layer in config.fusion_layers
            }
        )
        self.heads = Heads(config, width)
        self.av_encoder.requires_grad_(config.av_trainable)
        self.post_init()
        self._keys_to_ignore_on_save = self._lm_keys()

    def _init_weights(self, module: nn.Module) -> None:
        """Modules keep torch's own initialisation, and the LM its weights."""

    def train(self, mode: bool = True) -> DeepMLFModel:
        """Training mode; the frozen LM, and a frozen AV encoder, stay in eval mode."""
        super().train(mode)
        if not self.config.av_trainable:
            self.av_encoder.eval()
        return self

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The LM's tokenizer, padding on the right."""
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self.config)
        return self._tokenizer

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
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        audio_spans: Tensor | None = None,
        vision_spans: Tensor | None = None,
    ) -> DeepMLFOutput:
        """From words, voice and face to a sentiment.

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
            output_lm_logits, output_hidden_states, output_attentions: also give these.

        Raises:
            DeepMLFError: the text is longer than `max_text_tokens`, or padded on the left, or there are not as many spans
                as frames.

        A training step with `text_first` and without LM loss passes only the last text token and the fusion tokens
        through the LM's last layer and the MM Block after it: of the others only keys and values are read.
        `text_states` is None then.
        """
        batch, length = input_ids.shape
        if length > self.config.max_text_tokens:
            raise DeepMLFError(
                f"The text has {length} tokens, but max_text_tokens is {self.config.max_text_tokens}: "
                "truncate it (the kit's Collator does), or build the model with more."
            )
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        last = last_tokens(attention_mask)  # (B,)

        # Encode voice and face
        av_states, av_mask = self.av_encoder(
            audio, audio_mask, vision, vision_mask, batch, audio_spans, vision_spans
        )  # (B, K, d)

        # Embed the text and append the fusion tokens
        text = self.language.embed(input_ids) if text_embeddings is None else text_embeddings  # (B, L, D)
        if self.training:
            config = self.config
            text = seqaug(text, attention_mask.bool(), config.seqaug_text_p_feat, config.seqaug_text_p_apply)
        fusion = self.fusion_tokens.to(text.dtype).expand(batch, -1, -1)  # (B, F, D)

        # LM layers with MM Blocks between them
        asked = output_lm_logits or output_hidden_states or output_attentions
        text_first = self._goes_text_first(text, output_hidden_states)
        step = self.training and text_first and labels is not None
        only_last = step and self.config.reads_only_last_text and not asked
        walk = Walk(
            self.config,
            self.language,
            self.mm_blocks,
            attention_mask,
            av_states,
            av_mask,
            input_ids=input_ids,
            store=self.usable_text_store() if text_embeddings is None else None,
            only_text=last if only_last else None,
            keep_states=output_hidden_states,
            keep_attentions=output_attentions,
            again=self.config.gradient_checkpointing_layers and self.training,
        )
        go = walk.text_first if text_first else walk.plain
        text, fusion = go(text, fusion)  # (B, L, D) or (B, 1, D), (B, F, D)

        # Heads
        last_text = text[:, 0] if only_last else pick(text, last)  # (B, D)
        said = self.heads(fusion, last_text, mean_state(av_states, av_mask))
        if not self.config.num_classes:
            said = {name: value.squeeze(-1) for name, value in said.items()}  # (B,), fusion (B, F)

        # Loss
        terms = {} if labels is None else self._losses(said, labels, text, input_ids, attention_mask)

        return DeepMLFOutput(
            loss=self._total(terms) if terms else None,
            prediction=said["task"],
            text_prediction=said["text"],
            fusion_prediction=said["fusion"],
            av_prediction=said["av"],
            **terms,
            lm_logits=self.language.logits(text) if output_lm_logits else None,
            text_states=None if only_last else text,
            fusion_states=fusion,
            av_states=av_states,
            av_mask=av_mask,
            hidden_states=tuple(walk.hidden_states) if output_hidden_states else None,
            cross_attentions=dict(walk.cross_attentions) if output_attentions else None,
        )

    def keep_text_states(self, folder: str | Path, gigabytes: float = DEFAULT_GIGABYTES) -> TextStore:
        """Compute what the frozen LM makes of a text once, and keep it for all epochs (needs `text_first`).

        Used wherever it is exact: not for a training batch under SeqAug on text, nor for `text_embeddings`. After a
        change of the LM's weights it must be called again.

        Args:
            folder: where the states are kept; a later run with the same LM finds them there.
            gigabytes: the most disk that all kept states of the folder may take; texts beyond it are computed each
                time.
        """
        self._text_store = open_text_store(folder, self.language.lm, self.layers_before_training, gigabytes)
        return self._text_store

    def usable_text_store(self) -> TextStoreFile | None:
        """The kept text states, where using them now is exact: the text is not augmented, the LM is frozen."""
        augmented = self.config.seqaug_text_p_feat > 0 and self.config.seqaug_text_p_apply > 0
        if self._text_store is not None and self.language.is_trained:
            self._text_store = None  # for good: what it holds is no longer what this LM gives
        if self._text_store is None or (self.training and augmented):
            return None
        return self._text_store.file(self.fusion_tokens.device, self.language.compiled)

    @property
    def layers_before_training(self) -> int:
        """How many of the LM's layers a text passes before it meets something that is trained."""
        return layers_before_training(self.config, len(self.language.layers))

    def _goes_text_first(self, text: Tensor, output_hidden_states: bool) -> bool:
        """Text first is exact where no gradient is wanted through the text: to its embeddings, its states or the LM."""
        through = text.requires_grad or output_hidden_states or self.language.is_trained
        return self.config.text_first and not (through and torch.is_grad_enabled())

    def _losses(
        self,
        said: dict[str, Tensor],
        labels: Tensor,
        text_states: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
    ) -> dict[str, Tensor]:
        """The loss terms by their names in `DeepMLFOutput`, before weighting."""
        config = self.config
        terms = {
            f"loss_{head}": sentiment_loss(said[head], labels, config.num_classes)
            for head in ("task", "fusion", "av", "text")
        }
        if config.loss_lm:
            targets = next_token_targets(input_ids, attention_mask, config.max_text_tokens, self.pad_token_id)
            vocabulary = self.language.config.vocab_size
            terms["loss_lm"] = next_token_loss(text_states, targets, self.language.logits, vocabulary)
        return terms

    def _total(self, terms: dict[str, Tensor]) -> Tensor:
        """Weighted sum of the loss terms; the task's weight is 1."""
        weighted = (getattr(self.config, name) * term for name, term in terms.items() if name != "loss_task")
        return sum(weighted, start=terms["loss_task"])

    @property
    def pad_token_id(self) -> int:
        """The token that padded text positions hold."""
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

    # Saving and loading --------------------------------------------------------------------------------------

    def _lm_keys(self) -> set[str]:
        """Names of the tensors that belong to the LM, the shared ones under MM Blocks among them."""
        owned = {id(p) for p in self.language.lm.parameters()} | {id(b) for b in self.language.lm.buffers()}
        tensors = [
            *self.named_parameters(remove_duplicate=False),
            *self.named_buffers(remove_duplicate=False),
        ]
        # What is saved beside parameters and buffers belongs to quantized weights, and those are the LM's.
        beside = set(self.state_dict()) - {name for name, _ in tensors}
        return {name for name, tensor in tensors if id(tensor) in owned} | beside

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        lm: PreTrainedModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        config: DeepMLFConfig | None = None,
        revision: str = "main",
    ) -> DeepMLFModel:
        """Load a saved model: its LM by name, its trained weights from a folder or the hub.

        Args:
            pretrained_model_name_or_path: a folder that `save_pretrained` wrote, or a hub name.
            lm, tokenizer: the language model and tokenizer, where they are in memory already.
            config: replaces the stored config.
            revision: branch, tag or commit on the hub.

        Raises:
            DeepMLFError: no checkpoint is there, or its weights do not fit the model.
        """
        place = str(pretrained_model_name_or_path)
        try:
            config = config or DeepMLFConfig.from_pretrained(place, revision=revision)
            weights = cached_file(place, WEIGHTS_FILE, revision=revision)
        except OSError as error:
            raise DeepMLFError(
                f"No DeepMLF checkpoint at {place!r}: expected a folder with config.json and {WEIGHTS_FILE} "
                "(as save_pretrained or a training run writes), or such a repository's name on the hub."
            ) from error
        model = cls(config, lm=lm, tokenizer=tokenizer)
        found = model.load_state_dict(load_file(weights), strict=False)
        lacking = sorted(set(found.missing_keys) - set(model._keys_to_ignore_on_save or ()))
        if lacking or found.unexpected_keys:
            raise DeepMLFError(
                f"The checkpoint at {place!r} does not fit its config: {len(lacking)} weights are missing "
                f"(such as {lacking[:3]}), {len(found.unexpected_keys)} are not in the model "
                f"(such as {found.unexpected_keys[:3]}). Was its config.json edited?"
            )
        return model.eval()

    def load_av_encoder(self, folder: str | Path) -> None:
        """Start the AV encoder from a pretraining checkpoint (the fusion curriculum, paper section 4).

        Args:
            folder: what `AVSentimentModel.save_pretrained` wrote.

        Raises:
            DeepMLFError: no such checkpoint, or its sizes differ from this model's.
        """
        try:
            pretrained = AVSentimentModel.from_pretrained(str(folder))
        except OSError as error:
            raise DeepMLFError(
                f"No AV encoder checkpoint at {str(folder)!r}: expected the folder that `deepmlf pretrain-av` wrote."
            ) from error
        sizes = ("audio_dim", "vision_dim", "av_steps", "av_width", "av_layers", "av_heads", "av_batchnorm")
        differing = [
            f"{name} {getattr(pretrained.config, name)} there, {getattr(self.config, name)} here"
            for name in (*sizes, "missing_modality")
            if getattr(pretrained.config, name) != getattr(self.config, name)
        ]
        if differing:
            raise DeepMLFError(
                f"The AV encoder at {str(folder)!r} does not fit this model: {'; '.join(differing)}. "
                "Pretrain one with this model's settings."
            )
        self.av_encoder.load_state_dict(pretrained.av_encoder.state_dict())
