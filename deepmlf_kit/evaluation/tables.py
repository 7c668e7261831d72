"""Tables for a paper or a page: models by metric, in Markdown and LaTeX, the best of ours in bold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..rendering.html_page import table_markdown
from ..training.metrics import HEADINGS

Cell = float | tuple[float, ...]


def markdown(rows: Mapping[str, Mapping[str, Cell]], theirs: Mapping[str, str] | None = None) -> str:
    """A Markdown table.

    Args:
        rows: model -> metric -> value, (mean, deviation) or (value, low, high). A value that is NaN is shown as not
            defined, a bound as a question mark.
        theirs: models whose numbers others published -> the source; marked with † and a note, never bold.
    """
    header, body = _cells(rows, theirs or {}, lambda text: f"**{text}**", lambda name: f"{name} †")
    text = table_markdown(header, body)
    for source in dict.fromkeys((theirs or {}).values()):
        text += f"\n† their numbers, as published: {source}\n"
    return text


def latex(rows: Mapping[str, Mapping[str, Cell]], theirs: Mapping[str, str] | None = None) -> str:
    r"""The same as a LaTeX tabular (needs `booktabs`)."""
    header, body = _cells(
        {_escape(name): row for name, row in rows.items()},
        {_escape(name): source for name, source in (theirs or {}).items()},
        lambda text: rf"\textbf{{{text}}}",
        lambda name: rf"{name}$^\dagger$",
    )
    arrows = {"↑": r"$\uparrow$", "↓": r"$\downarrow$", "±": r"$\pm$"}
    lines = [r"% needs \usepackage{booktabs}"]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule"]
    for i, line in enumerate([header, *body]):
        text = " & ".join(line)
        for sign, command in arrows.items():
            text = text.replace(sign, command)
        lines += [rf"{text} \\"] + ([r"\midrule"] if i == 0 else [])
    lines += [r"\bottomrule"]
    for source in dict.fromkeys((theirs or {}).values()):
        note = rf"\footnotesize $^\dagger$ their numbers, as published: {_escape(source)}"
        lines.append(rf"\multicolumn{{{len(header)}}}{{p{{0.9\linewidth}}}}{{{note}}} \\")
    lines += [r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def _cells(
    rows: Mapping[str, Mapping[str, Cell]], theirs: Mapping[str, str], bold: Any, mark: Any
) -> tuple[list[str], list[list[str]]]:
    names = [name for name in HEADINGS if any(name in row for row in rows.values())]
    best = {}
    for name in names:
        ours = [_value(row[name]) for model, row in rows.items() if name in row and model not in theirs]
        best[name] = best_of(name, ours) if len(ours) > 1 else None
    header = ["", *(f"{HEADINGS[name][0]} {'↑' if HEADINGS[name][1] else '↓'}" for name in names)]
    body = []
    for model, row in rows.items():
        line = [mark(model) if model in theirs else model]
        for name in names:
            text = _text(row[name]) if name in row else "-"
            is_best = name in row and model not in theirs and _value(row[name]) == best[name]
            line.append(bold(text) if is_best else text)
        body.append(line)
    return header, body


def best_of(metric: str, values: Sequence[float]) -> float | None:
    """The best value of a metric; NaN (a metric that is not defined) never is, and None where all are NaN."""
    defined = [value for value in values if not math.isnan(value)]
    return (max if HEADINGS[metric][1] else min)(defined, default=None)


def _value(cell: Cell) -> float:
    return cell[0] if isinstance(cell, tuple) else cell


def _text(cell: Cell) -> str:
    if math.isnan(_value(cell)):
        return "not defined"
    if not isinstance(cell, tuple):
        return f"{cell:.3f}"
    if len(cell) == 2:
        return f"{cell[0]:.3f} ± {cell[1]:.3f}"
    low, high = ("?" if math.isnan(bound) else f"{bound:.3f}" for bound in cell[1:])
    return f"{cell[0]:.3f} [{low}, {high}]"


def _escape(text: str) -> str:
    for sign in "&%#_":
        text = text.replace(sign, f"\\{sign}")
    return text
