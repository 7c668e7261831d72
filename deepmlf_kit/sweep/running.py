"""Run a sweep: its trials one after another or shared between processes, then one table and one report.

Called again, an interrupted sweep resumes (`trials.py`: a trial is a run folder). Several processes may work on one
folder: `jobs` starts them on this machine; other machines take a `shard=(i, n)` each. Trials that another process holds
are skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from datasets import DatasetDict
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import DeepMLFError
from .jobs import job_count, train_in_workers
from .plan import SweepPlan, load_plan
from .report import write_report
from .searching import draws_left, search
from .trials import Trials, name_of


@dataclass(frozen=True)
class SweepResult:
    """A sweep so far: `table` one row per finished trial, `report` the page, `missing` number of unfinished trials."""

    path: Path
    table: pd.DataFrame
    report: Path | None
    missing: int


def run_sweep(
    plan: str | Path | SweepPlan,
    dataset: DatasetDict | str | Path | None = None,
    out: str | Path | None = None,
    *,
    jobs: int | str = 1,
    shard: tuple[int, int] = (1, 1),
    lm: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = False,
    tell: Callable[[str], None] = print,
) -> SweepResult:
    """Train every trial of a plan and write table and report; called again after an interruption, it resumes.

    Args:
        plan: a ready-made sweep's name, a YAML file or a `SweepPlan`.
        dataset: to train on; None: a sample set of the plan's sizes, made in `out/data`.
        out: the sweep's folder; None: `runs/sweep-NAME`.
        jobs: number of processes on this machine that share the trials (with more than 1, the dataset must be a folder
            and the language model the preset's); `auto`: one per GPU, or per core where there is none.
        shard: (i, n): this call takes every n-th point, from the i-th; 1 is the first. Of a search: every shard
            draws from the same study until the plan's number of samples is reached.
        lm, tokenizer: a language model in memory, in place of the preset's.
        progress: show a progress bar for every training (not with several jobs).
        tell: called with a line for each trial.

    Returns:
        The table of all finished trials in the folder, including those of other shards.

    Raises:
        DeepMLFError: the plan is wrong, `out` holds another sweep, or all processes of `jobs` died. A failing trial does
            not end the sweep: the report says why it failed.
    """
    plan = plan if isinstance(plan, SweepPlan) else load_plan(plan)
    if not 1 <= shard[0] <= shard[1]:
        raise DeepMLFError(f"shard is {shard[0]}/{shard[1]}, but must be i/n with i from 1 to n.")
    count = job_count(jobs)
    folder = dataset if isinstance(dataset, str | Path) else None
    in_memory = lm is not None or tokenizer is not None or folder is not dataset
    if count > 1 and in_memory:
        raise DeepMLFError(
            f"jobs is {jobs}, but the dataset or the language model is in memory, where other processes cannot read it: "
            "give the dataset's folder and name the model in the preset (lm.name), or leave jobs at 1."
        )
    out = Path(out) if out is not None else Path("runs") / f"sweep-{plan.name}"
    trials = Trials(plan, dataset, out, lm, tokenizer, progress, tell)
    trials.check(plan.points())
    died: str | None = None
    if count > 1:
        died = train_in_workers(trials, folder, shard, count)
    elif plan.search:
        search(plan, out, trials.train_point)
    else:
        _one_by_one(trials, shard)
    table = trials.write_table()
    report = out / "report.html" if len(table) else None
    if report is not None and trials.is_main:
        write_report(out, plan, table)
    missing = _missing(plan, out, table)
    if died and missing:
        raise DeepMLFError(died)
    return SweepResult(out, table, report, missing)


def _one_by_one(trials: Trials, shard: tuple[int, int]) -> None:
    mine = trials.grid(shard)
    trials.tell_finished(mine)
    for i, trial in enumerate(mine, start=1):
        number = f"{i}/{len(mine)}"
        with trials.claim(trial) as claimed:
            if claimed:
                trials.train(trial, number)
            else:
                trials.tell(f"{number} {name_of(trial)}: another process is training it")


def _missing(plan: SweepPlan, out: Path, table: pd.DataFrame) -> int:
    if plan.search:
        return draws_left(plan, out) * len(plan.seeds)  # two equal draws are one row of the table
    return max(0, len(plan.points()) * len(plan.seeds) - len(table))
