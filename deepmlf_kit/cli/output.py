"""What a subcommand prints: people get text, scripts get exactly one JSON object on stdout (`--json`)."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..training import Run

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


def plain(value: Any) -> Any:
    """`value` as JSON values: dataclasses and mappings as objects, arrays as lists, NaN and infinities as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, str | bool) or value is None:
        return value
    if hasattr(value, "tolist"):  # a numpy array or number, or a tensor
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else repr(value)


@contextlib.contextmanager
def stdout_reserved_for_json(as_json: bool) -> Iterator[None]:
    """While work runs under `--json`, whatever prints to stdout (libraries too) goes to stderr."""
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        yield


def print_json(value: Any) -> None:
    """One JSON object, on one line, on stdout; as ASCII where stdout is not in UTF-8."""
    ascii = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "") != "utf8"
    print(json.dumps(plain(value), ensure_ascii=ascii, allow_nan=False))


def print_metrics(metrics: Mapping[str, float], title: str) -> None:
    """The field's metrics as a table of one row for each, under their usual names."""
    from rich.console import Console

    from ..rendering.tables import Table, number
    from ..training.metrics import HEADINGS

    rows = [[heading, number(metrics[name], 4)] for name, (heading, _) in HEADINGS.items() if name in metrics]
    Console().print(Table(["", title], rows).terminal(frame=False))


def print_run(run: Run, as_json: bool, after: str) -> None:
    """The result of a training: metrics of its best checkpoint, its folder, and what to do `after` it."""
    if as_json:
        print_json({"run": run.path, "metrics": run.metrics, "best": run.info.get("best")})
        return
    print_metrics(run.metrics, run.path.name)
    print(f"Run folder: {run.path}\n{after}")
