"""The language stream: any Hugging Face decoder LM, frozen, driven one layer at a time.

DeepMLF puts MM Blocks between the layers of a language model it does not change. Instead of rewriting each LM,
this module finds the LM's decoder layers by structure and lets the LM itself prepare what they are called with
(masks, rotary positions, cache): in a *dry run* a shallow copy of the decoder, with recorders in place of its layers,
notes the calls, and `DeepMLFModel` then makes them one by one, with MM Blocks between them.

    dry run:   embeddings -> [recorder]*n -> (final norm)       who is called with what
    real run:  hidden -> layer 0 -> ... -> layer i -> MM Block -> ... -> final norm

Each dry run has a copy of its own, and no pass changes the LM: several threads may run one model at once.
"""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from ..errors import DeepMLFError
from .attention import SHORT, attend_short

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass
class LayerCalls:
    """Inputs of every decoder layer, as the LM itself prepared them.

    Attributes:
        hidden: input of the first layer [B, T, D] (embeddings, with positions where the LM adds them).
        arguments: for each layer, its positional and keyword arguments beside the hidden states.
    """

    hidden: Tensor
    arguments: list[tuple[tuple[Any, ...], dict[str, Any]]]


class LanguageStream(nn.Module):
    """A frozen decoder LM, its layers, their feed-forwards and norms found by structure.

    Args:
        lm: any Hugging Face decoder language model (`AutoModelForCausalLM`), or one in PEFT's `get_peft_model`, whose
            adapters stay trained; `lm` may be replaced by such a model of itself later.

    Raises:
        DeepMLFError: something that fusion needs could not be found in the LM; the message names it.
    """

    def __init__(self, lm: PreTrainedModel | PeftModel) -> None:
        super().__init__()
        self.lm = lm.eval()
        if not _has_adapters(lm):
            lm.requires_grad_(False)
        attend_short(lm)
        self.config: PreTrainedConfig = lm.config.get_text_config()
        self._owner_path, self._list_name = _find_layer_list(_base(lm), self.config)
        self._finish_paths: list[str] = []
        if not next(lm.parameters()).is_meta:  # a model planned from its config alone holds no numbers to run
            self._finish_paths = self._find_finish()
            self._check_one_by_one()

    def train(self, mode: bool = True) -> LanguageStream:
        """The LM stays in eval mode: its states are a function of the text alone."""
        super().train(mode)
        self.lm.eval()
        return self

    # Parts of the LM -----------------------------------------------------------------------------------------

    @property
    def width(self) -> int:
        """D, the width of the hidden states."""
        return self.config.hidden_size

    @property
    def decoder(self) -> nn.Module:
        """The module whose forward loops over the decoder layers."""
        return _base(self.lm).get_submodule(self._owner_path)

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers, in order."""
        return getattr(self.decoder, self._list_name)

    @property
    def dtype(self) -> torch.dtype:
        return next(p.dtype for p in self.lm.parameters() if p.is_floating_point())

    @property
    def is_trained(self) -> bool:
        """Whether some of the LM's weights require a gradient, such as adapters that PEFT added to it."""
        return any(p.requires_grad for p in self.lm.parameters())

    @property
    def takes_any_mask(self) -> bool:
        """Whether its attention takes a mask of each pair of tokens, which flash attention does not."""
        return self.config._attn_implementation in (SHORT, "sdpa", "eager")

    @property
    def compiled(self) -> bool:
        """Whether its layers are compiled (`torch.compile`)."""
        return self.layers[0]._compiled_call_impl is not None

    def feed_forward(self, index: int) -> nn.Module:
        """The feed-forward of layer `index`: [.., D] -> [.., D].

        Raises:
            DeepMLFError: the layer has no part that looks like a feed-forward.
        """
        return find_feed_forward(self.layers[index], self.width, type(self.lm).__name__)

    def new_norm(self) -> nn.Module:
        """A fresh norm of the LM's own kind (LayerNorm, RMSNorm), in float32, trained.

        Raises:
            DeepMLFError: the layers have no norm over D features.
        """
        for module in self.layers[0].modules():
            weight = getattr(module, "weight", None)
            if (
                "norm" in type(module).__name__.lower()
                and weight is not None
                and weight.shape == (self.width,)
            ):
                return _fresh(module)
        raise DeepMLFError(
            f"No norm over {self.width} features was found in the layers of {type(self.lm).__name__}, and the MM "
            f"Block needs one of the LM's own kind; parts of a layer: {_parts(self.layers[0])}."
        )

    def embed(self, input_ids: Tensor) -> Tensor:
        """Token ids [B, L] -> text embeddings [B, L, D], without positions."""
        return self.lm.get_input_embeddings()(input_ids)

    def logits(self, states: Tensor) -> Tensor:
        """States after the final norm [.., D] -> the LM's own logits [.., V]."""
        head = self.lm.get_output_embeddings()
        logits = head(states.to(head.weight.dtype) if head.weight.is_floating_point() else states)
        cap = getattr(self.config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap

    # Driving the layers one by one ---------------------------------------------------------------------------

    def prepare(
        self, embeddings: Tensor, attention_mask: Tensor, position_ids: Tensor, cache: Cache | None = None
    ) -> LayerCalls:
        """Let the LM prepare its layers' arguments, without running a layer.

        Args:
            embeddings: [B, T, D].
            attention_mask: 1 for real, 0 for padding [B, S + T], S the tokens already in `cache`; or what is added to the
                scores of each pair [B, 1, T, S + T] (`takes_any_mask`).
            position_ids: position of each token [1, T] or [B, T].
            cache: keys and values of earlier tokens; the layers add theirs to it.

        Returns:
            The input of the first layer and every layer's arguments.
        """
        arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        first: list[Tensor] = []

        def record(hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if not first:
                first.append(hidden)
            arguments.append((args, kwargs))
            return hidden

        recorders = nn.ModuleList([_Substitute(layer, record) for layer in self.layers])
        self._run_decoder_with(
            {self._list_name: recorders},
            inputs_embeds=embeddings,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=cache is not None,
            **({} if cache is None else {_name_of_cache(self.decoder): cache}),
        )
        return LayerCalls(hidden=first[0], arguments=arguments)

    def _run_decoder_with(self, children: Mapping[str, nn.Module], **inputs: Any) -> None:
        """Run the decoder with other modules in the place of some of its own, without changing it.

        Its forward runs on a shallow copy that lives for this call: tensors are shared, children are looked up in a
        dictionary of the copy's own. Hooks on the decoder, and what replaced its forward (`compile`, accelerate), are
        passed over: they belong to a real pass.
        """
        decoder = self.decoder
        copied = object.__new__(type(decoder))
        copied.__dict__ = {**vars(decoder), "_modules": {**decoder._modules, **children}}
        type(decoder).forward(copied, **inputs)

    def new_cache(self) -> DynamicCache:
        """An empty cache for keys and values. Sliding windows are refused at construction, so none is needed here."""
        return DynamicCache()

    def run_layer(self, index: int, hidden: Tensor, calls: LayerCalls) -> Tensor:
        """Run one decoder layer: [B, T, D] -> [B, T, D]."""
        args, kwargs = calls.arguments[index]
        output = self.layers[index](hidden, *args, **kwargs)
        return output[0] if isinstance(output, tuple) else output

    def run_layer_with_attention(
        self, index: int, hidden: Tensor, calls: LayerCalls
    ) -> tuple[Tensor, Tensor | None]:
        """As `run_layer`, and the layer's attention weights [B, heads, T, S]; None where its kernel keeps them to itself."""
        found: list[Any] = []
        owner = threading.get_ident()

        def keep(module: nn.Module, args: Any, output: Any) -> None:
            if threading.get_ident() == owner:  # another thread may run this LM, too
                found.append(output[1] if isinstance(output, tuple) and len(output) > 1 else None)

        handle = attention_of(self.layers[index]).register_forward_hook(keep)
        try:
            hidden = self.run_layer(index, hidden, calls)
        finally:
            handle.remove()
        return hidden, found[-1] if found and isinstance(found[-1], Tensor) else None

    def keys_and_values(self, index: int, hidden: Tensor, mask: Tensor, position_ids: Tensor) -> Cache | None:
        """Keys and values of one layer's input, without the rest of that layer.

        Args:
            index: of the layer.
            hidden: its input [B, S, D].
            mask, position_ids: as for `prepare`.

        Returns:
            A cache to run this layer with, on tokens the first of which is among these S already (`_PrefixLayer`). None
            where the layer cannot be left half-way: it has hooks (FSDP's), or caches no keys and values of its own.
        """
        layer = self.layers[index]
        if layer._forward_hooks or layer._forward_pre_hooks:
            return None
        calls = self.prepare(hidden, mask, position_ids, Cache(layers=[_StopAtUpdate()] * len(self.layers)))
        args, kwargs = calls.arguments[index]
        try:
            layer.forward(hidden, *args, **kwargs)  # not compiled: a graph cannot be left half-way
        except _KeysAndValues as stopped:
            prefix = _PrefixLayer()
            prefix.store(*stopped.args)
            return Cache(layers=[prefix] * len(self.layers))  # whichever layer the masks are made for
        return None

    def finish(self, hidden: Tensor) -> Tensor:
        """The modules after the LM's last layer (its final norm): [B, T, D] -> [B, T, D]."""
        for path in self._finish_paths:
            hidden = self.decoder.get_submodule(path)(hidden)
        return hidden

    # Finding and checking ------------------------------------------------------------------------------------

    def _probe(self) -> tuple[Tensor, Tensor, Tensor]:
        weight = self.lm.get_input_embeddings().weight
        if weight.shape[-1] != self.width:
            raise DeepMLFError(
                f"{type(self.lm).__name__} embeds tokens in {weight.shape[-1]} dimensions but its layers are "
                f"{self.width} wide; fusion tokens need both to be equal: choose another LM."
            )
        ids = torch.arange(3, device=weight.device).unsqueeze(0) % weight.shape[0]
        return self.embed(ids), torch.ones_like(ids), torch.arange(3, device=weight.device).unsqueeze(0)

    @torch.no_grad()
    def _find_finish(self) -> list[str]:
        """Paths of the modules that the decoder calls after its last layer."""
        embeddings, mask, positions = self._probe()
        called: list[str] = []

        def noting(name: str, module: nn.Module) -> _Substitute:
            def call(*args: Any, **kwargs: Any) -> Any:
                called.append(name)
                return module(*args, **kwargs)

            return _Substitute(module, call)

        *others, last = self.layers
        children: dict[str, nn.Module] = {
            name: noting(name, child) for name, child in self.decoder.named_children()
        }
        children[self._list_name] = nn.ModuleList([*others, noting(self._list_name, last)])
        try:
            self._run_decoder_with(
                children,
                inputs_embeds=embeddings,
                attention_mask=mask,
                position_ids=positions,
                use_cache=False,
            )
        except TypeError as error:
            raise DeepMLFError(
                f"{type(self.decoder).__name__} does not take inputs_embeds, attention_mask and position_ids ({error}), "
                "which fusion tokens need: choose another decoder LM."
            ) from error
        return called[called.index(self._list_name) + 1 :]

    @torch.no_grad()
    def _check_one_by_one(self) -> None:
        for index, layer in enumerate(self.layers):
            if not any(_is_attention(name) for name, _ in layer.named_children()):
                raise DeepMLFError(
                    f"No self-attention was found in layer {index} of {type(self.lm).__name__}, and fusion tokens read "
                    f"the text through it; parts of the layer: {_parts(layer)}. Choose an LM of attention layers."
                )
        embeddings, mask, positions = self._probe()
        whole = self.decoder(
            inputs_embeds=embeddings, attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state
        calls = self.prepare(embeddings, mask, positions)
        hidden = calls.hidden
        for index in range(len(self.layers)):
            hidden = self.run_layer(index, hidden, calls)
        if not torch.allclose(self.finish(hidden), whole, atol=1e-4, rtol=1e-3, equal_nan=True):
            raise DeepMLFError(
                f"The layers of {type(self.lm).__name__} run one by one do not give what the LM gives as a whole, so "
                "MM Blocks cannot be put between them: choose another decoder LM."
            )


class _KeysAndValues(Exception):
    """Leaves a layer with its keys and values, each [B, heads, S, e]."""


class _StopAtUpdate(DynamicLayer):
    """Empty cache of a layer, which ends where the layer would store its keys and values."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        raise _KeysAndValues(key_states, value_states)


class _PrefixLayer(DynamicLayer):
    """Keys and values of S tokens, for later tokens the first of which is one of the S: its own are not stored again.

    Masks count S - 1 tokens before that first one, so it sees all S (but padding), and S + T - 1 keys in all.
    """

    def store(self, key_states: Tensor, value_states: Tensor) -> None:
        super().update(key_states, value_states)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        return super().update(key_states[:, :, 1:], value_states[:, :, 1:])

    def get_seq_length(self) -> int:
        return super().get_seq_length() - 1


class _Substitute(nn.Module):
    """Stands in for a module of the LM: answers for its attributes, and `call` is run in place of its forward."""

    def __init__(self, module: nn.Module, call: Callable[..., Any]) -> None:
        super().__init__()
        self.__dict__["_stands_for"] = module  # not registered: it is not this module's child
        self._call = call

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_stands_for"], name)


def _has_adapters(lm: PreTrainedModel | PeftModel) -> bool:
    """Whether an LM is a `PeftModel`, without importing peft, which takes seconds."""
    return hasattr(lm, "get_base_model")


def _base(lm: PreTrainedModel | PeftModel) -> nn.Module:
    """The LM itself, with PEFT's adapters in its layers where there are some."""
    if not _has_adapters(lm):
        return lm
    if lm.active_peft_config.is_prompt_learning:
        raise DeepMLFError(
            f"{type(lm.active_peft_config).__name__} puts prompts before the text, which the layers run one by one do "
            "not see: use adapters inside the layers, such as LoraConfig."
        )
    return lm.get_base_model()


def _find_layer_list(lm: PreTrainedModel, config: PreTrainedConfig) -> tuple[str, str]:
    """Path of the module that owns the decoder layers, and the name of the list in it."""
    number = getattr(config, "num_hidden_layers", None)
    if number is None or getattr(config, "hidden_size", None) is None:
        raise DeepMLFError(
            f"The config of {type(lm).__name__} does not say num_hidden_layers and hidden_size, which are needed to "
            "find its decoder layers: choose another decoder LM."
        )
    lists = {name: m for name, m in lm.named_modules() if isinstance(m, nn.ModuleList)}
    fitting = [name for name, m in lists.items() if len(m) == number and "vision" not in name]
    if len(fitting) != 1:
        found = ", ".join(f"{name} ({len(m)})" for name, m in lists.items()) or "none"
        raise DeepMLFError(
            f"The decoder layers of {type(lm).__name__} could not be found: expected one list of {number} layers "
            f"(its num_hidden_layers), found the lists: {found}. Choose another decoder LM."
        )
    owner, _, name = fitting[0].rpartition(".")
    return owner, name


def find_feed_forward(layer: nn.Module, width: int, lm_name: str) -> nn.Module:
    """The feed-forward of one decoder layer.

    The part of the layer that has weight matrices and is not its attention. Where the two projections stand
    in the layer itself (OPT), they are put in a row with the layer's activation.

    Args:
        layer: a decoder layer.
        width: D.
        lm_name: for the message.

    Returns:
        A module [.., D] -> [.., D] that shares the layer's weights.

    Raises:
        DeepMLFError: nothing in the layer fits; the message lists its parts.
    """
    weighty = {
        n: child for n, child in layer.named_children() if any(p.dim() >= 2 for p in child.parameters())
    }
    parts = {name: child for name, child in weighty.items() if not _is_attention(name)}
    found: nn.Module | None = None
    if len(parts) == 1:
        found = next(iter(parts.values()))
    elif len(parts) == 2 and not any(list(part.children()) for part in parts.values()):
        activations = [
            child
            for name, child in layer.named_children()
            if not list(child.parameters())
            and "drop" not in type(child).__name__.lower()
            and name not in parts
        ]
        if len(activations) == 1:
            first, second = parts.values()
            found = nn.Sequential(first, activations[0], second)
    if found is not None:
        weight = next(p for p in layer.parameters() if p.is_floating_point())  # quantized ones are not
        try:
            with torch.no_grad():
                output = found(torch.zeros(1, 1, width, dtype=weight.dtype, device=weight.device))
        except Exception as error:
            raise DeepMLFError(
                f"The feed-forward {type(found).__name__} of {lm_name} does not take states of width {width} alone "
                f"({error}): choose another LM, or ffw='none'."
            ) from error
        if isinstance(output, Tensor) and output.shape == (1, 1, width):
            return found
    raise DeepMLFError(
        f"No feed-forward ([.., {width}] -> [.., {width}], beside the attention) was found in the layers of {lm_name}; "
        f"parts of a layer: {_parts(layer)}. Choose another LM, or ffw='none'."
    )


def attention_of(layer: nn.Module) -> nn.Module:
    """The self-attention of a decoder layer.

    Raises:
        DeepMLFError: there is none.
    """
    for name, child in layer.named_children():
        if _is_attention(name) and any(p.dim() >= 2 for p in child.parameters()):  # not a norm beside it
            return child
    raise DeepMLFError(f"No self-attention was found in {type(layer).__name__}: {_parts(layer)}.")


def _is_attention(name: str) -> bool:
    return "attn" in name.lower() or "attention" in name.lower()


def _parts(layer: nn.Module) -> str:
    return ", ".join(f"{name} ({type(child).__name__})" for name, child in layer.named_children())


def _name_of_cache(decoder: nn.Module) -> str:
    """The argument by which a decoder's forward takes a cache: `cache` since transformers 5.24, `past_key_values` before."""
    return "cache" if "cache" in inspect.signature(type(decoder).forward).parameters else "past_key_values"


def _fresh(norm: nn.Module) -> nn.Module:
    """A trained float32 copy of a norm whose scale is one and bias zero."""
    fresh = copy.deepcopy(norm).float().requires_grad_(True)
    if norm.weight.is_meta:  # planned, not run
        return fresh
    with torch.no_grad():
        # Some RMSNorms (Gemma) multiply by 1 + weight: with zero weights those still give their input's shape.
        for parameter in fresh.parameters():
            parameter.zero_()
        weight = next(norm.parameters())
        probe = torch.linspace(-1, 1, len(weight), device=weight.device).unsqueeze(0)
        offset = fresh(probe).abs().sum().item() > 0
        fresh.weight.fill_(0.0 if offset else 1.0)
    return fresh
