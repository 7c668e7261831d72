"""Curves that grow while a training runs, in the output of one notebook cell.

It wraps a call of `train`, which is not aware of it: a thread reads the run's
`metrics.jsonl`, which is replaced whole after each epoch, and redraws `validation_errors`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from ..errors import DeepMLFError
from ..storage.optional import optional
from ..training import Run
from .style import GREY, figure
from .training_curves import validation_errors

ipython = optional("IPython.display")

_PLOTLY = "application/vnd.plotly.v1+json"


@contextmanager
def live_curves(folder: str | Path, every: float = 1.0) -> Iterator[None]:
    """Redraw the validation errors of a run after each of its epochs, while the `with` block runs.

    with live_curves("runs/first"):
        run = train("sample", data, "runs/first")

    Args:
        folder: the run's folder, the same as `out` of the training; it need not exist yet.
        every: seconds between two reads.
    """
    folder = Path(folder)
    handle = ipython.display(_bundle(_waiting()), raw=True, display_id=True)
    stop = threading.Event()

    def watch() -> None:
        drawn = None
        while not stop.wait(every):
            drawn = _redraw(folder, handle, drawn)

    thread = threading.Thread(target=watch, name="live-curves", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        _redraw(folder, handle, None)


def _redraw(folder: Path, handle: Any, drawn: tuple[int, bool] | None) -> tuple[int, bool] | None:
    """Draw where there is something new; (epochs, whether the best one is known) of what is drawn now."""
    try:
        run = Run.open(folder)
    except DeepMLFError:  # not begun, or just being written
        return drawn
    state = (len(run.history()), "best" in run.info)
    if handle is not None and state[0] and state != drawn:
        handle.update(_bundle(validation_errors(run)), raw=True)
    return state


def _bundle(fig: go.Figure) -> dict[str, Any]:
    """What JupyterLab and VS Code draw; without the page script that other renderers would send each time."""
    return {_PLOTLY: fig.to_plotly_json(), "text/plain": "validation error by epoch"}


def _waiting() -> go.Figure:
    made = figure("Validation error by head", "epoch", "MAE (units of the label)", height=380)
    made.add_annotation(text="waiting for the first epoch", showarrow=False, font_color=GREY)
    return made
