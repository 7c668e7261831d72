"""Makes the golden case that is shipped in `tests/golden`: `python tests/make_golden_case.py`.

The model of the paper on a tiny Llama with LoRA, written down once more as plain functions of tensors, in float64 and
without anything of the kit, so that a clone without the authors' tensors has a ground truth too. Names, layouts and
array groups are those of the authors' checkpoints (`deepmlf_kit/convert.py`). B batch, L text, F fusion tokens, D LM
width, K AV steps, d AV width.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

FILE = Path(__file__).parent / "golden" / "own_llama_lora.npz"

META = {
    "lm_flavor": "llama",
    "vocab": 29,
    "pad_id": 2,
    "seed": 2025,
    "lm": {
        "num_hidden_layers": 3,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32,
        "tie_word_embeddings": True,
    },
    "cfg": {
        "max_token_len": 7,
        "n_bn_fusion": 3,
        "use_clm": True,
        "feature_dims": [16, 5, 4],
        "l_bn": 0.4,
        "l_av": 0.8,
        "l_t": 0.7,
        "gamma": 0.6,
        "mmgpt": {
            "d_out": 6,
            "dropout": 0.0,
            "mm_layer": [0, 2],
            "n_head": 2,
            "gating": "sigmoid",
            "n_up": 24,
            "lora": {"r": 2, "lora_alpha": 4, "lora_dropout": 0.0},
        },
        "av_enc": {"maxlen": 6, "d_enc": 8, "n_head": 2, "nlevels": 1, "enc_dropout": 0.0, "use_bn": False},
    },
}
LENGTHS = (7, 4, 1)  # one text of full length, one padded, one of a single token
PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
Arrays = dict[str, Tensor]


# Weights and inputs -------------------------------------------------------------------------------------------


def draw_weights(meta: dict[str, Any], rng: np.random.Generator) -> Arrays:
    """Random weights, wide enough that every path shows in the outputs; float32 values."""
    lm, cfg = meta["lm"], meta["cfg"]
    blocks, encoder = cfg["mmgpt"], cfg["av_enc"]
    width, inner, av = lm["hidden_size"], lm["intermediate_size"], encoder["d_enc"]
    kv = width // lm["num_attention_heads"] * lm["num_key_value_heads"]
    rank, hidden = blocks["lora"]["r"], blocks["d_out"]
    p: Arrays = {}

    def matrix(name: str, *shape: int, scale: float = 1.0) -> None:
        p[name] = torch.from_numpy(rng.normal(0, scale / math.sqrt(shape[-1]), shape).astype(np.float32))

    def vector(name: str, size: int, centre: float = 0.0, spread: float = 0.2) -> None:
        p[name] = torch.from_numpy((centre + spread * rng.normal(size=size)).astype(np.float32))

    def linear(name: str, out: int, into: int) -> None:
        matrix(f"{name}.weight", out, into)
        vector(f"{name}.bias", out)

    def norm(name: str, size: int) -> None:
        vector(f"{name}.weight", size, centre=1.0)
        vector(f"{name}.bias", size)

    def feed_forward(name: str, scale: float = 1.0) -> None:
        matrix(f"{name}.gate_proj.weight", inner, width)
        matrix(f"{name}.up_proj.weight", inner, width)
        matrix(f"{name}.down_proj.weight", width, inner, scale=scale)

    model = "lang_encoder.model"
    matrix(f"{model}.embed_tokens.0.embedding.weight", meta["vocab"], width, scale=4.0)
    matrix(f"{model}.embed_tokens.0.bn_embedding.bn_embedding", cfg["n_bn_fusion"], width, scale=4.0)
    for layer in range(lm["num_hidden_layers"]):
        decoder = f"{model}.layers.{layer}.decoder_layer"
        for name, out in (("q_proj", width), ("k_proj", kv), ("v_proj", kv), ("o_proj", width)):
            matrix(f"{decoder}.self_attn.{name}.weight", out, width)
        # The middle layer writes states near 100, as real LMs do at some tokens.
        feed_forward(f"{decoder}.mlp", scale=55.0 if layer == 1 else 1.0)
        vector(f"{decoder}.input_layernorm.weight", width, centre=1.0)
        vector(f"{decoder}.post_attention_layernorm.weight", width, centre=1.0)
    vector(f"{model}.norm.weight", width, centre=1.0)
    p["lang_encoder.lm_head.weight"] = p[f"{model}.embed_tokens.0.embedding.weight"]
    for layer in blocks["mm_layer"]:
        block = f"{model}.layers.{layer}.ca_layer"
        vector(f"{block}.alpha_1", 1)
        vector(f"{block}.alpha_2", 1)
        vector(f"{block}.ln_1.weight", width, centre=1.0)
        vector(f"{block}.ln_2.weight", width, centre=1.0)
        matrix(f"{block}.attn.W_q.weight", width, width, scale=2.0)
        matrix(f"{block}.attn.W_kv.weight", 2 * width, av, scale=2.0)
        matrix(f"{block}.attn.W_o.weight", width, width)
        for name in PROJECTIONS:  # the frozen LM layer's own weights
            own = f"{model}.layers.{layer}.decoder_layer.mlp.{name}.weight"
            p[f"{block}.mlp.{name}.weight"] = p[own]
            out, into = p[own].shape
            matrix(f"{block}.mlp.lora_{name}.lora_A", into, rank)
            matrix(f"{block}.mlp.lora_{name}.lora_B", rank, out, scale=0.5)
    for stream, features in zip("av", cfg["feature_dims"][1:], strict=True):
        matrix(f"av_encoder.proj_{stream}.weight", av, features)
        for layer in range(encoder["nlevels"]):
            name = f"av_encoder.enc_{stream}.layers.{layer}"
            matrix(f"{name}.self_attn.in_proj_weight", 3 * av, av)
            vector(f"{name}.self_attn.in_proj_bias", 3 * av)
            linear(f"{name}.self_attn.out_proj", av, av)
            linear(f"{name}.linear1", 4 * av, av)
            linear(f"{name}.linear2", av, 4 * av)
            norm(f"{name}.norm1", av)
            norm(f"{name}.norm2", av)
    linear("av_encoder.fusion", av, 2 * av)
    norm("LN", av)
    linear("W_task.0", hidden, 2 * width + av)
    norm("W_task.1", hidden)
    vector("W_task.1.running_mean", hidden)
    vector("W_task.1.running_var", hidden, centre=1.0)
    p["W_task.1.num_batches_tracked"] = torch.zeros((), dtype=torch.int64)
    linear("W_task.3", 1, hidden)
    linear("W_text", 1, width)
    linear("W_bn", 1, width)
    linear("W_av", 1, av)
    return p


def draw_inputs(meta: dict[str, Any], rng: np.random.Generator) -> Arrays:
    """A batch whose texts have `LENGTHS` tokens; frames already at K steps, so that pooling is the identity."""
    cfg = meta["cfg"]
    batch, length, steps = len(LENGTHS), cfg["max_token_len"], cfg["av_enc"]["maxlen"]
    mask = (np.arange(length) < np.asarray(LENGTHS)[:, None]).astype(np.int64)
    ids = np.where(mask == 1, rng.integers(3, meta["vocab"], (batch, length)), meta["pad_id"])
    _, audio, vision = cfg["feature_dims"]
    return {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(mask),
        "audio": torch.from_numpy(rng.normal(size=(batch, steps, audio)).astype(np.float32)),
        "vision": torch.from_numpy(rng.normal(size=(batch, steps, vision)).astype(np.float32)),
        "labels": torch.from_numpy(rng.uniform(-3, 3, batch).astype(np.float32)),
        "pad_id": torch.tensor(meta["pad_id"]),
    }


def is_trained(name: str) -> bool:
    """Fusion tokens, MM Blocks but for the shared feed-forward, AV encoder and heads; the LM is frozen."""
    if name.startswith("lang_encoder."):
        shared = ".ca_layer.mlp." in name and ".lora_" not in name
        return "bn_embedding" in name or (".ca_layer." in name and not shared)
    return "running_" not in name and "num_batches" not in name


# The model ----------------------------------------------------------------------------------------------------


def forward(p: Arrays, given: Arrays, meta: dict[str, Any]) -> tuple[dict[str, Any], Arrays]:
    """Outputs and losses of the whole model.

    Args:
        p: weights, all of one precision.
        given: inputs, of that precision.
    """
    cfg, lm = meta["cfg"], meta["lm"]
    model = "lang_encoder.model"
    length, tokens = cfg["max_token_len"], cfg["n_bn_fusion"]
    mask = given["attention_mask"]  # [B, L]
    batch = len(mask)

    av = encode_av(p, given, cfg)  # [B, K, d]

    text = p[f"{model}.embed_tokens.0.embedding.weight"][given["input_ids"]]  # [B, L, D]
    fusion = p[f"{model}.embed_tokens.0.bn_embedding.bn_embedding"].expand(batch, -1, -1)  # [B, F, D]
    x = torch.cat([text, fusion], dim=1)  # [B, L + F, D]
    real = torch.cat([mask, mask.new_ones(batch, tokens)], dim=1).bool()  # [B, L + F]
    visible = torch.ones(length + tokens, length + tokens).tril().bool() & real[:, None, :]
    visible = (
        visible | torch.eye(length + tokens).bool()
    )  # a padded row sees itself: read by nobody, but no NaN

    states = [x]
    for layer in range(lm["num_hidden_layers"]):
        x = decoder_layer(p, f"{model}.layers.{layer}.decoder_layer", x, visible, lm)
        if layer in cfg["mmgpt"]["mm_layer"]:
            x = mm_block(p, f"{model}.layers.{layer}.ca_layer", x, av, cfg)
        states.append(x)
    last = states[-1] = rms_norm(x, p[f"{model}.norm.weight"])
    logits = last @ p["lang_encoder.lm_head.weight"].T  # [B, L + F, V]

    said_text = last[torch.arange(batch), mask.sum(dim=1) - 1]  # [B, D]
    said_fusion, said_av = last[:, length:], av.mean(dim=1)  # [B, F, D], [B, d]
    together = torch.cat([said_fusion.mean(dim=1), said_text, said_av], dim=1)  # [B, 2D + d]
    hidden = F.linear(together, p["W_task.0.weight"], p["W_task.0.bias"])
    centred = (hidden - p["W_task.1.running_mean"]) / (p["W_task.1.running_var"] + 1e-5).sqrt()
    hidden = (centred * p["W_task.1.weight"] + p["W_task.1.bias"]).clamp(min=0)
    out: dict[str, Any] = {
        "task_logits": F.linear(hidden, p["W_task.3.weight"], p["W_task.3.bias"]),
        "text_logits": F.linear(said_text, p["W_text.weight"], p["W_text.bias"]),
        "av_logits": F.linear(said_av, p["W_av.weight"], p["W_av.bias"]),
        "bn_logits": F.linear(said_fusion, p["W_bn.weight"], p["W_bn.bias"]),
        "lm_logits": logits,
        "av_enc_ln": av,
        "last_hidden": last,
        "hidden_states": torch.stack(states),
    }
    return out, losses(out, given, cfg)


def losses(out: dict[str, Any], given: Arrays, cfg: dict[str, Any]) -> Arrays:
    """Each term and their weighted sum: L1 of every head, cross-entropy of the next text token."""
    labels, length = given["labels"], cfg["max_token_len"]
    ids = given["input_ids"]
    targets = torch.cat([ids[:, 1:], torch.zeros_like(ids[:, :1])], dim=1)  # rolled left, 0 at the end
    read = given["attention_mask"].bool()
    terms = {
        "task": (out["task_logits"][:, 0] - labels).abs().mean(),
        "bn": (out["bn_logits"][:, :, 0] - labels[:, None]).abs().mean(),
        "av": (out["av_logits"][:, 0] - labels).abs().mean(),
        "text": (out["text_logits"][:, 0] - labels).abs().mean(),
        "clm": -out["lm_logits"][:, :length].log_softmax(-1).gather(-1, targets[..., None])[read].mean(),
    }
    weights = {"task": 1.0, "bn": cfg["l_bn"], "av": cfg["l_av"], "text": cfg["l_t"], "clm": cfg["gamma"]}
    terms["total"] = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
    return terms


def encode_av(p: Arrays, given: Arrays, cfg: dict[str, Any]) -> Tensor:
    """Voice and face -> AV states [B, K, d]."""
    encoder = cfg["av_enc"]
    av, steps = encoder["d_enc"], encoder["maxlen"]
    half = av // 2
    rate = torch.exp(-math.log(10000) * torch.arange(half) / (half - 1))
    angle = torch.arange(1, steps + 1)[:, None] * rate  # positions from 1, in float32 as published
    positions = torch.cat([angle.sin(), angle.cos()], dim=1)  # [K, d]
    streams = []
    for stream, name in (("a", "audio"), ("v", "vision")):
        x = given[name] @ p[f"av_encoder.proj_{stream}.weight"].T * math.sqrt(av) + positions
        for layer in range(encoder["nlevels"]):
            prefix = f"av_encoder.enc_{stream}.layers.{layer}"
            normed = layer_norm(p, f"{prefix}.norm1", x)
            attn = f"{prefix}.self_attn"
            query, key, value = F.linear(
                normed, p[f"{attn}.in_proj_weight"], p[f"{attn}.in_proj_bias"]
            ).chunk(3, dim=-1)
            count = encoder["n_head"]
            read = attend(by_head(query, count), by_head(key, count), by_head(value, count), av // count)
            x = x + F.linear(read, p[f"{attn}.out_proj.weight"], p[f"{attn}.out_proj.bias"])
            normed = layer_norm(p, f"{prefix}.norm2", x)
            inner = F.linear(normed, p[f"{prefix}.linear1.weight"], p[f"{prefix}.linear1.bias"])
            inner = 0.5 * inner * (1 + torch.erf(inner / math.sqrt(2)))  # exact GELU
            x = x + F.linear(inner, p[f"{prefix}.linear2.weight"], p[f"{prefix}.linear2.bias"])
        streams.append(x)
    joined = F.linear(torch.cat(streams, dim=-1), p["av_encoder.fusion.weight"], p["av_encoder.fusion.bias"])
    return layer_norm(p, "LN", joined)


def decoder_layer(p: Arrays, name: str, x: Tensor, visible: Tensor, lm: dict[str, Any]) -> Tensor:
    """A Llama layer: RMSNorm, rotary attention with grouped keys and values, RMSNorm, silu(gate) * up."""
    heads, groups = lm["num_attention_heads"], lm["num_key_value_heads"]
    size = lm["hidden_size"] // heads
    normed = rms_norm(x, p[f"{name}.input_layernorm.weight"])
    query, key, value = (
        by_head(normed @ p[f"{name}.self_attn.{part}_proj.weight"].T, count)
        for part, count in (("q", heads), ("k", groups), ("v", groups))
    )  # [B, h or g, T, D/h]
    query, key = rotate(query), rotate(key)
    key, value = (part.repeat_interleave(heads // groups, dim=1) for part in (key, value))
    read = attend(query, key, value, size, visible[:, None])
    x = x + read @ p[f"{name}.self_attn.o_proj.weight"].T
    normed = rms_norm(x, p[f"{name}.post_attention_layernorm.weight"])
    gate, up, down = (p[f"{name}.mlp.{part}.weight"] for part in PROJECTIONS)
    return x + (F.silu(normed @ gate.T) * (normed @ up.T)) @ down.T


def mm_block(p: Arrays, name: str, x: Tensor, av: Tensor, cfg: dict[str, Any]) -> Tensor:
    """Fusion tokens read the AV states, then every token passes a feed-forward with LoRA; both branches gated."""
    blocks, width = cfg["mmgpt"], x.shape[-1]
    count = blocks["n_head"]
    text, fusion = x[:, : cfg["max_token_len"]], x[:, cfg["max_token_len"] :]
    query = rms_norm(fusion, p[f"{name}.ln_1.weight"]) @ p[f"{name}.attn.W_q.weight"].T
    key, value = (av @ p[f"{name}.attn.W_kv.weight"].T).chunk(2, dim=-1)
    read = attend(by_head(query, count), by_head(key, count), by_head(value, count), width)  # scaled by D
    fusion = fusion + torch.sigmoid(p[f"{name}.alpha_1"]) * (read @ p[f"{name}.attn.W_o.weight"].T)
    x = torch.cat([text, fusion], dim=1)
    scale = blocks["lora"]["lora_alpha"] / blocks["lora"]["r"]

    def project(z: Tensor, part: str) -> Tensor:
        low = z @ p[f"{name}.mlp.lora_{part}.lora_A"] @ p[f"{name}.mlp.lora_{part}.lora_B"]
        return z @ p[f"{name}.mlp.{part}.weight"].T + scale * low

    normed = rms_norm(x, p[f"{name}.ln_2.weight"])
    inner = F.silu(project(normed, "gate_proj")) * project(normed, "up_proj")
    return x + torch.sigmoid(p[f"{name}.alpha_2"]) * project(inner, "down_proj")


def attend(query: Tensor, key: Tensor, value: Tensor, size: int, visible: Tensor | None = None) -> Tensor:
    """softmax(q k / sqrt(size)) v, heads joined again: [B, h, T, e], [B, h, S, e] -> [B, T, h e]."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(size)
    if visible is not None:
        scores = scores.masked_fill(~visible, float("-inf"))
    return (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)


