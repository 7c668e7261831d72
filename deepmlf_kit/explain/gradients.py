"""Integrated gradients: a prediction attributed to words, audio frames and video frames.

Where it stands: beside `ablations`. Along the straight path from a baseline (a neutral utterance) to the utterance, the
gradients of the prediction are averaged and multiplied by the difference (Sundararajan et al., 2017; `captum`). The
attributions add up to the difference of the two predictions, but for `convergence_delta`.

The baseline is part of the answer: an attribution is what a frame adds *relative to the baseline's frame*. Points on the
path are utterances that nobody ever said, so where the model is far from linear, compare the attributions with
`effects`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DeepMLFError
from ..model.av_encoder import even_spans
from ..model.deepmlf import DeepMLFModel
from ..storage.optional import optional
from .capturing import check_one_utterance, score_of, text_mask_of, to_array, to_device

attribution = optional("captum.attr")

BASELINES = ("zero", "mean")


@dataclass
class Attributions:
    """Attributions of one prediction.

    Attributes:
        text: of each text token [L].
        audio, vision: of each feature of each frame [La, da], [Lv, dv].
        extra: likewise of the model's further modalities, by name.
        prediction, baseline_prediction: at both ends of the path.
        convergence_delta: the difference between the two predictions minus the sum of the attributions; more steps
            make it smaller.
        baselines: in words.
    """

    text: np.ndarray
    audio: np.ndarray
    vision: np.ndarray
    prediction: float
    baseline_prediction: float
    convergence_delta: float
    baselines: str
    extra: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def by_modality(self) -> dict[str, float]:
        """Summed attributions of `text`, `audio`, `vision` and further modalities."""
        parts = {"text": self.text, "audio": self.audio, "vision": self.vision, **self.extra}
        return {name: float(attributions.sum()) for name, attributions in parts.items()}


def integrated_gradients(
    model: DeepMLFModel,
    batch: Mapping[str, Any],
    *,
    text_baseline: str = "mean",
    frame_baseline: str = "zero",
    steps: int = 32,
    rows: int = 16,
) -> Attributions:
    """Integrated gradients of one utterance's prediction.

    Args:
        model: in eval mode.
        batch: one utterance (B = 1), as `DeepMLFModel.forward` takes it.
        text_baseline: `mean`: every word is the LM's mean embedding; `zero`: the zero vector, which an RMSNorm
            amplifies close to zero, so that it takes more steps.
        frame_baseline: `zero`: frames of zeros, the training mean where features are normalised; `mean`: the
            utterance's own mean frame, so that only what changes during the utterance gets an attribution.
        steps: points on the path (Gauss-Legendre).
        rows: points per forward pass.

    Raises:
        DeepMLFError: more than one utterance, a baseline that does not exist, or a model in training mode.
    """
    for name, value in (("text_baseline", text_baseline), ("frame_baseline", frame_baseline)):
        if value not in BASELINES:
            raise DeepMLFError(f"{name}={value!r} is not known: choose from {', '.join(BASELINES)}.")
    check_one_utterance(model, batch)
    batch = to_device(batch, model)
    ids = batch["input_ids"]
    text = model.language.embed(ids).detach()  # [1, L, D]
    if text_baseline == "mean":
        weight = model.language.lm.get_input_embeddings().weight
        mean = model.language.embed(torch.arange(len(weight), device=weight.device)).mean(dim=0)
        neutral = mean.detach().to(text.dtype).expand_as(text)
    else:
        neutral = torch.zeros_like(text)
    frames, masks, all_spans, empty = [], [], [], []
    streams = list(model.config.modalities)
    for stream in streams:
        values, mask, spans = _stream(batch, stream, model)
        frames.append(values)
        masks.append(mask)
        all_spans.append(spans)
        empty.append(_frame_baseline(values, mask, frame_baseline))

    def predict(text: Tensor, *inputs: Tensor) -> Tensor:
        ids, text_mask = inputs[-2:]
        parts = [inputs[i : i + len(streams)] for i in range(0, len(inputs) - 2, len(streams))]
        frames, masks, spans = (dict(zip(streams, part, strict=True)) for part in parts)
        modalities = {name: frames[name] for name in streams}
        modalities |= {f"{name}_mask": masks[name] for name in streams}
        modalities |= {f"{name}_spans": spans[name] for name in streams}
        output = model(ids, text_mask, text_embeddings=text, **modalities)
        return score_of(output.prediction, model.config.num_classes)

    rest = (*masks, *all_spans, ids, text_mask_of(batch).long())
    attributions = attribution.IntegratedGradients(predict).attribute(
        inputs=(text, *frames),
        baselines=(neutral, *empty),
        additional_forward_args=rest,
        n_steps=steps,
        internal_batch_size=rows,
    )
    with torch.no_grad():
        there = float(predict(text, *frames, *rest))
        base = float(predict(neutral, *empty, *rest))
    parts = [to_array(part)[0] for part in attributions]
    real = text_mask_of(batch)[0].cpu().numpy()
    return Attributions(
        text=parts[0].sum(axis=-1)[real],
        audio=parts[1],
        vision=parts[2],
        extra=dict(zip(streams[2:], parts[3:], strict=True)),
        prediction=there,
        baseline_prediction=base,
        convergence_delta=there - base - float(sum(part.sum() for part in parts)),
        baselines=f"{_IN_WORDS['text', text_baseline]} and {_IN_WORDS['frame', frame_baseline]}",
    )


_IN_WORDS = {
    ("text", "mean"): "the LM's mean embedding",
    ("text", "zero"): "zero embeddings",
    ("frame", "zero"): "zero frames",
    ("frame", "mean"): "the utterance's mean frames",
}


def _stream(batch: Mapping[str, Any], stream: str, model: DeepMLFModel) -> tuple[Tensor, Tensor, Tensor]:
    values, mask, spans = (batch.get(name) for name in (stream, f"{stream}_mask", f"{stream}_spans"))
    if values is None:
        values = model.fusion_tokens.new_zeros(1, 1, getattr(model.config, f"{stream}_dim"))
        mask = torch.zeros(1, 1, dtype=torch.bool, device=values.device)
    elif mask is None:
        mask = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
    return values.float(), mask.bool(), even_spans(mask.bool()) if spans is None else spans


def _frame_baseline(values: Tensor, mask: Tensor, kind: str) -> Tensor:
    if kind == "zero" or not bool(mask.any()):
        return torch.zeros_like(values)
    mean = values[mask].mean(dim=0)  # [C]
    return mean.expand_as(values) * mask.unsqueeze(-1)
