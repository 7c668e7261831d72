"""The heads: predictions from text, fusion tokens, AV states and all of them together (paper, section 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import DeepMLFConfig


class TaskNorm(nn.BatchNorm1d):
    """BatchNorm1d that uses its running statistics for a training batch of one sample, instead of failing."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.shape[0] == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


def task_head(config: DeepMLFConfig, features: int) -> nn.Sequential:
    """The task head: Linear(features, `task_hidden`), norm, ReLU, Linear(`task_hidden`, outputs)."""
    norm = TaskNorm if config.task_norm == "batch" else nn.LayerNorm
    return nn.Sequential(
        nn.Linear(features, config.task_hidden),
        norm(config.task_hidden),
        nn.ReLU(),
        nn.Linear(config.task_hidden, config.head_outputs),
    )


class Heads(nn.Module):
    """A linear head for each stream, and the task head over all of them.

    Args:
        config: `task_hidden`, `task_norm`, `num_classes`.
        width: D.
    """

    def __init__(self, config: DeepMLFConfig, width: int) -> None:
        super().__init__()
        outputs = config.head_outputs
        self.text = nn.Linear(width, outputs)
        self.fusion = nn.Linear(width, outputs)
        self.av = nn.Linear(config.av_width, outputs)
        self.task = task_head(config, 2 * width + config.av_width)

    def forward(self, fusion: Tensor, last_text: Tensor, av_mean: Tensor) -> dict[str, Tensor]:
        """Predict from each stream and from all together.

        Args:
            fusion: fusion tokens after the final norm [B, F, D].
            last_text: last valid text token after the final norm [B, D].
            av_mean: mean AV state [B, d].

        Returns:
            `task`, `text`, `av` [B, outputs] and `fusion` [B, F, outputs].
        """
        dtype = self.text.weight.dtype
        fusion, last_text, av_mean = fusion.to(dtype), last_text.to(dtype), av_mean.to(dtype)
        together = torch.cat([fusion.mean(dim=1), last_text, av_mean], dim=-1)  # [B, 2D + d]
        return {
            "task": self.task(together),
            "text": self.text(last_text),
            "fusion": self.fusion(fusion),
            "av": self.av(av_mean),
        }
