"""Notebook 06 as a user has it: opened in JupyterLab, run, and its explorer's controls used."""

import os
from pathlib import Path

import nbformat
import pytest
from explorer_page import MEASURED, PICTURE, pick, redrawn, sentiment, watch
from jupyter_lab import THEMES, code_cell, jupyter_lab, open_notebook, run_all, run_cell, show

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(1200)]
NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "06_inside.ipynb"
PATIENCE = 180  # seconds for one thing; a busy machine is slow, not wrong
SEEN_BY_PYTHON = "print(explorer.index, explorer.view, explorer.effects_of, explorer.without, explorer.text)"
# Contrast (WCAG 2) of the page's ink with what lies behind it, for an element: 21 is black on white.
CONTRAST = """(element) => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => { const f = (x) => { x /= 255; return x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4; };
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
  let behind = element, paper = [0, 0, 0, 0];
  while (behind && (paper.length === 4 && paper[3] === 0)) {
    paper = parse(getComputedStyle(behind).backgroundColor); behind = behind.parentElement;
  }
  const style = getComputedStyle(element), ink = parse(element instanceof SVGElement ? style.fill : style.color);
  const [high, low] = [light(ink), light(paper)].sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05);
}"""


@pytest.fixture
def copy(tmp_path):
    """A copy of notebook 06 without outputs, with a last cell that prints what Python sees; the explorer's place."""
    book = nbformat.read(NOTEBOOK, as_version=4)
    book.cells.append(nbformat.v4.new_code_cell(SEEN_BY_PYTHON))
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    folder = tmp_path / "notebooks"
    folder.mkdir()
    nbformat.write(book, folder / NOTEBOOK.name)
    place = [i for i, cell in enumerate(book.cells) if "import Explorer" in cell.source]
    assert len(place) == 1
    return folder, place[0], len(book.cells) - 1


@pytest.mark.parametrize("theme", THEMES)
def test_notebook_06_runs_in_jupyterlab_and_its_explorer_answers(chromium, copy, tmp_path, theme):
    folder, place, last = copy
    with jupyter_lab(tmp_path / "lab", folder, theme, PATIENCE) as address:
        context = chromium.new_context(viewport={"width": 1400, "height": 1300})
        page = context.new_page()
        page.set_default_timeout(1000 * PATIENCE)
        troubles = watch(page)
        open_notebook(page, address, NOTEBOOK.name)
        run_all(page, seconds=600)
        show(page, place)
        page.wait_for_selector(".dmlf-explorer[data-drawn]")
        assert page.evaluate("document.body.dataset.jpThemeName") == theme
        assert page.locator(".dmlf-answer").evaluate(CONTRAST) >= 4.5
        assert page.locator(".dmlf-chart .xtick text").first.evaluate(CONTRAST) >= 3.5

        chart = page.locator(".dmlf-chart")
        pixels = [chart.screenshot()]
        pictures = [page.evaluate(PICTURE)]
        pictures += [pick(page, "layer", "0"), pick(page, "head", "1")]
        pixels.append(chart.screenshot())
        pictures += [pick(page, "view", "heads"), pick(page, "token", "3"), pick(page, "view", "words")]
        pixels.append(chart.screenshot())

        pictures.append(pick(page, "utterance", "5"))
        recorded, words = sentiment(page), page.input_value("[data-name=text]")
        changed = "I hate this terrible film"
        pictures.append(redrawn(page, lambda: page.fill("[data-name=text]", changed)))
        assert page.evaluate("document.querySelector('.dmlf-chart').data[0].x") == changed.split()
        assert sentiment(page) != recorded
        edited = sentiment(page)
        redrawn(page, lambda: page.uncheck("[data-name=use_vision]"))
        assert sentiment(page) != edited
        pictures.append(pick(page, "view", "timeline"))
        assert "no face" in chart.inner_text()
        pixels.append(chart.screenshot())
        redrawn(page, lambda: page.click("[data-name=reset]"))
        assert sentiment(page) == recorded and page.input_value("[data-name=text]") == words

        for of in ("modalities", "words"):  # measured by Python when asked for
            page.select_option("[data-name=view]", "effects")
            page.select_option("[data-name=effects_of]", of)
            page.wait_for_function(MEASURED)
            pictures.append(page.evaluate(PICTURE))
            pixels.append(chart.screenshot())
        if where := os.environ.get("DEEPMLF_SCREENSHOTS"):
            page.screenshot(path=str(Path(where) / f"explorer_{theme.split()[-1].lower()}.png"))

        run_cell(page, last, PATIENCE)
        assert "".join(code_cell(page, last)["printed"]).strip() == f"5 effects words [] {words}"
        assert len(set(pictures)) == len(pictures)
        assert len(set(pixels)) == len(pixels)
        assert not troubles
        context.close()
