"""Score a finished run on a dataset: the one it was trained on, or another with the same features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from datasets import Dataset, DatasetDict
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.collate import Collator
from ..data.schema import dims_of
from ..errors import DeepMLFError
from ..training.dataset import dataset_of_run, rows_of
from ..training.metric_table import metric_table
from ..training.models import registered_model, tokenizer_of
from ..training.run_folder import Run
from ..training.scoring import predict_split


@dataclass(frozen=True)
class Evaluation:
    """A run's scores on a split.

    Attributes:
        metrics: the field's metrics by name (`metrics.score`), the loss and its terms, and the error of each head.
        predictions: one row per utterance: `id`, `label`, `prediction` and the predictions of the other heads.
        split: of the dataset.
    """

    metrics: dict[str, float]
    predictions: pd.DataFrame
    split: str

    def to_markdown(self) -> str:
        """The field's metrics as a Markdown table."""
        return metric_table({self.split: self.metrics}, digits=4).markdown()


@dataclass(frozen=True)
class Scorer:
    """A run's best checkpoint and a split: `predict(rows)` scores the split's rows, or perturbed ones in their order."""

    run: Run
    rows: Dataset
    split: str
    _model: PreTrainedModel
    _collator: Collator

    @property
    def modalities(self) -> list[str]:
        """Names of what the model reads beside the text."""
        return list(self._model.config.modalities)

    def predict(self, rows: Sequence[Any]) -> tuple[dict[str, float], pd.DataFrame]:
        """Metrics and table of predictions of rows as `data.schema.for_batches` returns them."""
        preset = self.run.preset
        recipe = registered_model(self.run.kind).recipe_of(preset)
        return predict_split(self._model, rows, self.rows["id"], self._collator, recipe, preset.data.scale)


def evaluate(
    run: Run | str | Path,
    dataset: DatasetDict | str | Path | None = None,
    split: str = "test",
    *,
    lm: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Evaluation:
    """Predict every utterance of a split with a run's best checkpoint, and score it; nothing is written.

    Args:
        run: a `Run` or its folder, of any registered model.
        dataset: a `DatasetDict` or its folder; None: what the run was trained on.
        split: `train`, `valid` or `test`.
        lm, tokenizer: where the run was made with a language model in memory.

    Raises:
        DeepMLFError: there is no such run, dataset or split, the features differ from the run's, or no utterance
            has a label.
    """
    scorer = open_scorer(run, dataset, split, lm=lm, tokenizer=tokenizer)
    metrics, table = scorer.predict(rows_of(scorer.rows))
    return Evaluation(metrics, table, split)


def open_scorer(
    run: Run | str | Path,
    dataset: DatasetDict | str | Path | None = None,
    split: str = "test",
    *,
    lm: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Scorer:
    """A run's best checkpoint, loaded to score a split, perturbed or not; arguments and errors as in `evaluate`."""
    run = run if isinstance(run, Run) else Run.open(run)
    known = run.info["dataset"]
    data, _ = dataset_of_run(run, dataset, "score")
    if split not in data:
        raise DeepMLFError(f"The dataset has no split {split!r}; it has {', '.join(data)}.")
    if dims_of(data) != (known["audio_dim"], known["vision_dim"]):
        raise DeepMLFError(
            f"The dataset has {dims_of(data)[0]} audio and {dims_of(data)[1]} vision features a frame, the run "
            f"{run.path} was trained on {known['audio_dim']} and {known['vision_dim']}: prepare it with the run's "
            "recipe."
        )
    with torch.random.fork_rng(
        devices=[]
    ):  # modules are initialised at random before their weights are loaded
        model = run.load_model(lm=lm, tokenizer=tokenizer)
    tokenizer = tokenizer_of(model, tokenizer)
    if torch.accelerator.is_available():
        model.to(torch.accelerator.current_accelerator())
    return Scorer(run, data[split], split, model, run.collator(tokenizer))