def by_head(x: Tensor, heads: int) -> Tensor:
    """[B, T, h e] -> [B, h, T, e]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def rotate(x: Tensor) -> Tensor:
    """Rotary positions 0, 1, ... of Llama: the first half of a head's channels turns with the second."""
    half = x.shape[-1] // 2
    rate = 1 / 10000 ** (torch.arange(half) / half)
    angle = torch.arange(x.shape[-2])[:, None] * rate  # [T, e / 2]
    first, second = x[..., :half], x[..., half:]
    return torch.cat(
        [first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], dim=-1
    )


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() * weight


def layer_norm(p: Arrays, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"])


# The case -----------------------------------------------------------------------------------------------------


def double(tensors: Arrays) -> Arrays:
    return {name: t.double() if t.is_floating_point() else t for name, t in tensors.items()}


def make_case() -> dict[str, np.ndarray]:
    """All arrays of the case by group: `p/`, `in/`, `out/`, `loss/`, `grad/`, `meta/`."""
    rng = np.random.default_rng(META["seed"])
    weights, inputs = draw_weights(META, rng), draw_inputs(META, rng)
    p = double(weights)
    trained = [name for name in p if is_trained(name)]
    for name in trained:
        p[name].requires_grad_(True)
    out, terms = forward(p, double(inputs), META)
    gradients = torch.autograd.grad(terms["total"], [p[name] for name in trained])
    groups: dict[str, Arrays] = {
        "p": weights,
        "in": inputs,
        "out": out,
        "loss": terms,
        "grad": dict(zip(trained, gradients, strict=True)),
    }
    case = {}
    for group, tensors in groups.items():
        for name, tensor in tensors.items():
            array = tensor.detach().numpy()
            case[f"{group}/{name}"] = array.astype(np.float32) if array.dtype == np.float64 else array
    case["meta/config_json"] = np.asarray(json.dumps(META))
    case["meta/trainable"] = np.asarray(trained)
    case["meta/trainable_without_grad"] = np.asarray([], dtype="<U1")
    return case


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(FILE, **make_case())
    print(f"Wrote {FILE} ({FILE.stat().st_size / 1000:.0f} kB)")
