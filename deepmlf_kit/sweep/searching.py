"""Hyperparameter search with optuna: drawn from ranges, scored on the validation split, resumable.

The study is kept in the sweep's folder (`optuna.journal`), so several processes draw from one study and an interrupted
search resumes. A draw whose training was interrupted is drawn again first, and its run is resumed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DeepMLFError
from ..storage.optional import optional
from ..training import Run
from ..training.processes import processes
from .locks import held
from .plan import Point, SweepPlan

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages.journal import JournalFileSymlinkLock

optuna = optional("optuna")
journals = optional("optuna.storages.journal")

POLL_SECONDS = 1.0  # between two looks at draws that other processes train
_AGAIN = "drawn again"  # marks a draw that repeats an interrupted one


def search(plan: SweepPlan, out: Path, train: Callable[[Point], list[Run | None]]) -> None:
    """Draw and train until the study has `plan.samples` finished draws, including those of other processes.

    The value of a draw is the mean over seeds of the validation metric that selected the best checkpoints; the test split
    is not used.

    Args:
        plan: with ranges to draw from.
        out: the sweep's folder.
        train: one point -> its runs, one per seed; None for a failed run.

    Raises:
        DeepMLFError: more draws failed than were requested.
    """
    if (together := processes().num_processes) > 1:
        raise DeepMLFError(
            f"{together} processes of `accelerate launch` share every training, but a search draws in each process by "
            "itself: start it without `accelerate launch`, with --jobs for several trainings at once."
        )
    study = _study(plan, out)
    failed = 0
    while True:
        with ExitStack() as mine:  # holds the draw's lock while it is trained
            with held(out / "locks" / "study.lock", wait=True):
                _enqueue_stopped(study, plan, out)
                finished, running = (
                    len(study.get_trials(deepcopy=False, states=(state,)))
                    for state in (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.RUNNING)
                )
                if finished >= plan.samples:
                    return
                trial = None
                if finished + running < plan.samples:
                    trial = study.ask()
                    mine.enter_context(held(_lock(out, trial.number), wait=True))
                    study.sampler = _sampler(study, plan)
                    drawn = {key: draw(trial, key, space) for key, space in plan.search.items()}
            if trial is None:  # enough are in training; but one may fail, or its process die
                time.sleep(POLL_SECONDS)
                continue
            runs = train(Point(drawn, drawn))
            values = [run.info["best"]["value"] for run in runs if run is not None]
            if len(values) == len(runs) and all(map(math.isfinite, values)):
                study.tell(trial, sum(values) / len(values))
                continue
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        failed += 1
        if failed > plan.samples:
            raise DeepMLFError(
                f"{failed} draws of the search {plan.name!r} failed: see the reasons in {out / 'trials'} and narrow "
                "its ranges."
            )


def draws_left(plan: SweepPlan, out: Path) -> int:
    """How many finished draws the study still needs."""
    finished = _study(plan, out).get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    return max(0, plan.samples - len(finished))


def _study(plan: SweepPlan, out: Path) -> Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = out / "optuna.journal"
    lock = journals.JournalFileSymlinkLock(str(journal))
    _cut_torn_line(journal, lock)
    try:
        return optuna.create_study(
            storage=optuna.storages.JournalStorage(journals.JournalFileBackend(str(journal), lock)),
            study_name=plan.name,
            load_if_exists=True,
        )
    except OSError:
        raise
    except Exception as error:  # optuna reads the lines as they are: any type of error may follow
        raise DeepMLFError(
            f"{journal} is damaged ({type(error).__name__}: {str(error)[:200]}), expected optuna's journal, one JSON object a "
            "line: remove it and repeat the sweep, which draws the same settings and finds their finished trainings."
        ) from error


def _cut_torn_line(journal: Path, lock: JournalFileSymlinkLock) -> None:
    """Remove the line in whose middle a process was killed, to which the next one would be glued."""
    if not journal.is_file():
        return
    lock.acquire()
    try:
        with journal.open("r+b") as file:
            content = file.read()
            if not content.endswith(b"\n"):
                file.truncate(content.rfind(b"\n") + 1)
    finally:
        lock.release()


def _enqueue_stopped(study: Study, plan: SweepPlan, out: Path) -> None:
    """Enqueue again the draws whose process has died."""
    for stopped in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        with held(_lock(out, stopped.number), wait=False) as gone:
            if not gone:
                continue
            if len(stopped.params) == len(plan.search):
                study.enqueue_trial(stopped.params, user_attrs={_AGAIN: stopped.number})
            study.tell(stopped.number, state=optuna.trial.TrialState.FAIL)


def _sampler(study: Study, plan: SweepPlan) -> Any:
    """A sampler for the newest draw, seeded by its number: independent of process and interruptions."""
    drawn = sum(_AGAIN not in trial.user_attrs for trial in study.get_trials(deepcopy=False))
    return optuna.samplers.TPESampler(seed=plan.seeds[0] * 100_003 + drawn)


def _lock(out: Path, number: int) -> Path:
    return out / "locks" / f"draw-{number}.lock"


def draw(trial: Any, key: str, space: Any) -> Any:
    """Draw a value from a list of choices, or from a range `{low, high, log, step}` (integers if both ends are).

    Args:
        trial: of optuna.
        key: the setting.
        space: the choices or the range.

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
