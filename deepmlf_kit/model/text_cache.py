"""Kept text states: what the frozen LM makes of a text, computed once and used in every epoch.

Below the first MM Block (and everywhere, where the feed-forward leaves text alone) the states of a text depend on
nothing that is trained. Of each text the store keeps, in one memory-mapped file of bounded size,

    the hidden states that enter the first trained part   [L, D]
    keys and values of the layers before it               layers x 2 x [heads, L, D/h]

keyed by the text's token ids. The file's name is made of all that decides its content: the LM, its revision, its
precision and the number of layers. Only one process uses a file at a time, for as long as it lives; another that
wants the same states at the same time (a second training, the other processes of one training) takes the next
file of the row `NAME-0.states`, `NAME-1.states`, ...
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

import torch
from filelock import FileLock, Timeout
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from ..errors import DeepMLFError

DEFAULT_GIGABYTES = 20.0
#: Stores of this process by file name without its number: one LM has one store, however often it is asked for.
_OPEN: WeakValueDictionary[Path, TextStore] = WeakValueDictionary()


@dataclass
class TextStates:
    """States of a batch of texts, padded right.

    Attributes:
        hidden: what enters the first trained part [B, L, D].
        cache: keys and values of the layers before it; those of padding are never read.
    """

    hidden: Tensor
    cache: DynamicCache


def open_text_store(
    folder: str | Path, lm: PreTrainedModel, name: str, layers: int, gigabytes: float = DEFAULT_GIGABYTES
) -> TextStore:
    """The store of a language model's text states in a folder.

    Args:
        folder: where its file lies; made if absent.
        lm: the language model.
        name: its name and revision.
        layers: how many layers' keys and values are kept.
        gigabytes: the most that the file may take.

    Raises:
        DeepMLFError: the folder cannot be written.
    """
    dtype = next(p.dtype for p in lm.parameters() if p.is_floating_point())
    identity = json.dumps([name, _fingerprint(lm), str(dtype), layers])
    family = Path(folder).absolute() / hashlib.sha256(identity.encode()).hexdigest()[:16]
    if family not in _OPEN:
        try:
            family.parent.mkdir(parents=True, exist_ok=True)
            path, lock = _free_file(family)
        except OSError as error:
            raise DeepMLFError(
                f"Text states cannot be kept in {folder} ({error}): name another folder."
            ) from error
        store = TextStore(path, dtype, layers, gigabytes, lock)
        _OPEN[family] = store
    return _OPEN[family]


class TextStore:
    """A bounded file of text states. Texts beyond the bound are computed anew each time.

    Args:
        path: of the file; made if absent, read if there.
        dtype: of the states.
        layers: how many layers' keys and values are kept.
        gigabytes: the most that the file may take.
        lock: held while the store lives, so that no other process writes to the file.
    """

    def __init__(
        self, path: Path, dtype: torch.dtype, layers: int, gigabytes: float, lock: FileLock | None = None
    ) -> None:
        self.path, self.dtype, self.layers, self._lock = path, dtype, layers, lock
        self._places: dict[bytes, tuple[int, int]] = {}  # token ids -> first token and number of tokens
        self._used = 0  # tokens
        self._indexed = 0  # texts in the index on disk
        self._shapes: list[torch.Size] = []  # per token: hidden, then key and value of each layer
        self._pool: Tensor | None = None  # [tokens, numbers a token]
        # Writing to a mapped file on a full disk kills the process: leave half of what is free.
        taken = path.stat().st_blocks * 512 if path.exists() else 0
        self._bytes = min(int(gigabytes * 1e9), taken + shutil.disk_usage(path.parent).free // 2)
        self._read_index()

    def __len__(self) -> int:
        """Texts that are kept."""
        return len(self._places)

    def load(self, keys: list[bytes], length: int, device: torch.device) -> TextStates | None:
        """States of a batch of texts, or None unless all of them are kept.

        Args:
            keys: as `key` gives.
            length: L, tokens to pad to.
        """
        places = [self._places.get(key) for key in keys]
        if self._pool is None or any(place is None for place in places):
            return None
        rows = torch.zeros(len(keys), length, self._pool.shape[1], dtype=self.dtype)
        for row, place in zip(rows, places, strict=True):
            first, tokens = place  # type: ignore[misc]
            row[:tokens] = self._pool[first : first + tokens]
        rows = rows.to(device, non_blocking=True)  # [B, L, numbers]
        parts = rows.split([shape.numel() for shape in self._shapes], dim=-1)
        cache = DynamicCache()
        for layer in range(self.layers):
            key, value = (
                parts[1 + 2 * layer + i].unflatten(-1, self._shapes[1 + 2 * layer + i]).transpose(1, 2)
                for i in (0, 1)
            )  # [B, h, L, D/h]
            cache.update(key, value, layer)
        return TextStates(parts[0].unflatten(-1, self._shapes[0]), cache)

    def lacking(self, keys: list[bytes]) -> list[int]:
        """Rows of a batch whose texts are not kept yet and for which there may be room; each text once."""
        if self._bytes == 0 or (self._pool is not None and self._used >= len(self._pool)):
            return []
        return [row for row, key in enumerate(keys) if key not in self._places and key not in keys[:row]]

    def save(self, key: bytes, states: TextStates) -> None:
        """Keep the states of one text [1, L, ...], without padding, if the bound allows."""
        parts = [states.hidden]
        for layer in range(self.layers):
            kept = states.cache.layers[layer]
            parts += [kept.keys.transpose(1, 2), kept.values.transpose(1, 2)]  # [1, L, h, D/h]
        if self._pool is None:
            self._make_pool([part.shape[2:] for part in parts])
        assert self._pool is not None
        tokens = states.hidden.shape[1]
        if self._used + tokens > len(self._pool):
            return
        place = slice(self._used, self._used + tokens)
        self._pool[place] = torch.cat([part[0].flatten(1) for part in parts], dim=-1).cpu()
        self._places[key] = (self._used, tokens)
        self._used += tokens
        if len(self._places) >= 1.2 * self._indexed:  # not at every text: the index is written whole
            self.flush()

    @staticmethod
    def key(input_ids: Tensor, attention_mask: Tensor) -> list[bytes]:
        """The name of each text of a batch: its token ids, without padding."""
        lengths = attention_mask.sum(dim=1).tolist()
        return [ids[:n].tobytes() for ids, n in zip(input_ids.cpu().numpy(), lengths, strict=True)]

    # The file ------------------------------------------------------------------------------------------------

    @property
    def _index_path(self) -> Path:
        return self.path.with_suffix(".json")

    def _make_pool(self, shapes: list[torch.Size]) -> None:
        self._shapes = [torch.Size(shape) for shape in shapes]
        numbers = sum(shape.numel() for shape in self._shapes)
        size = torch.empty((), dtype=self.dtype).element_size()
        tokens = max(1, self._bytes // (numbers * size))
        # The file is sparse: it takes disk only where states were written.
        self._pool = torch.from_file(
            str(self.path), shared=True, size=tokens * numbers, dtype=self.dtype
        ).view(tokens, numbers)

    def flush(self) -> None:
        """Write the index, so that a later run finds what is kept."""
        if self._indexed == len(self._places):
            return
        index = {
            "shapes": [list(shape) for shape in self._shapes],
            "texts": {key.hex(): place for key, place in self._places.items()},
        }
        temporary = self._index_path.with_suffix(".tmp")
        temporary.write_text(json.dumps(index))
        temporary.replace(self._index_path)
        self._indexed = len(self._places)

    def close(self) -> None:
        """Write the index and leave the file to others."""
        self.flush()
        self._pool = None
        self._places, self._bytes = {}, 0
        for family in [family for family, store in _OPEN.items() if store is self]:
            del _OPEN[family]
        if self._lock is not None:
            self._lock.release()

    def _read_index(self) -> None:
        try:
            index = json.loads(self._index_path.read_text())
        except (OSError, ValueError):
            self.path.unlink(missing_ok=True)
            return
        self._make_pool([torch.Size(shape) for shape in index["shapes"]])
        places = {bytes.fromhex(key): (first, tokens) for key, (first, tokens) in index["texts"].items()}
        assert self._pool is not None
        self._places = {k: p for k, p in places.items() if sum(p) <= len(self._pool)}
        self._indexed = len(self._places)
        self._used = max((sum(place) for place in self._places.values()), default=0)


def _free_file(family: Path, number: int = 0) -> tuple[Path, FileLock]:
    """The first file of a row that no other process uses, with its lock held."""
    path = family.with_name(f"{family.name}-{number}.states")
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return _free_file(family, number + 1)
    return path, lock


def _fingerprint(lm: PreTrainedModel) -> list[float]:
    """Numbers that tell two LMs of one name apart: sums of a few of its weights."""
    weights = [p.detach() for p in lm.parameters() if p.is_floating_point()]
    some = [weights[0], weights[len(weights) // 2], weights[-1]]
    return [round(float(w.flatten()[:4096].double().sum()), 6) for w in some]
