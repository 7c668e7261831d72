"""Tables for a paper or a page: models by metric, in Markdown and LaTeX, our best in bold."""

from __future__ import annotations

from collections.abc import Mapping

from ..training.metric_table import Cell, metric_table


def markdown(rows: Mapping[str, Mapping[str, Cell]], theirs: Mapping[str, str] | None = None) -> str:
    """A Markdown table.

    Args:
        rows: model -> metric -> value, (mean, standard deviation) or (value, low, high). NaN is shown as "not defined",
            a NaN bound as a question mark.
        theirs: models with published results -> the source; marked with † and a note, never bold.
    """
    return metric_table(rows, published=theirs).markdown()


def latex(rows: Mapping[str, Mapping[str, Cell]], theirs: Mapping[str, str] | None = None) -> str:
    r"""The same as a LaTeX tabular (needs `booktabs`)."""
    return metric_table(rows, published=theirs).latex()
