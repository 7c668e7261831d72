"""Scoring: the predictions of every head for a split, and the field's metrics.

Where it stands: between a model and a table. The trainer takes heads and metrics from here for its validation, and
whoever predicts a whole split (the final table of a training, `evaluate`, robustness) calls `predict_split`, which
writes nothing and leaves the random state alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from ..data.labels import probability_columns
from ..data.schema import for_batches
from .calibration import Calibration, streams_of
from .metrics import score
from .recipe import Recipe

#: Predictions in the order of the columns that `head_values` gives; NaN where a model has no such head.
HEADS = ("prediction", "text_prediction", "fusion_prediction", "av_prediction")
LOSS_TERMS = ("loss_task", "loss_fusion", "loss_av", "loss_text", "loss_lm")


def predict_split(
    model: PreTrainedModel,
    rows: Sequence[Any],
    ids: Sequence[str],
    collate: Callable[[list[Any]], dict[str, Tensor]],
    recipe: Recipe,
    scale: str,
) -> tuple[dict[str, float], pd.DataFrame]:
    """Predict every utterance of a split, in eval mode and on the model's device.

    Args:
        model: gives an output with `loss` and `prediction`, as `SentimentTrainer` takes it.
        rows: as the collator takes them.
        ids: of the rows, in their order.
        collate: rows -> batch.
        recipe: its `eval_batch_size`, `bf16` and `workers` are read.
        scale: rules of the metrics (`mosi`, `mosei`, `sims`).

    Returns:
        The metrics, the mean loss and its terms; a table of `id`, `label` and each head's prediction.

    Raises:
        DeepMLFError: no utterance has a label.
    """
    classes = getattr(model.config, "num_classes", 0)
    device = model.device
    loader: DataLoader[Any] = DataLoader(
        rows,  # type: ignore[arg-type]  # any sequence will do
        batch_size=recipe.eval_batch_size,
        collate_fn=collate,
        num_workers=recipe.workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # without one of its own it draws from the global random state
    )
    heads, losses, labels = [], [], []
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=recipe.bf16):
            for batch in loader:
                batch = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
                outputs = model(**batch)
                values = head_values(outputs, classes)  # [B, heads]
                means = torch.cat([outputs["loss"].float().reshape(1), loss_terms(outputs)])  # [1 + terms]
                heads.append(values.cpu())
                losses.append(means.expand(len(values), -1).cpu())
                labels.append(batch["labels"].cpu())
    finally:
        model.train(was_training)
    predicted, true = torch.cat(heads).numpy(), torch.cat(labels).numpy()
    loss, *terms = mean_losses(torch.cat(losses).numpy())  # over utterances, not batches
    metrics = {**metrics_of(predicted, terms, true, scale, classes), "loss": loss}
    names = ["prediction", "text", "fusion", "av", *probability_columns(classes)]
    table = pd.DataFrame({"id": list(ids), "label": true, **dict(zip(names, predicted.T, strict=True))})
    return metrics, table.dropna(axis="columns", how="all")


def head_values(outputs: Mapping[str, Any], classes: int) -> Tensor:
    """Each head's prediction for each utterance [B, heads] float32: a sentiment, or the index of the likeliest class.

    NaN where a head's stream is not there.

    For models of classes, the task head's probability of each class follows [B, heads + classes].
    """
    prediction = outputs["prediction"]
    batch = prediction.shape[0]
    values = []
    for name in HEADS:
        value = outputs.get(name)
        if value is None:
            values.append(prediction.new_full((batch,), float("nan"), dtype=torch.float32))
        else:
            tokens = value.float().reshape(batch, -1, max(1, classes)).mean(dim=1)  # [B, 1 or C]
            absent = tokens.isnan().any(dim=1)  # the head's stream is not there
            values.append(
                tokens.argmax(dim=1).float().masked_fill(absent, math.nan) if classes else tokens[:, 0]
            )
    if classes:
        values += prediction.float().softmax(dim=1).unbind(dim=1)
    return torch.stack(values, dim=1)


def loss_terms(outputs: Mapping[str, Any]) -> Tensor:
    """Unweighted loss terms [terms] float32; NaN where a model has no such term."""
    nothing = outputs["prediction"].new_full((), float("nan"), dtype=torch.float32)
    return torch.stack(
        [nothing if outputs.get(name) is None else outputs[name].detach().float() for name in LOSS_TERMS]
    )


def mean_losses(losses: np.ndarray) -> list[float]:
    """Means over utterances [N, 1 + terms] of the loss and its terms (`mean_terms`)."""
    return [float(losses[:, 0].astype(float).mean()), *mean_terms(losses[:, 1:])]


def mean_terms(terms: np.ndarray) -> list[float]:
    """Means over utterances [N, terms] of the loss terms: of each over the batches that have it, NaN where none has."""
    terms = terms.astype(float)
    given = ~np.isnan(terms)
    means = np.where(given, terms, 0.0).sum(axis=0) / np.maximum(given.sum(axis=0), 1)
    return np.where(given.any(axis=0), means, np.nan).tolist()


def metrics_of(
    heads: np.ndarray, terms: Sequence[float], labels: np.ndarray, scale: str, classes: int
) -> dict[str, float]:
    """The field's metrics of the prediction, the error of each other head, and the loss terms.

    Args:
        heads: as `head_values` gives, of all utterances [N, heads].
        terms: the mean of each loss term, NaN where there is none.
        labels: [N], NaN where unknown.
        scale: `mosi`, `mosei` or `sims`.
        classes: of a model of classes, how many; else 0.
    """
    metrics = score(heads[:, 0], labels, scale, classes=classes)
    main = f"Acc_{classes}" if classes else "MAE"
    for i, name in enumerate(HEADS[1:], start=1):
        speaks = ~np.isnan(heads[:, i])  # not where its stream is missing
        if (speaks & ~np.isnan(labels)).any():
            of_head = score(heads[speaks, i], labels[speaks], scale, classes=classes)
            metrics[f"{name.removesuffix('_prediction')}_{main}"] = of_head[main]
    metrics |= {
        name: float(value) for name, value in zip(LOSS_TERMS, terms, strict=True) if not math.isnan(value)
    }
    return metrics


def calibrate(
    valid: pd.DataFrame, valid_split: Dataset, test: pd.DataFrame, test_split: Dataset
) -> dict[str, Any] | None:
    """What a run notes of its calibration.

    Args:
        valid, test: predictions of the two splits (`predict_split`).
        valid_split, test_split: the splits.

    Returns:
        `Calibration.to_dict`, measured on `valid`, with what it did on `test`: `held_out` (`Calibration.covered`) and
        `held_out_signs` (`Calibration.right_signs`). None where `valid` is too small.
    """
    streams = [streams_of(row) for row in for_batches(valid_split)]
    measured = Calibration.fit(valid["prediction"].to_numpy(), valid["label"].to_numpy(), streams)
    if measured is None:
        return None
    held_out = (
        test["prediction"].to_numpy(),
        test["label"].to_numpy(),
        [streams_of(row) for row in for_batches(test_split)],
    )
    return {
        **measured.to_dict(),
        "held_out": measured.covered(*held_out),
        "held_out_signs": measured.right_signs(*held_out),
    }
