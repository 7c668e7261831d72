"""Baselines on the same features, language model and trainer, for a fair table beside DeepMLF.

* text only: the task head's shape on the frozen LM's last text token, no fusion tokens, no MM Blocks;
* AV only: the AV encoder with its linear head, which is `pretrain_av`;
* late fusion: the mean of the two, utterance by utterance (of class probabilities, where they are classes).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.labels import probability_columns
from ..errors import DeepMLFError
from ..training.presets import Preset, load_preset
from .base import LanguageSentimentModel, SentimentOutput
from .config import DeepMLFConfig
from .decoder_pass import last_tokens, select_tokens
from .heads import task_head
from .text_cache import TextCacheFile, arithmetic

if TYPE_CHECKING:
    import pandas as pd
    from datasets import DatasetDict

    from ..training import Run


class TextSentimentModel(LanguageSentimentModel):
    """Text only: the task head on the frozen LM's last valid text token.

    Args:
        config: of the fused model it is compared with (`lm`, `task_hidden`, `task_norm`, `num_classes` are read).
        lm, tokenizer: where they are in memory already.
    """

    base_model_prefix = "text"

    def __init__(
        self,
        config: DeepMLFConfig,
        lm: PreTrainedModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        super().__init__(config, lm=lm, tokenizer=tokenizer)
        self._cached: dict[bytes, Tensor] | None = None
        self._cache_bytes = 0.0
        self.head = task_head(config, self.language.width)
        self._finish_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor | None = None,
        **_: Tensor,
    ) -> SentimentOutput:
        """Batch as in `DeepMLFModel.forward`; audio and vision are accepted and ignored.

        Args:
            input_ids, attention_mask: [B, L], padded right.
            labels: [B]; NaN where unknown.
        """
        return self._output(self.head(self._last_states(input_ids, attention_mask)), labels)

    def cache_text_states(self, folder: str | Path, gigabytes: float = 1.0) -> None:
        """Compute the last state of a text once for all epochs.

        Args:
            folder: not used: one vector per text fits into memory.
            gigabytes: the most memory they may take (10^9 bytes); texts beyond it are computed each time.
        """
        self._cached, self._cache_bytes = {}, gigabytes * 1e9

    def _last_states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The last valid token after the LM's final norm, float32 [B, D]."""
        if self.language.is_trained:
            self._cached = None  # for good: the cached states are no longer this LM's
        cached = self._cached
        if cached is None:
            return self._compute_last_states(input_ids, attention_mask)
        setting = arithmetic(input_ids.device, self.language.compiled).encode()
        keys = [setting + key for key in TextCacheFile.key(input_ids, attention_mask)]
        new = [i for i, key in enumerate(keys) if key not in cached]
        computed: dict[int, Tensor] = {}
        if new:
            states = self._compute_last_states(input_ids[new], attention_mask[new])
            computed = dict(zip(new, states, strict=True))
        for i, state in computed.items():
            if (len(cached) + 1) * state.numel() * state.element_size() <= self._cache_bytes:
                cached[keys[i]] = state.cpu()
        rows = [computed[i] if i in computed else cached[key] for i, key in enumerate(keys)]
        return torch.stack([row.to(input_ids.device) for row in rows])

    def _compute_last_states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        last = last_tokens(attention_mask)  # [B]
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).unsqueeze(0)
        states = self.language.decoder(
            inputs_embeds=self.language.embed(input_ids),
            attention_mask=attention_mask,
            position_ids=positions,
            use_cache=False,
        ).last_hidden_state  # [B, L, D]
        return select_tokens(states, last).float()  # [B, D]


def train_text_only(
    preset: str | Path | Preset,
    dataset: DatasetDict | str | Path,
    out: str | Path,
    *,
    overrides: Sequence[str] | dict[str, Any] = (),
    seed: int = 0,
    lm: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    overwrite: bool = False,
    progress: bool = True,
    tensorboard: bool = True,
) -> Run:
    """Train the text-only baseline by the preset's `training` recipe; arguments as in `training.train`."""
    from ..training.driver import run_training

    preset = load_preset(preset, overrides)

    def build() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        model = TextSentimentModel(preset.model_config(), lm=lm, tokenizer=tokenizer)
        return model, model.tokenizer

    return run_training(
        "text",
        build,
        preset,
        preset.training,
        dataset,
        out,
        seed=seed,
        overwrite=overwrite,
        progress=progress,
        tensorboard=tensorboard,
    )


def late_fusion(*runs: Run) -> pd.DataFrame:
    """The mean of several runs' predictions on the same test split.

    Models of classes are fused by the mean of their class probabilities; the prediction is the likeliest class.

    Returns:
        Columns `id`, `label`, `prediction`, and for models of classes `probability_0`, `probability_1`, ...

    Raises:
        DeepMLFError: the runs did not predict the same utterances or not the same classes, or a run of classes was made
            before probabilities were kept.
    """
    tables = [run.predictions() for run in runs]
    ids = tables[0]["id"]
    classes = runs[0].preset.heads.classes
    columns = probability_columns(classes) if classes else ["prediction"]
    for run, table in zip(runs, tables, strict=True):
        if not ids.equals(table["id"]):
            raise DeepMLFError(
                f"{run.path} predicts other utterances than {runs[0].path}: use one dataset for both."
            )
        if run.preset.heads.classes != classes:
            raise DeepMLFError(
                f"{run.path} has heads.classes={run.preset.heads.classes}, {runs[0].path} has {classes}: train both "
                "with the same."
            )
        if missing := [column for column in columns if column not in table]:
            raise DeepMLFError(
                f"{run.path / 'predictions.csv'} has no {missing[0]}, and class indices cannot be averaged: run the "
                "training again with this version of the kit, which keeps the probability of each class."
            )
    mean = sum(table[columns] for table in tables) / len(tables)
    fused = tables[0][["id", "label"]].join(mean)
    if classes:
        fused.insert(2, "prediction", mean.to_numpy().argmax(axis=1).astype(float))
    return fused
