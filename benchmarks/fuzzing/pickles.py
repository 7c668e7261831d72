"""Damaged and hostile pickles: whole MMSA files with bytes changed, cut, repeated or copied as text; content that does
not fit; other kinds of files; and programs that ask for time, memory, depth or names."""

from __future__ import annotations

import json
import pickle
import random
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deepmlf_kit.data.mmsa import convert_mmsa
from deepmlf_kit.errors import DeepMLFError


def cases(folder: Path, seed: int) -> Iterator[tuple[str, Path]]:
    """Names and files of pickles, without end."""
    rng = random.Random(seed)
    kinds = (
        _changed,
        _changed,
        _cut,
        _repeated,
        _as_text,
        _misshapen,
        _rude_texts,
        _other_file,
        _program,
        _program,
    )
    number = 0
    while True:
        kind = kinds[number % len(kinds)]
        path = folder / f"{number:04}{kind.__name__}.pkl"
        path.write_bytes(kind(rng))
        yield path.name, path
        number += 1


class Tester:
    """Converts pickles as `prepare` does, in a process of its own. Use as a context manager.

    Args:
        patience: seconds after which a pickle counts as a hang.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience

    def __enter__(self) -> Tester:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._line(60.0)
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.wait()

    def try_one(self, path: Path) -> None:
        """Raises what a user would see, on one line as the command prints it; TimeoutError for a hang."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{path}\n".encode())
        self._process.stdin.flush()
        kind, message = self._line(self._patience)
        if kind == "refused":
            if not message.isprintable():
                raise ValueError("a message with control characters")
            raise DeepMLFError(message)
        if kind:
            raise RuntimeError(f"{kind}: {message}")

    def peak(self) -> float:
        """Most memory that the process has taken so far, in MB; 0 where the system does not say."""
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text()
        except OSError:
            return 0.0
        found = re.search(r"VmHWM:\s+(\d+)", status)
        return int(found[1]) / 1024 if found else 0.0

    def restart(self) -> None:
        """A new process, with memory as at the start."""
        self.__exit__()
        self.__enter__()

    def _line(self, seconds: float) -> list[str]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        line = self._process.stdout.readline() if ready else b""
        if line:
            return json.loads(line)
        gone = self._process.poll()
        self.restart()
        if ready:
            raise RuntimeError(f"the process ended ({gone})")
        raise TimeoutError(f"no answer in {seconds:.0f} s")


def _serve() -> None:
    """The process that converts: a path a line, and a line for what became of it."""
    print(json.dumps(["", "ready"]), flush=True)
    for line in sys.stdin:
        path = Path(line.strip())
        answer = ["", ""]
        try:
            convert_mmsa(path, path.with_suffix(".dataset"))
        except DeepMLFError as error:
            answer = ["refused", " ".join(str(error).split())]
        except Exception as error:
            answer = [type(error).__name__, str(error)[:300]]
        print(json.dumps(answer), flush=True)


def _content(rng: random.Random) -> dict:
    """A small MMSA file."""
    numbers = np.random.default_rng(rng.randrange(1 << 30))
    content = {}
    for split, n in (("train", 6), ("valid", 3), ("test", 4)):
        content[split] = {
            "id": [f"{split}{i}$_${i}" for i in range(n)],
            "raw_text": [f"this is text {i} 句子" for i in range(n)],
            "audio": numbers.normal(size=(n, 20, 5)).astype(np.float32),
            "vision": numbers.normal(size=(n, 20, 7)),
            "audio_lengths": [20] * n,
            "vision_lengths": np.full(n, 20),
            "regression_labels": numbers.uniform(-3, 3, n).astype(np.float32),
            "annotations": ["Neutral"] * n,
        }
    return content


def _whole(rng: random.Random) -> bytes:
    return pickle.dumps(_content(rng), protocol=rng.choice((0, 2, 4, 5)))


def _changed(rng: random.Random) -> bytes:
    data = bytearray(_whole(rng))
    for _ in range(rng.randrange(1, 12)):
        at = rng.randrange(min(len(data), 3000) if rng.random() < 0.5 else len(data))
        data[at] = rng.randrange(256) if rng.random() < 0.5 else data[at] ^ (1 << rng.randrange(8))
    return bytes(data)


def _cut(rng: random.Random) -> bytes:
    data = _whole(rng)
    return data[: rng.randrange(1, len(data))]


def _repeated(rng: random.Random) -> bytes:
    """A stretch of the file stands there many times, or is missing."""
    data = _whole(rng)
    first, last = sorted(rng.randrange(len(data)) for _ in range(2))
    return data[:first] + data[first:last] * rng.choice((0, 2, 50)) + data[last:]


def _as_text(rng: random.Random) -> bytes:
    data = _whole(rng)
    return rng.choice(
        (
            lambda: data.replace(b"\n", b"\r\n"),
            lambda: data.replace(b"\r\n", b"\n"),
            lambda: data.decode("latin-1").encode("utf-8"),
            lambda: data.decode("utf-8", "replace").encode("utf-8"),
        )
    )()


