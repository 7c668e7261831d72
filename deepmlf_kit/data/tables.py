"""Tables in the terminal that stay readable at any width: what `inspect` draws.

A heading breaks between words, never inside one; where a table is wider than the terminal, the columns that
matter least are left out, and a line below says which.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

_BETWEEN = 3  # a border and a space on either side of a cell


def fitted_table(
    title: str, table: pd.DataFrame, width: int, expendable: Sequence[str] = ()
) -> RenderableType:
    """A data frame as a rich table.

    Args:
        width: of the terminal, in characters.
        expendable: columns to leave out where the table is wider, in this order.
    """
    table = table.reset_index()
    cells = {str(name): [shown(value, str(name)) for value in table[name]] for name in table.columns}
    # The narrowest a column can be: its longest word above, its longest cell below.
    narrow = {
        name: max(map(len, [*name.split(), *column]), default=len(name)) for name, column in cells.items()
    }
    left_out = []
    for name in (name for name in expendable if name in cells):
        if sum(narrow[kept] + _BETWEEN for kept in cells) + 1 <= width:
            break
        left_out.append(name)
        del cells[name]
    whole = {name: max(len(name), narrow[name]) for name in cells}
    tight = sum(size + _BETWEEN for size in whole.values()) + 1 > width
    out = Table(title=title, title_justify="left", header_style="bold", box=box.ROUNDED)
    words = {"split", "of", "modality", "dim", "remark", "class"}
    for name in cells:
        size = narrow[name] if tight else whole[name]
        out.add_column(name, justify="left" if name in words else "right", width=size)
    for row in zip(*cells.values(), strict=True):
        out.add_row(*row)
    if not left_out:
        return out
    return Group(
        out, f"left out at this width: {', '.join(left_out)} (all with --json, or in a wider terminal)"
    )


def histogram_table(labels: pd.DataFrame, width: int) -> RenderableType:
    """One row a bin and one column a split: how many utterances, and a bar."""
    out = Table(title="Labels", title_justify="left", header_style="bold", box=box.ROUNDED)
    out.add_column("label")
    digits = max((len(str(labels[split].max())) for split in labels.columns), default=1)
    names = max(map(len, map(str, labels.index)), default=0)
    room = (width - 1 - names - _BETWEEN) // max(len(labels.columns), 1) - _BETWEEN - digits - 1
    longest = max(4, min(16, room))
    for split in labels.columns:
        out.add_column(str(split), justify="left")
    for name, row in labels.iterrows():
        bars = [f"{n:>{digits}} {'█' * round(longest * n / max(labels[s].max(), 1))}" for s, n in row.items()]
        out.add_row(str(name), *bars)
    return out


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
