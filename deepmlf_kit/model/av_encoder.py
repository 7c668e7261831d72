"""The audio-visual encoder: frames of voice and face -> AV states, and its pretraining model (paper, section 3.2).

audio [B, La, da] ─► pool to K ─► (BatchNorm) ─► Linear ─► + positions ─► Transformer ─┐
                                                                                      ├─► Linear ─► LayerNorm ─► [B, K, d]
vision [B, Lv, dv] ─► pool to K ─► (BatchNorm) ─► Linear ─► + positions ─► Transformer ─┘

Further modalities (`modalities.py`) each get a stream of their own beside these two. Registered in
`registry.AV_ENCODERS`; `av_encoder` in the configuration names another encoder.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.utils import can_return_tuple

from ..errors import DeepMLFError
from .base import SentimentModel, SentimentOutput
from .config import DeepMLFConfig
from .modalities import input_names
from .registry import AV_ENCODERS
from .seqaug import seqaug

#: Tolerance in steps: a frame that ends on a step's edge but for rounding lies on it.
_ROUNDING = 1e-4


def frames_of_steps(spans: Tensor, mask: Tensor, steps: int) -> Tensor:
    """Which frames each AV step averages; the only place where this is decided.

    Step k is the k-th of K equal parts of the utterance. It stands for the frames whose middle lies in that part; where
    there is none (fewer frames than steps), for the frame that is under way in the middle of the part, if any.

    Args:
        spans: begin and end of each frame as shares of the utterance's length [B, T, 2], ascending; padding above 1.
        mask: valid frames [B, T], bool. A missing frame keeps its place: no other stands in for it.
        steps: K.

    Returns:
        [B, K, T] float32: 1 where the step averages the frame, else 0.
    """
    batch, count = mask.shape
    begin, end = (spans.float() * steps).unbind(dim=-1)  # [B, T], in steps
    middle = (begin + end) / 2
    step = (middle + _ROUNDING).long().clamp(0, steps - 1)  # [B, T]
    is_frame = middle < steps  # [B, T]: else padding
    valid = (mask & is_frame).float()
    average = valid.new_zeros(batch, steps, count).scatter_(1, step.unsqueeze(1), valid.unsqueeze(1))

    # Steps in which no frame has its middle
    frames_in = step.new_zeros(batch, steps).scatter_add_(1, step, is_frame.long())  # [B, K]
    at = torch.arange(steps, device=spans.device).unsqueeze(1) + (0.5 + _ROUNDING)  # [K, 1]
    frame = ((begin.unsqueeze(1) <= at).sum(dim=-1) - 1).clamp(min=0)  # [B, K]: last to begin
    at = at.squeeze(1)
    under_way = (begin.gather(1, frame) <= at) & (at < end.gather(1, frame)) & mask.gather(1, frame)
    frame, alone = frame.unsqueeze(2), ((frames_in == 0) & under_way).unsqueeze(2)
    return average.scatter_(2, frame, average.gather(2, frame) + alone)


def even_spans(mask: Tensor) -> Tensor:
    """Spans of frames whose times are unknown: equal shares, up to the last valid frame.

    Args:
        mask: valid frames [B, T], bool.

    Returns:
        [B, T, 2]; those of padding lie beyond 1.
    """
    edges = torch.arange(mask.shape[1] + 1, device=mask.device)  # [T + 1]
    length = (mask * edges[1:]).amax(dim=1).clamp(min=1)  # [B]
    shares = edges / length.unsqueeze(1)  # [B, T + 1]
    return torch.stack([shares[:, :-1], shares[:, 1:]], dim=-1)


def pool_to_steps(
    frames: Tensor, mask: Tensor, steps: int, spans: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Average the frames that each of K equal parts of the utterance stands for (`frames_of_steps`).

    Missing frames do not enter the averages; a step without a valid frame is not real.

    Args:
        frames: [B, T, C].
        mask: valid frames [B, T], bool.
        steps: K.
        spans: begin and end of each frame as shares of the utterance's length [B, T, 2], ascending, padding above 1;
            None: `even_spans`.

    Returns:
        Steps [B, K, C], and which of them are real [B, K], bool.
    """
    spans = even_spans(mask) if spans is None else spans
    weights = frames_of_steps(spans, mask, steps).to(frames.dtype)  # [B, K, T]
    count = weights.sum(dim=-1, keepdim=True)  # [B, K, 1]
    return (weights @ frames) / count.clamp(min=1), count.squeeze(-1) > 0