def _misshapen(rng: random.Random) -> bytes:
    content = _content(rng)
    data = content[rng.choice(("train", "valid", "test"))]
    key = rng.choice(list(data))
    values = [None, {"a": 1}, "text", 3, [None] * 3, np.zeros((0, 0)), np.array(None), [[1, 2], [3]], {1, 2}]
    values += [
        data[key][:-1],
        np.asarray(data[key])[None],
        np.asarray(data[key]).astype(str),
        [data[key]],
        float("inf"),
    ]
    values += [
        np.full(6, np.nan),
        np.full(6, 1e300),
        -np.ones(6),
        np.array([b"\xff"] * 6),
        np.zeros(6, complex),
    ]
    if rng.random() < 0.2:
        del data[key]
    else:
        data[key] = rng.choice(values)
    return pickle.dumps(content, protocol=rng.choice((0, 2, 4, 5)))


def _rude_texts(rng: random.Random) -> bytes:
    content = _content(rng)
    rude = [
        "\x1b[31mred",
        "a\0b",
        "\ud800",
        "x" * 100_000,
        "[/b] [link]",
        "\u202eback",
        "'; drop",
        "=1+1",
        "",
        b"\xff\xfe",
        None,
    ]
    for data in content.values():
        for key in ("id", "raw_text", "annotations"):
            data[key] = [rng.choice(rude) if rng.random() < 0.3 else text for text in data[key]]
        if rng.random() < 0.5:
            data[rng.choice([text for text in rude if isinstance(text, str)])] = rng.choice(rude)
    return pickle.dumps(content, protocol=rng.choice((2, 4)))


def _other_file(rng: random.Random) -> bytes:
    starts = [
        b"version https://git-lfs.github.com/spec/v1\n",
        b"<!DOCTYPE html>\n<html>",
        b'{"error": 1}',
        b"PK\x03\x04",
    ]
    starts += [
        b"\x1f\x8b\x08",
        b"BZh9",
        b"\x89HDF\r\n\x1a\n",
        b"\x93NUMPY\x01",
        b"\0" * 600,
        b"RIFF",
        b"\xff" * 9,
        b"id,text\n",
    ]
    return rng.choice(starts) + rng.randbytes(rng.randrange(2000))


def _program(rng: random.Random) -> bytes:
    """A program of pickle that asks for what no dataset needs; `n` is how much of it."""
    n = rng.choice((60, 2_000, 300_000))
    tuples = b"K\x01" + b"2\x86" * min(n, 2000)
    big = rng.choice((2**31 - 1, 2**40, 2**63 - 1))
    programs = [
        b"\x80\x04}" + tuples + b"K\x01s.",
        b"\x80\x04\x8f(" + tuples + b"\x90.",
        b"\x80\x04" + tuples + b".",
        b"\x80\x04" + b"]" * n + b"a" * (n - 1) + b".",
        b"\x80\x04}K\x01" + b"\x85" * n + b"K\x01s.",
        b"\x80\x04" + b"}K\x01" * n + b"s" * (n - 1) + b".",
        b"\x80\x04(" + b"\x8f" * (n * 10) + b"l.",
        b"\x80\x04" + b"(" * (n * 10) + b".",
        b"\x80\x04K\x01" + b"\x94" * (n * 10) + b".",
        b"\x80\x04(cbuiltins\nlist\nq\x000(" + b"K\x01" * n + b"lq\x010" + b"h\x00h\x01\x85R" * n + b"l.",
        b"\x80\x02(c_codecs\nencode\nq\x000X\x00\x00\x10\x00"
        + b"a" * 2**20
        + b"q\x010U\x06latin1q\x020"
        + b"h\x00h\x01h\x02\x86R" * n
        + b"l.",
        b"\x80\x02\x8b\x00\x00\x10\x00" + b"\x7f" * 2**20 + b".",
        b"\x80\x04\x8e" + big.to_bytes(8, "little") + b"abc.",
        b"\x80\x04\x95" + big.to_bytes(8, "little") + b"abc.",
        b"\x80\x04K\x01r\xff\xff\xff\xff.",
        b"cos\nsystem\n(S'echo'\ntR.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04echo\x85R.",
        b"cbuiltins\nexec\n(S'1'\ntR.",
        b"cnumpy\nndarray\n(N}(Vnumpy\nNutb.",
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'U999999999'\ntRS''\ntR.",
        b"cnumpy\ndtype\n(S'f4,f4'\ntR.",
        b"Pid\n.",
        b"\x82\x01.",
        b"I" + b"9" * n + b"\n.",
        b"cbuiltins\n" + b"x" * n + b"\x1b[31m\n.",
        b"\x80\x04]\x94h\x00a.",
        b"\x80\x04}\x94K\x01h\x00s.",
        rng.randbytes(200) + b".",
    ]
    return rng.choice(programs)


if __name__ == "__main__":
    _serve()
