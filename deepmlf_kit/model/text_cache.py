"""Text cache: hidden states and keys/values of the frozen LM, computed once per text and read in every epoch.

Below the first MM Block (and everywhere, where the feed-forward leaves text alone) the states of a text depend on
nothing that is trained. Of each text the cache stores

    the hidden states that enter the first trained part   [L, D]
    keys and values of the layers before it               layers x 2 x [heads, L, D/h]

in a file whose name is a digest of all that decides these numbers: every weight and buffer of the LM, its config
and modules, the number of layers, and the arithmetic (device, autocast, threads, versions; see `arithmetic`). A
file is a header and then records that are only ever appended:

    header   magic | length | JSON: dtype and shape of each part | checksum
    record   digest of the token ids | tokens | checksum of the states | checksum of these three | states

Every read compares the checksum, so that a damaged record is recomputed instead of trained on. Nothing is
mapped into memory and nothing is written beyond what the disk has taken, so that a full disk only ends the caching.

All files of a folder share one budget. Where it is used up, the files that were not opened for longest go, but
never one that a live process holds. One process holds a file for as long as its cache lives; another that wants
the same states at the same time (a second training, the other processes of one training) takes the next file of the
row `NAME-0.states`, `NAME-1.states`, ...
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from weakref import WeakValueDictionary

import torch
import transformers
import xxhash
from filelock import FileLock, Timeout
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from .. import __version__

DEFAULT_GIGABYTES = 20.0
_MAGIC = b"DMLFTXT1"
_LENGTH = struct.Struct("<I")  # of the header's JSON
_CHECKSUM = struct.Struct("<Q")
_RECORD = struct.Struct("<16sIQ")  # digest of the token ids, tokens, checksum of the states
#: A part of a token's states starts at a multiple of this many bytes, so that it can be viewed in its dtype.
_ALIGNMENT = 8
#: Keys of an LM's config that concern files and versions, not its function.
_NOT_THE_FUNCTION = ("_name_or_path", "transformers_version")
#: Caches of this process by folder and identity: one LM has one cache, however often it is opened.
_OPEN: WeakValueDictionary[tuple[Path, str], TextCache] = WeakValueDictionary()

_log = logging.getLogger(__name__)


@dataclass
class TextStates:
    """States of a batch of texts, padded right.

    Attributes:
        hidden: what enters the first trained part [B, L, D].
        cache: keys and values of the layers before it; those of padding are never read.
    """

    hidden: Tensor
    cache: DynamicCache


def open_text_cache(
    folder: str | Path, lm: PreTrainedModel, layers: int, gigabytes: float = DEFAULT_GIGABYTES
) -> TextCache | None:
    """Open the cache of a language model's text states in a folder; None, with a warning, where that cannot be written.

    Args:
        folder: where the files lie; made if absent.
        lm: the language model; open the cache again after a change of its weights.
        layers: number of layers whose keys and values are cached.
        gigabytes: the most that all files of the folder may take together (10^9 bytes).
    """
    folder = Path(folder).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        make_room(folder, gigabytes * 1e9, 0)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            _log.warning(
                "text states are not cached, they are computed in every epoch: %s cannot be written (%s)",
                folder,
                error.strerror or error,
            )
            return None
    identity = f"{fingerprint(lm)} {layers}"
    cache = _OPEN.get((folder, identity))
    if cache is None:
        cache = _OPEN[folder, identity] = TextCache(folder, identity, layers, gigabytes)
    cache.bytes = gigabytes * 1e9
    return cache


class TextCache:
    """Cached states of one LM's texts: one file for each arithmetic they were computed with.

    A copied or unpickled model has no cache until `cache_text_states` opens one.

    Args:
        folder: where the files lie.
        identity: of the LM and the layers.
        layers: number of layers whose keys and values are cached.
        gigabytes: the most that all files of the folder may take together.
    """

    def __init__(self, folder: Path, identity: str, layers: int, gigabytes: float) -> None:
        self.folder, self.identity, self.layers = folder, identity, layers
        self.bytes = gigabytes * 1e9
        self._files: dict[str, TextCacheFile | None] = {}
        self._closed = False
        self._lock = threading.Lock()

    def file(self, device: torch.device, compiled: bool = False) -> TextCacheFile | None:
        """The file that fits this process's arithmetic, or None where the cache is closed or the file cannot be opened.

        Args:
            device: where the LM is.
            compiled: whether its layers are compiled (`torch.compile`).
        """
        how = arithmetic(device, compiled)
        with self._lock:
            if self._closed:
                return None
            if how not in self._files:
                name = hashlib.sha256(f"{self.identity} {how}".encode()).hexdigest()[:16]
                try:
                    self._files[how] = TextCacheFile(*_free_file(self.folder / name), self)
                except OSError as error:
                    _log.warning("text states are not cached: %s cannot be opened (%s)", self.folder, error)
                    self._files[how] = None
            file = self._files[how]
            if file is not None:
                file.limit = self.bytes
            return file

    def close(self) -> None:
        """Release the files; from now on nothing is cached or read."""
        with self._lock:
            self._closed = True
            for file in self._files.values():
                if file is not None:
                    file.close()
            self._files.clear()
        if _OPEN.get((self.folder, self.identity)) is self:
            del _OPEN[self.folder, self.identity]

    def __deepcopy__(self, memo: dict[int, object]) -> None:
        return None

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(None), ()


class TextCacheFile:
    """One file of text states. Texts for which there is no room are computed each time.

    Args:
        path: of the file; made if absent, read if there.
        lock: held while the file is open, so that no other process writes to it or removes it.
        cache: that it belongs to.

    Raises:
        OSError: the file cannot be read or written.
    """

    def __init__(self, path: Path, lock: FileLock, cache: TextCache) -> None:
        self.path = path
        self._file_lock, self._layers = lock, cache.layers
        self._folder, self.limit = cache.folder, cache.bytes
        self._lock = threading.Lock()
        self._places: dict[bytes, tuple[int, int, int]] = {}  # text -> offset, tokens, checksum
        self._parts: list[tuple[torch.dtype, list[int]]] = []  # per token: hidden, each layer's key and value
        self._slices: list[slice] = []  # bytes of each part
        self._row = 0  # bytes a token takes
        self._end = 0  # bytes that are written
        self._full = self._warned_damaged = False
        path.touch()  # the time by which files are removed
        self._file = FileIO(path, "r+")
        self._read_index()

    def __len__(self) -> int:
        """Number of cached texts."""
        return len(self._places)

    @staticmethod
    def key(input_ids: Tensor, attention_mask: Tensor) -> list[bytes]:
        """Key of each text of a batch [B, L]: a digest of its token ids, without padding."""
        lengths = attention_mask.sum(dim=1).tolist()
        return [
            xxhash.xxh3_128_digest(ids[:n].tobytes())
            for ids, n in zip(input_ids.cpu().numpy(), lengths, strict=True)
        ]

    def lacking(self, keys: list[bytes]) -> list[int]:
        """Rows of a batch whose texts are not cached yet and for which there may be room; each text once."""
        if self._full:
            return []
        return [row for row, key in enumerate(keys) if key not in self._places and key not in keys[:row]]

    def load(self, keys: list[bytes], length: int, device: torch.device) -> TextStates | None:
        """States of a batch of texts, or None unless all of them are cached and undamaged.

        A damaged text is forgotten, so that `lacking` names it.

        Args:
            keys: as `key` gives.
            length: L, tokens to pad to.
            device: where the states are needed.
        """
        with self._lock:
            places = [self._places.get(key) for key in keys]
        if any(place is None for place in places):
            return None
        rows = torch.zeros(len(keys), length, self._row, dtype=torch.uint8)
        whole = True
        for key, row, place in zip(keys, rows.numpy(), places, strict=True):
            offset, tokens, checksum = place  # type: ignore[misc]
            states = row[:tokens]
            with self._lock:
                whole_row = self._read(offset, states) == states.nbytes
            if not whole_row or xxhash.xxh3_64_intdigest(states) != checksum:
                whole = False
                with self._lock:
                    self._places.pop(key, None)
        if not whole:
            self._warn_damaged()
            return None
        rows = rows.to(device, non_blocking=True)  # [B, L, bytes]
        parts = [
            rows[..., place].view(dtype).unflatten(-1, shape)
            for place, (dtype, shape) in zip(self._slices, self._parts, strict=True)
        ]
        cache = DynamicCache()
        for layer in range(self._layers):
            key_states, value_states = parts[1 + 2 * layer : 3 + 2 * layer]  # [B, L, h, D/h]
            cache.update(key_states.transpose(1, 2), value_states.transpose(1, 2), layer)
        return TextStates(parts[0], cache)

    def save(self, key: bytes, states: TextStates) -> None:
        """Cache the states of one text [1, L, ...], without padding, if there is room."""
        parts = [states.hidden]
        for layer in range(self._layers):
            cached = states.cache.layers[layer]
            parts += [cached.keys.transpose(1, 2), cached.values.transpose(1, 2)]  # [1, L, h, D/h]
        with self._lock:
            if self._full or key in self._places:
                return
            header = b""
            if not self._parts:
                self._lay_out([(part.dtype, list(part.shape[2:])) for part in parts])
                header = self._header()
            tokens = states.hidden.shape[1]
            rows = torch.zeros(tokens, self._row, dtype=torch.uint8)
            for part, place in zip(parts, self._slices, strict=True):
                rows[:, place] = part[0].flatten(1).contiguous().cpu().view(torch.uint8)
            checksum = xxhash.xxh3_64_intdigest(rows.numpy())
            record = _RECORD.pack(key, tokens, checksum)
            head = header + record + _checksum(record)
            offset = self._end + len(head)
            if self._append(head + rows.numpy().tobytes()):
                self._places[key] = offset, tokens, checksum
            elif header:
                self._parts = []

    def close(self) -> None:
        """Release the file."""
        with self._lock:
            self._full = True
            self._places = {}
            with suppress(OSError):
                os.utime(self.path)
            self._file.close()
            self._file_lock.release()

    # The file ------------------------------------------------------------------------------------------------

    def _append(self, data: bytes) -> bool:
        """Write at the end, whole or not at all."""
        problem = None
        try:
            if make_room(self._folder, self.limit, len(data)):
                self._file.seek(self._end)
                if self._file.write(data) == len(data):
                    self._end += len(data)
                    return True
                problem = os.strerror(errno.ENOSPC)
        except OSError as error:
            problem = error.strerror or str(error)
        self._full = True
        if problem is not None:
            with suppress(OSError):
                self._file.truncate(self._end)
            _log.warning(
                "%s: no more text states are cached (%s); those of further texts are computed in every epoch",
                self.path,
                problem,
            )
        return False

    def _read(self, offset: int, into: object) -> int:
        """Fill an array or a bytearray from the file; how many bytes there were."""
        try:
            self._file.seek(offset)
            return self._file.readinto(into) or 0  # type: ignore[arg-type]
        except OSError:
            return 0

    def _read_bytes(self, offset: int, count: int) -> bytes:
        data = bytearray(count)
        return bytes(data[: self._read(offset, data)])

    def _read_index(self) -> None:
        """Find the records; a file that is damaged is cut where the damage begins."""
        size = self._file.seek(0, os.SEEK_END)
        whole = self._read_header(size)
        while whole and self._end < size:
            record = self._read_bytes(self._end, _RECORD.size + _CHECKSUM.size)
            whole = record[_RECORD.size :] == _checksum(record[: _RECORD.size])
            if whole:
                key, tokens, checksum = _RECORD.unpack(record[: _RECORD.size])
                offset = self._end + len(record)
                whole = offset + tokens * self._row <= size
            if whole:
                self._places[key] = offset, tokens, checksum
                self._end = offset + tokens * self._row
        if self._end < size:
            self._warn_damaged()
            self._file.truncate(self._end)

    def _read_header(self, size: int) -> bool:
        """Whether the file has a whole header; it is read then."""
        start = self._read_bytes(0, len(_MAGIC) + _LENGTH.size)
        if len(start) < len(_MAGIC) + _LENGTH.size or not start.startswith(_MAGIC):
            return False
        (length,) = _LENGTH.unpack(start[len(_MAGIC) :])
        rest = self._read_bytes(len(start), min(length + _CHECKSUM.size, size))
        if rest[length:] != _checksum(rest[:length]):
            return False
        self._lay_out([(getattr(torch, dtype), shape) for dtype, shape in json.loads(rest[:length])])
        self._end = len(start) + len(rest)
        return True

    def _header(self) -> bytes:
        parts = json.dumps([(str(dtype).removeprefix("torch."), shape) for dtype, shape in self._parts])
        return _MAGIC + _LENGTH.pack(len(parts)) + parts.encode() + _checksum(parts.encode())

    def _lay_out(self, parts: list[tuple[torch.dtype, list[int]]]) -> None:
        self._parts, self._slices, self._row = parts, [], 0
        for dtype, shape in parts:
            size = dtype.itemsize * torch.Size(shape).numel()
            self._slices.append(slice(self._row, self._row + size))
            self._row += -(-size // _ALIGNMENT) * _ALIGNMENT

    def _warn_damaged(self) -> None:
        if not self._warned_damaged:
            _log.warning("%s is damaged: the text states that it lost are recomputed", self.path)
        self._warned_damaged = True


def make_room(folder: Path, limit: float, needed: int) -> bool:
    """Whether `needed` more bytes fit into the budget of a folder, files that nobody uses removed for it.

    The budget is the same for all processes: at most `limit` bytes for all files together, and at most half of
    the disk that would be free without them. Files that were not opened for longest go first.

    Raises:
        OSError: the folder cannot be written.
    """
    with FileLock(folder / "budget.lock", timeout=60, thread_local=False):
        files = []
        for path in folder.glob("*.states"):
            with suppress(FileNotFoundError):
                files.append((path.stat().st_mtime_ns, path.stat().st_size, path))
        taken = sum(size for _, size, _ in files)
        limit = min(limit, (taken + shutil.disk_usage(folder).free) / 2)
        for _, size, path in sorted(files):
            if taken + needed <= limit:
                break
            if _remove_unused(path):
                taken -= size
        return taken + needed <= limit


def _remove_unused(path: Path) -> bool:
    """Remove a file unless a live process holds it."""
    lock = FileLock(path.with_suffix(".lock"), thread_local=False)
    try:
        with lock.acquire(timeout=0):
            path.unlink(missing_ok=True)
    except OSError:  # held (`Timeout`), or not ours to remove
        return False
    return True


def _free_file(path: Path, number: int = 0) -> tuple[Path, FileLock]:
    """The first file of a row that no other process uses, with its lock held."""
    free = path.with_name(f"{path.name}-{number}.states")
    lock = FileLock(free.with_suffix(".lock"), thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return _free_file(path, number + 1)
    return free, lock


def _checksum(data: bytes) -> bytes:
    return _CHECKSUM.pack(xxhash.xxh3_64_intdigest(data))


# What determines the states --------------------------------------------------------------------------------------


def fingerprint(lm: PreTrainedModel) -> str:
    """Digest of all that determines an LM's function: every weight and buffer, its config and its modules."""
    config = {name: value for name, value in lm.config.to_dict().items() if name not in _NOT_THE_FUNCTION}
    described = {
        "config": config,
        "attention": lm.config.get_text_config()._attn_implementation,
        "modules": [(name, f"{type(m).__module__}.{type(m).__qualname__}") for name, m in lm.named_modules()],
    }
    text = json.dumps(described, sort_keys=True, default=str) + weights_digest(lm)
    return xxhash.xxh3_128_hexdigest(text.encode())


