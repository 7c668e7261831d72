"""Run a sweep: its trials one after another or shared between processes, then one table and one report.

A stopped sweep goes on where it stopped when it is called again (`trials.py`: a trial is a run folder). Several
processes may work on one folder: `jobs` starts them on this machine; other machines take a `shard=(i, n)` each. What
another process holds is passed by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DeepMLFError
from .plan import SweepPlan, load_plan
from .trials import Trials, name_of

if TYPE_CHECKING:
    import pandas as pd
    from datasets import DatasetDict
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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
    jobs: int | str = 1,
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
        jobs: how many processes of this machine share the trials (more than 1: the dataset in a folder, the language
            model the preset's); `auto`: one for each GPU, or for each core where there is none.
        shard: (i, n): this call takes every n-th point, from the i-th; 1 is the first. Of a search: every shard
            draws from the same study until the plan's number of samples is reached.
        lm, tokenizer: a language model in memory, in place of the preset's.
        progress: show a bar for every training (not with several jobs).
        tell: takes a line for each trial.

    Returns:
        The table of all finished trials in the folder, those of other shards among them.

    Raises:
        DeepMLFError: the plan is wrong, `out` holds another sweep, or all processes of `jobs` died. A trial that fails
            does not end the sweep: its reason stands in the report.
    """
    from .jobs import how_many, share_out

    plan = plan if isinstance(plan, SweepPlan) else load_plan(plan)
    if not 1 <= shard[0] <= shard[1]:
        raise DeepMLFError(f"shard is {shard[0]}/{shard[1]}, but must be i/n with i from 1 to n.")
    count = how_many(jobs)
    in_memory = (
        lm is not None or tokenizer is not None or not (dataset is None or isinstance(dataset, str | Path))
    )
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
        died = share_out(trials, dataset, shard, count)
    elif plan.search:
        from .searching import search

        search(plan, out, trials.train_point)
    else:
        _one_by_one(trials, shard)
    table = trials.write_table()
    report = trials.write_report(table)
    missing = _missing(plan, out, table)
    if died and missing:
        raise DeepMLFError(died)
    return SweepResult(out, table, report, missing)


def _one_by_one(trials: Trials, shard: tuple[int, int]) -> None:
    mine = trials.grid(shard)
    trials.tell_finished(mine)
    for i, trial in enumerate(mine, start=1):
        number = f"{i}/{len(mine)}"
        with trials.claim(trial) as free:
            if free:
                trials.train(trial, number)
            else:
                trials.tell(f"{number} {name_of(trial)}: another process is at it")


def _missing(plan: SweepPlan, out: Path, table: pd.DataFrame) -> int:
    if plan.search:
        from .searching import draws_left

        return draws_left(plan, out) * len(plan.seeds)  # two equal draws are one row of the table
    return max(0, len(plan.points()) * len(plan.seeds) - len(table))
