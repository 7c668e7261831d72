"""Continuous modalities: the sequences of features that the AV encoder reads beside the text.

Audio and vision are built in. A third one is registered here by its name, which is then also the name of its column in
a dataset and of its argument in a model's forward; `DeepMLFConfig(extra_modalities={name: features})` makes a model read
it. Of every modality there are three arguments:

    NAME        frames [B, T, features] float
    NAME_mask   valid frames [B, T] bool
    NAME_spans  begin and end of each frame as shares of the utterance's length [B, T, 2]
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import DeepMLFError

#: Columns of a dataset, inputs and parts of a model: no modality can have these names.
_TAKEN = {"id", "text", "label", "labels", "words", "clip", "recipe", "fuse", "norm", "config", "training"}


@dataclass(frozen=True)
class Modality:
    """A continuous modality.

    Attributes:
        name: of the dataset's column and the model's argument.
        label: what pages call it, such as "voice" for audio.
    """

    name: str
    label: str


BUILT_IN = ("audio", "vision")
_REGISTERED = {"audio": Modality("audio", "voice"), "vision": Modality("vision", "face")}


def register_modality(name: str, label: str | None = None) -> Modality:
    """Register a further continuous modality.

    Args:
        name: of the dataset's column and the model's argument; a Python identifier.
        label: what pages call it; None: its name.

    Raises:
        DeepMLFError: the name cannot be used, or is registered with another label.
    """
    modality = Modality(name, label or name)
    if not name.isidentifier() or name in _TAKEN or name.endswith(("_mask", "_spans", "_times")):
        raise DeepMLFError(f"A modality cannot be called {name!r}: choose another Python identifier.")
    if _REGISTERED.setdefault(name, modality) != modality:
        raise DeepMLFError(f"The modality {name!r} is registered already: choose another name.")
    return modality


def modality(name: str) -> Modality:
    """A registered modality.

    Raises:
        DeepMLFError: there is none of this name; the message lists those that are.
    """
    if name not in _REGISTERED:
        raise DeepMLFError(
            f"There is no modality {name!r}, but {', '.join(_REGISTERED)}: call register_modality({name!r}) first."
        )
    return _REGISTERED[name]


def registered_modalities() -> list[str]:
    """Names, audio and vision first."""
    return list(_REGISTERED)


def input_names(modalities: Iterable[str]) -> list[str]:
    """Names of a forward's arguments for some modalities."""
    return [f"{name}{part}" for name in modalities for part in ("", "_mask", "_spans")]
