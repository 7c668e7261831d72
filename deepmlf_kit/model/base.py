"""What the kit's models share: checkpoints without the frozen LM, its tokenizer, a pretrained AV encoder, one head's loss.

SentimentModel                      checkpoints, loss of a single head    AVSentimentModel
└── LanguageSentimentModel          the frozen LM and its tokenizer       text baseline
    └── AVLanguageSentimentModel    and an AV encoder                     DeepMLFModel, fusion baselines
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import ModelOutput

from ..errors import DeepMLFError, did_you_mean
from .card import write_card
from .checkpoints import read_checkpoint
from .config import DeepMLFConfig
from .frozen_lm import LanguageStream
from .lm_loading import IN_MEMORY, load_lm, load_tokenizer
from .losses import sentiment_loss
from .settings import KNOBS
from .special_tokens import empty_text_ids, pad_token_id


@dataclass
class SentimentOutput(ModelOutput):
    """Output of a model with a single head: `loss` (with labels), `prediction` [B] or [B, classes]."""

    loss: Tensor | None = None
    prediction: Tensor | None = None


#: Arguments of `from_pretrained` that say where files are looked for, and those that hold for the LM's files too.
_HUB = ("revision", "subfolder", "cache_dir", "token", "local_files_only", "force_download", "proxies")
_HUB_OF_LM = ("cache_dir", "token", "local_files_only", "force_download", "proxies")
#: What transformers' Auto classes hand on, and switches of loaders that this one does not need.
_NOT_NEEDED = ("trust_remote_code", "adapter_kwargs", "low_cpu_mem_usage", "use_safetensors", "weights_only")
_FLOATING = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class SentimentModel(PreTrainedModel):
    """Base of all models: `save_pretrained` stores what was trained, `from_pretrained` reads it."""

    config_class = DeepMLFConfig
    supports_gradient_checkpointing = False
    _supports_sdpa = True
    #: For transformers' Trainer: losses are means over a batch, whatever else forward's keyword arguments take.
    accepts_loss_kwargs = False

    def _init_weights(self, module: nn.Module) -> None:
        """Modules keep torch's own initialisation, and the LM its weights."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        config: DeepMLFConfig | str | Path | None = None,
        state_dict: Mapping[str, Tensor] | None = None,
        dtype: str | torch.dtype | None = "auto",
        device_map: Any = None,
        attn_implementation: str | None = None,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        **others: Any,
    ) -> Self:
        """Load a saved model: its LM by name, its trained weights from a folder or the hub.

        Args:
            pretrained_model_name_or_path: a folder that `save_pretrained` wrote, or a hub name.
            config: replaces the stored config; or the folder or hub name of one.
            state_dict: replaces the stored weights.
            dtype: precision of the whole model, such as `torch.bfloat16`; `auto`: as it was saved (`dtype` and `lm_dtype`
                of the config), whatever precision the file stores.
            device_map: a device (`"cuda"`, `"cpu"`, 0, `{"": 0}`), or `auto`: the accelerator where there is one. The model
                stands on one device; for several GPUs see docs/scaling.md.
            attn_implementation: the LM's attention, `sdpa` or `eager`; None: the quickest of the device.
            ignore_mismatched_sizes: weights whose shape differs from the model's (after a change of the config, such as
                `num_classes=3`) start anew, where they are an error otherwise.
            output_loading_info: also return what was loaded: `missing_keys`, `unexpected_keys`, `mismatched_keys`,
                `error_msgs`.
            others: where to look, as of any of transformers' models (`revision`, `subfolder`, `cache_dir`, `token`,
                `local_files_only`, `force_download`, `proxies`); settings of `DeepMLFConfig`, which replace the stored
                ones; `lm` and `tokenizer`, where they are in memory already.

        Returns:
            The model in eval mode; with `output_loading_info` a pair of it and the information.

        Raises:
            DeepMLFError: there is no checkpoint, its weights are damaged or do not fit the model, or an argument is unknown.
        """
        if torch.get_default_device().type == "meta":
            raise DeepMLFError(
                "You are using `from_pretrained` with a meta device context manager or `torch.set_default_device('meta')`, where "
                f"no weights can be loaded: leave it for from_pretrained; {cls.__name__}(config) makes a model of shapes there."
            )
        dtype = others.pop("torch_dtype", dtype)  # its former name, which transformers takes as well
        hub = {name: value for name in _HUB if (value := others.pop(name, None)) is not None}
        others = {n: v for n, v in others.items() if n not in _NOT_NEEDED and not (n == "lm" and v is None)}
        settings = {
            n: others.pop(n) for n in list(others) if n in KNOBS and not isinstance(others[n], nn.Module)
        }
        cls._check_arguments(others)
        device, precision = _device(device_map), _precision(dtype)
        if attn_implementation not in (None, "sdpa", "eager"):
            raise DeepMLFError(
                f"attn_implementation is {attn_implementation!r}, but must be 'sdpa' or 'eager': other kernels do not take the "
                "masks and positions of fusion tokens."
            )
        if isinstance(config, str | Path):
            config = read_checkpoint(config, state_dict={}, **hub).config
        stored = read_checkpoint(pretrained_model_name_or_path, config, state_dict, **hub)
        config = stored.config
        if precision is not None and config.lm_bits == 16:
            settings["lm_dtype"] = str(precision).removeprefix("torch.")
        if settings:
            config = DeepMLFConfig.from_dict(config.to_dict() | settings)

        parts = others | cls._hub_of_lm(hub)
        mismatched = stored.check_fits(
            lambda: cls(copy.deepcopy(config), **_shapes_of(parts)),
            cls.__name__,
            other_sizes=ignore_mismatched_sizes,
        )
        weights = stored.read()
        for name, *_ in mismatched:
            del weights[name]
        model = cls(config, **parts)
        model.load_state_dict(weights, strict=False)  # all but the frozen LM's
        saved = _FLOATING.get(
            str(config.dtype).removeprefix("torch.")
        )  # written by save_pretrained: the model's own
        model._cast(precision or saved, whole=precision is not None)
        if attn_implementation is not None:
            model.set_attn_implementation(attn_implementation)
        model = model.eval() if device is None else model.eval().to(device)
        if output_loading_info:
            info: dict[str, Any] = {"missing_keys": set(), "unexpected_keys": set(), "error_msgs": []}
            info["mismatched_keys"] = {(name, tuple(there), tuple(own)) for name, there, own in mismatched}
            return model, info  # type: ignore[return-value]
        return model

    def save_pretrained(
        self, save_directory: str | Path, is_main_process: bool = True, **options: Any
    ) -> None:
        """As of `PreTrainedModel`, and a model card where the folder has none."""
        super().save_pretrained(save_directory, is_main_process=is_main_process, **options)
        if is_main_process:
            write_card(self, Path(save_directory))

    @classmethod
    def _hub_of_lm(cls, hub: Mapping[str, Any]) -> dict[str, Any]:
        """The argument of the constructor that says where the LM's files are looked for; none without an LM."""
        return {}

    @classmethod
    def _check_arguments(cls, names: Iterable[str]) -> None:
        """Refuse what neither this loader nor the constructor takes."""
        parameters = inspect.signature(cls.__init__).parameters
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            return
        known = set(parameters) - {"self", "config"}
        for name in names:
            if name not in known:
                loader = inspect.signature(cls.from_pretrained).parameters
                candidates = [*known, *(n for n in loader if n != "others"), *_HUB, *KNOBS]
                raise DeepMLFError(
                    f"{cls.__name__}.from_pretrained takes no {name!r}: {did_you_mean(name, candidates)}"
                )

    def _frozen_tensors(self) -> list[Tensor]:
        """Tensors whose precision the configuration decides, not the checkpoint: the LM's."""
        return []

    def _cast(self, dtype: torch.dtype | None, whole: bool) -> None:
        """Set the precision of the weights; those of the frozen LM only with `whole`, and never its rotary frequencies."""
        frozen = {id(tensor) for tensor in self._frozen_tensors()}
        with_lm = whole and self.config.lm_bits == 16
        for tensor in [*self.parameters(), *self.buffers()]:
            ours = id(tensor) not in frozen or (with_lm and isinstance(tensor, nn.Parameter))
            if dtype is not None and ours and tensor.is_floating_point():
                tensor.data = tensor.data.to(dtype)

    def _output(self, prediction: Tensor, labels: Tensor | None) -> SentimentOutput:
        """The output of a single head: prediction [B, outputs], labels [B] or None."""
        classes = self.config.num_classes
        prediction = prediction if classes else prediction.squeeze(-1)
        loss = None if labels is None else sentiment_loss(prediction, labels, classes)
        return SentimentOutput(loss=loss, prediction=prediction)