def weights_digest(lm: PreTrainedModel) -> str:
    """Digest of every weight and buffer of an LM, whatever computes with them.

    Reads each weight once (0.1 s for 135 million on one core, from a GPU as fast as they can be copied).
    """
    digest = xxhash.xxh3_128()
    tensors = {**dict(lm.named_buffers()), **lm.state_dict()}
    known: dict[tuple[object, ...], bytes] = {}  # tied weights are read once
    for name, tensor in sorted(tensors.items()):
        if not isinstance(tensor, Tensor):  # extra state of a quantized layer
            digest.update(f"{name} {tensor}".encode())
            continue
        where = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.device)
        if where not in known or tensor.numel() == 0:
            content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            known[where] = xxhash.xxh3_128_digest(content)
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(known[where])
    return digest.hexdigest()


def arithmetic(device: torch.device, compiled: bool = False) -> str:
    """All that determines, beside weights and text, how states are rounded: device, autocast, threads, versions."""
    kind = device.type
    autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    machine: list[object] = []
    if kind == "cpu":
        machine = [torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()]
    elif kind == "cuda":
        machine = [torch.cuda.get_device_name(device)]
    versions = [torch.__version__, transformers.__version__, __version__]
    exactness = [torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()]
    return json.dumps([kind, *machine, str(autocast), compiled, *exactness, *versions])
