"""A language model and a dataset so small that a training takes a second; shared by the tests of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import DatasetDict
from tiny_lms import tiny_llama
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from deepmlf_kit.data import schema
from deepmlf_kit.data.sample import make_sample
from deepmlf_kit.training import Run, train


def tiny_lm(texts: list[str], layers: int = 3, width: int = 32) -> tuple[Any, Any]:
    """A random Llama and a word tokenizer over `texts`."""
    words = Tokenizer(models.WordLevel(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=["<pad>", "<unk>"]))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", eos_token="<pad>"
    )
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    lm = tiny_llama(len(tokenizer), layers, width)
    torch.random.set_rng_state(state)
    return lm, tokenizer


def tiny_sample() -> DatasetDict:
    """40 utterances to train on, 16 to validate, 16 to test."""
    return make_sample(seed=0, train=40, valid=16, test=16)


def pretrain_av(dataset: DatasetDict, folder: Path, tokenizer: Any, **options: Any) -> Run:
    """An AV pretraining, quietly; `options` are those of `train`, by default `overrides=TINY`."""
    quiet = {"progress": False, "tensorboard": False, "tokenizer": tokenizer}
    return train("sample", dataset, folder, model="av", **{"overrides": TINY} | quiet | options)


def with_other_features(dataset: DatasetDict) -> DatasetDict:
    """The same utterances and labels; one frame of one utterance's vision is another."""
    audio_dim, vision_dim = schema.dims_of(dataset)
    changed = DatasetDict()
    for name, part in dataset.items():
        frames = part.with_format("numpy", columns=["audio", "vision"])
        rows = [{**row, **arrays} for row, arrays in zip(part.with_format(None), frames, strict=True)]
        if name == "train":
            rows[-1]["vision"] = rows[-1]["vision"].copy()
            rows[-1]["vision"][0, 0] += 0.5
        changed[name] = schema.build_split(rows, audio_dim, vision_dim)
    return changed


#: The sample preset, as small as the tiny LM.
TINY = {
    "fusion.layers": [1, 2],
    "fusion.tokens": 3,
    "fusion.heads": 4,
    "av_encoder.steps": 8,
    "av_encoder.width": 12,
    "av_encoder.layers": 1,
    "av_encoder.heads": 2,
    "data.max_text_tokens": 24,
    "seqaug.text_p_feat": 0.2,
    "seqaug.text_p_apply": 0.5,
    "seqaug.av_p_feat": 0.2,
    "training.epochs": 4,
    "training.early_stop": 4,
    "training.batch_size": 8,
    "training.accumulation": 2,
    "training.learning_rate": 1e-3,
    "pretraining.epochs": 2,
    "pretraining.batch_size": 8,
}