class LanguageSentimentModel(SentimentModel):
    """Base of the models around a frozen LM; the LM is never stored with them.

    Args:
        config: sizes and switches.
        lm: a language model already in memory; by default the one that `config.lm` names is loaded.
        tokenizer: its tokenizer; by default loaded from where the LM comes from, when first needed.
        hub: where the LM and its tokenizer are looked for (`token`, `cache_dir`, `local_files_only`, ...).
    """

    main_input_name = "input_ids"

    def __init__(
        self,
        config: DeepMLFConfig,
        lm: PreTrainedModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        hub: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(config)
        self._hub = dict(hub or {})
        if lm is None:
            lm = load_lm(config, **self._hub)
            if config._attn_implementation == "eager":  # asked for; else the quickest of the device
                lm.set_attn_implementation("eager")
        elif config.lm == DeepMLFConfig().lm:
            config.lm = lm.config._name_or_path or IN_MEMORY
        self._tokenizer = tokenizer
        self.language = LanguageStream(lm)
        self._add_modules(config)
        self.post_init()
        self._keys_to_ignore_on_save = self._lm_keys()

    @classmethod
    def _hub_of_lm(cls, hub: Mapping[str, Any]) -> dict[str, Any]:
        shared = {name: hub[name] for name in _HUB_OF_LM if name in hub}
        return {"hub": shared} if shared and "hub" in inspect.signature(cls.__init__).parameters else {}

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """As of `PreTrainedModel`, without the LM's frozen tensors; adapters that PEFT added to it are stored."""
        self._keys_to_ignore_on_save = self._lm_keys()  # PEFT gives the tensors of adapted layers other names
        precision = str(self.language.dtype).removeprefix("torch.")
        if self.config.lm_bits == 16 and precision in _FLOATING:
            self.config.lm_dtype = precision  # `model.half()` casts the LM too
        super().save_pretrained(*args, **kwargs)

    def get_input_embeddings(self) -> nn.Module:
        """The LM's token embeddings."""
        return self.language.lm.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the LM's token embeddings."""
        self.language.lm.set_input_embeddings(value)

    def enable_input_require_grads(self) -> None:
        """Nothing to do: what is trained is reached without a gradient of the text embeddings, which would cost `text_first`."""

    def __getstate__(self) -> dict[str, Any]:
        """State for pickle and copy: without an access token."""
        return super().__getstate__() | {"_hub": {n: v for n, v in self._hub.items() if n != "token"}}

    def __dir__(self) -> list[str]:
        """Without the names that load a tokenizer: `torch.jit.trace` reads every one."""
        return [n for n in super().__dir__() if n not in ("tokenizer", "pad_token_id", "empty_text_ids")]

    def _frozen_tensors(self) -> list[Tensor]:
        return [*self.language.lm.parameters(), *self.language.lm.buffers()]

    def _add_modules(self, config: DeepMLFConfig) -> None:
        """Add the modules beside the LM, which `self.language` holds already."""
        raise NotImplementedError

    def cache_text_states(self, folder: str | Path, gigabytes: float = 1.0) -> Any:
        """Compute text states that depend on nothing trained once, for all epochs; here there are none.

        Args:
            folder: of the cached states.
            gigabytes: the most that they may take (10^9 bytes).
        """

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The LM's tokenizer, padding on the right."""
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self.config, **self._hub)
        return self._tokenizer

    @property
    def pad_token_id(self) -> int:
        """The token at padded text positions."""
        if self.config.pad_token_id is None:
            self.config.pad_token_id = pad_token_id(self.tokenizer)
        return self.config.pad_token_id

    @property
    def empty_text_ids(self) -> list[int]:
        """The tokens of a text without words: the tokenizer's, as in the collator's batches.

        An LM in memory that came without a tokenizer reads one padding token.
        """
        unknown = self._tokenizer is None and self.config.lm == IN_MEMORY
        if unknown and self.config.pad_token_id is not None:
            return [self.config.pad_token_id]
        return empty_text_ids(self.tokenizer)

    def _lm_keys(self) -> set[str]:
        """Names of the LM's frozen tensors, the shared ones under MM Blocks among them."""
        lm = self.language.lm
        owned = {id(t) for t in [*lm.parameters(), *lm.buffers()] if not t.requires_grad}
        tensors = [
            *self.named_parameters(remove_duplicate=False),
            *self.named_buffers(remove_duplicate=False),
        ]
        # What is saved beside parameters and buffers belongs to quantized weights, and those are the LM's.
        saved = set(self.state_dict())
        beside = saved - {name for name, _ in tensors}
        return {name for name, tensor in tensors if id(tensor) in owned and name in saved} | beside


