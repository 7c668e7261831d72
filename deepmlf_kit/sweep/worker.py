"""One process of a sweep with several jobs: trains what no other process does, until every trial has ended.

Started by `jobs.py` as `python -m deepmlf_kit.sweep.worker`; reports a line for each trial that has ended. It does not
outlive the process that started it.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import DeepMLFError
from ..workers.child import Channel
from .plan import load_plan
from .searching import search
from .trials import Trials

POLL_SECONDS = 1.0  # between two looks at trials that other processes hold
GRACE_SECONDS = 10.0  # for a stopped training to write its state


def main() -> None:
    """Work as the settings on stdin say; exit code 2 with one line on stderr where that is impossible."""
    # Ctrl-C reaches every process of the terminal; the one that started us decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    channel = Channel()
    channel.end_with_parent(GRACE_SECONDS)
    try:
        _work(channel.settings, lambda line: channel.report(line=" ".join(line.split())))
    except DeepMLFError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)


def _work(settings: dict[str, Any], tell: Callable[[str], None]) -> None:
    out = Path(settings["out"])
    trials = Trials(load_plan(out / "plan.yaml"), settings["dataset"], out, tell=tell)
    if trials.plan.search:
        search(trials.plan, out, trials.train_point)
        return
    left = trials.grid(tuple(settings["shard"]))
    trials.pretrain_unclaimed(left)
    while True:
        held = []
        for trial in left:
            with trials.claim(trial) as claimed:
                if not claimed:
                    held.append(trial)
                elif not trials.failed(trial):  # no second attempt: another worker has reported why
                    trials.train(trial)
        if not held:
            return
        left = held  # whoever holds one may die and leave it
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main()
