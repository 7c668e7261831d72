"""Tables for a paper or a page: models by metric, in Markdown and LaTeX, the best of ours in bold."""

from __future__ import annotations

from collections.abc import Mapping

from ..training.metric_table import Cell, metric_table


def markdown(rows: Mapping[str, Mapping[str, Cell]], theirs: Mapping[str, str] | None = None) -> str:
    """A Markdown table.

    Args:
        rows: model -> metric -> value, (mean, deviation) or (value, low, high). A value that is NaN is shown as not
            defined, a bound as a question mark.
        theirs: models whose numbers others published -> the source; marked with † and a note, never bold.
    """
    return metric_table(rows, published=theirs).markdown()


def latex(rows: Mapping[str, Mapping[str, Cell]], theirs: Mapping[str, str] | None = None) -> str:
    r"""The same as a LaTeX tabular (needs `booktabs`)."""
    return metric_table(rows, published=theirs).latex()
