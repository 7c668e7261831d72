"""What a score is worth: confidence intervals, where the errors are, what breaks the model, who is better.

`deepmlf_kit.evaluation.evaluate` gives a run's predictions; this package reads them.

    result = evaluate("runs/first")
    bootstrap(result.predictions, "mosi")              # intervals of every metric
    by_bin(result.predictions), by_length(...)         # where the errors are
    robustness("runs/first")                           # missing modality, noise, shuffled words, misaligned time
    compare(one.predictions, other.predictions)        # paired test
    published("mosi")                                  # peers' numbers, theirs
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "breakdown": ["by_bin", "by_class", "by_length"],
        "disturbing": ["robustness"],
        "intervals": ["bootstrap"],
        "paired": ["Comparison", "compare"],
        "peers": ["published"],
        "tables": ["latex", "markdown"],
    },
)
