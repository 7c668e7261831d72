"""One table, four renderings: Markdown, LaTeX, HTML and the terminal.

Whoever has figures to show builds a `Table` of header and rows and renders it where it is needed.
`training.metric_table` builds the one of models by metric.
"""

from __future__ import annotations

import html
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from ..errors import printable

_BETWEEN = 3  # characters of a terminal's table between two cells: a border and a space on either side
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {sign: f"\\{sign}" for sign in "&%#_${}"}
_LATEX |= {"↑": r"$\uparrow$", "↓": r"$\downarrow$", "±": r"$\pm$", "†": r"$^\dagger$", "–": "--"}


@dataclass(frozen=True)
class Table:
    """A table of plain text.

    Attributes:
        header: one heading a column.
        rows: cells, each shown by `str`; the first of a row names it.
        bold: (row, column) of cells to set in bold.
        left: columns aligned left; all others are aligned right (in Markdown the page decides).
        notes: lines below the table.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    bold: Collection[tuple[int, int]] = ()
    left: Collection[int] = (0,)
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        """The table in Markdown, ending in a new line."""
        body = [
            [f"**{cell}**" if (i, j) in self.bold else cell for j, cell in enumerate(row)]
            for i, row in enumerate(self._cells(lambda text: text.replace("|", "\\|")))
        ]
        lines = [[name.replace("|", "\\|") for name in self.header], ["---"] * len(self.header), *body]
        text = "".join("| " + " | ".join(line) + " |\n" for line in lines)
        return text + "".join(f"\n{note}\n" for note in self.notes)

    def latex(self) -> str:
        r"""A LaTeX `tabular` (needs `\usepackage{booktabs}`), ending in a new line."""
        columns = "".join("l" if j in self.left else "r" for j in range(len(self.header)))
        lines = [r"% needs \usepackage{booktabs}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
        lines += [rf"{' & '.join(map(_latex, self.header))} \\", r"\midrule"]
        for i, row in enumerate(self._cells(_latex)):
            cells = [rf"\textbf{{{cell}}}" if (i, j) in self.bold else cell for j, cell in enumerate(row)]
            lines.append(rf"{' & '.join(cells)} \\")
        lines.append(r"\bottomrule")
        for note in self.notes:
            span = rf"\multicolumn{{{len(self.header)}}}{{p{{0.9\linewidth}}}}"
            lines.append(rf"{span}{{\footnotesize {_latex(note)}}} \\")
        return "\n".join([*lines, r"\end{tabular}"]) + "\n"

    def html(self) -> str:
        """The table for a page of `html_page`; a wide one scrolls on its own."""
        head = "".join(f"<th scope='col'>{html.escape(name)}</th>" for name in self.header)
        body = ""
        for i, row in enumerate(self._cells(html.escape)):
            cells = [f"<b>{cell}</b>" if (i, j) in self.bold else cell for j, cell in enumerate(row)]
            body += (
                f"<tr><th scope='row'>{cells[0]}</th>" + "".join(f"<td>{c}</td>" for c in cells[1:]) + "</tr>"
            )
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{notes}"

    def terminal(
        self,
        title: str = "",
        *,
        frame: bool = True,
        width: int | None = None,
        expendable: Collection[str] = (),
    ) -> RenderableType:
        """The table for a rich console.

        Args:
            title: a line above it.
            frame: draw borders.
            width: of the terminal in characters. A heading then breaks between words, never inside one.
            expendable: headings of columns to leave out where the table is wider than `width`, in this order; a line
                below says which.
        """
        rows = self._cells(printable)
        columns = list(range(len(self.header)))
        sizes: dict[int, int | None] = dict.fromkeys(columns)
        left_out = []
        if width is not None:
            # The narrowest a column can be: its longest word above, its longest cell below.
            narrow = {
                j: max(map(len, [*self.header[j].split(), *(row[j] for row in rows)]), default=0)
                for j in columns
            }
            for name in (name for name in expendable if name in self.header):
                if _taken(narrow[j] for j in columns) <= width:
                    break
                left_out.append(name)
                columns.remove(list(self.header).index(name))
            whole = {j: max(len(self.header[j]), narrow[j]) for j in columns}
            sizes |= narrow if _taken(whole.values()) > width else whole
            if _taken(narrow[j] for j in columns) > width:  # text breaks between words, numbers never
                sizes |= {
                    j: max(map(len, self._words(j, rows)), default=0) for j in columns if j in self.left
                }
        out = RichTable(
            title=Text(printable(title), style="table.title") if title else None,
            title_justify="left",
            header_style="bold",
            box=box.ROUNDED if frame else None,
            pad_edge=frame,
        )
        for j in columns:
            out.add_column(
                Text(self.header[j]), justify="left" if j in self.left else "right", width=sizes[j]
            )
        for i, row in enumerate(rows):
            out.add_row(*(Text(row[j], style="bold" if (i, j) in self.bold else "") for j in columns))
        below = list(self.notes)
        if left_out:
            below.append(
                f"left out at this width: {', '.join(left_out)} (all with --json, or in a wider terminal)"
            )
        return Group(out, *map(Text, below)) if below else out

    def _words(self, column: int, rows: Sequence[Sequence[str]]) -> list[str]:
        return [
            word for text in (self.header[column], *(row[column] for row in rows)) for word in text.split()
        ]

    def _cells(self, written: Any) -> list[list[str]]:
        return [[written(str(cell)) for cell in row] for row in self.rows]


def number(value: float, digits: int = 3) -> str:
    """A number with `digits` decimals; NaN as a dash."""
    return "-" if value != value else f"{value:.{digits}f}"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text.replace(" †", "†"))


def _taken(sizes: Any) -> int:
    """Characters that a framed table of columns of these sizes takes."""
    return sum(size + _BETWEEN for size in sizes) + 1
