"""The trials in a sweep's folder: what they share, and how one of them is trained.

    out/
      plan.yaml           the plan
      data/               the sample set, where no dataset was given
      av/KEY-SEED/        AV pretrainings (run folders), shared by the trials with the same settings for it
      trials/NAME/        one run folder per trial, and `NAME.json`: its varied settings, or why it failed
      locks/              lock files: which trial is being trained
      logs/               output of the workers of `--jobs`
      results.csv, results.arrow, report.md, report.html

A trial is a run folder, so an interrupted one is resumed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from datasets import DatasetDict
from torch import OutOfMemoryError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data import schema
from ..data.sample import make_sample
from ..errors import DeepMLFError
from ..model.lm_loading import load_lm_config
from ..storage.files import write_json, write_text
from ..storage.folders import foreign
from ..training import Run, train
from ..training.dataset import open_dataset
from ..training.presets import Preset, load_preset
from ..training.presets.parsing import yaml_mapping
from ..training.processes import processes
from ..training.run_folder import digest_of
from .axes import apply, av_preset
from .locks import held
from .plan import Point, SweepPlan
from .results import gather, read_note, write_table

Trial = tuple[Point, int]  # a choice of settings and a seed


class Trials:
    """All trials of one plan in one folder; the constructor creates or checks the folder and finds the dataset.

    Args:
        plan, dataset, out, lm, tokenizer, progress: as in `run_sweep`.
        tell: called with a line for each trial that has ended.

    Raises:
        DeepMLFError: the plan is wrong, or `out` holds another sweep.
    """

    def __init__(
        self,
        plan: SweepPlan,
        dataset: DatasetDict | str | Path | None,
        out: Path,
        lm: PreTrainedModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        progress: bool = False,
        tell: Callable[[str], None] = print,
    ) -> None:
        self.plan, self.out = plan, out
        self.lm, self.tokenizer, self.progress = lm, tokenizer, progress
        self.is_main = processes().is_main_process  # under `accelerate launch` one process writes and tells
        self.tell = tell if self.is_main else lambda line: None
        self.base = load_preset(plan.preset, dict(plan.set))
        self.lm_layers = _layers_of(self.base, lm)
        with processes().main_process_first():
            self._open_folder()
            self.dataset = dataset if dataset is not None else self._sample()

    def check(self, points: Sequence[Point]) -> None:
        """Refuse, before the first training, what cannot be trained or compared.

        Raises:
            DeepMLFError: a setting is wrong, the trials' validation values cannot be compared, or the folder holds
                trials of another dataset or of other settings by the same name.
        """
        presets = [self._preset(point)[0] for point in points]
        for preset in presets:
            preset.model_config()
        check_comparable(self.plan, self.base, presets)
        self._check_runs(points)

    # One trial -----------------------------------------------------------------------------------------------

    def claim(self, trial: Trial, wait: bool = False) -> AbstractContextManager[bool]:
        """Hold a trial while it is trained; yields False where another process holds it and `wait` is false."""
        return held(self.out / "locks" / f"{name_of(trial)}.lock", wait)

    def finished(self, trial: Trial) -> bool:
        """Whether a trial's training is finished."""
        path = self._folder(trial) / "run.json"
        return path.is_file() and Run.open(path.parent).finished

    def failed(self, trial: Trial) -> bool:
        """Whether a trial failed in its last attempt."""
        note = read_note(self._note(trial))
        return note is not None and "failed" in note

    def train(self, trial: Trial, number: str = "") -> Run | None:
        """Train a claimed trial, or return its finished run; None where it failed."""
        point, seed = trial
        title = f"{number} {name_of(trial)}".strip()
        note = {"shown": point.shown, "settings": point.settings, "seed": seed}
        there = self.finished(trial)
        try:
            preset, pretrained = self._preset(point)
            av = self._pretrained(preset, seed) if pretrained else None
            self._write_note(trial, note)
            folder = self._folder(trial)
            run = train(preset, self.dataset, folder, av_encoder=av, seed=seed, **self._common)
        except (DeepMLFError, OutOfMemoryError) as error:
            self._write_note(trial, {**note, "failed": str(error)})
            self.tell(f"{title}: failed: {error}")
            return None
        if not there:
            self.write_table()
            self.tell(f"{title}: MAE {run.metrics.get('MAE', float('nan')):.3f}, {run.info['seconds']:.0f} s")
        return run

    def train_point(self, point: Point) -> list[Run | None]:
        """One trial per seed, waiting for those that another process trains; None where it failed."""
        runs = []
        for seed in self.plan.seeds:
            with self.claim((point, seed), wait=True):
                runs.append(self.train((point, seed)))
        return runs

    def forget_failures(self, trials: Sequence[Trial]) -> None:
        """Allow another attempt at failed trials."""
        for trial in trials:
            with self.claim(trial) as claimed:
                if claimed and self.failed(trial):
                    self._note(trial).unlink()

    def pretrain_unclaimed(self, trials: Sequence[Trial]) -> None:
        """Run the AV pretrainings of these trials that no other process runs.

        One that fails is left to its trials, which report it.
        """
        wanted = {}
        for point, seed in trials:
            preset, pretrained = self._preset(point)
            if pretrained:
                wanted[self._av_name(preset, seed)] = preset, seed
        for name, (preset, seed) in wanted.items():
            with held(self._av_lock(name), wait=False) as claimed:
                if claimed:
                    try:
                        self._pretrain(name, preset, seed)
                    except (DeepMLFError, OutOfMemoryError):
                        continue

    # All of them ---------------------------------------------------------------------------------------------

    def grid(self, shard: tuple[int, int] = (1, 1)) -> list[Trial]:
        """Every n-th point of a grid with every seed, ordered by seed: a sweep stopped early has complete curves."""
        points = self.plan.points()[shard[0] - 1 :: shard[1]]
        return [(point, seed) for seed in self.plan.seeds for point in points]

    def tell_finished(self, trials: Sequence[Trial]) -> int:
        """How many of them are finished; tells the user where some are."""
        count = sum(map(self.finished, trials))
        if count:
            self.tell(f"{count} of {len(trials)} trainings are finished already.")
        return count

    def write_table(self) -> pd.DataFrame:
        """Gather the finished trials and write the table."""
        table = gather(self.out)
        if len(table) and self.is_main:
            write_table(table, self.out)
        return table

    # Inside --------------------------------------------------------------------------------------------------

    def _check_runs(self, points: Sequence[Point]) -> None:
        """Refuse a folder whose runs were trained on another dataset, or with other settings than their names mean now."""
        # trials and AV pretrainings
        runs = [Run.open(path.parent) for path in sorted(self.out.glob("*/*/run.json"))]
        if not runs:
            return
        digest = digest_of(open_dataset(self.dataset)[0])
        wanted = {
            name_of((point, seed)): self._preset(point)[0].to_dict()
            for point in points
            for seed in self.plan.seeds
        }
        for run in runs:
            if run.info["dataset"]["digest"] != digest:
                raise DeepMLFError(
                    f"{self.out} holds a sweep on another dataset: {run.path.name} was trained on utterances, labels or "
                    f"features with the digest {run.info['dataset']['digest']}, this dataset's is {digest}. Choose "
                    "another folder."
                )
            if run.info["preset"] != wanted.get(run.path.name, run.info["preset"]):
                raise DeepMLFError(
                    f"{self.out} holds a trial {run.path.name} with other settings than the plan gives it now: choose "
                    "another folder."
                )

    @property
    def _common(self) -> dict[str, Any]:
        return {
            "lm": self.lm,
            "tokenizer": self.tokenizer,
            "progress": self.progress,
            "tensorboard": False,
        }

    def _preset(self, point: Point) -> tuple[Preset, bool]:
        return apply(self.base, point.settings, self.lm_layers, self.plan.curriculum)

    def _folder(self, trial: Trial) -> Path:
        return self.out / "trials" / name_of(trial)

    def _note(self, trial: Trial) -> Path:
        return self.out / "trials" / f"{name_of(trial)}.json"

    def _write_note(self, trial: Trial, value: Any) -> None:
        if self.is_main:
            path = self._note(trial)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, value)

    def _av_name(self, preset: Preset, seed: int) -> str:
        wanted = json.dumps(av_preset(self.base, preset).to_dict(), sort_keys=True)
        return f"{hashlib.sha256(wanted.encode()).hexdigest()[:8]}-{seed}"

    def _av_lock(self, name: str) -> Path:
        return self.out / "locks" / f"av-{name}.lock"

    def _pretrained(self, preset: Preset, seed: int) -> Run:
        name = self._av_name(preset, seed)
        with held(self._av_lock(name), wait=True):
            return self._pretrain(name, preset, seed)

    def _pretrain(self, name: str, preset: Preset, seed: int) -> Run:
        wanted = av_preset(self.base, preset)
        return train(wanted, self.dataset, self.out / "av" / name, model="av", seed=seed, **self._common)

    def _open_folder(self) -> None:
        path, wanted = self.out / "plan.yaml", json.loads(json.dumps(self.plan.to_dict()))
        if self.out.exists() and not self.out.is_dir():
            raise DeepMLFError(f"{self.out} is a file, but a sweep is a folder: choose another name.")
        others = set(foreign(self.out, ())) - {"locks"}
        if others and "plan.yaml" not in others:
            raise DeepMLFError(f"{self.out} exists and holds no sweep: choose another folder, or empty it.")
        with held(self.out / "locks" / "plan.lock", wait=True):  # several processes may begin at once
            there = (
                yaml_mapping(path.read_text("utf-8", "replace"), f"plan {path}") if path.is_file() else wanted
            )
            # More points or seeds may be added to a sweep.
            fixed = ("preset", "set", "curriculum", "search", "sample")
            differing = [key for key in fixed if there.get(key) != wanted[key]]
            if differing:
                raise DeepMLFError(
                    f"{self.out} holds a sweep with other settings ({', '.join(differing)}): choose another folder."
                )
            if not path.is_file() or there != wanted:
                write_text(path, yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True))

    def _sample(self) -> Path:
        folder = self.out / "data"
        with held(self.out / "locks" / "data.lock", wait=True):
            if not (folder / "dataset_dict.json").is_file():
                schema.save(make_sample(0, **self.plan.sample), folder)
        return folder


