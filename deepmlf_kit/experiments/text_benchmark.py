"""The language stream on real texts: which language model, and does the MM Blocks' feed-forward pay for itself on text?

With `ffw_on_text` (as published) the text's states change above the first MM Block, so that only those below it are cached;
without, the language stream is exactly the frozen LM's and every layer's states are cached. The table says what each is
worth and what it costs, over several seeds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import DatasetDict
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

from ..model.decoder_pass import layers_before_training
from ..model.known_lms import lm_shape
from ..rendering.tables import Table, number
from ..storage.files import write_json, write_text
from ..training import Run, train
from ..training.dataset import open_dataset
from ..training.metric_table import metric_table
from ..training.metrics import mean_and_deviation, score
from ..training.presets import load_preset

METRICS = ("MAE", "Corr", "Has0_acc_2", "Non0_acc_2", "Mult_acc_7")
PRESETS = ("sample", "smollm2")
"""The embedded LM and SmolLM2-135M."""


def text_benchmark(
    dataset: DatasetDict | str | Path,
    out: str | Path = "runs/texts",
    *,
    presets: Sequence[str] = PRESETS,
    ffw_on_text: Sequence[bool] = (True, False),
    seeds: Sequence[int] = (0, 1, 2),
    overrides: Sequence[str] | dict[str, Any] = (),
    rows: int | None = None,
    progress: bool = True,
    tell: Callable[[str], None] = print,
) -> Table:
    """Train DeepMLF on texts with every preset, with and without its feed-forward on text, for every seed.

    Called again after an interruption it resumes; `table.json`, `table.md` and `trainings.csv` (a line for each of them) are
    written after every training. What words and word pairs reach (`word_pairs`) is told first.

    Args:
        dataset: of texts (`data.texts.prepare_texts`) or any other.
        out: folder of the runs and the table.
        presets: names or files, one for each language model.
        ffw_on_text: values to compare.
        seeds: of the trainings.
        overrides: further settings of all of them.
        rows: take only so many utterances of each split.
        progress: show progress bars.
        tell: called with a line for each trained model.

    Returns:
        Metrics of the test split, mean and standard deviation over seeds; the layers whose text states are cached; seconds
        of the first epoch, which fills the cache, and of a later one (median).
    """
    data, _ = open_dataset(dataset)
    if rows is not None:
        data = DatasetDict({name: part.select(range(min(rows, len(part)))) for name, part in data.items()})
    out = Path(out)
    done: dict[str, list[Run]] = {}
    cached: dict[str, str] = {}
    table = Table([], [])
    reference = word_pairs(data)
    tell(f"words and word pairs, ridge regression: MAE {reference['MAE']:.3f}, Corr {reference['Corr']:.3f}")
    for seed in seeds:
        for name in presets:
            for on_text in ffw_on_text:
                preset = load_preset(load_preset(name, overrides), {"fusion.ffw_on_text": on_text})
                title = f"{preset.lm.name}, feed-forward {'also' if on_text else 'not'} on text"
                folder = out / f"{preset.name}-{'on' if on_text else 'off'}-seed-{seed}"
                run = train(preset, data, folder, seed=seed, progress=progress, tensorboard=False)
                config = preset.model_config()
                layers = lm_shape(config).num_hidden_layers
                cached[title] = f"{layers_before_training(config, layers)} of {layers}"
                done.setdefault(title, []).append(run)
                tell(f"seed {seed}: {title}: MAE {run.metrics['MAE']:.3f}, Corr {run.metrics['Corr']:.3f}")
                table = _write(out, done, cached)
    return table


def word_pairs(data: DatasetDict) -> dict[str, float]:
    """Metrics of ridge regression on words and word pairs (TF-IDF) on the test split: what a language model has to beat.

    Its penalty is the one with the smallest error on the validation split.

    Args:
        data: with the splits `train`, `valid` and `test`; utterances without a label are left out.
    """
    read = {}
    for split, part in data.items():
        labels = np.array(part["label"], np.float32)
        known = ~np.isnan(labels)
        read[split] = [text for text, one in zip(part["text"], known, strict=True) if one], labels[known]
    texts, labels = read["train"]
    fitted = [
        make_pipeline(TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True), Ridge(penalty)).fit(
            texts, labels
        )
        for penalty in (0.3, 1.0, 3.0, 10.0)
    ]
    best = min(fitted, key=lambda one: np.abs(one.predict(read["valid"][0]) - read["valid"][1]).mean())
    return score(best.predict(read["test"][0]), read["test"][1], "mosei")


def _write(out: Path, done: Mapping[str, Sequence[Run]], cached: Mapping[str, str]) -> Table:
    scores = {
        title: [{name: run.metrics[name] for name in METRICS} for run in runs] for title, runs in done.items()
    }
    summary = {title: mean_and_deviation(rows) for title, rows in scores.items()}
    seconds = {title: _seconds(runs) for title, runs in done.items()}
    metrics = metric_table(summary, METRICS)
    header = [*metrics.header, "seeds", "cached layers", "first epoch, s", "an epoch, s"]
    rows = [
        [*row, len(runs), cached[title], *(number(value, 1) for value in seconds[title])]
        for row, (title, runs) in zip(metrics.rows, done.items(), strict=True)
    ]
    table = Table(header, rows, metrics.bold, metrics.notes)
    stored = {
        title: {"by_seed": scores[title], "cached": cached[title], "seconds": seconds[title]}
        for title in done
    }
    trainings = [
        {
            "lm": run.preset.lm.name,
            "ffw_on_text": run.preset.fusion.ffw_on_text,
            "seed": run.info["seed"],
            **{name: round(run.metrics[name], 4) for name in METRICS},
            "minutes": round(run.info["seconds"] / 60, 1),
        }
        for runs in done.values()
        for run in runs
    ]
    write_text(out / "trainings.csv", pd.DataFrame(trainings).to_csv(index=False))
    write_json(out / "table.json", stored)
    write_text(out / "table.md", table.markdown())
    return table


def _seconds(runs: Sequence[Run]) -> tuple[float, float]:
    """Of the first epoch of the first run, which fills the cache, and of a later one (median over all runs)."""
    epochs = [[epoch["seconds"] for epoch in run.history()] for run in runs]
    later = [seconds for run in epochs for seconds in run[1:]] or epochs[0]
    return epochs[0][0], statistics.median(later)
