"""Read an untrusted pickle: NumPy arrays and plain containers, and nothing else.

Where it stands: under `mmsa`. The field's datasets are pickles on shared drives, and a pickle is a program: an
ordinary `pickle.load` runs whatever it names. Here

* only the few names that NumPy (1.x and 2.x) and plain containers need are known; any other is refused by name
  before anything is called;
* even those names are not NumPy's own functions but stand-ins that note type, shape and bytes; arrays are
  built from the notes at the end, after shape and type were compared with the bytes there are;
* a length that exceeds the file is refused before memory is asked for;
* large arrays stay in the file (memory-mapped), so that opening a pickle of many gigabytes costs no memory.
"""

from __future__ import annotations

import math
import mmap
import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .schema import DatasetError

_LARGE = 1 << 16  # bytes; from here on they stay in the file (and the pickler wrote them outside its frames)
_KINDS = "biufcSUO"


def load_pickle(path: str | Path) -> Any:
    """Containers (dict, list, tuple, set), strings, numbers and NumPy arrays of a pickle of any protocol.

    Returns:
        The object. Arrays may be read-only views of the file, which therefore must stay as it is.

    Raises:
        DatasetError: the pickle names anything but arrays and plain containers (it says what), or is damaged,
            or is no pickle.
    """
    path = Path(path)
    if not path.is_file():
        raise DatasetError(f"no file at {path}")
    if path.stat().st_size == 0:
        raise DatasetError(f"{path} is empty; expected a pickle")
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        return _resolve(_Unpickler(_Reader(content)).load(), {})
    except _RefusedError as refused:
        raise DatasetError(
            f"{path} names {refused}, which is no NumPy array and no plain container, so it was not opened: "
            "such a pickle can run any program. Ask where it comes from, and for a copy with arrays only"
        ) from None
    except (MemoryError, RecursionError) as error:
        raise DatasetError(
            f"{path} is damaged or no dataset: {type(error).__name__} while reading it"
        ) from None
    except Exception as error:  # whatever a damaged byte leads to
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(
            f"{path} is not a whole pickle ({type(error).__name__}: {error}); was the download complete?"
        ) from None


class _RefusedError(Exception):
    """Carries the full name that a pickle asked for."""


class _Reader:
    """The file as pickle wants it; never asks for more than there is."""

    def __init__(self, content: mmap.mmap) -> None:
        self.content, self.at, self.size = content, 0, len(content)

    def read(self, count: int = -1) -> bytes:
        if count < 0 or count > self.size - self.at:
            raise EOFError(f"{count} bytes announced at byte {self.at} of {self.size}")
        self.at += count
        return self.content[self.at - count : self.at]

    def readline(self) -> bytes:
        end = self.content.find(b"\n", self.at)
        return self.read((self.size if end < 0 else end + 1) - self.at)

    def readinto(self, buffer: bytearray) -> int:
        buffer[:] = self.read(len(buffer))
        return len(buffer)

    def skip(self, count: int) -> _Span:
        if count > self.size - self.at:
            raise EOFError(f"{count} bytes announced at byte {self.at} of {self.size}")
        span = _Span(self.content, self.at, count)
        self.at += count
        return span


class _Span:
    """Bytes that stay in the file."""

    def __init__(self, content: mmap.mmap, start: int, count: int, utf8: bool = False) -> None:
        self.content, self.start, self.count, self.utf8 = content, start, count, utf8

    def read(self) -> bytes:
        return self.content[self.start : self.start + self.count]

    def text(self) -> str:
        return self.read().decode("utf-8" if self.utf8 else "latin-1")


class _Encoded:
    """Bytes that protocols 0 to 2 wrote as UTF-8 text, still in the file."""

    def __init__(self, span: _Span) -> None:
        self.span = span

    def read(self) -> bytes:
        return self.span.text().encode("latin-1")


