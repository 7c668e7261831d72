"""One table in four renderings, and the table of models by metric."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from deepmlf_kit.rendering.tables import Table, number
from deepmlf_kit.training.metric_table import metric_table

TABLE = Table(
    ["model", "MAE ↓"], [["a|b_<1>", "0.5 ± 0.1"], ["50 %", 1]], bold={(0, 1)}, notes=["† their & ours"]
)
NAN = float("nan")


def drawn(shown: Any, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, force_terminal=True, width=width).print(shown)
    return out.getvalue()


def test_markdown_escapes_bars_and_ends_with_the_notes():
    assert TABLE.markdown() == (
        "| model | MAE ↓ |\n| --- | --- |\n| a\\|b_<1> | **0.5 ± 0.1** |\n| 50 % | 1 |\n\n† their & ours\n"
    )


def test_html_escapes_cells_and_names_rows():
    made = TABLE.html()
    assert "<th scope='row'>a|b_&lt;1&gt;</th><td><b>0.5 ± 0.1</b></td>" in made
    assert "<th scope='col'>MAE ↓</th>" in made and "<p>† their &amp; ours</p>" in made


def test_latex_escapes_what_latex_would_read():
    made = TABLE.latex()
    assert r"a|b\_<1> & \textbf{0.5 $\pm$ 0.1} \\" in made and r"50 \% & 1 \\" in made
    assert r"\begin{tabular}{lr}" in made and r"MAE $\downarrow$" in made
    assert r"{\footnotesize $^\dagger$ their \& ours} \\" in made
    assert Table(["a"], [["x_{1}^2~$y\\z"]]).latex().splitlines()[5] == (
        r"x\_\{1\}\textasciicircum{}2\textasciitilde{}\$y\textbackslash{}z \\"
    )


def test_the_terminal_shows_brackets_as_they_are_and_bold_cells_bold():
    made = drawn(Table(["", "interval"], [["[bold]x", "0.5 [a, b]"]], bold={(0, 1)}).terminal("Title [1]"))
    assert "[bold]x" in made and "\x1b[1m0.5 [a, b]" in made and "Title [1]" in made


def test_columns_that_matter_least_are_left_out_of_a_narrow_terminal():
    table = Table(["name", "wide column", "rest"], [["a", "x" * 30, "y" * 30]])
    assert "left out" not in drawn(table.terminal(width=80, expendable=["rest"]))
    narrow = drawn(table.terminal(width=50, expendable=["rest"]), 50)
    assert (
        "y" not in narrow.split("left out")[0]
        and "x" * 30 in narrow
        and "left out at this width: rest" in narrow
    )


def test_a_number_that_is_none_is_a_dash():
    assert [number(0.12345), number(2, 1), number(NAN)] == ["0.123", "2.0", "-"]


def test_the_best_of_a_column_is_bold_whichever_way_it_counts():
    made = metric_table({"a": {"MAE": 1.0, "Corr": 0.1}, "b": {"MAE": (2.0, 0.1), "Corr": (0.9, 0.8, 1.0)}})
    assert made.header == ["", "MAE ↓", "Corr ↑"] and made.bold == {(0, 1), (1, 2)}
    assert made.rows[1] == ["b", "2.000 ± 0.100", "0.900 [0.800, 1.000]"]


@pytest.mark.parametrize("order", [("a", "b", "c"), ("c", "b", "a")])
def test_a_metric_that_is_nan_never_wins(order: tuple[str, ...]):
    scores = {"a": {"Corr": NAN}, "b": {"Corr": 0.2}, "c": {"Corr": 0.1}}
    made = metric_table({name: scores[name] for name in order})
    assert {order[i] for i, _ in made.bold} == {"b"}


def test_one_model_alone_has_no_best_and_published_numbers_never_win():
    assert not metric_table({"a": {"MAE": 1.0}}).bold
    rows = {"a": {"MAE": 1.0}, "b": {"MAE": 0.9}, "theirs": {"MAE": 0.1, "seconds": 3.0}}
    made = metric_table(rows, published={"theirs": "a paper"})
    assert made.bold == {(1, 1)} and made.rows[2] == ["theirs †", "0.100"]
    assert made.notes == ["† their numbers, as published: a paper"]


def test_columns_may_be_chosen():
    made = metric_table({"a": {"MAE": 1.0, "Corr": 0.5}, "b": {"Corr": 0.6}}, ["Corr", "MAE"])
    assert made.header == ["", "Corr ↑", "MAE ↓"] and made.rows[1] == ["b", "0.600", "-"]


def test_what_looks_like_markup_or_steers_a_terminal_is_shown_as_it_is():
    console = Console(width=80, record=True, file=io.StringIO())
    table = Table(["[/x] head", ""], [("[laughs]", "\x1b[31m")], notes=["[/y] note"])
    console.print(table.terminal("a [/z] title"))
    shown = console.export_text()
    assert all(part in shown for part in ("[/x] head", "[laughs]", "\\x1b[31m", "[/y] note", "a [/z] title"))
