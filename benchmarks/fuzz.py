"""Damaged and hostile files by the hundred: each must end in an answer or in one clear line, in time and in bounded memory.

    python benchmarks/fuzz.py clips [--count 300] [--seed 0] [--keep FOLDER]
    python benchmarks/fuzz.py pickles ...

Prints how many were tried, answered and refused in a clear line, and lists what must not happen: faults (a traceback, a
"defect of the kit", a message of many lines), hangs over 30 s, and memory above 2 GB. Exit code 1 where there was any.
The same seed makes the same files; `--keep` leaves those that failed in a folder. A part is a module of `fuzzing/` with
`cases(folder, seed)`, which gives names and files without end, and `Tester`, which tries one file.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepmlf_kit.errors import DeepMLFError

HANG = 30.0
"""Seconds after which a file counts as a hang."""
MEMORY = 2_000
"""Most memory that one file may take, in MB."""
PARTS = ("clips", "pickles")

# What no message for a user may hold.
_FAULTS = ("defect of the kit", "could not be processed", "Traceback", "unexpected ")


@dataclass
class Result:
    """What became of the files that were tried; the last three hold a line for each failure."""

    tried: int = 0
    answered: int = 0
    clear_errors: int = 0
    peak: float = 0.0
    slowest: float = 0.0
    faults: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    over_memory: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        return bool(self.faults or self.hangs or self.over_memory)

    def __str__(self) -> str:
        lines = [
            f"tried {self.tried}, answered {self.answered}, clear errors {self.clear_errors}, faults {len(self.faults)}, "
            f"hangs over {HANG:.0f} s {len(self.hangs)}, over {MEMORY / 1000:g} GB {len(self.over_memory)} "
            f"(peak {self.peak:.0f} MB, slowest {self.slowest:.1f} s)"
        ]
        return "\n".join([*lines, *self.faults, *self.hangs, *self.over_memory])


def fuzz(part: str, count: int, seed: int = 0, keep: Path | None = None) -> Result:
    """Try `count` files of a part (`clips` or `pickles`), made from `seed`; `keep`: a folder for those that failed."""
    module = importlib.import_module(f"fuzzing.{part}")
    result = Result()
    with tempfile.TemporaryDirectory() as folder, module.Tester(HANG) as tester:
        for name, path in itertools.islice(module.cases(Path(folder), seed), count):
            before = len(result.faults) + len(result.hangs) + len(result.over_memory)
            _try(tester, name, path, result)
            if keep is not None and len(result.faults) + len(result.hangs) + len(result.over_memory) > before:
                keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, keep / path.name)
            path.unlink(missing_ok=True)
    return result


def _try(tester: Any, name: str, path: Path, result: Result) -> None:
    result.tried += 1
    began = time.monotonic()
    try:
        tester.try_one(path)
    except TimeoutError as error:
        result.hangs.append(f"hang: {name}: {error}")
    except DeepMLFError as error:
        message = str(error)
        if "\n" in message or len(message) > 2000 or any(word in message for word in _FAULTS):
            result.faults.append(f"fault: {name}: {message[:300]!r}")
        else:
            result.clear_errors += 1
    except Exception as error:
        result.faults.append(f"fault: {name}: {type(error).__name__}: {str(error)[:300]!r}")
    else:
        result.answered += 1
    took = time.monotonic() - began
    result.slowest = max(result.slowest, took)
    peak = tester.peak()
    result.peak = max(result.peak, peak)
    if peak > MEMORY:
        result.over_memory.append(f"memory: {name}: {peak:.0f} MB")
        tester.restart()


def main() -> None:
    """Try the files and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the files that failed")
    given = parser.parse_args()
    result = fuzz(given.part, given.count, given.seed, given.keep)
    print(result)
    sys.exit(result.failed)


if __name__ == "__main__":
    main()
