"""Read an untrusted pickle: NumPy arrays and plain containers, and nothing else.

Where it stands: under `mmsa`. The field's datasets are pickles on shared drives, and a pickle is a program: an
ordinary `pickle.load` runs whatever it names. Here

* only the few names that NumPy (1.x and 2.x) and plain containers need are known; any other is refused by name
  before anything is called;
* even those names are not NumPy's own functions but stand-ins that note type, shape and bytes; arrays are
  built from the notes at the end, after shape and type were compared with the bytes there are;
* a length that exceeds the file is refused before memory is asked for, and so is more work than a dataset needs
  (`_OPERATIONS`, `_SECONDS`, `_DEPTH`, bytes by the file's size): a short program can ask for any amount;
* keys are plain values, so that no nested key is hashed, and only what a pickle itself made is changed by it;
* large arrays stay in the file (memory-mapped), so that opening a pickle of many gigabytes costs no memory;
* strings of Python 2 are bytes, as they were there; who knows what they mean decodes them (`encodings`).
"""

from __future__ import annotations

import gc
import math
import mmap
import pickle
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..errors import excerpt
from .schema import DatasetError

# Of the pickle's program, and objects it makes; MOSEI with its words apart takes a third.
_OPERATIONS = 3_000_000
_SECONDS = 10.0  # of the processor; MOSEI takes one or two
_DEPTH = 50  # of containers within containers
_DIMENSIONS = 8
_NUMBER_BYTES = 16  # of a whole number
_LARGE = 1 << 16  # bytes; from here on they stay in the file (and the pickler wrote them outside its frames)
_KINDS = re.compile(r"[biufcSUO][0-9]{0,9}")


def load_pickle(path: str | Path) -> Any:
    """Containers (dict, list, tuple, set), strings, numbers and NumPy arrays of a pickle of any protocol.

    Returns:
        The object. Arrays may be read-only views of the file, which therefore must stay as it is.

    Raises:
        DatasetError: the pickle names anything but arrays and plain containers (it says what), asks for more work or
            memory than a dataset needs, is damaged, or is another kind of file (it says which).
    """
    path = Path(path)
    if not path.is_file():
        raise DatasetError(f"no file at {path}")
    try:
        if path.stat().st_size == 0:
            raise DatasetError(f"{path} is empty; expected a pickle")
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}); expected a pickle") from error
    if other := _other_kind(content):
        raise DatasetError(f"{path} is {other}")
    budget = _Budget(len(content))
    collects = gc.isenabled()
    gc.disable()  # with every thousand new containers it would look at all there are
    try:
        return _Resolver(budget).resolve(_Unpickler(_Reader(content), budget).load(), 0)
    except DatasetError:
        raise
    except _RefusedError as refused:
        problem = (
            f"names {excerpt(str(refused))}, which is no NumPy array and no plain container, so it was not opened: "
            "such a pickle can run any program. Ask where it comes from, and for a copy with arrays only"
        )
    except (_ExcessError, MemoryError, RecursionError) as error:
        problem = f"is damaged or no dataset: it asks for {error or 'too much memory'}"
    except EOFError as error:
        problem = f"is not a whole pickle, it ends early ({excerpt(str(error))}); was the download complete?"
    except Exception as error:  # whatever a damaged byte leads to
        problem = f"is not a whole pickle ({type(error).__name__}: {excerpt(str(error))}); was the download complete?"
    finally:
        if collects:
            gc.enable()
    if _has_only_windows_line_ends(content):
        problem = (
            "is damaged by a transfer as text: every line end in it became that of Windows (CR LF). "
            "Copy it again in binary mode, or without git's autocrlf"
        )
    raise DatasetError(f"{path} {problem}")


