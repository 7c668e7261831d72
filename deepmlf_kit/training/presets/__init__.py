"""Presets: every setting of a run in one readable YAML file, checked key by key.

Stands before everything else: a preset says which language model, which fusion, which data rules and which two
trainings. The published recipes are here under their names; a file of your own may start from one with `base:`.

    preset = load_preset("mosi", ["fusion.tokens=12", "training.epochs=3"])
    config = preset.model_config()
"""

from .loader import available_presets, load_preset, preset_text
from .tree import Preset

__all__ = ["Preset", "available_presets", "load_preset", "preset_text"]
