"""The audio-visual encoder: frames of voice and face -> AV states, and its pretraining model (paper, section 3.2).

audio [B, La, da] ─► pool to K ─► (BatchNorm) ─► Linear ─► + positions ─► Transformer ─┐
                                                                                      ├─► Linear ─► LayerNorm ─► [B, K, d]
vision [B, Lv, dv] ─► pool to K ─► (BatchNorm) ─► Linear ─► + positions ─► Transformer ─┘
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .config import DeepMLFConfig
from .losses import sentiment_loss
from .seqaug import seqaug


def pool_to_steps(frames: Tensor, mask: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Average adjacent frames so that step k stands for the k-th of K equal stretches of the utterance.

    The utterance ends at its last valid frame. Missing frames inside it do not enter the averages. Where there
    are fewer frames than steps, a step takes the frame at its middle.

    Args:
        frames: [B, T, C].
        mask: valid frames [B, T], bool.
        steps: K.

    Returns:
        Steps [B, K, C], and which of them have a valid frame [B, K], bool.
    """
    length = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(dim=1)  # [B]
    n = length.clamp(min=1).view(-1, 1, 1)
    j = torch.arange(frames.shape[1], device=frames.device).view(1, 1, -1)  # frames
    k = torch.arange(steps, device=frames.device).view(1, -1, 1)  # steps
    in_step = torch.where(
        n >= steps, (2 * j + 1) * steps // (2 * n) == k, (2 * k + 1) * n // (2 * steps) == j
    )
    weights = (in_step & mask.unsqueeze(1)).to(frames.dtype)  # [B, K, T]
    count = weights.sum(dim=-1, keepdim=True)  # [B, K, 1]
    return (weights @ frames) / count.clamp(min=1), count.squeeze(-1) > 0


def step_times(times: np.ndarray, steps: int) -> np.ndarray:
    """The time of each AV step: the mean time of the frames that `pool_to_steps` averages into it.

    Args:
        times: time of each frame in seconds [T].
        steps: K.

    Returns:
        Seconds [K]; NaN where there are no frames.
    """
    n = len(times)
    if n == 0:
        return np.full(steps, np.nan)
    if n >= steps:
        step = (2 * np.arange(n) + 1) * steps // (2 * n)
        return np.bincount(step, weights=times, minlength=steps) / np.bincount(step, minlength=steps)
    return np.asarray(times)[(2 * np.arange(steps) + 1) * n // (2 * steps)]


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
        layer = nn.TransformerEncoderLayer(
            config.av_width,
            config.av_heads,
            4 * config.av_width,
            config.av_dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(layer, config.av_layers, enable_nested_tensor=False)
        missing = torch.zeros(config.av_width)
        if config.missing_modality == "learned":
            self.missing = nn.Parameter(missing)
        else:
            self.register_buffer("missing", missing, persistent=False)

    def forward(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode; missing steps hold the missing vector.

        Returns:
            States [B, K, d] and which steps are real [B, K], bool.
        """
        x, real = pool_to_steps(frames, mask, self.steps)  # [B, K, C], [B, K]
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
    ) -> tuple[Tensor, Tensor]:
        """Encode voice and face.

        Args:
            audio, vision: frames [B, La, da], [B, Lv, dv]; None or no valid frame where the modality is missing.
            audio_mask, vision_mask: valid frames, bool; None where all are.
            batch_size: B, needed only where both modalities are None.

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
        voice, voice_real = self.audio(audio, audio_mask)
        face, face_real = self.vision(vision, vision_mask)
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
        **_: Tensor,
    ) -> AVOutput:
        """Batch as in `DeepMLFModel.forward`; text is taken and not read."""
        states, mask = self.av_encoder(audio, audio_mask, vision, vision_mask)
        prediction = self.head(mean_state(states, mask))  # [B, 1]
        prediction = prediction if self.config.num_classes else prediction.squeeze(-1)
        loss = None if labels is None else sentiment_loss(prediction, labels, self.config.num_classes)
        return AVOutput(loss=loss, prediction=prediction)


def mean_state(states: Tensor, mask: Tensor) -> Tensor:
    """Mean AV state over real steps [B, K, d] -> [B, d]; over all steps where none is real."""
    use = mask | ~mask.any(dim=1, keepdim=True)
    weights = use.to(states.dtype).unsqueeze(-1)
    return (states * weights).sum(dim=1) / weights.sum(dim=1)
