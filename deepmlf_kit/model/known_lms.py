"""Sizes of the language models that the presets and ready-made sweeps name, so that a dry run needs no network.

Only shapes, for `dry_run.py`; a training reads the language model's own config. As published with the models: GPT-2
(Radford et al. 2019, sizes of the openai-community repositories), SmolLM2-1.7B and 135M (Allal et al. 2025), UER's Chinese GPT-2
(12 layers of width 768 on BERT's Chinese vocabulary).
"""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from .config import DeepMLFConfig
from .lm_loading import load_lm_config

KNOWN: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {}),
    "gpt2-medium": ("gpt2", {"n_embd": 1024, "n_layer": 24, "n_head": 16}),
    "gpt2-large": ("gpt2", {"n_embd": 1280, "n_layer": 36, "n_head": 20}),
    "uer/gpt2-chinese-cluecorpussmall": (
        "gpt2",
        {"vocab_size": 21128, "bos_token_id": None, "eos_token_id": None},
    ),
    "smollm2": (
        "llama",
        {
            "vocab_size": 49152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
        },
    ),
    "HuggingFaceTB/SmolLM2-1.7B": (
        "llama",
        {
            "vocab_size": 49152,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 24,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
        },
    ),
}


def lm_shape(config: DeepMLFConfig) -> PreTrainedConfig:
    """The config of the LM that `config` names, for its shapes: from the list above, else loaded.

    Raises:
        DeepMLFError: it is not in the list and could not be loaded.
    """
    if config.lm not in KNOWN:
        return load_lm_config(config)
    kind, sizes = KNOWN[config.lm]
    return AutoConfig.for_model(kind, **sizes)
