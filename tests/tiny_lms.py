"""Tiny random language models of every tested family, and a small model and batch around them."""

import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from deepmlf_kit import DeepMLFConfig, DeepMLFModel

VOCABULARY, WIDTH, LAYERS = 97, 48, 4
_IDS = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_SIZES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
_GATED = {**_SIZES, "intermediate_size": 96, "num_key_value_heads": 2}

FAMILIES = {
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(n_embd=WIDTH, n_layer=LAYERS, n_head=4, n_positions=64, **_IDS)
    ),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**_GATED, **_IDS)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**_GATED, head_dim=16, **_IDS)),
    "gemma3": lambda: Gemma3ForCausalLM(Gemma3TextConfig(**_GATED, head_dim=16, sliding_window=32, **_IDS)),
    "neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**_SIZES, intermediate_size=96, **_IDS)),
    "opt": lambda: OPTForCausalLM(OPTConfig(**_SIZES, word_embed_proj_dim=WIDTH, ffn_dim=96, **_IDS)),
}


def tiny_llama(vocabulary, layers, width=32, **changes):
    """A random Llama; its weights are those of the current seed."""
    sizes = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    }
    return LlamaForCausalLM(LlamaConfig(**(sizes | changes)))


def tiny_lm(family="llama", seed=0):
    torch.manual_seed(seed)
    lm = FAMILIES[family]()
    with torch.no_grad():  # random but not tiny weights, so that every path shows in the outputs
        for parameter in lm.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    return lm


def tiny_config(**changes):
    values = {
        "fusion_layers": [1, 2],
        "fusion_tokens": 5,
        "max_text_tokens": 12,
        "cross_attention_heads": 4,
        "audio_dim": 7,
        "vision_dim": 9,
        "av_steps": 10,
        "av_width": 12,
        "av_heads": 3,
        "av_layers": 2,
        "task_hidden": 16,
        "lora_r": 4,
        "loss_lm": 0.5,
        "pad_token_id": 0,
    }
    return DeepMLFConfig(**(values | changes))


def tiny_model(family="llama", seed=0, lm=None, **changes):
    lm = tiny_lm(family, seed) if lm is None else lm
    torch.manual_seed(seed + 1)
    return DeepMLFModel(tiny_config(**changes), lm=lm).eval()


def tiny_batch(lengths=(9, 5, 1), audio=(23, 10, 4), vision=(8, 10, 16), seed=0):
    generator = torch.Generator().manual_seed(seed)
    batch = len(lengths)

    def ragged(rows, width):
        mask = torch.arange(max(rows)) < torch.tensor(rows).unsqueeze(1)
        values = torch.randn(batch, max(rows), width, generator=generator) * mask.unsqueeze(-1)
        return values, mask

    ids = torch.randint(3, VOCABULARY, (batch, max(lengths)), generator=generator)
    text_mask = (torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)).long()
    voice, voice_mask = ragged(audio, 7)
    face, face_mask = ragged(vision, 9)
    return {
        "input_ids": ids * text_mask,
        "attention_mask": text_mask,
        "audio": voice,
        "audio_mask": voice_mask,
        "vision": face,
        "vision_mask": face_mask,
        "labels": torch.randn(batch, generator=generator),
    }


def one_of(batch, row):
    """Sample `row` of a batch alone, its padding trimmed."""
    alone = {name: value[row : row + 1] for name, value in batch.items()}
    length = int(alone["attention_mask"].sum())
    alone["input_ids"], alone["attention_mask"] = (
        alone["input_ids"][:, :length],
        alone["attention_mask"][:, :length],
    )
    for stream in ("audio", "vision"):
        frames = max(int(alone[f"{stream}_mask"].sum()), 1)
        alone[stream], alone[f"{stream}_mask"] = (
            alone[stream][:, :frames],
            alone[f"{stream}_mask"][:, :frames],
        )
    return alone
