"""Authors' checkpoints and ours: the mapping of every name, in both directions.

`load_authors_checkpoint` builds a `DeepMLFModel` from a state dict of the authors' MSALM module (with or without
the leading `Model.` that their trainer writes). Their GPT-2 feed-forward keeps biases of its own and exact GELU;
`ffw_as_published` restores both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import DeepMLFError
from .config import DeepMLFConfig
from .deepmlf import DeepMLFModel
from .lm_loading import load_lm


@dataclass(frozen=True)
class Names:
    """One tensor under both names.

    Attributes:
        theirs: key in the authors' state dict.
        ours: key in ours.
        transposed: whether a matrix is stored the other way round.
    """

    theirs: str
    ours: str
    transposed: bool = False


# Tensors outside the language model's layers: pattern of the authors' name -> ours.
_OUTSIDE = (
    (r"lang_encoder\..*\.bn_embedding\.bn_embedding", "fusion_tokens"),
    *(
        (rf"av_encoder\.{theirs}_{modality[0]}\.(.+)", rf"av_encoder.{modality}.{ours}.\1")
        for theirs, ours in (("BN", "batch_norm"), ("proj", "projection"), ("enc", "encoder"))
        for modality in ("audio", "vision")
    ),
    (r"av_encoder\.fusion\.(.+)", r"av_encoder.fuse.\1"),
    (r"LN\.(.+)", r"av_encoder.norm.\1"),
    (r"W_task\.(.+)", r"heads.task.\1"),
    (r"W_text\.(.+)", r"heads.text.\1"),
    (r"W_bn\.(.+)", r"heads.fusion.\1"),
    (r"W_av\.(.+)", r"heads.av.\1"),
)
_MM_BLOCK = (
    (r"alpha_([12])", r"gate_\1.alpha"),
    (r"ln_([12])\.(.+)", r"norm_\1.\2"),
    (r"attn\.W_q\.weight", "cross_attention.query.weight"),
    (r"attn\.W_kv\.weight", "cross_attention.key_value.weight"),
    (r"attn\.W_o\.weight", "cross_attention.output.weight"),
)
# The language model inside the authors' wrappers.
_LANGUAGE = (
    (r"lang_encoder\.(.+)\.decoder_layer\.(.+)", r"\1.\2"),
    (r"lang_encoder\.(.+\.(?:wte|embed_tokens))\.0\.embedding\.weight", r"\1.weight"),
    (r"lang_encoder\.(.+\.wpe)\.0\.positional\.weight", r"\1.weight"),
    (r"lang_encoder\.(.+\.(?:ln_f|norm)\..+|lm_head\..+)", r"\1"),
)
# Theirs alone: a head their fused model does not use, and placeholders without values.
_IGNORED = re.compile(r"av_encoder\.clf\.|.*_float_tensor$")


def authors_config(cfg: Mapping[str, Any], lm: str, **changes: Any) -> DeepMLFConfig:
    """The authors' configuration as ours.

    Args:
        cfg: their nested configuration (`mmgpt`, `av_enc`, `l_bn`, ...).
        lm: name or folder of the language model.
        changes: fields of `DeepMLFConfig` to set besides.
    """
    blocks, encoder = cfg["mmgpt"], cfg["av_enc"]
    llama = "n_up" in blocks  # their Llama variant always uses LoRA
    lora = blocks.get("lora", {})
    values: dict[str, Any] = {
        "lm": lm,
        "fusion_layers": blocks["mm_layer"],
        "fusion_tokens": cfg["n_bn_fusion"],
        "max_text_tokens": cfg["max_token_len"],
        "cross_attention_heads": blocks["n_head"],
        "attention_scale": "width",
        "attention_dropout": blocks["dropout"],
        "gating": blocks.get("gating") or "none",
        "ffw": "lora" if llama or blocks.get("use_lora") else "full",
        "ffw_as_published": not llama,
        "ffw_form": "sum",  # their Llama variant's
        "audio_dim": cfg["feature_dims"][1],
        "vision_dim": cfg["feature_dims"][2],
        "av_steps": encoder["maxlen"],
        "av_width": encoder["d_enc"],
        "av_layers": encoder["nlevels"],
        "av_heads": encoder["n_head"],
        "av_dropout": encoder["enc_dropout"],
        "av_batchnorm": encoder["use_bn"],
        "missing_modality": "zero",
        "task_hidden": blocks["d_out"],
        "loss_fusion": cfg["l_bn"],
        "loss_av": cfg["l_av"],
        "loss_text": cfg["l_t"],
        "loss_lm": cfg["gamma"] if cfg.get("use_clm") else 0.0,
    }
    if lora:
        values |= {
            "lora_r": lora["r"],
            "lora_alpha": lora["lora_alpha"],
            "lora_dropout": lora["lora_dropout"],
        }
    return DeepMLFConfig(**(values | changes))


def load_authors_checkpoint(
    state: Mapping[str, Tensor],
    config: DeepMLFConfig,
    lm: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> DeepMLFModel:
    """Build a model that holds an authors' checkpoint.

    Args:
        state: state dict of their model.
        config: as `authors_config` gives.
        lm, tokenizer: the language model where it is in memory; otherwise loaded by `config.lm`. Where the
            checkpoint holds LM weights, these are used.

    Raises:
        DeepMLFError: tensors that are missing, unknown, damaged or of another shape; the message names some of each.
    """
    state = {str(key).removeprefix("Model."): _tensor(key, value) for key, value in state.items()}
    lm = lm if lm is not None else load_lm(config)
    lm_state = {ours: state[theirs] for theirs, ours in _language_names(state)}
    if lm_state:
        own = lm.state_dict()
        unknown = [
            name for name, part in lm_state.items() if name not in own or part.shape != own[name].shape
        ]
        if unknown:
            raise DeepMLFError(
                f"The checkpoint's language model does not fit {config.lm!r}: {unknown[:3]} are not in it, or have another "
                "shape there. Name the LM that the checkpoint was trained with."
            )
        lm.load_state_dict(lm_state, strict=False)
    model = DeepMLFModel(config, lm=lm, tokenizer=tokenizer)
    names = matching_names(model, state)
    known = {pair.theirs for pair in names} | {theirs for theirs, _ in _language_names(state)}
    unknown = [
        key for key in state if key not in known and not _IGNORED.match(key) and not _shared(model, key)
    ]
    own = model.state_dict()
    wanted = set(own) - (model._keys_to_ignore_on_save or set())
    lacking = sorted(wanted - {pair.ours for pair in names})
    misshapen = [p.theirs for p in names if own[p.ours].shape != _turned(state[p.theirs], p).shape]
    if unknown or lacking or misshapen:
        raise DeepMLFError(
            f"The authors' checkpoint does not fit the configuration: {len(unknown)} tensors are unknown "
            f"{unknown[:3]}, {len(lacking)} are missing {lacking[:3]}, {len(misshapen)} have another shape "
            f"{misshapen[:3]}. Check the configuration against the one it was trained with."
        )
    model.load_state_dict({p.ours: _turned(state[p.theirs], p) for p in names}, strict=False)
    return model.eval()


def _tensor(name: str, value: Any) -> Tensor:
    """A value of a state dict as a tensor of finite numbers.

    Raises:
        DeepMLFError: it is none.
    """
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DeepMLFError(
            f"The authors' checkpoint holds a {type(value).__name__} under {name!r:.200}, expected a tensor: give the state "
            "dict of their model."
        ) from error
    if not tensor.isfinite().all():
        raise DeepMLFError(
            f"The authors' checkpoint holds NaN or infinite numbers in {name!r:.200}: copy it again from where it came."
        )
    return tensor


def to_authors_names(
    model: DeepMLFModel, tensors: Mapping[str, Tensor], keys: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Our tensors (weights or gradients) under the authors' names and in their layout.

    Args:
        model: the model the tensors belong to.
        tensors: by our names.
        keys: anything with the authors' names as keys.
    """
    return {p.theirs: _turned(tensors[p.ours], p) for p in matching_names(model, keys) if p.ours in tensors}


