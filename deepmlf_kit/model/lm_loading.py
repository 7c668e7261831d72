"""Loading the language model and its tokenizer: embedded, fetched, from the hub, from a folder, or from a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.activations import GELUTanh, NewGELUActivation

from ..downloads.cache import checksum
from ..errors import DeepMLFError
from ..storage.optional import require
from .config import DeepMLFConfig
from .fetched_lms import FETCHED_LMS, find_lm, lm_revision

EMBEDDED_LM = Path(__file__).resolve().parents[1] / "assets" / "lm"
"""Folder of the embedded language model: config, weights, tokenizer and model card."""

IN_MEMORY = "in-memory"

#: What transformers raises for a language model that is missing, damaged or not understood.
_UNREADABLE = (
    OSError,
    ValueError,
    ImportError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
    SafetensorError,
)


def load_lm(config: DeepMLFConfig, **hub: Any) -> PreTrainedModel:
    """Load the LM that `config` names, in eval mode; on torch's meta device, its shapes alone.

    Args:
        config: names the LM.
        hub: where to look: `token`, `cache_dir`, `local_files_only`, `force_download`.

    Raises:
        DeepMLFError: it could not be found or loaded; the message says what was tried.
    """
    if (revision := _own_revision(config)) is not None:
        _check_revision(config, revision)
        config.lm_revision = revision
    options: dict[str, Any] = {"dtype": getattr(torch, config.lm_dtype)}
    if config.lm_bits != 16:
        options["quantization_config"] = _quantization(config.lm_bits)
    if torch.get_default_device().type == "meta":
        plan = load_lm_config(config, **hub)
        return AutoModelForCausalLM.from_config(plan, trust_remote_code=False, dtype=options["dtype"]).eval()
    lm = _read(AutoModelForCausalLM, config, hub, **options)
    if config.lm_revision is None:
        config.lm_revision = getattr(lm.config, "_commit_hash", None)
    fuse_gelu(lm)
    _keep_gradients(lm)
    return lm.eval()


def fuse_gelu(lm: PreTrainedModel) -> None:
    """Put PyTorch's one-pass tanh GELU where an LM (GPT-2) spells the same function out in eight operations."""
    for module in list(lm.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, GELUTanh())


def load_lm_config(config: DeepMLFConfig, **hub: Any) -> PreTrainedConfig:
    """Only the config of the LM: nothing large is downloaded.

    Args:
        config, hub: as of `load_lm`.

    Raises:
        DeepMLFError: it could not be found or loaded.
    """
    return _read(AutoConfig, config, hub)


def load_tokenizer(config: DeepMLFConfig, **hub: Any) -> PreTrainedTokenizerBase:
    """The LM's tokenizer, padding on the right; a tokenizer without a pad token pads with its end token.

    Args:
        config, hub: as of `load_lm`.

    Raises:
        DeepMLFError: it could not be found or loaded.
    """
    tokenizer = _read(AutoTokenizer, config, hub)
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def _read(kind: Any, config: DeepMLFConfig, hub: Mapping[str, Any], **options: Any) -> Any:
    """`kind.from_pretrained` of the LM that `config` names; one error for whatever is wrong with it."""
    options |= _options(config, hub)
    try:
        return kind.from_pretrained(_source(config), **options)
    except _UNREADABLE as error:
        raise _not_loaded(config, error) from error


def _source(config: DeepMLFConfig) -> str:
    if config.lm == IN_MEMORY:
        raise DeepMLFError(
            "This model was built around a language model in memory, so its name is not known: pass it again as "
            "DeepMLFModel.from_pretrained(folder, lm=..., tokenizer=...)."
        )
    if config.lm in FETCHED_LMS:
        return str(find_lm(config.lm))
    return str(EMBEDDED_LM) if config.lm == "embedded" else config.lm


def _own_revision(config: DeepMLFConfig) -> str | None:
    """What stands for the weights of an LM that the kit brings or fetches; None for any other."""
    if config.lm in FETCHED_LMS:
        return lm_revision(config.lm)
    if config.lm == "embedded":
        return f"sha256:{checksum(EMBEDDED_LM / 'model.safetensors')[:16]}"
    return None


def _check_revision(config: DeepMLFConfig, revision: str) -> None:
    """Refuse a checkpoint that was trained on other weights; those before version 0.2 do not say on which."""
    if config.lm_revision not in (None, revision):
        raise DeepMLFError(
            f"This asks for the language model {config.lm!r} with the weights {config.lm_revision}, and this version of "
            f"the kit has {revision}: on other weights a checkpoint's answers mean nothing. Train it again, or use the "
            "version of the kit that wrote it."
        )


def _options(config: DeepMLFConfig, hub: Mapping[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {**hub, "trust_remote_code": False}  # never asked for on a terminal, never run
    if config.lm_revision is not None and _own_revision(config) is None:
        options["revision"] = config.lm_revision
    if config.lm_gguf_file is not None:
        require("gguf")
        options["gguf_file"] = config.lm_gguf_file
    return options


def _quantization(bits: int) -> BitsAndBytesConfig:
    require("bitsandbytes")
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )


def _keep_gradients(lm: PreTrainedModel) -> None:
    """On some CPUs bitsandbytes packs 4-bit weights at the first call of a module in eval mode, as a frozen LM's are,
    and no gradient passes them after that: switch it off."""
    for module in lm.modules():
        if "support_avx512bf16_for_cpu" in vars(module):
            vars(module)["support_avx512bf16_for_cpu"] = False


def _not_loaded(config: DeepMLFConfig, error: Exception) -> DeepMLFError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return DeepMLFError(
        f"The language model {config.lm!r} could not be loaded ({reason}). Expected 'embedded', 'smollm2', a Hugging Face name "
        "that this machine can download or has in its cache, or a local folder saved with save_pretrained."
    )
