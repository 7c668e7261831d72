"""Evaluation beyond one score: confidence intervals, error breakdowns, robustness, paired tests, published numbers.

`deepmlf_kit.evaluation.evaluate.evaluate` returns a run's predictions; the rest of this package analyses them.

    result = evaluate("runs/first")
    bootstrap(result.predictions, "mosi")              # intervals of every metric
    by_bin(result.predictions), by_length(...)         # error breakdowns
    robustness("runs/first")                           # missing modality, noise, shuffled words, misaligned time
    compare(one.predictions, other.predictions)        # paired test
    linear_mix(result.predictions, "fusion")           # does the head say more than a sum of the others?
    published("mosi")                                  # published numbers of other models
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "breakdown": ["by_bin", "by_class", "by_length"],
        "perturbations": ["robustness"],
        "intervals": ["bootstrap"],
        "linear_mix": ["LinearMix", "linear_mix"],
        "paired": ["Comparison", "compare"],
        "peers": ["published"],
        "tables": ["latex", "markdown"],
    },
)
