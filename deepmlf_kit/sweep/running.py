"""Train every trial of a sweep: resumable, shared between processes, one table at the end.

    out/
      plan.yaml           what was asked for
      data/               the sample set, where no dataset was given
      av/KEY-SEED/        AV pretrainings (run folders), shared by the trials that are equal in what they depend on
      trials/NAME/        one run folder a trial, and `NAME.json`: its varied settings, or why it failed
      results.csv, results.arrow, report.md, report.html

A trial is a run folder, so a stopped sweep goes on where it stopped when it is called again. Several processes may
work on one folder, each with `shard=(i, n)` or without: a trial that another process holds is passed by.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..errors import DeepMLFError
from ..presets import Preset, load_preset
from ..training.processes import processes
from .axes import apply, av_preset
from .plan import Point, SweepPlan, load_plan

if TYPE_CHECKING:
    import pandas as pd
    from datasets import DatasetDict
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ..training import Run


@dataclass(frozen=True)
class SweepResult:
    """What a sweep has so far: `table` one row a finished trial, `report` the page, `missing` trials not finished."""

    path: Path
    table: pd.DataFrame
    report: Path | None
    missing: int


def run_sweep(
    plan: str | Path | SweepPlan,
    dataset: DatasetDict | str | Path | None = None,
    out: str | Path | None = None,
    *,
    shard: tuple[int, int] = (1, 1),
    lm: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = False,
    tell: Callable[[str], None] = print,
) -> SweepResult:
    """Train every trial of a plan and write table and report. Stopped and called again, it goes on.

    Args:
        plan: a ready-made sweep's name, a YAML file or a `SweepPlan`.
        dataset: what to train on; None: a sample set of the plan's sizes, made in `out/data`.
        out: the sweep's folder; None: `runs/sweep-NAME`.
        shard: (i, n): this process takes every n-th point, from the i-th; 1 is the first. Of a search: every shard
            draws from the same study until the plan's number of samples is reached.
        lm, tokenizer: a language model in memory, in place of the preset's.
        progress: show a bar for every training.
        tell: takes a line for each trial.

    Returns:
        The table of all finished trials in the folder, those of other shards among them.

    Raises:
        DeepMLFError: the plan is wrong, or `out` holds another sweep. A trial that fails does not end the sweep:
            its reason stands in the report.
    """
    plan = plan if isinstance(plan, SweepPlan) else load_plan(plan)
    if not 1 <= shard[0] <= shard[1]:
        raise DeepMLFError(f"shard is {shard[0]}/{shard[1]}, but must be i/n with i from 1 to n.")
    out = Path(out) if out is not None else Path("runs") / f"sweep-{plan.name}"
    work = _Work(plan, dataset, out, lm, tokenizer, progress, tell)
    if plan.search:
        from .searching import search

        search(plan, out, work.train_point)
    else:
        points = plan.points()
        work.check(points)
        total = len(points[shard[0] - 1 :: shard[1]]) * len(plan.seeds)
        done = 0
        for seed in plan.seeds:  # seed by seed: a sweep stopped early has whole curves
            for point in points[shard[0] - 1 :: shard[1]]:
                done += 1
                work.train(point, seed, f"{done}/{total}")
    return work.finish()


class _Work:
    """What all trials of a sweep share."""

    def __init__(
        self,
        plan: SweepPlan,
        dataset: DatasetDict | str | Path | None,
        out: Path,
        lm: PreTrainedModel | None,
        tokenizer: PreTrainedTokenizerBase | None,
        progress: bool,
        tell: Callable[[str], None],
    ) -> None:
        self.plan, self.out, self.tell = plan, out, tell
        self.lm, self.tokenizer, self.progress = lm, tokenizer, progress
        self.base = load_preset(plan.preset, dict(plan.set))
        self.lm_layers = _layers_of(self.base, lm)
        self._open_folder()
        self.dataset = dataset if dataset is not None else self._sample()

    def check(self, points: list[Point]) -> None:
        """Refuse a wrong setting before the first training."""
        for point in points:
            preset, _ = apply(self.base, point.settings, self.lm_layers, self.plan.curriculum)
            preset.model_config()

    def train_point(self, point: Point) -> list[Run | None]:
        """One trial a seed; None for one that failed or that another process holds."""
        return [self.train(point, seed) for seed in self.plan.seeds]

    def train(self, point: Point, seed: int, number: str = "") -> Run | None:
        """Train one trial, or return what is there already."""
        from torch import OutOfMemoryError

        from ..training import train

        name = trial_name(point.shown, seed)
        folder = self.out / "trials" / name
        with _held(self.out / "locks" / f"{name}.lock", wait=False) as mine:
            if not mine:
                self.tell(f"{number} {name}: another process is at it")
                return None
            try:
                preset, pretrained = apply(self.base, point.settings, self.lm_layers, self.plan.curriculum)
                av = self._pretrained(preset, seed) if pretrained else None
                _write(folder.with_name(f"{name}.json"), _note(point, seed))
                run = train(
                    preset, self.dataset, folder, av_encoder=av, seed=seed, lm=self.lm, **self._common
                )
            except (DeepMLFError, OutOfMemoryError) as error:
                _write(folder.with_name(f"{name}.json"), {**_note(point, seed), "failed": str(error)})
                self.tell(f"{number} {name}: failed: {error}")
                return None
        self._write_table()
        self.tell(
            f"{number} {name}: MAE {run.metrics.get('MAE', float('nan')):.3f}, {run.info['seconds']:.0f} s"
        )
        return run

    def finish(self) -> SweepResult:
        """Gather, write the table and the report."""
        from .report import write_report

        table = self._write_table()
        expected = (len(self.plan.points()) or self.plan.samples) * len(self.plan.seeds)
        report = None
        if len(table):
            report = write_report(self.out, self.plan, table)
        return SweepResult(self.out, table, report, max(0, expected - len(table)))

    def _write_table(self) -> pd.DataFrame:
        from .results import gather, write_table

        table = gather(self.out)
        if len(table):
            write_table(table, self.out)
        return table

    @property
    def _common(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer, "progress": self.progress, "tensorboard": False}

    def _pretrained(self, preset: Preset, seed: int) -> Run:
        from ..training import pretrain_av

        wanted = av_preset(self.base, preset)
        key = hashlib.sha256(json.dumps(wanted.to_dict(), sort_keys=True).encode()).hexdigest()[:8]
        name = f"{key}-{seed}"
        with _held(self.out / "locks" / f"av-{name}.lock", wait=True):
            return pretrain_av(wanted, self.dataset, self.out / "av" / name, seed=seed, **self._common)

    def _open_folder(self) -> None:
        path, wanted = self.out / "plan.yaml", _plain(self.plan.to_dict())
        others = {item.name for item in self.out.iterdir()} - {"locks"} if self.out.exists() else set()
        if others and "plan.yaml" not in others:
            raise DeepMLFError(f"{self.out} exists and holds no sweep: choose another folder, or empty it.")
        with _held(self.out / "locks" / "plan.lock", wait=True):  # several processes may begin at once
            if path.is_file():
                there = yaml.safe_load(path.read_text())
                # More points or seeds may be added to a sweep.
                fixed = ("preset", "set", "curriculum", "search", "sample")
                differing = [key for key in fixed if there.get(key) != wanted[key]]
                if differing:
                    raise DeepMLFError(
                        f"{self.out} holds a sweep with other settings ({', '.join(differing)}): choose another "
                        "folder."
                    )
            path.write_text(yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True))

    def _sample(self) -> Path:
        from ..data import schema
        from ..data.sample import make_sample

        folder = self.out / "data"
        with _held(self.out / "locks" / "data.lock", wait=True):
            if not (folder / "dataset_dict.json").is_file():
                schema.save(make_sample(0, **self.plan.sample), folder)
        return folder


def trial_name(shown: Mapping[str, Any], seed: int) -> str:
    """A readable folder name for a trial; one with long values ends in a digest of them."""
    parts = [f"{key.split('.')[-1]}={_short(value)}" for key, value in shown.items()]
    name = re.sub(r"[^\w=,.+-]+", "_", "_".join(parts))
    if len(name) > 80 or any("[" in _short(value) for value in shown.values()):
        digest = hashlib.sha256(json.dumps(dict(shown), sort_keys=True, default=str).encode()).hexdigest()[:8]
        name = f"{name[:60]}-{digest}"
    return f"{name}_seed={seed}"


def _note(point: Point, seed: int) -> dict[str, Any]:
    """What stands beside a trial's folder."""
    return {"shown": point.shown, "settings": point.settings, "seed": seed}


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _layers_of(preset: Preset, lm: PreTrainedModel | None) -> int:
    from ..lm_loading import load_lm_config

    config = lm.config if lm is not None else load_lm_config(preset.model_config())
    return config.get_text_config().num_hidden_layers


@contextmanager
def _held(path: Path, wait: bool) -> Iterator[bool]:
    """Hold a lock file; False where another process holds it and we do not wait.

    Under `accelerate launch` with several processes, all of them train every trial together: no lock then.
    """
    from filelock import FileLock, Timeout

    if processes().num_processes > 1:
        yield True
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _write(path: Path, value: Any) -> None:
    from ..training.run_folder import write_json

    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, value)


def _plain(tree: Any) -> Any:
    return json.loads(json.dumps(tree))
