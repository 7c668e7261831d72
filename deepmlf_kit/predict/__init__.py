"""One clip or text -> a sentiment, what every head says and what was found in the clip."""

import lazy_loader

# On first use: a configuration alone must not wait for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "predictor": ["BUNDLED", "Prediction", "Predictor"],
    },
)