def sinusoidal_positions(steps: int, width: int) -> Tensor:
    """Sine half, then cosine half, positions counted from 1. [K, d]"""
    half = width // 2
    rate = torch.exp(torch.arange(half) * -(math.log(10000) / max(half - 1, 1)))
    angle = torch.arange(1, steps + 1).unsqueeze(1) * rate
    table = torch.cat([angle.sin(), angle.cos()], dim=1)
    return nn.functional.pad(table, (0, width - 2 * half))


class ModalityEncoder(nn.Module):
    """One modality: frames [B, T, C] -> steps [B, K, d]."""

    def __init__(self, config: DeepMLFConfig, features: int) -> None:
        super().__init__()
        self.steps, self.width = config.av_steps, config.av_width
        self.batch_norm = nn.BatchNorm1d(features) if config.av_batchnorm else None
        self.projection = nn.Linear(features, config.av_width, bias=False)
        self.register_buffer("positions", sinusoidal_positions(self.steps, self.width), persistent=False)
        self.dropout = nn.Dropout(config.av_dropout)
        layers = [
            nn.TransformerEncoderLayer(
                config.av_width,
                config.av_heads,
                4 * config.av_width,
                config.av_dropout,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(config.av_layers)
        ]
        self.encoder = nn.TransformerEncoder(layers[0], len(layers), enable_nested_tensor=False)
        self.encoder.layers = nn.ModuleList(layers)  # torch would start all of them as copies of the first
        missing = torch.zeros(config.av_width)
        if config.missing_modality == "learned":
            self.missing = nn.Parameter(missing)
        else:
            self.register_buffer("missing", missing, persistent=False)

    def forward(self, frames: Tensor, mask: Tensor, spans: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encode; missing steps hold the missing vector.

        Args:
            frames, mask, spans: as in `pool_to_steps`.

        Returns:
            States [B, K, d] and which steps are real [B, K], bool.
        """
        x, real = pool_to_steps(frames, mask, self.steps, spans)  # [B, K, C], [B, K]
        if self.batch_norm is not None:
            x = self._normalise(x, real)
        x = self.projection(x) * math.sqrt(self.width) + self.positions  # [B, K, d]
        # A sample without this modality hides nothing: no NaN
        hidden = ~(real | ~real.any(dim=1, keepdim=True))
        x = self.encoder(self.dropout(x), src_key_padding_mask=hidden)
        return torch.where(real.unsqueeze(-1), x, self.missing.to(x.dtype)), real

    def _normalise(self, x: Tensor, real: Tensor) -> Tensor:
        """BatchNorm over the features of real steps [B, K, C]; padding becomes 0 and does not enter the statistics."""
        assert self.batch_norm is not None
        if (
            not self.training
        ):  # each step by itself: nothing depends on how many are real, so that it can be traced
            normed = self.batch_norm(x.flatten(0, 1)).view_as(x)  # [B, K, C]
            return torch.where(real.unsqueeze(-1), normed, 0).to(x.dtype)
        normed = x.new_zeros(x.shape)
        if real.any():
            normed[real] = self.batch_norm(x[real]).to(x.dtype)
        return normed


class Stream(NamedTuple):
    """One modality of a batch: frames [B, T, C], valid frames [B, T] bool, and spans [B, T, 2] or None."""

    frames: Tensor
    mask: Tensor
    spans: Tensor | None


class AVEncoder(nn.Module):
    """Base class of AV encoders: audio, vision and further modalities -> AV states.

    This class completes and checks what a batch gives and applies SeqAug; a subclass implements `encode`.

    Args:
        config: sizes and switches; `config.modalities` lists the modalities and their numbers of features.
    """

    def __init__(self, config: DeepMLFConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, batch_size: int | None = None, **inputs: Tensor | None) -> tuple[Tensor, Tensor]:
        """Encode a batch.

        Args:
            batch_size: B, needed only where no modality is given.
            inputs: of each modality, such as audio:
                audio: frames [B, La, da]; None or no valid frame where the modality is missing.
                audio_mask: valid frames [B, La], bool; None where all are.
                audio_spans: begin and end of each frame as shares of the utterance's length [B, La, 2]
                    (`data.clock.frame_spans`), ascending, padding above 1; None where frame times are unknown: frames
                    are then spread evenly, up to the last valid one.

        Raises:
            DeepMLFError: an input of no modality of this model, or spans that are not one pair a frame.

        Returns:
            AV states [B, K, d], and the steps at which at least one modality is real [B, K], bool.
        """
        modalities = self.config.modalities
        if unknown := sorted(set(inputs) - set(input_names(modalities))):
            raise DeepMLFError(
                f"The model has no input {unknown[0]!r}: its modalities are {', '.join(modalities)}; add others as "
                "DeepMLFConfig(extra_modalities={name: features})."
            )
        given = next((frames for name in modalities if (frames := inputs.get(name)) is not None), None)
        batch = given.shape[0] if given is not None else (batch_size or 1)
        streams = {name: self._stream(name, inputs, batch) for name in modalities}
        if self.training:
            p_feat = self.config.seqaug_av_p_feat
            streams = {n: s._replace(frames=seqaug(s.frames, s.mask, p_feat)) for n, s in streams.items()}
        return self.encode(streams)

    def encode(self, streams: dict[str, Stream]) -> tuple[Tensor, Tensor]:
        """Encode all modalities.

        Args:
            streams: by modality, in the order of `config.modalities`; a missing one has no valid frame.

        Returns:
            AV states [B, K, d], and which of them are real [B, K], bool.
        """
        raise NotImplementedError

    def _stream(self, name: str, inputs: dict[str, Tensor | None], batch: int) -> Stream:
        weight = next(self.parameters())
        frames, mask, spans = (inputs.get(part) for part in input_names([name]))
        if frames is None or frames.shape[1] == 0:
            frames = weight.new_zeros(batch, 1, self.config.modalities[name])
            mask = torch.zeros(batch, 1, dtype=torch.bool, device=weight.device)
        elif mask is None:
            mask = torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device)
        assert mask is not None
        if spans is not None and spans.shape != (*mask.shape, 2):
            raise DeepMLFError(
                f"{name}_spans has shape {list(spans.shape)}, but {name} has {list(mask.shape)} frames: give the begin "
                f"and end of each, {[*mask.shape, 2]}, or None."
            )
        return Stream(frames.to(weight.dtype), mask.bool(), spans)


@AV_ENCODERS.register("transformer")
class TransformerAVEncoder(AVEncoder):
    """The published AV encoder: a Transformer per modality, joined step by step; see the module's drawing."""

    def __init__(self, config: DeepMLFConfig) -> None:
        super().__init__(config)
        for name, features in config.modalities.items():
            self.add_module(name, ModalityEncoder(config, features))
        self.fuse = nn.Linear(len(config.modalities) * config.av_width, config.av_width)
        self.norm = nn.LayerNorm(config.av_width)

    def encode(self, streams: dict[str, Stream]) -> tuple[Tensor, Tensor]:
        """As of `AVEncoder`; a missing modality is a stream of its missing vector."""
        encoded = [self.get_submodule(name)(*stream) for name, stream in streams.items()]
        states, real = zip(*encoded, strict=True)  # [B, K, d] and [B, K] of each modality
        return self.norm(self.fuse(torch.cat(states, dim=-1))), torch.stack(real).any(dim=0)


def build_av_encoder(config: DeepMLFConfig) -> AVEncoder:
    """The AV encoder that `config.av_encoder` names."""
    return AV_ENCODERS[config.av_encoder](config)


class AVSentimentModel(SentimentModel):
    """AV pretraining (the fusion curriculum's first step): the AV encoder with a linear head, alone.

    Its checkpoint initialises a fused model: `DeepMLFModel.load_av_encoder(folder)`.
    """

    base_model_prefix = "av_encoder"
    main_input_name = "audio"

    def __init__(self, config: DeepMLFConfig) -> None:
        super().__init__(config)
        self.av_encoder = build_av_encoder(config)
        self.head = nn.Linear(config.av_width, config.head_outputs)
        self.post_init()

    @can_return_tuple
    def forward(self, labels: Tensor | None = None, **batch: Any) -> SentimentOutput:
        """Batch as in `DeepMLFModel.forward`; text is accepted and ignored."""
        inputs = {name: batch[name] for name in input_names(self.config.modalities) if name in batch}
        states, mask = self.av_encoder(**inputs)
        return self._output(self.head(mean_state(states, mask)), labels)


def mean_state(states: Tensor, mask: Tensor) -> Tensor:
    """Mean AV state over real steps [B, K, d] -> [B, d]; over all steps where none is real."""
    use = mask | ~mask.any(dim=1, keepdim=True)
    weights = use.to(states.dtype).unsqueeze(-1)
    return (states * weights).sum(dim=1) / weights.sum(dim=1)
