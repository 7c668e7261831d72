"""The notebooks are as promised: short, light, readable, offline; that they run is what `make test-notebooks` tests."""

import ast
import base64
import importlib.util
import io
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_mmsa_convert import make_mmsa

from deepmlf_kit.data.mmsa import convert_mmsa
from deepmlf_kit.evaluation.peers import published
from deepmlf_kit.plots.style import COLOURS, faint, figure

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
#: The course: predictions, exercises with a test cell, questions.
STAGES = [
    "00_five_minutes",
    "01_how_a_label_comes_about",
    "02_build_it",
    "03_voice_and_face",
    "04_train",
    "05_did_it_fuse",
    "06_inside",
    "07_the_papers_claims",
    "08_your_data",
]
#: Notebooks that read no data of the reader's.
WITHOUT_SETTINGS = {"01_how_a_label_comes_about", "02_build_it"}
LONGEST_LINE = 100
NOTEBOOKS = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}
#: Pages that a figure stands on: white, and JupyterLab's dark one.
PAPERS = ("#ffffff", "#111111")
#: CMU-MOSI's recipe on the embedded LM, as short as can be.
SHORT_MOSI = [
    *("lm.name=embedded", "lm.dtype=float32", "fusion.layers=[3, 5]", "fusion.heads=8", "fusion.ffw=full"),
    *("training.epochs=1", "training.batch_size=8", "training.accumulation=1"),
    *("pretraining.epochs=1", "pretraining.batch_size=8", "pretraining.accumulation=1"),
]
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|Users|usr|var|opt|mnt)/[\w.-]+|[A-Z]:\\\\")
SECONDS = re.compile(r"\b\d+(?:\.\d+)?\s?(?:it/s|s/it|ms/step)\b|\b\d+:\d\d<|elapsed|wall time", re.I)


@pytest.fixture
def scripts(monkeypatch):
    """`scripts/run_notebooks.py`."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    sys.modules.pop("run_notebooks", None)
    import run_notebooks

    return run_notebooks


@pytest.fixture(params=STAGES)
def book(request):
    return nbformat.read(NOTEBOOKS[request.param], as_version=4)


def prose(book):
    return [cell for cell in book.cells if cell.cell_type == "markdown"]


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


def test_has_15_to_40_short_cells(book):
    assert 15 <= len([cell for cell in book.cells if not cell.id.endswith("-colab")]) <= 40
    for cell in code(book):
        assert len(cell.source.splitlines()) <= 32, f"{cell.id} is long"
    assert sum(cell.cell_type == "markdown" for cell in book.cells) >= 8


@pytest.mark.parametrize("name", [name for name in STAGES if name not in WITHOUT_SETTINGS])
def test_one_cell_says_which_recipe_or_run_and_which_data(name):
    book = nbformat.read(NOTEBOOKS[name], as_version=4)
    presets = [cell for cell in code(book) if "preset" in cell.metadata.get("tags", [])]
    assert len(presets) == 1
    assert re.search(r'^(PRESET = "sample"|RUN = None)', presets[0].source, re.M)
    assert re.search(r"^(DATASET|CLIP) = None", presets[0].source, re.M)


def test_lines_of_code_fit_on_a_page(book):
    for cell in code(book):
        long = [line for line in cell.source.splitlines() if len(line) > LONGEST_LINE]
        assert not long, f"{cell.id}: {long}"


def test_asks_for_three_predictions_and_comes_back_to_each(book):
    (asked,) = [cell.source for cell in prose(book) if "## Before you run anything" in cell.source]
    assert re.findall(r"^(\d)\. ", asked, re.M) == ["1", "2", "3"]
    answers = [
        value
        for cell, value in texts_of(book)
        if re.match(r"<details><summary>[123]\. ", value) and value.rstrip().endswith("</details>")
    ]
    assert [value[len("<details><summary>")] for value in answers] == ["1", "2", "3"]


def test_explains_its_words_in_a_box(book):
    (box,) = [cell.source for cell in prose(book) if "> **Words you need**" in cell.source]
    assert len(re.findall(r"^> - \*\*", box, re.M)) >= 4


def exercises_of(book):
    """Each exercise's task, its cell for the answer and its test cell."""
    found = [n for n, cell in enumerate(book.cells) if "exercise" in cell.metadata.get("tags", [])]
    return [tuple(book.cells[n - 1 : n + 2]) for n in found]