_SIGNATURES = (
    (b"version https://git-lfs", "the pointer of a file in Git LFS, not the file: get it with `git lfs pull`"),
    (b"PK\x03\x04", "a ZIP archive (or a PyTorch or NumPy .npz file, which are such archives), expected a pickle: "
     "unpack it"),
    (b"\x1f\x8b", "compressed with gzip, expected a pickle: unpack it with `gunzip`"),
    (b"BZh", "compressed with bzip2, expected a pickle: unpack it with `bunzip2`"),
    (b"\xfd7zXZ", "compressed with xz, expected a pickle: unpack it with `unxz`"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstandard, expected a pickle: unpack it with `unzstd`"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive, expected a pickle: unpack it"),
    (b"Rar!", "a RAR archive, expected a pickle: unpack it"),
    (b"\x89HDF", "an HDF5 file (such as the .csd files of the CMU Multimodal SDK), expected an MMSA pickle"),
    (b"\x93NUMPY", "a single NumPy array (.npy), expected an MMSA pickle"),
    (b"MATLAB", "a MATLAB file, expected an MMSA pickle"),
    (b"%PDF", "a PDF document, expected a pickle"),
)  # fmt: skip


def _other_kind(content: mmap.mmap) -> str:
    """What a file is that is no pickle, and what to do; empty where it may be one."""
    start = content[:4096]
    for signature, kind in _SIGNATURES:
        if start.startswith(signature):
            return kind
    if start[257:262] == b"ustar":
        return "a TAR archive, expected a pickle: unpack it"
    if not start.strip(b"\0"):
        return "full of zeros at its beginning, expected a pickle: the download did not complete"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"<"):
        return (
            "a web page that was saved instead of the file (or another text of XML), expected a pickle: download it "
            "again, from a browser where the site asks for a click or a login"
        )
    if text.startswith((b"{", b'["')):
        return "a JSON text, expected a pickle: where it was downloaded, look into it for the site's error message"
    return ""


def _has_only_windows_line_ends(content: mmap.mmap) -> bool:
    """Whether no line feed stands without a carriage return: of a binary file that is as good as impossible."""
    found = lone = at = 0
    while found < 10_000 and (at := content.find(b"\n", at)) >= 0:
        found += 1
        lone += content[at - 1 : at] != b"\r"
        at += 1
    return found >= 3 and not lone


class _RefusedError(Exception):
    """Carries the full name that a pickle asked for."""


class _ExcessError(Exception):
    """What a pickle asks for beyond its budget, in words."""


class _Budget:
    """How much a pickle may still ask for: operations and objects, and bytes that are copied out of the file."""

    def __init__(self, size: int) -> None:
        self.operations, self.bytes = _OPERATIONS, 4 * size + (1 << 20)
        self.until = time.thread_time() + _SECONDS

    def spend(self, operations: int = 0, size: int = 0) -> None:
        self.operations -= operations
        self.bytes -= size
        if self.operations < 0:
            raise _ExcessError(f"more than {_OPERATIONS:,} objects and operations")
        if not self.operations % 1024 and time.thread_time() > self.until:
            raise _ExcessError(f"more than {_SECONDS:.0f} seconds of work")
        if self.bytes < 0:
            raise _ExcessError("several times the memory of the file")


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

    def read(self, budget: _Budget) -> bytes:
        budget.spend(size=self.span.count)
        return self.span.text().encode("latin-1")


