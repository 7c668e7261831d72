"""Models by metric: the table of every comparison, in a report, a paper and the terminal alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..rendering.tables import Table, number
from .metrics import HEADINGS

Cell = float | tuple[float, ...]
"""A value, (mean, standard deviation) or (value, low, high)."""


def metric_table(
    rows: Mapping[str, Mapping[str, Cell]],
    columns: Sequence[str] | None = None,
    published: Mapping[str, str] | None = None,
    digits: int = 3,
) -> Table:
    """Build a table of models by metric. Where several models are compared, the best value of a column is bold.

    Args:
        rows: model -> metric -> value; other names than those of the field's metrics are left out.
        columns: metrics to show; None: those that any model has.
        published: models whose numbers others published -> the source; marked with † and a note, never bold.
        digits: decimals.
    """
    published = published or {}
    names = (
        columns if columns is not None else [m for m in HEADINGS if any(m in row for row in rows.values())]
    )
    ours = [model for model in rows if model not in published]
    bold = set()
    for j, name in enumerate(names, 1):
        values = {model: _value(rows[model][name]) for model in ours if name in rows[model]}
        values = {model: value for model, value in values.items() if value == value}  # NaN is never best
        if len(values) > 1:
            best = (max if HEADINGS[name][1] else min)(values.values())
            bold |= {(i, j) for i, model in enumerate(rows) if values.get(model) == best}
    return Table(
        ["", *(heading(name) for name in names)],
        [
            [
                f"{model} †" if model in published else model,
                *("-" if name not in row else cell_text(row[name], digits) for name in names),
            ]
            for model, row in rows.items()
        ],
        bold,
        notes=[f"† their numbers, as published: {source}" for source in dict.fromkeys(published.values())],
    )


def heading(name: str) -> str:
    """A metric's usual name, with an arrow to where it is better."""
    return f"{HEADINGS[name][0]} {'↑' if HEADINGS[name][1] else '↓'}"


def cell_text(cell: Cell, digits: int = 3) -> str:
    """A cell to read: `0.812`, `0.812 ± 0.010` (of one seed the mean alone) or `0.812 [0.790, 0.835]`."""
    value = _value(cell)
    if value != value:
        return "not defined"
    if not isinstance(cell, tuple) or (len(cell) == 2 and cell[1] != cell[1]):
        return number(value, digits)
    if len(cell) == 2:
        return f"{number(value, digits)} ± {number(cell[1], digits)}"
    low, high = ("?" if bound != bound else number(bound, digits) for bound in cell[1:])
    return f"{number(value, digits)} [{low}, {high}]"


def _value(cell: Cell) -> float:
    return cell[0] if isinstance(cell, tuple) else cell
