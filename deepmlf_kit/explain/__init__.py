"""Measure what the fusion tokens do: what they attend to, what each branch adds, and what makes a difference.

`capture` records a forward pass without changing it, `effects` ablates parts of an utterance or of the model and
measures how far the prediction moves, `integrated_gradients` attributes a prediction to words and frames. `Lens` does
each of them for a row of a dataset, in one call. `deepmlf_kit.plots` draws what is measured here.
"""

import lazy_loader

# On first use: `import deepmlf_kit.explain` must not wait for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "capturing": ["Capture", "capture"],
        "ablations": ["Effects", "effects"],
        "compare": ["AttentionVsEffect", "attention_vs_effect"],
        "cumulative": ["CumulativeAblation", "cumulative_ablation"],
        "deletion": ["DeletionCurve", "deletion"],
        "gradients": ["Attributions", "integrated_gradients"],
        "lens": ["Lens"],
        "patching": ["Patching", "patch"],
        "reading": ["Reading", "av_step_times", "times_uniform"],
        "surveying": ["Survey", "survey"],
    },
)
