"""Score a finished run on a dataset: the one it was trained on, or another with the same features.

Stands after training; `deepmlf evaluate` prints what it gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DeepMLFError

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset, DatasetDict
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ..data.collate import Collator
    from ..training import Run


@dataclass(frozen=True)
class Evaluation:
    """A run's scores on a split.

    Attributes:
        metrics: the field's metrics by name (`metrics.score`), the loss and its terms, and the error of each head.
        predictions: one row an utterance: `id`, `label`, `prediction` and what the other heads say.
        split: which split of the dataset.
    """

    metrics: dict[str, float]
    predictions: pd.DataFrame
    split: str

    def to_markdown(self) -> str:
        """The field's metrics as a Markdown table."""
        from ..training.driver import markdown_table

        return markdown_table(self.metrics, self.split)


@dataclass(frozen=True)
class Scorer:
    """A run's best checkpoint and a split: `predict(rows)` scores the split's rows, or changed ones in their order."""

    run: Run
    rows: Dataset
    split: str
    _model: PreTrainedModel
    _collator: Collator

    def predict(self, rows: Sequence[Any]) -> tuple[dict[str, float], pd.DataFrame]:
        """Metrics and table of predictions of rows as `data.schema.for_batches` gives them."""
        from ..training.scoring import predict_split

        preset = self.run.preset
        recipe = preset.pretraining if self.run.kind == "av" else preset.training
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
        run: a `Run` or its folder; of a fused model, the AV encoder or a baseline.
        dataset: a `DatasetDict` or its folder; None: what the run was trained on.
        split: `train`, `valid` or `test`.
        lm, tokenizer: where the run was made with a language model in memory.

    Raises:
        DeepMLFError: there is no such run, dataset or split, the features differ from the run's, or no utterance
            has a label.
    """
    from ..training.driver import rows_of

    scored = scorer(run, dataset, split, lm=lm, tokenizer=tokenizer)
    metrics, table = scored.predict(rows_of(scored.rows))
    return Evaluation(metrics, table, split)


def scorer(
    run: Run | str | Path,
    dataset: DatasetDict | str | Path | None = None,
    split: str = "test",
    *,
    lm: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Scorer:
    """A run's best checkpoint, ready to score a split as it is or changed; arguments and errors as in `evaluate`."""
    import torch

    from ..data.schema import dims_of
    from ..model.lm_loading import load_tokenizer
    from ..training import Run
    from ..training.driver import open_dataset

    run = run if isinstance(run, Run) else Run.open(run)
    known = run.info["dataset"]
    where = dataset if dataset is not None else known["path"]
    if where is None:
        raise DeepMLFError(
            f"The run {run.path} was trained on a dataset in memory: say which dataset to score."
        )
    data, _ = open_dataset(where)
    if split not in data:
        raise DeepMLFError(f"The dataset has no split {split!r}; it has {', '.join(data)}.")
    if dims_of(data) != (known["audio_dim"], known["vision_dim"]):
        raise DeepMLFError(
            f"The dataset has {dims_of(data)[0]} audio and {dims_of(data)[1]} vision features a frame, the run "
            f"{run.path} was trained on {known['audio_dim']} and {known['vision_dim']}: prepare it with the run's "
            "recipe."
        )
    with torch.random.fork_rng(devices=[]):  # new modules draw their first weights before they are loaded
        model = run.load_model(lm=lm, tokenizer=tokenizer)
    if tokenizer is None:
        tokenizer = getattr(model, "tokenizer", None) or load_tokenizer(model.config)
    if torch.accelerator.is_available():
        model.to(torch.accelerator.current_accelerator())
    return Scorer(run, data[split], split, model, run.collator(tokenizer))
