"""Stored models: read with distrust, since a checkpoint may come from anywhere and may be torn or edited.

The header of a safetensors file lists each tensor's dtype and shape. It is compared with what the model of a config would
store, which is built without memory (on torch's meta device), so that neither file decides alone how much is allocated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
CONFIG_FILE = "config.json"
_REPAIR = "copy the checkpoint again from where it came, or train the run again."
_FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
#: The most that a setting of transformers' own may be: it makes a list of that many labels.
_MOST_LABELS = 1000


@dataclass(frozen=True)
class Stored:
    """A checkpoint whose files are whole: its config, its weights' file and that file's header (dtype and shape by name)."""

    place: str
    config: DeepMLFConfig
    weights: Path
    header: dict[str, tuple[str, list[int]]]

    def check_fits(self, build: Callable[[], nn.Module], what: str) -> None:
        """Refuse weights that a model does not have, or has in another shape, before the model is built.

        Args:
            build: makes the model of the config; called on the meta device.
            what: the model's class, for the message.

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
        if foreign := sorted(set(self.header) & never_stored):
            raise self._misfit(
                what,
                [
                    f"{len(foreign)} are the frozen language model's, which no checkpoint may bring: {foreign[:3]}"
                ],
            )
        expected = {name: part for name, part in model.state_dict().items() if name not in never_stored}
        if wrong := _misfits(expected, self.header):
            raise self._misfit(what, wrong)

    def read(self) -> dict[str, Tensor]:
        """The weights.

        Raises:
            DeepMLFError: they are damaged, or one is not a finite number.
        """
        weights = read_weights(self.weights)
        for name, tensor in weights.items():
            if tensor.is_floating_point() and not tensor.float().isfinite().all():
                raise DeepMLFError(
                    f"{self.weights} holds NaN or infinite numbers in {name}, expected weights of a finished training: "
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
            f"{WEIGHTS_FILE}): {'; '.join(wrong)}. Was its config.json edited, or another model saved? Else {_REPAIR}"
        )


def read_checkpoint(place: str | Path, revision: str = "main", config: DeepMLFConfig | None = None) -> Stored:
    """Find a saved model and read its config and the header of its weights.

    Args:
        place: a folder that `save_pretrained` wrote, or a hub name.
        revision: branch, tag or commit on the hub.
        config: in place of the stored one.

    Raises:
        DeepMLFError: there is no checkpoint, or one of its files is damaged.
    """
    place = str(place)
    try:
        stored_config = None if config else cached_file(place, CONFIG_FILE, revision=revision)
        weights = Path(cached_file(place, WEIGHTS_FILE, revision=revision))
    except (OSError, ValueError) as error:
        raise DeepMLFError(
            f"No DeepMLF checkpoint at {place!r}: expected a folder with config.json and {WEIGHTS_FILE} "
            "(as save_pretrained or a training run writes), or such a repository's name on the hub."
        ) from error
    return Stored(place, config or read_config(Path(stored_config)), weights, _header(weights))


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