def check_comparable(plan: SweepPlan, base: Preset, presets: Sequence[Preset]) -> None:
    """Refuse a sweep whose trials' validation metrics are not comparable.

    Args:
        plan: of the sweep.
        base: the preset that a search changes.
        presets: of the points of a grid.

    Raises:
        DeepMLFError: checkpoints are selected by the loss while its weights vary, or by different metrics.
    """
    selections = {preset.training.select_on for preset in presets or [base]}
    chosen_by = "training.select_on"
    if chosen_by in plan.search or len(selections) > 1:
        raise DeepMLFError(
            f"The sweep {plan.name!r} varies {chosen_by}: validation values of different kinds cannot be compared, so "
            f"there would be no best setting. Set one for all trials, for example --set {chosen_by}=mae."
        )
    if "loss" not in selections:
        return
    weighted = sorted(key for key in plan.search if key.startswith("loss."))
    for key in asdict(base.loss):
        if len({getattr(preset.loss, key) for preset in presets}) > 1:
            weighted.append(f"loss.{key}")
    if weighted:
        raise DeepMLFError(
            f"The sweep {plan.name!r} varies {', '.join(weighted)} and would compare its trials by the validation loss: a "
            "smaller weight makes a smaller loss, whatever the model has learned. Compare them by the error instead: --set "
            f"{chosen_by}=mae."
        )


