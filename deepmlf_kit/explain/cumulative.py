"""Cumulative ablation: MM Blocks silenced alone, the first n together and the last n together, over a whole split.

Where it stands: beside `ablations`, whose effects take out one part at a time. Parts that stand in for each other look
unimportant one by one and carry everything together, so a block that changes nothing alone has not been shown to do
nothing. Where the error rises, counted from the front and from the back, shows which blocks carry the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from ..data.sample import kind_of
from ..errors import DeepMLFError
from ..evaluation.intervals import groups_of, percentile_interval, resamples
from ..model.deepmlf import DeepMLFModel
from .capturing import check_eval_mode, to_device
from .interventions import Intervention, predict_batch

BRANCHES = ("cross_attention", "feed_forward", "both")


@dataclass
class CumulativeAblation:
    """Errors with sets of MM Blocks silenced.

    Attributes:
        branch: of the MM Blocks that adds nothing, one of `BRANCHES`.
        table: one row for each set of blocks and kind of utterance: `order` (`none`, `alone`, `first`, `last`), `blocks`
            (how many), `layers` (the LM layers that they follow, as text), `kind` (`all`, and those of the split),
            `utterances`, `MAE`, `change` (of the MAE against the whole model) with its 95 % interval `low`, `high`
            (paired bootstrap over videos), `wrong sign` (share of the utterances with a label other than 0).
        predictions: of the utterances with a label, by the layers whose blocks were silenced [N]; `()`: whole.
    """

    branch: str
    table: pd.DataFrame
    predictions: dict[tuple[int, ...], np.ndarray]

    def of_kind(self, kind: str = "all") -> pd.DataFrame:
        """The table's rows of one kind of utterance, in the order measured."""
        return self.table[self.table["kind"] == kind].drop(columns="kind").reset_index(drop=True)


def block_sets(layers: Sequence[int]) -> list[tuple[str, tuple[int, ...]]]:
    """Which MM Blocks are silenced: none, each alone, the first n and the last n, up to all of them.

    Args:
        layers: the LM layers that MM Blocks follow.

    Returns:
        (order, layers) pairs.
    """
    every = tuple(layers)
    return [
        ("none", ()),
        *(("alone", (layer,)) for layer in every),
        *(("first", every[:n]) for n in range(1, len(every) + 1)),
        *(("last", every[-n:]) for n in range(1, len(every) + 1)),
    ]


def cumulative_ablation(
    model: DeepMLFModel,
    rows: Sequence[Any],
    collate: Callable[[Sequence[Any]], dict[str, Any]],
    *,
    branch: str = "cross_attention",
    ids: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
    batch_size: int = 64,
    draws: int = 500,
    seed: int = 0,
    progress: bool = False,
) -> CumulativeAblation:
    """Silence MM Blocks alone and together, and score a split each time.

    Args:
        model: in eval mode.
        rows: mappings of the dataset's schema.
        collate: rows -> batch (`Collator`).
        branch: what adds nothing: `cross_attention` (nothing is read of voice and face), `feed_forward` or `both`.
        ids: of the rows; by default read from them. Clips of one video are drawn together.
        kinds: of the utterances, by which errors are broken down; None: those of the sample set's ids.
        batch_size: utterances per pass.
        draws: of the bootstrap.
        seed: of the bootstrap.
        progress: show a progress bar.

    Raises:
        DeepMLFError: the model is in training mode or one of classes, no row has a label, or the model has no such branch.
    """
    if branch not in BRANCHES:
        raise DeepMLFError(f"branch={branch!r} is not known: choose from {', '.join(BRANCHES)}.")
    check_eval_mode(model)
    if model.config.num_classes:
        raise DeepMLFError(
            "Errors by layer are those of sentiment numbers: use a model with heads.classes 0."
        )
    if branch != "cross_attention" and model.config.ffw == "none":
        raise DeepMLFError(
            "The model's MM Blocks have no feed-forward (fusion.ffw none): silence cross_attention."
        )
    layers = tuple(model.config.fusion_layers)
    sets = block_sets(layers)
    predicted: dict[tuple[int, ...], list[np.ndarray]] = {silenced: [] for _, silenced in sets}
    labels: list[float] = []
    names: list[str] = []
    for start in tqdm(range(0, len(rows), batch_size), disable=not progress):
        some = [rows[i] for i in range(start, min(start + batch_size, len(rows)))]
        labels += [float(row.get("label", np.nan)) for row in some]
        names += [str(row.get("id", start + i)) for i, row in enumerate(some)]
        batch = to_device(collate(some), model)
        for silenced, values in predicted.items():
            change = _silencing(model, silenced, branch)
            values.append(predict_batch(model, batch, [change] * len(some))["task"])
    known = np.isfinite(labels)
    if not known.any():
        raise DeepMLFError("No utterance of the split has a label, so there is no error to measure.")
    label, known_ids = np.array(labels)[known], pd.Series(names if ids is None else list(ids))[known]
    kind = np.array([kind_of(name) for name in known_ids] if kinds is None else list(kinds))
    kind = kind if kinds is None else kind[known]
    predictions = {silenced: np.concatenate(values)[known] for silenced, values in predicted.items()}
    chosen = {"all": np.ones(len(label), bool)} | {name: kind == name for name in sorted(set(kind) - {""})}
    table = [
        {"order": order, "blocks": len(silenced), "layers": ", ".join(map(str, silenced)), "kind": name}
        | _errors(predictions[silenced][at], predictions[()][at], label[at], known_ids[at], draws, seed)
        for order, silenced in sets
        for name, at in chosen.items()
    ]
    return CumulativeAblation(branch, pd.DataFrame(table), predictions)


def _silencing(model: DeepMLFModel, silenced: tuple[int, ...], branch: str) -> Intervention:
    blocks = torch.tensor([layer in silenced for layer in model.config.fusion_layers])  # [M]
    change = Intervention()
    if branch != "feed_forward":
        change.cross_attention = blocks[:, None].expand(-1, model.config.fusion_tokens)
    if branch != "cross_attention":
        change.feed_forward = blocks
    return change


def _errors(
    predicted: np.ndarray, whole: np.ndarray, label: np.ndarray, ids: pd.Series, draws: int, seed: int
) -> dict[str, float]:
    error = np.abs(predicted - label)
    change = error - np.abs(whole - label)
    drawn = np.array([change[rows].mean() for rows in resamples(groups_of(ids), draws, seed)])
    low, high = percentile_interval(drawn)
    signed = label != 0
    wrong = np.sign(predicted[signed]) != np.sign(label[signed])
    return {
        "utterances": len(label),
        "MAE": float(error.mean()),
        "change": float(change.mean()),
        "low": float(low),
        "high": float(high),
        "wrong sign": float(wrong.mean()) if signed.any() else float("nan"),
    }
