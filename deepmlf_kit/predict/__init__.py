"""One clip or text -> its sentiment, each head's prediction and what was found in the clip."""

import lazy_loader

# On first use: it imports torch.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "bundled": ["DEMO", "PEOPLE", "best_at_hand"],
        "fetching": ["fetch"],
        "prediction": ["Prediction"],
        "predictor": ["Predictor", "limit_threads"],
    },
)
