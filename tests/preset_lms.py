"""A tiny LM of each kind that the presets name, saved as on the hub: as many layers, its kind of tokenizer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from tiny_lms import tiny_llama
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BertTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

WIDTH = 32  # the presets' 16 cross-attention heads divide it


def save_like(name: str, folder: Path, texts: Iterable[str]) -> Path:
    """A random LM of the kind of `name` (a preset's `lm.name`) and its tokenizer over `texts`, saved in `folder`."""
    torch.manual_seed(0)
    make = {
        "gpt2": lambda: _gpt2(12, byte_level(texts)),
        "gpt2-large": lambda: _gpt2(36, byte_level(texts)),
        "uer/gpt2-chinese-cluecorpussmall": lambda: _gpt2(12, characters(texts, folder)),
        "HuggingFaceTB/SmolLM2-1.7B": lambda: _llama(24, byte_level(texts)),
        "smollm2": lambda: _llama(30, byte_level(texts), width=36, heads=9, key_value_heads=3),
    }
    lm, tokenizer = make[name]()
    lm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def byte_level(texts: Iterable[str]) -> PreTrainedTokenizerBase:
    """GPT-2's and SmolLM2's kind: byte-level BPE with one special token, which begins and ends; none for padding."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"], show_progress=False)
    inner.train_from_iterator(texts, trainer)
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=end, eos_token=end, unk_token=end)


def characters(texts: Iterable[str], folder: Path) -> PreTrainedTokenizerBase:
    """The Chinese GPT-2's kind: BERT's, a token a character, [CLS] and [SEP] around a text, no begin or end token."""
    folder.mkdir(parents=True, exist_ok=True)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join([*special, *sorted(set("".join(texts)))]) + "\n", encoding="utf-8")
    return BertTokenizer(str(vocabulary))


def _gpt2(layers: int, tokenizer: PreTrainedTokenizerBase) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    # The config keeps GPT-2's own bos and eos ids, 50256, whatever the vocabulary, as the Chinese one's does.
    sizes = {"n_layer": layers, "n_embd": WIDTH, "n_head": 4, "n_positions": 64}
    return GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes)), tokenizer


def _llama(
    layers: int,
    tokenizer: PreTrainedTokenizerBase,
    width: int = WIDTH,
    heads: int = 4,
    key_value_heads: int = 4,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    ends = {"bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": True}
    sizes = {"num_attention_heads": heads, "num_key_value_heads": key_value_heads}
    return tiny_llama(len(tokenizer), layers, width, **sizes, **ends), tokenizer
