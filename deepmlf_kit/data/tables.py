"""The tables that `inspect` draws in the terminal, readable at any width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from rich.console import RenderableType

from ..rendering.tables import Table

_WORDS = {"split", "of", "modality", "dim", "remark", "class"}  # columns of words, aligned left


def fitted_table(
    title: str, table: pd.DataFrame, width: int, expendable: Sequence[str] = ()
) -> RenderableType:
    """A data frame as a table for the terminal.

    Args:
        width: of the terminal, in characters.
        expendable: columns to leave out where the table is wider, in this order.
    """
    table = table.reset_index()
    header = [str(name) for name in table.columns]
    rows = [
        [shown(v, name) for v, name in zip(row, header, strict=True)] for row in table.itertuples(index=False)
    ]
    left = [j for j, name in enumerate(header) if name in _WORDS]
    return Table(header, rows, left=left).terminal(title, width=width, expendable=expendable)


def histogram_table(labels: pd.DataFrame, width: int) -> RenderableType:
    """One row a bin and one column a split: how many utterances, and a bar."""
    digits = max((len(str(labels[split].max())) for split in labels.columns), default=1)
    names = max(map(len, map(str, labels.index)), default=0)
    room = (width - 4 - names) // max(len(labels.columns), 1) - 4 - digits
    longest = max(4, min(16, room))
    rows = [
        [
            str(name),
            *(f"{n:>{digits}} {'█' * round(longest * n / max(labels[s].max(), 1))}" for s, n in row.items()),
        ]
        for name, row in labels.iterrows()
    ]
    header = ["label", *map(str, labels.columns)]
    return Table(header, rows, left=range(len(header))).terminal("Labels")


def shown(value: Any, column: str) -> str:
    """A cell: shares as percentages, whole numbers whole, others to three digits."""
    if isinstance(value, str):
        return value
    value = float(value)
    if value != value:
        return "–"
    if (
        (column.startswith("no ") and column != "no label")
        or column.endswith("missing")
        or column in ("zeros", "beyond 5 std", "clipped")
    ):
        return f"{value:.1%}"
    if value.is_integer() and abs(value) < 1e9:
        return f"{int(value)}"
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"