class AVLanguageSentimentModel(LanguageSentimentModel):
    """Base of the models around a frozen LM that also have an `av_encoder`."""

    av_encoder: nn.Module

    def train(self, mode: bool = True) -> Self:
        """Training mode; the frozen LM, and a frozen AV encoder, stay in eval mode."""
        super().train(mode)
        if not self.config.av_trainable:
            self.av_encoder.eval()
        return self

    def load_av_encoder(self, folder: str | Path) -> None:
        """Start the AV encoder from a pretraining checkpoint (the fusion curriculum, paper section 4).

        Args:
            folder: what `AVSentimentModel.save_pretrained` wrote.

        Raises:
            DeepMLFError: there is no such checkpoint, it is damaged, or its sizes differ from this model's.
        """
        if not Path(folder).is_dir():
            raise DeepMLFError(
                f"No AV encoder checkpoint at {str(folder)!r}: expected the folder that `deepmlf pretrain-av` wrote."
            )
        stored = read_checkpoint(folder)
        pretrained = stored.config
        names = ("modalities", "av_encoder", "av_steps", "av_width", "av_layers", "av_heads", "av_batchnorm")
        differing = [
            f"{name} {getattr(pretrained, name)} there, {getattr(self.config, name)} here"
            for name in (*names, "missing_modality")
            if getattr(pretrained, name) != getattr(self.config, name)
        ]
        if differing:
            raise DeepMLFError(
                f"The AV encoder at {str(folder)!r} does not fit this model: {'; '.join(differing)}. "
                "Pretrain one with this model's settings."
            )
        self.av_encoder.load_state_dict(stored.read_part("av_encoder.", self.av_encoder))


