"""One process of a sweep with several jobs: trains what no other is at, until every trial came to its end.

Started by `jobs.py` as `python -m deepmlf_kit.sweep.worker`. The first line of stdin holds the settings; each line of
stdout is a trial that came to its end; the rest of what is printed goes to stderr. It ends when stdin does: a worker
does not outlive the process that started it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

LOOK_AGAIN = 1.0  # seconds between two looks at trials that others hold
LAST_WISHES = 10.0  # seconds for a training to write what it writes when stopped


def main() -> None:
    """Work as the settings on stdin say; exit code 2 with one line on stderr where that cannot be done."""
    # Ctrl-C reaches every process of the terminal; the one that started us decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    settings = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_stdin, daemon=True).start()

    from ..errors import DeepMLFError

    def tell(line: str) -> None:
        lines.write(" ".join(line.split()) + "\n")
        lines.flush()

    try:
        _work(settings, tell)
    except DeepMLFError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)


def _work(settings: dict[str, Any], tell: Any) -> None:
    from .plan import load_plan
    from .trials import Trials

    out = Path(settings["out"])
    trials = Trials(load_plan(out / "plan.yaml"), settings["dataset"], out, tell=tell)
    if trials.plan.search:
        from .searching import search

        search(trials.plan, out, trials.train_point)
        return
    left = trials.grid(tuple(settings["shard"]))
    trials.pretrain_free(left)
    while True:
        held = []
        for trial in left:
            with trials.claim(trial) as mine:
                if not mine:
                    held.append(trial)
                elif not trials.failed(trial):  # no second try: another worker has said why
                    trials.train(trial)
        if not held:
            return
        left = held  # whoever holds one may die and leave it
        time.sleep(LOOK_AGAIN)


def _end_with_stdin() -> None:
    # Not through sys.stdin, whose lock would be held at the interpreter's end.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LAST_WISHES)
    os._exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    main()
