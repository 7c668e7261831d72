"""The audio-visual encoder: frames of voice and face -> AV states, and its pretraining model (paper, section 3.2).

audio [B, La, da] ─► pool to K ─► (BatchNorm) ─► Linear ─► + positions ─► Transformer ─┐
                                                                                      ├─► Linear ─► LayerNorm ─► [B, K, d]
vision [B, Lv, dv] ─► pool to K ─► (BatchNorm) ─► Linear ─► + positions ─► Transformer ─┘
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from ..errors import DeepMLFError
from .config import DeepMLFConfig
from .losses import sentiment_loss
from .seqaug import seqaug

#: In steps: a frame that ends on a step's edge but for rounding lies on it.
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
    at = (
        (torch.arange(steps, device=spans.device) + (0.5 + _ROUNDING)).expand(batch, -1).contiguous()
    )  # [B, K]
    frame = (torch.searchsorted(begin.contiguous(), at, right=True) - 1).clamp(min=0)  # [B, K]: last to begin
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
            normed = x.new_zeros(x.shape)
            if real.any():
                normed[real] = self.batch_norm(x[real]).to(x.dtype)  # padding does not enter the statistics
            x = normed
        x = self.projection(x) * math.sqrt(self.width) + self.positions  # [B, K, d]
        hidden = ~(
            real | ~real.any(dim=1, keepdim=True)
        )  # a sample without this modality hides nothing: no NaN
        x = self.encoder(self.dropout(x), src_key_padding_mask=hidden)
        return torch.where(real.unsqueeze(-1), x, self.missing.to(x.dtype)), real


class AVEncoder(nn.Module):
    """Audio and vision -> AV states [B, K, d]; a missing modality is a stream of its missing vector."""

    def __init__(self, config: DeepMLFConfig) -> None:
        super().__init__()
        self.config = config
        self.audio = ModalityEncoder(config, config.audio_dim)
        self.vision = ModalityEncoder(config, config.vision_dim)
        self.fuse = nn.Linear(2 * config.av_width, config.av_width)
        self.norm = nn.LayerNorm(config.av_width)

    def forward(
        self,
        audio: Tensor | None = None,
        audio_mask: Tensor | None = None,
        vision: Tensor | None = None,
        vision_mask: Tensor | None = None,
        batch_size: int | None = None,
        audio_spans: Tensor | None = None,
        vision_spans: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Encode voice and face.

        Args:
            audio, vision: frames [B, La, da], [B, Lv, dv]; None or no valid frame where the modality is missing.
            audio_mask, vision_mask: valid frames, bool; None where all are.
            batch_size: B, needed only where both modalities are None.
            audio_spans, vision_spans: begin and end of each frame as shares of the utterance's length [B, La, 2],
                [B, Lv, 2] (`data.clock.frame_spans`), ascending, padding above 1; None where frame times are unknown:
                frames are then spread evenly, up to the last valid one.

        Raises:
            DeepMLFError: spans that are not one pair a frame.

        Returns:
            AV states [B, K, d], and the steps at which at least one modality is real [B, K], bool.
        """
        given = audio if audio is not None else vision
        batch = given.shape[0] if given is not None else (batch_size or 1)
        audio, audio_mask = self._complete(audio, audio_mask, batch, self.config.audio_dim)
        vision, vision_mask = self._complete(vision, vision_mask, batch, self.config.vision_dim)
        if self.training:
            p_feat = self.config.seqaug_av_p_feat
            audio, vision = seqaug(audio, audio_mask, p_feat), seqaug(vision, vision_mask, p_feat)
        voice, voice_real = self.audio(audio, audio_mask, _checked_spans("audio", audio_spans, audio_mask))
        face, face_real = self.vision(
            vision, vision_mask, _checked_spans("vision", vision_spans, vision_mask)
        )
        return self.norm(self.fuse(torch.cat([voice, face], dim=-1))), voice_real | face_real

    def _complete(
        self, frames: Tensor | None, mask: Tensor | None, batch: int, features: int
    ) -> tuple[Tensor, Tensor]:
        weight = self.fuse.weight
        if frames is None or frames.shape[1] == 0:
            frames = weight.new_zeros(batch, 1, features)
            mask = torch.zeros(batch, 1, dtype=torch.bool, device=weight.device)
        elif mask is None:
            mask = torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device)
        return frames.to(weight.dtype), mask.bool()


def _checked_spans(stream: str, spans: Tensor | None, mask: Tensor) -> Tensor | None:
    if spans is None or spans.shape == (*mask.shape, 2):
        return spans
    raise DeepMLFError(
        f"{stream}_spans has shape {list(spans.shape)}, but {stream} has {list(mask.shape)} frames: give the begin and "
        f"end of each, {[*mask.shape, 2]}, or None."
    )


@dataclass
class AVOutput(ModelOutput):
    """What `AVSentimentModel` gives: `loss` (where labels were given), `prediction` [B] or [B, classes]."""

    loss: Tensor | None = None
    prediction: Tensor | None = None


class AVSentimentModel(PreTrainedModel):
    """AV pretraining (the fusion curriculum's first step): the AV encoder with a linear head, alone.

    Its checkpoint initialises a fused model: `DeepMLFModel.load_av_encoder(folder)`.
    """

    config_class = DeepMLFConfig
    base_model_prefix = "av_encoder"
    main_input_name = "audio"

    def __init__(self, config: DeepMLFConfig) -> None:
        super().__init__(config)
        self.av_encoder = AVEncoder(config)
        self.head = nn.Linear(config.av_width, config.head_outputs)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Modules keep torch's own initialisation; loading leaves buffers that are not stored to be made here."""
        if isinstance(module, ModalityEncoder):
            with torch.no_grad():
                module.positions.copy_(sinusoidal_positions(module.steps, module.width))
                if not isinstance(module.missing, nn.Parameter):
                    module.missing.zero_()

    def forward(
        self,
        audio: Tensor | None = None,
        audio_mask: Tensor | None = None,
        vision: Tensor | None = None,
        vision_mask: Tensor | None = None,
        labels: Tensor | None = None,
        audio_spans: Tensor | None = None,
        vision_spans: Tensor | None = None,
        **_: Tensor,
    ) -> AVOutput:
        """Batch as in `DeepMLFModel.forward`; text is taken and not read."""
        states, mask = self.av_encoder(
            audio, audio_mask, vision, vision_mask, audio_spans=audio_spans, vision_spans=vision_spans
        )
        prediction = self.head(mean_state(states, mask))  # [B, 1]
        prediction = prediction if self.config.num_classes else prediction.squeeze(-1)
        loss = None if labels is None else sentiment_loss(prediction, labels, self.config.num_classes)
        return AVOutput(loss=loss, prediction=prediction)


def mean_state(states: Tensor, mask: Tensor) -> Tensor:
    """Mean AV state over real steps [B, K, d] -> [B, d]; over all steps where none is real."""
    use = mask | ~mask.any(dim=1, keepdim=True)
    weights = use.to(states.dtype).unsqueeze(-1)
    return (states * weights).sum(dim=1) / weights.sum(dim=1)