def _precision(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """The dtype that `from_pretrained(dtype=...)` asks for; None for `auto`."""
    if dtype in (None, "auto"):
        return None
    found = _FLOATING.get(str(dtype).removeprefix("torch."))
    if found is None:
        raise DeepMLFError(
            f"dtype is {dtype!r}, but must be 'auto' or one of {', '.join(_FLOATING)}: choose one."
        )
    return found


def _device(device_map: Any) -> torch.device | None:
    """The one device that `from_pretrained(device_map=...)` asks for; None: where it is."""
    if device_map is None:
        return None
    asked = set(device_map.values()) if isinstance(device_map, Mapping) else {device_map}
    if len(asked) == 1:
        (one,) = asked
        if one in ("auto", "balanced", "balanced_low_0", "sequential"):
            accelerator = torch.accelerator.current_accelerator(check_available=True)
            return accelerator or torch.device("cpu")
        try:
            return torch.device(one)
        except (RuntimeError, TypeError):
            pass
    raise DeepMLFError(
        f"device_map is {device_map!r}, but the model stands on one device: pass 'auto', a device such as 'cuda:0', or "
        "None; for several GPUs start `accelerate launch` with FSDP (docs/scaling.md)."
    )


def _shapes_of(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Parts that a constructor takes, a language model in memory as its shapes alone; called on the meta device."""
    lm = parts.get("lm")
    if lm is None:
        return dict(parts)
    shapes: dict[int, Any] = {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in lm.parameters()}
    shapes |= {id(buffer): buffer.to("meta") for buffer in lm.buffers()}
    return {**parts, "lm": copy.deepcopy(lm, shapes)}
