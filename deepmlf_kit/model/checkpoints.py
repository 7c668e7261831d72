"""Stored models: read with distrust, since a checkpoint may come from anywhere and may be torn or edited.

The header of a safetensors file lists each tensor's dtype and shape. It is compared with what the model of a config would
store, which is built without memory (on torch's meta device), so that neither file decides alone how much is allocated.
Large checkpoints are written in several such files, the shards, and an index of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.utils.hub import cached_file

from ..errors import DeepMLFError
from ..storage.files import misshapen, read_json
from .config import DeepMLFConfig

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
CONFIG_FILE = "config.json"
_REPAIR = "copy the checkpoint again from where it came, or train the run again."
_FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
#: The most that a setting of transformers' own may be: it makes a list of that many labels.
_MOST_LABELS = 1000


@dataclass(frozen=True)
class Stored:
    """A checkpoint whose files are whole.

    Attributes:
        place: the folder or hub name.
        config: of the model.
        files: the safetensors files: one, or the shards.
        header: dtype and shape of each tensor in them, by its name.
        given: weights in memory, in place of those in the files.
    """

    place: str
    config: DeepMLFConfig
    files: tuple[Path, ...]
    header: dict[str, tuple[str, list[int]]]
    given: Mapping[str, Tensor] = field(default_factory=dict)

    def check_fits(
        self, build: Callable[[], nn.Module], what: str, *, other_sizes: bool = False
    ) -> list[tuple[str, list[int], list[int]]]:
        """Refuse weights that a model does not have, or has in another shape, before the model is built.

        Args:
            build: makes the model of the config; called on the meta device.
            what: the model's class, for the message.
            other_sizes: let weights of another shape pass.

        Returns:
            Name, stored shape and the model's shape of each weight of another shape.

        Raises:
            DeepMLFError: they do not fit.
        """
        count = max(self.config.av_layers, len(self.config.fusion_layers))
        if count > len(self.header):
            raise self._misfit(what, [f"there are {count} layers in the config"])
        try:
            with torch.device("meta"):
                model = build()
        except (DeepMLFError, RuntimeError, TypeError, ValueError, OverflowError) as error:
            raise self._misfit(what, [f"it cannot be built ({str(error)[:300]})"]) from error
        never_stored = set(getattr(model, "_keys_to_ignore_on_save", None) or ())
        if (foreign := sorted(set(self.header) & never_stored)) and not self.given:
            raise self._misfit(
                what,
                [
                    f"{len(foreign)} are the frozen language model's, which no checkpoint may bring: {foreign[:3]}"
                ],
            )
        expected = {name: part for name, part in model.state_dict().items() if name not in never_stored}
        stored = {name: part for name, part in self.header.items() if name not in never_stored}
        others = [
            (name, shape, list(expected[name].shape))
            for name, (_, shape) in stored.items()
            if name in expected and shape != list(expected[name].shape)
        ]
        if other_sizes:
            for name, _, shape in others:
                stored[name] = (stored[name][0], shape)
        if wrong := _misfits(expected, stored):
            raise self._misfit(what, wrong)
        return others

    def read(self) -> dict[str, Tensor]:
        """The weights.

        Raises:
            DeepMLFError: they are damaged, or one is not a finite number.
        """
        weights = dict(self.given)
        for path in self.files:
            weights |= read_weights(path)
        for name, tensor in weights.items():
            if tensor.is_floating_point() and not tensor.float().isfinite().all():
                raise DeepMLFError(
                    f"{self.files[0] if self.files else 'state_dict'} holds NaN or infinite numbers in {name}, expected weights of a finished training: "
                    f"{_REPAIR}"
                )
        return weights

    def read_part(self, prefix: str, module: nn.Module) -> dict[str, Tensor]:
        """The weights of one module of the model, whose names begin with `prefix`.

        Raises:
            DeepMLFError: they are damaged, or do not fit.
        """
        header = {
            name.removeprefix(prefix): part for name, part in self.header.items() if name.startswith(prefix)
        }
        if wrong := _misfits(module.state_dict(), header):
            raise self._misfit(type(module).__name__, wrong)
        return {
            name.removeprefix(prefix): part for name, part in self.read().items() if name.startswith(prefix)
        }

    def _misfit(self, what: str, wrong: Sequence[str]) -> DeepMLFError:
        return DeepMLFError(
            f"The checkpoint at {self.place!r} does not fit its config as a {what} (of {len(self.header)} tensors in "
            f"{WEIGHTS_FILE}): {'; '.join(wrong)}. Was its config.json edited, or another model saved? Else {_REPAIR} "
            "Where other sizes are meant (such as another num_classes), ignore_mismatched_sizes=True starts those anew."
        )


def read_checkpoint(
    place: str | Path,
    config: DeepMLFConfig | None = None,
    state_dict: Mapping[str, Tensor] | None = None,
    **hub: Any,
) -> Stored:
    """Find a saved model and read its config and the header of its weights.

    Args:
        place: a folder that `save_pretrained` wrote, or a hub name.
        config: in place of the stored one.
        state_dict: in place of the stored weights.
        hub: where to look, as of any of transformers' models: `revision`, `subfolder`, `cache_dir`, `token`,
            `local_files_only`, ...

    Raises:
        DeepMLFError: there is no checkpoint, or one of its files is damaged.
    """
    place = str(place)
    try:
        config = config or read_config(find_file(place, CONFIG_FILE, hub))
        if state_dict is not None:
            return Stored(place, config, (), {n: _of_tensor(t) for n, t in state_dict.items()}, state_dict)
        try:
            files = [find_file(place, WEIGHTS_FILE, hub)]
        except OSError:
            files = _shards(find_file(place, INDEX_FILE, hub), place, hub)
    except (OSError, ValueError) as error:
        raise DeepMLFError(
            f"No DeepMLF checkpoint at {place!r}: expected a folder with config.json and {WEIGHTS_FILE} "
            "(as save_pretrained or a training run writes), or such a repository's name on the hub."
        ) from error
    header: dict[str, tuple[str, list[int]]] = {}
    for path in files:
        part = _header(path)
        if twice := sorted(set(header) & set(part)):
            raise DeepMLFError(
                f"{path} holds {twice[0]!r}, as another shard does, expected it once: {_REPAIR}"
            )
        header |= part
    return Stored(place, config, tuple(files), header)


def find_file(place: str, name: str, hub: Mapping[str, Any]) -> Path:
    """A file of a saved model.

    Args:
        place: a folder, or a repository's name on the hub.
        name: of the file.
        hub: where to look, as of `read_checkpoint`.

    Raises:
        OSError: there is none.
    """
    found = cached_file(place, name, **hub)
    if found is None:  # so it says of a missing config.json
        raise FileNotFoundError(name)
    return Path(found)


def _shards(index: Path, place: str, hub: Mapping[str, Any]) -> list[Path]:
    """The files that an index names; it may name none outside its own folder."""
    values = read_json(index, _REPAIR)
    wrong = misshapen(values, {"weight_map": dict})
    names = [] if wrong else sorted({str(name) for name in values["weight_map"].values()})
    if foreign := [name for name in names if not re.fullmatch(r"model[\w-]*\.safetensors", name)]:
        wrong = f"weight_map names the file {foreign[0]!r:.80}, expected shards such as model-00001-of-00002.safetensors"
    if wrong or not names:
        raise DeepMLFError(f"{index}: {wrong or 'it names no shard'}; {_REPAIR}")
    files = []
    for name in names:
        try:
            files.append(find_file(place, name, hub))
        except OSError as error:
            raise DeepMLFError(
                f"The shard {name} of the checkpoint at {place!r} is missing, expected {len(names)} of them: {_REPAIR}"
            ) from error
    return files


def read_config(path: Path) -> DeepMLFConfig:
    """The configuration in a `config.json`.

    Raises:
        DeepMLFError: it is damaged, or a setting in it is wrong.
    """
    values = read_json(path, _REPAIR)
    wrong = misshapen(values, {"model_type?": str, "num_labels?": int})
    if not wrong and values.get("model_type", "deepmlf") != "deepmlf":
        wrong = f"model_type is {values['model_type']!r:.80}, expected 'deepmlf'"
    if not wrong and values.get("num_labels", 0) > _MOST_LABELS:
        wrong = f"num_labels is {values['num_labels']}, expected at most {_MOST_LABELS}"
    if wrong:
        raise DeepMLFError(f"{path}: {wrong}; {_REPAIR}")
    try:
        return DeepMLFConfig.from_dict(values)
    except DeepMLFError as error:
        raise DeepMLFError(f"{path}: {error}") from error
    except (
        TypeError,
        ValueError,
        AttributeError,
        KeyError,
        OverflowError,
    ) as error:  # in settings of transformers' own
        raise DeepMLFError(
            f"{path} holds a setting of another shape ({type(error).__name__}: {str(error)[:200]}); {_REPAIR}"
        ) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        DeepMLFError: it cannot be read.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from error


def _misfits(expected: Mapping[str, Tensor], header: Mapping[str, tuple[str, list[int]]]) -> list[str]:
    """Everything in which stored tensors differ from those of a model."""
    wrong = []
    if missing := sorted(set(expected) - set(header)):
        wrong.append(f"{len(missing)} weights are missing, such as {missing[:3]}")
    if unknown := sorted(set(header) - set(expected)):
        wrong.append(f"{len(unknown)} are not in the model, such as {unknown[:3]}")
    there = {name: (expected[name], *found) for name, found in header.items() if name in expected}
    shapes = [
        f"{name} is {shape}, expected {list(wanted.shape)}"
        for name, (wanted, _, shape) in there.items()
        if shape != list(wanted.shape)
    ]
    kinds = [
        f"{name} is {dtype}, expected {wanted.dtype}"
        for name, (wanted, dtype, _) in there.items()
        if (dtype in _FLOATS) != wanted.is_floating_point()
    ]
    for what, found in (("shape", shapes), ("dtype", kinds)):
        if found:
            wrong.append(f"{len(found)} have another {what}: {'; '.join(found[:3])}")
    return wrong


def _of_tensor(tensor: Tensor) -> tuple[str, list[int]]:
    """As the header of a file would describe it, as far as it is compared."""
    return "F32" if tensor.is_floating_point() else "I64", list(tensor.shape)


def _header(path: Path) -> dict[str, tuple[str, list[int]]]:
    try:
        with safe_open(path, "pt") as file:
            slices: dict[str, Any] = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {name: (part.get_dtype(), list(part.get_shape())) for name, part in slices.items()}
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DeepMLFError:
    size = f"{path.stat().st_size:,} bytes" if path.is_file() else "no file"
    return DeepMLFError(f"{path} is damaged ({size}; {str(error)[:200]}), expected whole weights: {_REPAIR}")