def matching_names(model: DeepMLFModel, theirs: Mapping[str, Any]) -> list[Names]:
    """The names of every tensor that both models have; the frozen LM and what shares its tensors aside."""
    ours = set(model.state_dict())
    return [pair for key in theirs for pair in _pairs(model, key) if pair.ours in ours]


def _pairs(model: DeepMLFModel, key: str) -> Iterator[Names]:
    block = re.fullmatch(r"lang_encoder\..+\.(\d+)\.ca_layer\.(.+)", key)
    if block is None:
        for pattern, name in _OUTSIDE:
            if re.fullmatch(pattern, key):
                yield Names(key, re.sub(pattern, name, key))
        return
    prefix = f"mm_blocks.{block[1]}."
    for pattern, name in _MM_BLOCK:
        if re.fullmatch(pattern, block[2]):
            yield Names(key, prefix + re.sub(pattern, name, block[2]))
    body = prefix + "feed_forward.body."
    conv1d = model.language.lm.config.model_type == "gpt2"
    if lora := re.fullmatch(r"mlp\.lora_(.+)\.lora_([AB])", block[2]):
        yield Names(
            key, f"{body}{_projection(lora[1], conv1d)}.lora_{lora[2]}.default.weight", transposed=True
        )
    elif own := re.fullmatch(r"mlp\.(\w+)\.(weight|bias)", block[2]):
        if model.config.ffw == "full":
            yield Names(key, f"{body}{own[1]}.{own[2]}", transposed=conv1d and own[2] == "weight")
        elif own[2] == "bias":
            yield Names(key, f"{body}{own[1]}.base_layer.bias")


def _projection(name: str, conv1d: bool) -> str:
    """Their LoRA names may lack GPT-2's `c_`."""
    return f"c_{name}" if conv1d and not name.startswith("c_") else name


def _shared(model: DeepMLFModel, key: str) -> bool:
    """Whether a tensor is their copy of a frozen LM weight that our LoRA shares with the LM."""
    return model.config.ffw == "lora" and bool(re.search(r"\.ca_layer\.mlp\.\w+\.weight$", key))


def _language_names(state: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in state:
        if ".ca_layer." in key or "bn_embedding" in key:
            continue
        for pattern, name in _LANGUAGE:
            if re.fullmatch(pattern, key):
                yield key, re.sub(pattern, name, key)
                break


def _turned(tensor: Tensor, names: Names) -> Tensor:
    return tensor.T if names.transposed else tensor