class _Dtype:
    """Stand-in for numpy.dtype: a plain type and its byte order."""

    def __init__(self, kind: str | bytes, align: bool = False, copy: bool = False) -> None:
        self.kind, self.order = kind.decode() if isinstance(kind, bytes) else kind, "="

    def set_state(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5:
            raise ValueError("a type of arrays without its byte order")
        self.order = state[1].decode() if isinstance(state[1], bytes) else state[1]
        if any(part is not None for part in state[2:5]):
            raise _RefusedError("a NumPy array of records (structured dtype)")

    def numpy(self) -> np.dtype:
        if (
            not isinstance(self.kind, str)
            or not _KINDS.fullmatch(self.kind)
            or self.order not in ("=", "<", ">", "|")
        ):
            raise _RefusedError(f"the NumPy dtype {excerpt(self.kind)!r}")
        return np.dtype(self.kind).newbyteorder(self.order)


class _Array:
    """Stand-in for numpy.ndarray: shape, type and bytes (or, for objects, a list)."""

    def __init__(self) -> None:
        self.shape: tuple = ()
        self.dtype: _Dtype | None = None
        self.fortran, self.data = False, None
        self.axes: tuple | None = None

    def set_state(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise ValueError("an array without shape, type and bytes")
        shape, self.dtype, self.fortran, self.data = state[-4:]
        self.set_shape(shape)

    def set_shape(self, shape: Any) -> None:
        shape = shape if isinstance(shape, tuple) else (shape,)
        if len(shape) > _DIMENSIONS or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise ValueError(f"an array of shape {excerpt(shape)}")
        self.shape = shape

    def numpy(self, resolver: _Resolver, depth: int) -> np.ndarray:
        if not isinstance(self.dtype, _Dtype):
            raise ValueError("an array without a type")
        dtype, shape = self.dtype.numpy(), self.shape
        count = math.prod(shape)
        if dtype.hasobject:
            if not isinstance(self.data, list) or len(self.data) != count:
                raise ValueError(f"an object array of shape {shape} without its {count} objects")
            resolver.budget.spend(operations=count)
            flat = np.empty(count, object)
            for place, item in enumerate(self.data):  # one by one: an item may be a list
                flat[place] = resolver.resolve(item, depth)
        else:
            flat = _from_bytes(self.data, dtype, count, shape, resolver.budget)
        array = flat.reshape(shape, order="F" if self.fortran else "C")
        return array if self.axes is None else array.transpose(self.axes)


def _from_bytes(data: Any, dtype: np.dtype, count: int, shape: tuple, budget: _Budget) -> np.ndarray:
    if isinstance(data, _Encoded):
        data = data.read(budget)
    if not isinstance(data, (bytes, _Span)):
        raise ValueError("an array without its bytes")
    length = data.count if isinstance(data, _Span) else len(data)
    if length != count * dtype.itemsize:
        raise ValueError(f"an array of shape {shape} and type {dtype} with {length} bytes")
    if count == 0:
        return np.zeros(0, dtype)
    source, start = (data.content, data.start) if isinstance(data, _Span) else (data, 0)
    array = np.frombuffer(source, dtype, count, start)
    if dtype.kind == "U" and array.view(np.dtype("u4").newbyteorder(dtype.byteorder)).max() > sys.maxunicode:
        raise ValueError(f"an array of texts of shape {shape} with numbers that are no characters")
    return array


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    return _Array()


def _from_buffer(data: Any, dtype: _Dtype, shape: Any, order: str, axes: Any = None) -> _Array:
    """NumPy's own, of protocol 5: `axes` are those of a transposed array, which NumPy 2.4 writes with order `K`."""
    array = _Array()
    if axes is not None and order == "K":
        if not isinstance(axes, tuple) or sorted(axes) != list(range(len(shape))):
            raise ValueError(f"an array with the axes {excerpt(axes)}")
        array.axes = axes
    array.set_state((shape, dtype, order == "F", data))
    return array


class _Scalar:
    """Stand-in for a NumPy number or string."""

    def __init__(self, dtype: _Dtype, data: Any = b"") -> None:
        self.dtype, self.data = dtype, data

    def numpy(self, budget: _Budget) -> Any:
        if not isinstance(self.dtype, _Dtype):
            raise ValueError("a NumPy number without a type")
        dtype = self.dtype.numpy()
        if dtype.hasobject:
            raise _RefusedError("a NumPy scalar of objects")
        return _from_bytes(self.data, dtype, 1, (), budget)[0] if dtype.itemsize else dtype.type()


def _encode(text: Any, encoding: str = "utf-8") -> Any:
    """`_codecs.encode`, with which protocols 0 to 2 write bytes."""
    if encoding not in ("latin1", "latin-1", b"latin1"):
        raise _RefusedError(f"the encoding {excerpt(encoding)!r}")
    return _Encoded(text) if isinstance(text, _Span) else text.encode("latin-1")


def _no_bytes() -> bytes:
    """`bytes()`, with which protocols 0 to 2 write b""; never `bytes(n)`."""
    return b""


def _dict(pairs: Any = ()) -> dict:
    """`OrderedDict`, empty or with the pairs that Python 2 gave it."""
    return {_key(key): value for key, value in _items(pairs)}


def _set(items: Any = ()) -> set:
    return {_key(item) for item in _items(items)}


def _items(value: Any) -> list | tuple:
    if not isinstance(value, list | tuple):
        raise ValueError(f"the items of a container as {type(value).__name__}")
    return value


def _key(value: Any) -> Any:
    """A key of a dict or an item of a set. Nothing nested: its hash alone could take for ever."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")  # a string of Python 2
    if isinstance(value, tuple) and not any(isinstance(part, tuple) for part in value):
        return tuple(map(_key, value))
    if not isinstance(value, str | int | float | _Scalar | None):
        raise ValueError(f"a key of type {type(value).__name__}")
    return value


class _Name:
    """A name of `_KNOWN` as it lies on the pickle's stack: it can be called, and nothing else."""

    def __init__(self, name: str, function: Callable) -> None:
        self.name, self.function = name, function


_BUILTINS: dict[str, Callable] = {
    "dict": _dict,
    "list": lambda items=(): list(_items(items)),
    "tuple": lambda items=(): tuple(_items(items)),
    "set": _set,
    "frozenset": lambda items=(): frozenset(_set(items)),
    "complex": lambda real, imaginary: complex(float(real), float(imaginary)),
}
_KNOWN: dict[tuple[str, str], Callable] = {
    ("builtins", "bytes"): _no_bytes,
    ("__builtin__", "bytes"): _no_bytes,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): _dict,
    ("collections", "defaultdict"): lambda factory=None: {},
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
    **{
        (module, name): function
        for module in ("builtins", "__builtin__")
        for name, function in _BUILTINS.items()
    },
}


class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined]  # the Python one: the C one trusts lengths
    dispatch: ClassVar[dict] = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]
    # Attributes of the base class, which has no types.
    _unframer: Any
    read: Any
    append: Any
    pop_mark: Any
    stack: list[Any]

    def __init__(self, reader: _Reader, budget: _Budget) -> None:
        super().__init__(reader, encoding="bytes")
        self.reader, self.budget = reader, budget
        self.fresh: set[int] = set()  # ids of arrays and types whose state is still to come

    def load(self) -> Any:
        """As the base class, with every operation counted."""
        self._unframer = pickle._Unframer(self.reader.read, self.reader.readline)  # type: ignore[attr-defined]
        self.read, self.readinto = self._unframer.read, self._unframer.readinto
        self.readline = self._unframer.readline
        self.metastack: list[Any] = []
        self.stack = []
        self.append = self.stack.append
        self.proto = 0
        try:
            while key := self.read(1):
                self.budget.spend(operations=1)
                if key[0] not in self.dispatch:
                    raise ValueError(f"the operation {key!r} at byte {self.reader.at}")
                self.dispatch[key[0]](self)
        except pickle._Stop as stop:  # type: ignore[attr-defined]
            return stop.value
        raise EOFError(f"after {self.reader.at} bytes")

    def find_class(self, module: str | bytes, name: str | bytes) -> Any:
        module, name = (part.decode() if isinstance(part, bytes) else part for part in (module, name))
        if (module, name) not in _KNOWN:
            raise _RefusedError(f"{module}.{name}")
        return _Name(name, _KNOWN[module, name])

    def _call(self, name: Any, arguments: Any) -> None:
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise ValueError(f"a call of {type(name).__name__}")
        for value in arguments:
            if isinstance(value, list | tuple | str):
                self.budget.spend(operations=0 if isinstance(value, str) else len(value), size=len(value))
        made = name.function(*arguments)
        if isinstance(made, _Array | _Dtype):
            self.fresh.add(id(made))
        self.append(made)

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self._call(self.stack.pop(), arguments)

    def load_newobj_ex(self) -> None:
        raise _RefusedError("an object with arguments by name")

    def _instantiate(self, name: Any, arguments: Any) -> None:
        self._call(name, tuple(arguments))

    def load_build(self) -> None:
        """The state of an array or a type of arrays: once, and of nothing else."""
        state = self.stack.pop()
        made = self.stack[-1]
        if id(made) not in self.fresh or not isinstance(made, _Array | _Dtype):
            raise _RefusedError(
                f"a state for {made.name if isinstance(made, _Name) else type(made).__name__}"
            )
        self.fresh.remove(id(made))
        made.set_state(state)

    def load_mark(self) -> None:
        if len(self.metastack) > _DEPTH:
            raise _ExcessError(f"containers nested more than {_DEPTH} deep")
        super().load_mark()  # type: ignore[misc]

    def load_empty_set(self) -> None:
        self.budget.spend(operations=3)  # by the memory it takes
        super().load_empty_set()  # type: ignore[misc]

    def load_dict(self) -> None:
        items = self.pop_mark()  # which makes `append` another
        self.append(_dict(_pairs(items)))

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update([(key, value)])

    def load_setitems(self) -> None:
        self._update(_pairs(self.pop_mark()))

    def _update(self, pairs: list[tuple]) -> None:
        if not isinstance(self.stack[-1], dict):
            raise ValueError(f"a key for {type(self.stack[-1]).__name__}")
        self.stack[-1].update(_dict(pairs))

    def load_additems(self) -> None:
        items = self.pop_mark()
        self.stack[-1].update(_set(items))

    def load_frozenset(self) -> None:
        items = self.pop_mark()
        self.append(frozenset(_set(items)))

    def load_long1(self) -> None:
        self._number(self._length(1))

    def load_long4(self) -> None:
        self._number(self._length(4, signed=True))

    def _number(self, width: int) -> None:
        if not 0 <= width <= _NUMBER_BYTES:
            raise ValueError(f"a number of {width} bytes")
        self.append(self._length(width, signed=True))

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
        self.append(self._bytes(self._length(4, signed=True)))

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
        (pickle.MARK, load_mark),
        (pickle.EMPTY_SET, load_empty_set),
        (pickle.REDUCE, load_reduce),
        (pickle.NEWOBJ, load_reduce),
        (pickle.NEWOBJ_EX, load_newobj_ex),
        (pickle.BUILD, load_build),
        (pickle.DICT, load_dict),
        (pickle.SETITEM, load_setitem),
        (pickle.SETITEMS, load_setitems),
        (pickle.ADDITEMS, load_additems),
        (pickle.FROZENSET, load_frozenset),
        (pickle.LONG1, load_long1),
        (pickle.LONG4, load_long4),
    ):
        dispatch[_code[0]] = _load