class _Dtype:
    """Stand-in for numpy.dtype: a plain type and its byte order."""

    def __init__(self, kind: str | bytes, align: bool = False, copy: bool = False) -> None:
        self.kind, self.order = kind.decode() if isinstance(kind, bytes) else kind, "="
        self.value = None

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1].decode() if isinstance(state[1], bytes) else state[1]
        if any(part is not None for part in state[2:5]):
            raise _RefusedError("a NumPy array of records (structured dtype)")

    def numpy(self) -> np.dtype:
        if (
            not isinstance(self.kind, str)
            or self.kind[:1] not in _KINDS
            or self.order not in ("=", "<", ">", "|")
        ):
            raise _RefusedError(f"the NumPy dtype {self.kind!r}")
        return np.dtype(self.kind).newbyteorder(self.order)


class _Array:
    """Stand-in for numpy.ndarray: shape, type and bytes (or, for objects, a list)."""

    def __init__(self) -> None:
        self.shape: tuple = ()
        self.dtype: _Dtype | None = None
        self.fortran, self.data = False, None

    def __setstate__(self, state: tuple) -> None:
        self.shape, self.dtype, self.fortran, self.data = state[-4:]

    def numpy(self, memo: dict) -> np.ndarray:
        if not isinstance(self.dtype, _Dtype):
            raise ValueError("an array without a type")
        dtype, shape = self.dtype.numpy(), tuple(int(n) for n in self.shape)
        count = math.prod(shape)
        if any(n < 0 for n in shape):
            raise ValueError(f"an array of shape {shape}")
        if dtype.hasobject:
            if not isinstance(self.data, list) or len(self.data) != count:
                raise ValueError(f"an object array of shape {shape} without its {count} objects")
            flat = np.empty(count, object)
            flat[:] = [_resolve(item, memo) for item in self.data]
        else:
            flat = _from_bytes(self.data, dtype, count, shape)
        return flat.reshape(shape, order="F" if self.fortran else "C")


def _from_bytes(data: Any, dtype: np.dtype, count: int, shape: tuple) -> np.ndarray:
    if isinstance(data, str):
        data = data.encode("latin-1")  # Python 2 wrote bytes as a string
    if isinstance(data, _Encoded):
        data = data.read()
    length = data.count if isinstance(data, _Span) else len(data)
    if length != count * dtype.itemsize:
        raise ValueError(f"an array of shape {shape} and type {dtype} with {length} bytes")
    if count == 0:
        return np.zeros(0, dtype)
    if isinstance(data, _Span):
        return np.frombuffer(data.content, dtype, count, data.start)
    return np.frombuffer(data, dtype, count)


def _reconstruct(kind: type, shape: tuple, code: Any) -> _Array:
    return _Array()


def _from_buffer(data: Any, dtype: _Dtype, shape: tuple, order: str) -> _Array:
    array = _Array()
    array.__setstate__((shape, dtype, order == "F", data))
    return array


class _Scalar:
    """Stand-in for a NumPy number or string."""

    def __init__(self, dtype: _Dtype, data: Any = b"") -> None:
        self.dtype, self.data = dtype, data

    def numpy(self) -> Any:
        dtype = self.dtype.numpy()
        if dtype.hasobject:
            raise _RefusedError("a NumPy scalar of objects")
        return (
            _from_bytes(self.data, dtype, 1 if dtype.itemsize else 0, ())[0]
            if dtype.itemsize
            else dtype.type()
        )


