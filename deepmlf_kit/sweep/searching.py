"""Let optuna choose the settings: drawn from ranges, judged by the validation split, resumable.

The study lies in the sweep's folder (`optuna.journal`), so several processes draw from one study and a stopped
search goes on. A draw that was stopped in its training is drawn again first, and its run folder is taken up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DeepMLFError
from .plan import Point, SweepPlan

if TYPE_CHECKING:
    from ..training import Run


def search(plan: SweepPlan, out: Path, train: Callable[[Point], list[Run | None]]) -> None:
    """Draw and train until the study has `plan.samples` finished draws.

    The value of a draw is the mean over the seeds of the validation value that chose the best checkpoints; the test
    split has no say.

    Args:
        train: one point -> its runs, one a seed; None for a run that failed.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(out / "optuna.journal"))),
        study_name=plan.name,
        sampler=optuna.samplers.TPESampler(seed=plan.seeds[0]),
        load_if_exists=True,
    )
    for stopped in study.get_trials(states=(TrialState.RUNNING,)):
        if len(stopped.params) == len(plan.search):
            study.enqueue_trial(stopped.params, skip_if_exists=False)
        study.tell(stopped.number, state=TrialState.FAIL)
    failed = 0
    while len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < plan.samples:
        trial = study.ask()
        drawn = {key: draw(trial, key, space) for key, space in plan.search.items()}
        runs = train(Point(drawn, drawn))
        values = [run.info["best"]["value"] for run in runs if run is not None]
        if len(values) == len(runs) and all(map(math.isfinite, values)):
            study.tell(trial, sum(values) / len(values))
            continue
        study.tell(trial, state=TrialState.FAIL)
        failed += 1
        if failed > plan.samples:
            raise DeepMLFError(
                f"{failed} draws of the search {plan.name!r} failed: see the reasons in {out / 'trials'} and narrow "
                "its ranges."
            )


def draw(trial: Any, key: str, space: Any) -> Any:
    """One value from a list of choices, or from a range `{low, high, log, step}` (whole numbers if both ends are).

    Raises:
        DeepMLFError: it is neither.
    """
    if isinstance(space, (list, tuple)) and space:
        return trial.suggest_categorical(key, list(space))
    if isinstance(space, Mapping) and {"low", "high"} <= set(space) <= {"low", "high", "log", "step"}:
        low, high, log = space["low"], space["high"], bool(space.get("log", False))
        if isinstance(low, int) and isinstance(high, int):
            return trial.suggest_int(key, low, high, step=space.get("step", 1), log=log)
        return trial.suggest_float(key, float(low), float(high), step=space.get("step"), log=log)
    raise DeepMLFError(
        f"search.{key} is {space!r}, but must be a list of choices or a range {{low: 1, high: 32, log: true}}."
    )