def test_has_two_exercises_with_difficulty_minutes_and_a_test_cell(book):
    exercises = exercises_of(book)
    assert len(exercises) == 2
    for number, (task, answer, test) in enumerate(exercises, 1):
        assert re.search(rf"\*\*{number}\. [^*]+\*\* \((easy|medium|hard), \d+ minutes\)", task.source)
        assert re.fullmatch(r"\w+ = \.\.\.", answer.source)
        assert answer.id == f"{book.cells[0].source[2:4]}-exercise-{number}"
        assert "check(" in test.source and "check" in test.metadata.tags
        assert "Your turn" in "".join(output.get("text", "") for output in test.outputs)


def solutions():
    """The solutions of docs/teaching.md by the id of the cell they go into."""
    page = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^### (\w+-exercise-\d)\b.*?\n```python\n(.*?)```", page, re.M | re.S))


def test_every_exercise_has_a_solution_apart_from_the_notebook(book):
    for _, answer, _ in exercises_of(book):
        assert answer.id in solutions()


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", STAGES)
def test_solutions_pass_the_test_cells(name, tmp_path):
    from nbclient import NotebookClient

    book, solved = nbformat.read(NOTEBOOKS[name], as_version=4), solutions()
    for _, answer, _ in exercises_of(book):
        answer.source = solved[answer.id]
    (tmp_path / "results").symlink_to(FOLDER / "results")
    NotebookClient(book, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    for _, _, test in exercises_of(book):
        said = "".join(output.get("text", "") for output in test.outputs)
        assert said.rstrip().endswith("Right."), f"{test.id}: {said}"


def test_five_questions_have_folded_answers(book):
    (asked,) = [cell.source for cell in prose(book) if "## Five questions" in cell.source]
    numbers = re.findall(r"<details><summary><b>(\d)\.</b> [^\n]+</summary>\n\n[^\n]+\n\n</details>", asked)
    assert numbers == ["1", "2", "3", "4", "5"]
    assert "<details open" not in "".join(cell.source for cell in book.cells)


def test_one_picture_answers_without_a_kernel(book):
    figures = [
        output.data["application/vnd.plotly.v1+json"]
        for cell in code(book)
        for output in cell.outputs
        if "application/vnd.plotly.v1+json" in output.get("data", {})
    ]
    steps = [
        step
        for made in figures
        for control in [*made["layout"].get("sliders", []), *made["layout"].get("updatemenus", [])]
        for step in control.get("steps", control.get("buttons", []))
    ]
    assert len(steps) >= 2 and all(step["method"] in ("restyle", "update") for step in steps)


def test_measured_numbers_in_a_text_are_those_of_the_run(book):
    # A decimal or a percentage that the text states by itself must stand in the code or an output nearby: nothing is left from
    # another run.
    for place, cell in enumerate(book.cells):
        if cell.cell_type != "markdown":
            continue
        text = re.sub(r"`[^`]*`|\]\([^)]*\)|arXiv [\d.]+", " ", cell.source)
        nearby = [c for c in book.cells[max(0, place - 4) : place + 5] if c.cell_type == "code"]
        known = "\n".join(c.source for c in nearby) + "\n".join(
            value for c, value in texts_of(book) if c in nearby
        )
        for number in re.findall(r"(?<![\w.])\d+\.\d+(?![\w.]*\d)", text):
            assert number in known, f"{cell.id}: {number} is not what a cell nearby computed"
        for number in re.findall(r"(?<![\w.])(\d+) ?%(?! interval)", text):
            assert re.search(rf"(?<![\w.]){number} ?%", known), (
                f"{cell.id}: no cell nearby computed {number} %"
            )


def test_rendered_page_shows_every_picture(book):
    from nbconvert import HTMLExporter

    page, _ = HTMLExporter().from_notebook_node(book)
    pictures = re.findall(r'<img[^>]+src="([^"]+)"', page)
    assert len(pictures) >= 3
    for address in pictures:
        kind, _, content = address.partition(";base64,")
        assert kind.startswith("data:image/"), address[:80]
        if kind == "data:image/svg+xml":
            ElementTree.fromstring(base64.b64decode(content))
        else:
            Image.open(io.BytesIO(base64.b64decode(content))).verify()


def figures_of(book):
    for cell in code(book):
        for output in cell.outputs:
            if made := output.get("data", {}).get("application/vnd.plotly.v1+json"):
                yield cell, made


def contrast(ink: str, paper: str) -> float:
    """WCAG 2 contrast of two colours `#rrggbb`."""

    def luminance(colour: str) -> float:
        parts = np.array([int(colour[n : n + 2], 16) for n in (1, 3, 5)]) / 255
        return float(
            np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
            @ (0.2126, 0.7152, 0.0722)
        )

    low, high = sorted(luminance(colour) for colour in (ink, paper))
    return (high + 0.05) / (low + 0.05)


def colours_in(tree, place=""):
    """Each plain colour of a figure with the keys that lead to it; what stands on a paper of its own is left out."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key not in ("hoverlabel", "updatemenus", "colorscale", "template") and "bgcolor" not in key:
                yield from colours_in(value, f"{place}.{key}")
    elif isinstance(tree, list) and place.endswith("color"):
        yield from ((place, value) for value in tree if isinstance(value, str))
    elif isinstance(tree, list):
        for value in tree:
            yield from colours_in(value, place)
    elif isinstance(tree, str) and place.endswith("color"):
        yield place, tree


def test_figures_are_readable_on_light_and_dark_pages(book):
    for cell, made in figures_of(book):
        text = made["layout"]["template"]["layout"]["font"]["color"]
        found = [("text", text, 4.0)]
        found += [
            (place, colour, 2.9)
            for place, colour in colours_in({"data": made["data"], "layout": made["layout"]})
            if re.fullmatch("#[0-9a-f]{6}", colour)
        ]
        for place, colour, wanted in found:
            for paper in PAPERS:
                assert contrast(colour, paper) >= wanted, f"{cell.id}: {place} {colour} on {paper}"


def test_prose_has_no_long_dashes(book):
    for cell in book.cells:
        assert not re.search("[\u2013\u2014]", cell.source), cell.id


def test_opens_in_colab_and_installs_the_kit_there(book, scripts):
    before = json.dumps(book, sort_keys=True)
    scripts.with_colab(book)  # changes nothing where badge and cell are there
    assert json.dumps(book, sort_keys=True) == before, "run scripts/run_notebooks.py on it"
    assert book.cells[1].source == scripts.COLAB_CELL
    assert "[![Open in Colab](attachment:colab.svg)](https://colab" in book.cells[0].source


def test_the_install_cell_installs_the_kit_only_where_it_is_missing(scripts, monkeypatch):
    calls = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: calls.append(command))
    exec(scripts.COLAB_CELL, {})
    assert not calls
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AssertionError, match="address"):
        exec(scripts.COLAB_CELL, {})
    here = scripts.COLAB_CELL.replace('KIT = ""', 'KIT = "https://example.org/kit"')
    exec(here, {})
    assert calls[0][1:4] == ["-m", "pip", "install"]
    assert (
        calls[0][-1] == "deepmlf-kit[all] @ git+https://example.org/kit"
    )  # plain `deepmlf-kit` draws no figures


def settings_of(book):
    """The cell of settings; None where a notebook reads no data of the reader's."""
    return next((cell for cell in code(book) if "preset" in cell.metadata.get("tags", [])), None)


def trains(name):
    """Whether a notebook takes a recipe, a dataset and settings of the reader's."""
    cell = settings_of(nbformat.read(NOTEBOOKS[name], as_version=4))
    return cell is not None and all(
        f"\n{key} = " in f"\n{cell.source}" for key in ("PRESET", "DATASET", "OVERRIDES")
    )


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", [name for name in STAGES if name in NOTEBOOKS and trains(name)])
def test_trains_on_an_mmsa_pickle_of_5_and_20_dimensions(name, tmp_path):
    from nbclient import NotebookClient

    (tmp_path / "mosi.pkl").write_bytes(pickle.dumps(make_mmsa("mosi_unaligned", sizes=(48, 16, 40))))
    convert_mmsa(tmp_path / "mosi.pkl", tmp_path / "data")
    (tmp_path / "results").symlink_to(FOLDER / "results")
    book = nbformat.read(NOTEBOOKS[name], as_version=4)
    given = {"PRESET": "mosi", "OVERRIDES": SHORT_MOSI}
    cell = settings_of(book)
    given |= {"PICKLE": "mosi.pkl"} if "PICKLE = " in cell.source else {"DATASET": "data"}
    cell.source += "".join(f"\n{key} = {value!r}" for key, value in given.items())
    NotebookClient(book, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = "".join(value for _, value in texts_of(book))
    assert "av_encoder.audio_dim=5" in said and "av_encoder.vision_dim=20" in said


def test_stored_figures_of_mosei_texts_are_shown_beside_their_references(tmp_path, monkeypatch):
    book = nbformat.read(NOTEBOOKS["08_your_data"], as_version=4)
    (cell,) = [cell for cell in code(book) if "mosei_text" in cell.source]
    monkeypatch.chdir(tmp_path)
    said, drawn = [], []
    made = lambda *args, **options: drawn.append(figure(*args, **options)) or drawn[-1]  # noqa: E731
    monkeypatch.setattr("plotly.graph_objects.Figure.show", lambda self: None)
    names = {"np": np, "pd": pd, "Path": Path, "figure": made, "faint": faint, "COLOURS": COLOURS}
    names |= {"published": published, "say": said.append, "display": lambda *tables: said.extend(tables)}
    exec(cell.source, names)
    assert "Skipped" in said.pop() and not said

    (tmp_path / "results").mkdir()
    rows = [
        {"lm": lm, "ffw_on_text": on, "seed": seed, "MAE": 0.7, "Corr": start + 0.01 * seed, "minutes": 3.0}
        for lm, on, start in (("a", True, 0.3), ("a", False, 0.4), ("b", False, 0.5))
        for seed in range(3)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "results" / "mosei_text.csv", index=False)
    references = (FOLDER / "results" / "mosei_text_references.csv").read_text(encoding="utf-8")
    (tmp_path / "results" / "mosei_text_references.csv").write_text(references, encoding="utf-8")
    exec(cell.source, names)
    table, known, told = said
    assert table["Corr"]["mean"].to_dict() == {
        "a, FFW on text": 0.31,
        "a, no FFW on text": 0.41,
        "b, no FFW on text": 0.51,
    }
    assert "b, no FFW on text" in told and "0.510" in told and "0.020" in told
    assert set(known["source"]) and not known["source"].isna().any()
    assert {trace.name for trace in drawn[-1].data} == {"a training each", "references"}


def test_pictures_of_a_page_are_there(book):
    for cell in prose(book):
        pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", cell.source)
        pictures += re.findall(r'<img[^>]+src="([^"]+)"', cell.source)
        for target in pictures:
            held = target.removeprefix("attachment:")
            if held != target:
                assert held in cell.get("attachments", {}), f"{cell.id}: {target}"
            else:
                assert (FOLDER / target).is_file(), f"{cell.id}: {target}"


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
    # A link to Colab is followed by a click, and loads nothing by itself.
    text = text.replace("](https://colab.research.google.com/github/)", "")
    assert not re.search(r"https?://(?!127\.0\.0\.1)", text)


def test_readme_lists_every_notebook():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((\w+)\.ipynb\)", page) == STAGES


def test_cleaning_drops_bars_and_adds_pictures_beside_figures(monkeypatch, scripts):
    monkeypatch.setattr(scripts, "picture_of", lambda figure: "cGljdHVyZQ==")
    figure = {"data": [], "layout": {}}
    outputs = [
        nbformat.v4.new_output(
            "display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "0%"}
        ),
        nbformat.v4.new_output("stream", name="stderr", text="a warning"),
        nbformat.v4.new_output("execute_result", {scripts.PLOTLY: figure}, execution_count=7),
    ]
    cell = nbformat.v4.new_code_cell("fig", execution_count=7, outputs=outputs)
    book = nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {"state": 1}})
    scripts.clean(book)
    (kept,) = book.cells[0].outputs
    assert kept.data[scripts.PNG] == "cGljdHVyZQ=="
    assert kept.data[scripts.PLOTLY] == figure
    assert kept.execution_count == book.cells[0].execution_count == 1  # by place, not by what was run before
    assert "widgets" not in book.metadata


def test_a_path_of_this_machine_in_an_output_is_refused(scripts):
    cell = nbformat.v4.new_code_cell(
        "x", outputs=[nbformat.v4.new_output("stream", text="saved in /home/me/run")]
    )
    with pytest.raises(SystemExit, match="/home/me"):
        scripts.clean(nbformat.v4.new_notebook(cells=[cell]))


def test_trainings_on_the_sample_set_are_made_anew_and_others_kept(scripts, tmp_path):
    for name in ("04-sample", "04-mosi", "06-sample"):
        (tmp_path / "runs" / name / "fused").mkdir(parents=True)
    scripts.forget_runs(tmp_path / "04_train.ipynb")
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["04-mosi", "06-sample"]
