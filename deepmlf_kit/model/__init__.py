"""The model, part by part as in the paper's figure; `DeepMLFModel.forward` in `deepmlf.py` reads it in order."""

import lazy_loader

# On first use: a configuration alone must not wait for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "av_encoder": ["AVEncoder", "AVSentimentModel"],
        "config": ["DeepMLFConfig"],
        "deepmlf": ["DeepMLFModel", "DeepMLFOutput"],
        "mm_block": ["MMBlock"],
    },
)
