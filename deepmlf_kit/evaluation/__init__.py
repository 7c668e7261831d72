"""Evaluation beyond one score: confidence intervals, error breakdowns, robustness, paired tests, published numbers.

`deepmlf_kit.evaluation.evaluate.evaluate` returns a run's predictions; the rest of this package analyses them.

    result = evaluate("runs/first")
    bootstrap(result.predictions, "mosi")              # intervals of every metric
    by_bin(result.predictions), by_length(...)         # error breakdowns
    robustness("runs/first")                           # missing modality, noise, shuffled words, misaligned time
    compare(one.predictions, other.predictions)        # paired test
    published("mosi")                                  # published numbers of other models
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "Comparison": "paired",
    "bootstrap": "intervals",
    "by_bin": "breakdown",
    "by_class": "breakdown",
    "by_length": "breakdown",
    "compare": "paired",
    "latex": "tables",
    "markdown": "tables",
    "published": "peers",
    "robustness": "perturbations",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
