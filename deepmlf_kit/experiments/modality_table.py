"""Modality table over several seeds: does fusion improve on single modalities?

Text only, voice and face only, their mean (late fusion), DeepMLF with one fusion layer and with five, all on the same
features, language model and trainer. Each seed makes its own sample set, so that the standard deviation covers data and
training.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import DatasetDict
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.sample import make_sample
from ..errors import DeepMLFError
from ..evaluation.late_fusion import late_fusion
from ..training import train
from ..training.metrics import mean_and_deviation, score
from ..training.presets import load_preset

ONE_LAYER = [4]


@dataclass(frozen=True)
class ModalityTable:
    """Scores by model: `by_seed[model]` one dict per seed, `summary[model][metric]` mean and standard deviation."""

    by_seed: dict[str, list[dict[str, float]]]
    summary: dict[str, dict[str, tuple[float, float]]]

    @property
    def gain(self) -> float:
        """Relative reduction of the mean error by the deepest DeepMLF against the best single modality."""
        error = {name: row["MAE"][0] for name, row in self.summary.items()}
        fused = list(error)[-1]
        return 1 - error[fused] / min(error["Text only"], error["Voice and face only"])


def modality_table(
    seeds: Sequence[int] = (0, 1, 2),
    out: str | Path = "runs/modalities",
    dataset: DatasetDict | str | Path | None = None,
    *,
    preset: str = "sample",
    overrides: Mapping[str, Any] | None = None,
    one_layer: Sequence[int] = ONE_LAYER,
    lm: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = True,
    tell: Callable[[str], None] = print,
) -> ModalityTable:
    """Train the models for every seed (four trainings per seed); called again after an interruption, it resumes.

    Args:
        seeds: of the trainings and, where `dataset` is None, of the sample sets.
        out: folder for the runs, one folder per seed, and `table.json`.
        dataset: in place of generated sample sets.
        preset, overrides: settings; the fused model with five layers is the preset's.
        one_layer: fusion layers of the model with one.
        lm, tokenizer: in place of the preset's language model.
        progress: show progress bars.
        tell: called with a line for each trained model.

    Raises:
        DeepMLFError: the settings are those of a model of classes.
    """
    out = Path(out)
    deep = load_preset(preset, dict(overrides or {}))
    if deep.heads.classes:
        raise DeepMLFError(
            "This table compares mean absolute errors of sentiment numbers: leave heads.classes at 0."
        )
    shallow = deep.with_overrides({"fusion.layers": list(one_layer)})
    depths = [(shallow, len(one_layer)), (deep, len(deep.fusion.layers))]
    by_seed: dict[str, list[dict[str, float]]] = {}

    def note(name: str, metrics: dict[str, float], seed: int) -> None:
        by_seed.setdefault(name, []).append(metrics)
        tell(f"seed {seed}: {name}: MAE {metrics['MAE']:.3f}")

    for seed in seeds:
        data = dataset if dataset is not None else make_sample(seed)
        folder = out / f"seed-{seed}"
        common: dict[str, Any] = {"seed": seed, "lm": lm, "tokenizer": tokenizer}
        common |= {"progress": progress, "tensorboard": False}
        text = train(deep, data, folder / "text", model="text", **common)
        note("Text only", text.metrics, seed)
        av = train(deep, data, folder / "av", model="av", **common)
        note("Voice and face only", av.metrics, seed)
        mean = late_fusion(text, av)
        note("Late fusion", score(mean["prediction"], mean["label"], deep.data.scale), seed)
        for chosen, depth in depths:
            run = train(chosen, data, folder / f"fused-{depth}", av_encoder=av, **common)
            note(f"DeepMLF, {depth} fusion layer{'s' if depth > 1 else ''}", run.metrics, seed)
    shared = [name for name in by_seed["Late fusion"][0]]
    summary = {
        name: mean_and_deviation([{k: scores[k] for k in shared} for scores in runs])
        for name, runs in by_seed.items()
    }
    table = {"seeds": list(seeds), "by_seed": by_seed, "summary": summary}
    (out / "table.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return ModalityTable(by_seed, summary)
