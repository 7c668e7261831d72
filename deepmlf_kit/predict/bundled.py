"""The checkpoints that the kit brings along, and which of them answers where none is named.

people          on the embedded LM: always there
people-smollm2  on SmolLM2-135M: answers once `deepmlf fetch smollm2` has brought the language model
demo            on the embedded LM, trained on the synthetic sample set: for the notebooks, whose rule is known
"""

from __future__ import annotations

from pathlib import Path

from ..errors import DeepMLFError
from ..model.fetched_lms import FETCHED_LMS, lm_is_at_hand

_ASSETS = Path(__file__).parents[1] / "assets"
PEOPLE = _ASSETS / "people"
DEMO = _ASSETS / "demo"


def best_at_hand() -> Path:
    """The folder of the best checkpoint whose language model is on this machine.

    Raises:
        DeepMLFError: this installation brings none along.
    """
    better = [_ASSETS / f"people-{lm}" for lm in FETCHED_LMS if lm_is_at_hand(lm)]
    for folder in (*better, PEOPLE):
        if (folder / "run.json").is_file():
            return folder
    raise DeepMLFError(
        "No checkpoint was named and this installation brings none along: train one with `deepmlf demo` and name its "
        "folder (runs/demo/fused)."
    )
