"""A tiny trained run and a served app, shared by the tests of the app."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from training_fixtures import TINY, tiny_lm


def tiny_run(folder: Path) -> Path:
    """The folder of a fused run on a tiny LM, as a training leaves it; its weights are random."""
    import torch

    from deepmlf_kit import DeepMLFModel
    from deepmlf_kit.data.sample_grammar import make_sentence
    from deepmlf_kit.data.sample_signals import AUDIO_DIM, VISION_DIM
    from deepmlf_kit.features import FeatureRecipe
    from deepmlf_kit.training.presets import load_preset
    from deepmlf_kit.training.run_folder import FORMAT, Run

    rng = np.random.default_rng(0)
    lm, tokenizer = tiny_lm([make_sentence(rng, n % 3 - 1).text for n in range(60)])
    lm.save_pretrained(folder / "lm")
    tokenizer.save_pretrained(folder / "lm")
    preset = load_preset("sample", {**TINY, "lm.name": str(folder / "lm")})
    torch.manual_seed(0)
    model = DeepMLFModel(preset.model_config(), lm=lm, tokenizer=tokenizer)
    info = {
        "format": FORMAT,
        "kind": "fused",
        "state": "finished",
        "preset": preset.to_dict(),
        "seed": 0,
        "dataset": {
            "path": None,
            "rows": {"train": 1, "valid": 1, "test": 1},
            "digest": "none",
            "audio_dim": AUDIO_DIM,
            "vision_dim": VISION_DIM,
        },
        "versions": {},
        "parameters": {"trained": 0, "frozen": 0},
        "best": {"value": 1.0},
        "test": {},
        "preprocessing": {
            "lm": preset.lm.name,
            "max_text_tokens": preset.data.max_text_tokens,
            "normalizer": None,
            "recipe": FeatureRecipe(language="en").to_dict(),
        },
    }
    run = Run(folder / "run", info)
    run.save()
    model.save_pretrained(run.best)
    return run.path


@contextmanager
def served(run: Path | None, **options: Any) -> Iterator[Any]:
    """A running app on a free port, its models loaded; closed at the end."""
    from deepmlf_kit.app import launch

    app = launch(run, block=False, quiet=True, **options)
    try:
        app.models.recipe(patience=120)
        yield app
    finally:
        app.close()
