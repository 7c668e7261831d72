"""A model that `save_pretrained` wrote, as a run that predicts: what somebody's own `Trainer` or loop leaves.

    config.json, model.safetensors    the model
    preprocessor_config.json          how rows become batches and how features are made (`Collator.save_pretrained`)

Where the second is missing, the features are told by their widths, and taken as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.collate import Collator
from ..data.schema import PREPROCESSOR_FILE
from ..features.recipe import FeatureRecipe, feature_names
from ..model.checkpoints import CONFIG_FILE, read_config
from ..model.config import DeepMLFConfig
from ..model.settings import KNOBS
from .models import registered_model
from .presets.tree import Preset
from .run_folder import FORMAT, Run
from .scales import SCALES


class SavedModel(Run):
    """A folder that `save_pretrained` wrote; `SavedModel.open(path)` reads it.

    Attributes:
        assumed: what the folder does not say and was assumed, a sentence; empty where it says all.
    """

    FILE = PREPROCESSOR_FILE
    assumed: str = ""

    @classmethod
    def open(cls, path: str | Path) -> SavedModel:
        """Read a model's folder.

        Raises:
            DeepMLFError: there is no model, or one of its files is damaged.
        """
        path = Path(path)
        config = read_config(path / CONFIG_FILE)
        known = (path / PREPROCESSOR_FILE).is_file()
        # Its tokenizer is that of the model, once this is loaded.
        collator = Collator.from_pretrained(path, tokenizer=_NO_TOKENIZER) if known else None
        recipe = collator.recipe if collator else None
        assumed = ""
        if not recipe and (guessed := _recipe_of(config)):
            recipe = guessed.to_dict()
            assumed = f"{path} does not say how its features were made: taken as {guessed.audio} and {guessed.vision}"
            assumed += "" if known else ", not normalised"
        run = cls(path, _info(config, collator, recipe))
        run.assumed = assumed
        return run

    @property
    def best(self) -> Path:
        """The folder itself."""
        return self.path


def open_run(path: str | Path) -> Run:
    """A run's folder, or that of a model alone.

    Raises:
        DeepMLFError: it is neither, or damaged.
    """
    path = Path(path)
    of_a_run = path / "run.json", path.parent / "run.json"
    if (path / CONFIG_FILE).is_file() and not any(file.is_file() for file in of_a_run):
        return SavedModel.open(path)
    return Run.open(path)


_NO_TOKENIZER: Any = object()


def _info(
    config: DeepMLFConfig, collator: Collator | None, recipe: Mapping[str, Any] | None
) -> dict[str, Any]:
    """`run.json` as the training of such a model would have written it, but for the training itself."""
    tree: dict[str, Any] = Preset().to_dict()
    for knob in KNOBS.values():
        if knob.section:
            tree[knob.section][knob.key] = getattr(config, knob.setting)
    largest = (recipe or {}).get("label_scale", 3.0)
    tree["data"]["scale"] = next((name for name, (_, high) in SCALES.items() if high == largest), "mosi")
    of_class = (config.architectures or ["DeepMLFModel"])[0]
    return {
        "format": FORMAT,
        "kind": "fused" if of_class == registered_model("fused").build.__name__ else of_class,
        "state": "finished",
        "preset": tree,
        "dataset": {
            "path": None,
            "audio_dim": collator.dims["audio"] if collator else config.audio_dim,
            "vision_dim": collator.dims["vision"] if collator else config.vision_dim,
        },
        "preprocessing": {
            "lm": config.lm,
            "max_text_tokens": collator.max_text_tokens if collator else config.max_text_tokens,
            "long_texts": collator.long_texts if collator else "end",
            "full_stop": bool(collator and collator.full_stop),
            "normalizer": collator.normalizer.to_dict() if collator and collator.normalizer else None,
            "recipe": recipe,
        },
    }


def _recipe_of(config: DeepMLFConfig) -> FeatureRecipe | None:
    """The recipe whose features are as wide as a model's; None where no extractor of the kit gives such."""
    for audio in ("egemaps", "mfcc"):
        recipe = FeatureRecipe(audio=audio)
        if [config.audio_dim, config.vision_dim] == [len(names or ()) for names in feature_names(recipe)]:
            return recipe
    return None