def _encode(text: Any, encoding: str = "utf-8") -> Any:
    """`_codecs.encode`, with which protocols 0 to 2 write bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise _RefusedError(f"the encoding {encoding!r}")
    return _Encoded(text) if isinstance(text, _Span) else text.encode("latin-1")


def _no_bytes() -> bytes:
    """`bytes()`, with which protocols 0 to 2 write b""; never `bytes(n)`."""
    return b""


_KNOWN = {
    ("builtins", "bytes"): _no_bytes,
    ("__builtin__", "bytes"): _no_bytes,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): dict,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
    **{
        (module, kind.__name__): kind
        for module in ("builtins", "__builtin__")
        for kind in (dict, list, tuple, set, frozenset, complex)
    },
}


class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined]  # the Python one: the C one trusts lengths
    dispatch: ClassVar[dict] = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]
    # Attributes of the base class, which has no types.
    _unframer: Any
    read: Any
    append: Any

    def __init__(self, reader: _Reader) -> None:
        super().__init__(reader, encoding="latin-1")
        self.reader = reader

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise _RefusedError(f"{module}.{name}")
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise _RefusedError("an object outside the file")

    def get_extension(self, code: int) -> Any:
        raise _RefusedError(f"the extension {code}")

    def _bytes(self, count: int, utf8: bool = False) -> Any:
        """`count` bytes: left in the file where they are many."""
        if count < 0:
            raise ValueError(f"{count} bytes announced")
        if count >= _LARGE and not self._unframer.current_frame:
            span = self.reader.skip(count)
            span.utf8 = utf8
            return span
        if count > self.reader.size:
            raise EOFError(f"{count} bytes announced in a file of {self.reader.size}")
        return self.read(count)

    def _length(self, width: int, signed: bool = False) -> int:
        return int.from_bytes(self.read(width), "little", signed=signed)

    def load_binbytes(self) -> None:
        self.append(self._bytes(self._length(4)))

    def load_binbytes8(self) -> None:
        self.append(self._bytes(self._length(8)))

    def load_binstring(self) -> None:  # Python 2's bytes
        value = self._bytes(self._length(4, signed=True))
        self.append(value if isinstance(value, _Span) else value.decode("latin-1"))

    def load_binunicode(self) -> None:
        self._unicode(4)

    def load_binunicode8(self) -> None:
        self._unicode(8)

    def _unicode(self, width: int) -> None:
        value = self._bytes(self._length(width), utf8=True)
        self.append(value if isinstance(value, _Span) else str(value, "utf-8", "surrogatepass"))

    for _code, _load in (
        (pickle.BINBYTES, load_binbytes),
        (pickle.BINBYTES8, load_binbytes8),
        (pickle.BYTEARRAY8, load_binbytes8),
        (pickle.BINSTRING, load_binstring),
        (pickle.BINUNICODE, load_binunicode),
        (pickle.BINUNICODE8, load_binunicode8),
    ):
        dispatch[_code[0]] = _load


def _resolve(value: Any, memo: dict[int, Any]) -> Any:
    """Replace the stand-ins in `value` by what they stand for, in containers of any depth."""
    if isinstance(value, (str, int, float, bytes, type(None))):
        return value
    if id(value) in memo:
        return memo[id(value)][1]
    done: Any
    if isinstance(value, (_Array, _Scalar, _Span, _Encoded, _Dtype)):
        if isinstance(value, _Array):
            done = value.numpy(memo)
        elif isinstance(value, _Span):
            done = value.text() if value.utf8 else value.read()
        elif isinstance(value, _Encoded):
            done = value.read()
        else:
            done = value.numpy()
        memo[id(value)] = value, done  # the stand-in is kept too: its id must stay its own
        return done
    if isinstance(value, dict):
        memo[id(value)] = value, value
        for key in list(value):
            value[key] = _resolve(value[key], memo)
        keys = {key: _resolve(key, memo) for key in value if isinstance(key, (_Scalar, tuple))}
        for key, new in keys.items():
            value[new] = value.pop(key)
        return value
    if isinstance(value, list):
        memo[id(value)] = value, value
        value[:] = [_resolve(item, memo) for item in value]
        return value
    if isinstance(value, (tuple, set, frozenset)):
        done = type(value)(_resolve(item, memo) for item in value)
        memo[id(value)] = value, done  # or a chain of pairs would be walked 2^n times
        return done
    if isinstance(value, (complex, bytearray)):
        return value
    name = value.__name__ if isinstance(value, type) or callable(value) else type(value).__name__
    raise _RefusedError(f"{name.lstrip('_')} where a value was expected")