def trial_name(shown: Mapping[str, Any], seed: int) -> str:
    """A readable folder name for a trial, unique for every choice of values.

    Numbers keep all their digits. Where a file name cannot show a value exactly, or is too long, it ends in a digest of
    all keys and values.
    """
    parts = [f"{key.split('.')[-1]}={value}" for key, value in shown.items()]
    keys = [part.partition("=")[0] for part in parts]
    name = re.sub(r"[^\w=,.+-]+", "_", "_".join(parts))
    if len(name) > 80 or len(set(keys)) < len(keys) or not all(map(_shows_itself, shown.values())):
        digest = hashlib.sha256(json.dumps(dict(shown), sort_keys=True, default=str).encode()).hexdigest()[:8]
        name = f"{name[:60]}-{digest}"
    return f"{name}_seed={seed}"


def name_of(trial: Trial) -> str:
    """A trial's folder name."""
    point, seed = trial
    return trial_name(point.shown, seed)


def _shows_itself(value: Any) -> bool:
    """Whether a file name shows the value unambiguously."""
    if isinstance(value, str):
        return re.fullmatch(r"[\w.+-]+", value) is not None and yaml.safe_load(value) == value
    return isinstance(value, (bool, int, float))


def _layers_of(preset: Preset, lm: PreTrainedModel | None) -> int:
    config = lm.config if lm is not None else load_lm_config(preset.model_config())
    return config.get_text_config().num_hidden_layers
