"""DeepMLF kit: multimodal sentiment analysis with fusion tokens in a frozen language model.

The names below are the public ones. They are imported on first use, so that `import deepmlf_kit` stays
fast and a machine without, say, MediaPipe can still train.
"""

import logging

import lazy_loader

__version__ = "0.1.0"

# Where bitsandbytes is installed, peft imports it, and on CPU it tells of a kernel it lacks and, at every step, of a
# cast: nothing to act on.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "model.config": ["DeepMLFConfig"],
        "model.deepmlf": ["DeepMLFModel", "DeepMLFOutput"],
        "predict.predictor": ["Prediction", "Predictor"],
    },
)
__all__ += ["__version__"]
