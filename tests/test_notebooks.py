"""The notebooks are as promised: short, light, readable, offline; that they run is what `make test-notebooks` tests."""

import ast
import base64
import importlib.util
import json
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
STAGES = [
    "00_five_minutes",
    "03_voice_and_face",
    "04_train",
    "06_inside",
    "07_the_papers_claims",
    "08_your_data",
    "08b_your_clips",
]
NOTEBOOKS = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|Users|usr|var|opt|mnt)/[\w.-]+|[A-Z]:\\\\")
SECONDS = re.compile(r"\b\d+(?:\.\d+)?\s?(?:it/s|s/it|ms/step)\b|\b\d+:\d\d<|elapsed|wall time", re.I)


@pytest.fixture(params=STAGES)
def book(request):
    return nbformat.read(NOTEBOOKS[request.param], as_version=4)


def code(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def texts_of(book):
    """Everything that was printed or shown as text."""
    for cell in code(book):
        for output in cell.outputs:
            if output.output_type == "stream":
                yield cell, output.text
            else:
                for kind, value in output.get("data", {}).items():
                    if kind.startswith("text/") and "<video" not in str(value):
                        yield cell, str(value)


def test_all_are_there():
    assert list(NOTEBOOKS) == STAGES


def test_format_is_valid_and_kernel_is_any_python3(book):
    nbformat.validate(book)
    assert book.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("name", STAGES)
def test_file_is_light(name):
    assert NOTEBOOKS[name].stat().st_size < 1_000_000


def test_opens_with_what_is_learnt_and_how_long_it_takes(book):
    first = book.cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# 0")
    assert "**The question:**" in first.source
    assert "**What you will learn**" in first.source
    assert re.search(r"\*\*How long it takes:\*\* about \d+ minutes", first.source)


def test_has_15_to_30_short_cells(book):
    assert 15 <= len(book.cells) <= 30
    for cell in code(book):
        assert len(cell.source.splitlines()) <= 32, f"{cell.id} is long"
    assert sum(cell.cell_type == "markdown" for cell in book.cells) >= 8


def test_one_cell_says_which_recipe_or_run_and_which_data(book):
    presets = [cell for cell in code(book) if "preset" in cell.metadata.get("tags", [])]
    assert len(presets) == 1
    assert re.search(r'^(PRESET = "sample"|RUN = None)', presets[0].source, re.M)
    assert re.search(r"^(DATASET|CLIP) = None", presets[0].source, re.M)


def test_ends_with_exercises_whose_answers_are_folded(book):
    last = [n for n, cell in enumerate(book.cells) if cell.source.find("## Exercises") >= 0]
    assert last
    after = book.cells[last[-1] :]
    answers = [cell for cell in after if cell.cell_type == "code"]
    assert len(answers) >= 2
    assert after[-1].cell_type == "code"
    for cell in answers:
        assert "answer" in cell.metadata.tags
        assert cell.metadata.jupyter == {"source_hidden": True, "outputs_hidden": True}
    questions = "".join(cell.source for cell in after if cell.cell_type == "markdown")
    assert questions.count("<details>") == questions.count("</details>") == len(answers)


def test_code_parses_and_imports_only_what_there_is(book):
    for cell in code(book):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("deepmlf_kit"):
                assert importlib.util.find_spec(node.module), f"{cell.id}: {node.module}"


def test_was_run_from_top_to_bottom_without_an_error(book):
    assert any(cell.outputs for cell in code(book))
    assert [cell.execution_count for cell in code(book)] == list(range(1, len(code(book)) + 1))
    for cell in code(book):
        assert not [output for output in cell.outputs if output.output_type == "error"], cell.id
        assert not [o for o in cell.outputs if o.output_type == "stream" and o.name == "stderr"], cell.id
        if "nbval-check-output" in cell.metadata.get("tags", []):
            assert cell.outputs, f"{cell.id} is compared, but holds no output"


def test_outputs_hold_no_path_of_a_machine_and_no_timing(book):
    for cell, text in texts_of(book):
        assert not MACHINE_PATH.search(text), f"{cell.id}: {MACHINE_PATH.search(text).group()}"
        assert not SECONDS.search(text), f"{cell.id}: {SECONDS.search(text).group()}"


def test_every_figure_has_a_static_picture(book):
    figures = 0
    for cell in code(book):
        for output in cell.outputs:
            data = output.get("data", {})
            assert "application/vnd.jupyter.widget-view+json" not in data, cell.id
            if "application/vnd.plotly.v1+json" in data or "image/png" in data:
                figures += 1
                assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG"), cell.id
    assert figures >= 3


def test_links_lead_somewhere(book):
    for cell in book.cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\(([^)#:]+)\)", cell.source) + re.findall(
                r'src="([^":]+)"', cell.source
            ):
                assert (FOLDER / target).exists(), f"{cell.id}: {target}"


def test_names_no_outside_address_that_a_page_would_load(book):
    text = json.dumps([cell.source for cell in book.cells])
    assert not re.search(r"https?://(?!127\.0\.0\.1)", text)


def test_readme_lists_every_notebook():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((\w+)\.ipynb\)", page) == STAGES


def test_cleaning_drops_bars_and_adds_pictures_beside_figures(monkeypatch):
    import sys

    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    sys.modules.pop("run_notebooks", None)
    import run_notebooks

    monkeypatch.setattr(run_notebooks, "picture_of", lambda figure: "cGljdHVyZQ==")
    figure = {"data": [], "layout": {}}
    outputs = [
        nbformat.v4.new_output(
            "display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "0%"}
        ),
        nbformat.v4.new_output("stream", name="stderr", text="a warning"),
        nbformat.v4.new_output("execute_result", {run_notebooks.PLOTLY: figure}, execution_count=7),
    ]
    cell = nbformat.v4.new_code_cell("fig", execution_count=7, outputs=outputs)
    book = nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {"state": 1}})
    run_notebooks.clean(book)
    (kept,) = book.cells[0].outputs
    assert kept.data[run_notebooks.PNG] == "cGljdHVyZQ=="
    assert kept.data[run_notebooks.PLOTLY] == figure
    assert kept.execution_count == book.cells[0].execution_count == 1  # by place, not by what was run before
    assert "widgets" not in book.metadata


def test_a_path_of_this_machine_in_an_output_is_refused(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import run_notebooks

    cell = nbformat.v4.new_code_cell(
        "x", outputs=[nbformat.v4.new_output("stream", text="saved in /home/me/run")]
    )
    with pytest.raises(SystemExit, match="/home/me"):
        run_notebooks.clean(nbformat.v4.new_notebook(cells=[cell]))


def test_trainings_on_the_sample_set_are_made_anew_and_others_kept(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import run_notebooks

    for name in ("04-sample", "04-mosi", "06-sample"):
        (tmp_path / "runs" / name / "fused").mkdir(parents=True)
    run_notebooks.forget_runs(tmp_path / "04_train.ipynb")
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["04-mosi", "06-sample"]
