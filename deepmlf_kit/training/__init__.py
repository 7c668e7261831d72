"""Training: one driver for every registered model, on a thin `transformers.Trainer`, and the folder of a run.

av = train("sample", dataset, "runs/av", model="av")
run = train("sample", dataset, "runs/first", av_encoder=av)
run.metrics
"""

import lazy_loader

# On first use: presets need only the recipe, and must not wait for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "driver": ["train"],
        "models": ["TrainableModel", "register_model"],
        "recipe": ["Recipe"],
        "run_folder": ["Run"],
        "saved_model": ["open_run"],
    },
)
