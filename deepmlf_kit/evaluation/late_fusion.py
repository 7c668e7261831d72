"""Late fusion: the mean of several models' predictions, utterance by utterance."""

from __future__ import annotations

import pandas as pd

from ..data.labels import probability_columns
from ..errors import DeepMLFError
from ..training.run_folder import Run


def late_fusion(*runs: Run) -> pd.DataFrame:
    """The mean of several runs' predictions on the same test split.

    Models of classes are fused by the mean of their class probabilities; the prediction is the likeliest class.

    Args:
        runs: finished runs on one dataset, for example of `model="text"` and `model="av"`.

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
