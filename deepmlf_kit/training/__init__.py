"""Training: AV pretraining and fused training through a thin `transformers.Trainer`, and the folder of a run.

av = pretrain_av("sample", dataset, "runs/av")
run = train("sample", dataset, "runs/first", av_encoder=av)
run.metrics
"""

import lazy_loader

# On first use: presets need only the recipe, and must not wait for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "av_pretraining": ["pretrain_av"],
        "fused": ["train"],
        "recipe": ["Recipe"],
        "run_folder": ["Run"],
    },
)
