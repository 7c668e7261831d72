"""Measure what the fusion tokens do: what they attend to, what each branch adds, and what makes a difference.

`capture` reads a forward pass without changing it, `effects` takes parts of an utterance or of the model out and
sees how far the prediction moves, `integrated_gradients` shares a prediction out over words and frames. `Lens`
does each of them for a row of a dataset, in one call. `deepmlf_kit.plots` draws what is measured here.
"""

import lazy_loader

# On first use: `import deepmlf_kit.explain` must not wait for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "capturing": ["Capture", "capture"],
        "causes": ["Effects", "effects"],
        "compare": ["AttentionVsEffect", "attention_vs_effect"],
        "gradients": ["Attributions", "integrated_gradients"],
        "lens": ["Lens"],
        "reading": ["Reading"],
        "surveying": ["Survey", "survey"],
    },
)
