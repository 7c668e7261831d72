"""The registry of trainable models: what `train(..., model=...)` builds and `Run.load_model` opens.

A model of your own becomes trainable, and its runs can be scored, compared and repeated, with one registration:

    register_model("mine", TrainableModel(MyModel, MyModel.from_pretrained, "Training my model", "my model"))
    run = train("sample", dataset, "runs/mine", model="mine")

It is a `PreTrainedModel` with a `DeepMLFConfig`. Its forward takes a batch of the collator as keyword arguments and returns an
output with `loss` and `prediction` [B] (docs/layout.md, "Output"); other heads and loss terms by the names of
`DeepMLFOutput` are logged too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import DeepMLFError
from ..model.av_encoder import AVSentimentModel
from ..model.baselines import TextSentimentModel
from ..model.baselines_fusion import FlamingoSentimentModel, PrefixSentimentModel
from ..model.config import DeepMLFConfig
from ..model.deepmlf import DeepMLFModel
from ..model.lm_loading import load_tokenizer
from .presets import Preset
from .recipe import Recipe


@dataclass(frozen=True)
class TrainableModel:
    """How one kind of model is built, trained and loaded.

    Attributes:
        build: `build(config, lm=None, tokenizer=None)` returns the model; `lm` and `tokenizer` where they are in memory.
        load: `load(folder, lm=None, tokenizer=None)` returns the model saved in a folder, in eval mode.
        title: of the progress bar.
        description: what the model is, for the model card.
        recipe: section of the preset that trains it, `training` or `pretraining`.
        reads_text: whether batches are worth grouping by the length of their texts.
        takes_av_encoder: whether it may start from a pretrained AV encoder, by its `load_av_encoder(folder)`.
    """

    build: Callable[..., PreTrainedModel]
    load: Callable[..., PreTrainedModel]
    title: str
    description: str
    recipe: str = "training"
    reads_text: bool = True
    takes_av_encoder: bool = False

    def recipe_of(self, preset: Preset) -> Recipe:
        """The recipe of a preset that trains this model."""
        return getattr(preset, self.recipe)


def register_model(name: str, model: TrainableModel) -> None:
    """Make a model known to `train` and to the runs that it leaves.

    Args:
        name: for `train(model=name)`; also the `kind` in `run.json`, so register before opening such a run.

    Raises:
        DeepMLFError: the name is one of the kit's own, or the recipe is no section of a preset. A model of yours may be
            registered again (a notebook cell that is run twice).
    """
    if name in BUILT_IN:
        raise DeepMLFError(f"The model {name!r} is the kit's own: choose another name.")
    if model.recipe not in ("training", "pretraining"):
        raise DeepMLFError(f"recipe is {model.recipe!r}, but must be training or pretraining.")
    _MODELS[name] = model


def registered_model(name: str) -> TrainableModel:
    """The registered model of a name.

    Raises:
        DeepMLFError: there is none.
    """
    if name not in _MODELS:
        raise DeepMLFError(
            f"There is no model {name!r}: choose one of {', '.join(_MODELS)}, or register it first "
            "(deepmlf_kit.training.register_model)."
        )
    return _MODELS[name]


def tokenizer_of(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer for a model's batches: the given one, the model's own, or that of the LM in its config."""
    if tokenizer is None:
        tokenizer = getattr(model, "tokenizer", None)
    return tokenizer if tokenizer is not None else load_tokenizer(model.config)


def _build_av(
    config: DeepMLFConfig,
    lm: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> AVSentimentModel:
    config.av_trainable = True
    return AVSentimentModel(config)


def _load_av(
    folder: str, lm: PreTrainedModel | None = None, tokenizer: PreTrainedTokenizerBase | None = None
) -> AVSentimentModel:
    return AVSentimentModel.from_pretrained(str(folder)).eval()


_MODELS: dict[str, TrainableModel] = {
    "fused": TrainableModel(
        DeepMLFModel,
        DeepMLFModel.from_pretrained,
        title="Training",
        description="DeepMLF: fusion tokens in a frozen language model",
        takes_av_encoder=True,
    ),
    "av": TrainableModel(
        _build_av,
        _load_av,
        title="Pretraining the AV encoder",
        description="the AV encoder alone (voice and face), with a linear head",
        recipe="pretraining",
        reads_text=False,
    ),
    "text": TrainableModel(
        TextSentimentModel,
        TextSentimentModel.from_pretrained,
        title="Training the text baseline",
        description="the text-only baseline: a head on a frozen language model",
    ),
    "prefix": TrainableModel(
        PrefixSentimentModel,
        PrefixSentimentModel.from_pretrained,
        title="Training the soft prompt baseline",
        description="the soft prompt baseline: AV states as tokens before the text of a frozen language model",
        takes_av_encoder=True,
    ),
    "flamingo": TrainableModel(
        FlamingoSentimentModel,
        FlamingoSentimentModel.from_pretrained,
        title="Training the cross-attention baseline",
        description="the cross-attention baseline: the text tokens of a frozen language model read the AV states",
        takes_av_encoder=True,
    ),
}

BUILT_IN = tuple(_MODELS)
"""Names of the kit's own models."""