def _pairs(items: list) -> list[tuple]:
    """Keys and values in turn, as a stack holds them."""
    return list(zip(items[::2], items[1::2], strict=True))


class _Resolver:
    """Replaces the stand-ins by what they stand for, in containers within containers."""

    def __init__(self, budget: _Budget) -> None:
        self.budget = budget
        self.memo: dict[int, tuple[Any, Any]] = {}

    def resolve(self, value: Any, depth: int) -> Any:
        """`value` without stand-ins; lists and dicts are changed in place."""
        if isinstance(value, (str, int, float, bytes, complex, type(None))):
            return value
        if id(value) in self.memo:
            return self.memo[id(value)][1]
        if depth > _DEPTH:
            raise _ExcessError(f"containers nested more than {_DEPTH} deep")
        self.budget.spend(operations=1)
        if isinstance(value, (dict, list, tuple, set, frozenset)) and not value:
            return value
        if isinstance(value, (dict, list)):
            self.memo[id(value)] = value, value
            self._fill(value, depth + 1)
            return value
        done: Any
        if isinstance(value, _Array):
            done = value.numpy(self, depth + 1)
        elif isinstance(value, _Span):
            self.budget.spend(size=value.count)
            done = value.text() if value.utf8 else value.read()
        elif isinstance(value, (_Encoded, _Scalar)):
            done = value.read(self.budget) if isinstance(value, _Encoded) else value.numpy(self.budget)
        elif isinstance(value, _Dtype):
            done = value.numpy()
        elif isinstance(value, (tuple, set, frozenset)):
            done = type(value)(self.resolve(item, depth + 1) for item in value)
        else:
            name = value.name if isinstance(value, _Name) else type(value).__name__
            raise _RefusedError(f"{name} where a value was expected")
        # The value is kept too, as its id must stay its own. Or a chain of pairs would be walked 2^n times.
        self.memo[id(value)] = value, done
        return done

    def _fill(self, value: dict | list, depth: int) -> None:
        if isinstance(value, list):
            value[:] = [self.resolve(item, depth) for item in value]
            return
        for key in list(value):
            value[key] = self.resolve(value[key], depth)
        keys = {key: self.resolve(key, depth) for key in value if isinstance(key, (_Scalar, tuple))}
        for key, new in keys.items():
            value[new] = value.pop(key)
