"""Run the notebooks and keep light outputs: what `notebooks/*.ipynb` are committed with.

    python scripts/run_notebooks.py                  # all of them
    python scripts/run_notebooks.py notebooks/04*    # some
    python scripts/run_notebooks.py --no-run ...     # clean only: outputs of a notebook you ran yourself

Each runs top to bottom in a fresh kernel, offline, and trains anew: what an earlier run of it left in
`notebooks/runs/NN-sample` is deleted first (`--keep-runs` takes it up instead). Then, in its outputs, every plotly figure gets a static picture
(shown by code hosts, which do not run plotly; drawn by kaleido with the system's Chromium), progress bars and
warnings go, and so do times and widget states, so that a diff shows what changed. A path of this machine
in an output is an error. Every notebook gets the same way into Colab: a badge, and a cell that installs the kit where it is
missing (`with_colab`).
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import re
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parents[1]
PLOTLY, PNG = "application/vnd.plotly.v1+json", "image/png"
WIDGET = "application/vnd.jupyter.widget-view+json"
WIDTH = 860  # pixels of a figure without a width of its own
LARGEST_FIGURE = 120_000  # characters of JSON; a larger figure keeps its picture only
#: Where Colab asks for a repository: a notebook does not know the address that it is read at.
COLAB = "https://colab.research.google.com/github/"
BADGE = """<svg xmlns="http://www.w3.org/2000/svg" width="117" height="20" role="img" aria-label="Open in Colab">\
<rect width="117" height="20" rx="4" fill="#555b66"/><circle cx="13" cy="10" r="4.5" fill="none" stroke="#f9ab00" stroke-width="3"/>\
<circle cx="23" cy="10" r="4.5" fill="none" stroke="#e8710a" stroke-width="3"/><text x="34" y="14" fill="#fff" \
font-family="Verdana,Arial,sans-serif" font-size="11">Open in Colab</text></svg>"""
COLAB_TEXT = f"""[![Open in Colab](attachment:colab.svg)]({COLAB}) *Colab asks for the address of the repository that you read this
in; choose this notebook there. The next cell installs the kit where it is missing; elsewhere it does nothing.*"""
COLAB_CELL = """import importlib.util
import subprocess
import sys

KIT = ""  # only where the kit is missing, as on Colab: the address of the repository
if importlib.util.find_spec("deepmlf_kit") is None:
    assert KIT, "Put the repository's address into KIT and run this cell again."
    kit = f"deepmlf-kit[all] @ git+{KIT}"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", kit], check=True)
    importlib.invalidate_caches()
if "google.colab" in sys.modules:
    from google.colab import output

    output.enable_custom_widget_manager()  # for the explorer"""
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|Users|usr|var|opt|mnt)/[\w.-]+|[A-Z]:\\\\")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--no-run", action="store_true", help="only clean the outputs that are there")
    parser.add_argument(
        "--keep-runs", action="store_true", help="take up finished trainings of the sample set"
    )
    parser.add_argument("--timeout", type=int, default=600, help="seconds that one cell may take")
    options = parser.parse_args()
    for path in options.notebooks or sorted((ROOT / "notebooks").glob("*.ipynb")):
        book = nbformat.read(path, as_version=4)
        with_colab(book)
        began = time.perf_counter()
        if not options.no_run:
            if not options.keep_runs:
                forget_runs(path)
            run(book, path.parent, options.timeout)
        took = time.perf_counter() - began
        with one_browser():
            clean(book)
        nbformat.write(book, path)
        print(f"{path.name}: {took:.0f} s, {path.stat().st_size / 1000:.0f} kB", flush=True)
    return 0


def forget_runs(path: Path) -> None:
    """Delete what the notebook trained on the sample set before; trainings of other presets stay."""
    shutil.rmtree(path.parent / "runs" / f"{path.stem[:2]}-sample", ignore_errors=True)


def with_colab(book: Any) -> None:
    """Give a notebook the badge, at the end of its first cell, and the cell that installs the kit, behind it."""
    title = book.cells[0]
    title.setdefault("attachments", nbformat.from_dict({}))["colab.svg"] = {
        "image/svg+xml": base64.b64encode(BADGE.encode()).decode()
    }
    if COLAB_TEXT not in title.source:
        title.source = f"{title.source.rstrip()}\n\n{COLAB_TEXT}"
    id = f"{title.source[2:4]}-colab"
    if book.cells[1].get("id") != id:
        book.cells.insert(1, nbformat.v4.new_code_cell(id=id))
    book.cells[1].source = COLAB_CELL


def run(book: Any, folder: Path, timeout: int) -> None:
    """Execute in a fresh kernel; a cell that fails ends it with its traceback."""
    from nbclient import NotebookClient

    os.environ |= {
        "PLOTLY_RENDERER": "plotly_mimetype",
        "HF_HUB_OFFLINE": "1",
        "GRADIO_ANALYTICS_ENABLED": "False",
    }
    NotebookClient(book, timeout=timeout, resources={"metadata": {"path": str(folder)}}).execute()


@contextmanager
def one_browser() -> Iterator[None]:
    """Draw all pictures of a notebook in one Chromium, instead of starting it for each."""
    import kaleido

    warnings.filterwarnings("ignore", message="The kopts argument is ignored")
    kaleido.start_sync_server(silence_warnings=True)
    try:
        yield
    finally:
        kaleido.stop_sync_server(silence_warnings=True)


def clean(book: Any) -> None:
    """Keep what a reader looks at, in the lightest form that a code host shows."""
    book.metadata.pop("widgets", None)
    book.metadata["language_info"] = {"name": "python"}
    number = 0
    for cell in book.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        number += 1
        cell.execution_count = number  # as in a run from top to bottom; nbval wants one
        cell.outputs = [kept for output in cell.outputs if (kept := lighter(output)) is not None]
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = number
            if found := MACHINE_PATH.search(_text_of(output)):
                raise SystemExit(f"A path of this machine is in the output of {cell.id}: {found.group()!r}")


def lighter(output: Any) -> Any | None:
    """One output as it is kept; None: dropped."""
    if output.output_type == "stream":
        return output if output.name == "stdout" else None
    if output.output_type == "error":
        return output
    data = output.data
    if WIDGET in data and PNG not in data:
        return None  # a progress bar, or a widget that is nothing without its kernel
    if "<iframe" in "".join(data.get("text/html", "")):
        return None  # a server that runs no longer
    data.pop(WIDGET, None)
    data.pop("image/jpeg", None)  # the same picture again
    if PLOTLY in data:
        data[PNG] = picture_of(data[PLOTLY])
        data.pop("text/html", None)
        if len(json.dumps(data[PLOTLY])) > LARGEST_FIGURE:
            del data[PLOTLY]
        data["text/plain"] = "Figure"
    return output


def picture_of(figure: dict[str, Any]) -> str:
    """A plotly figure as PNG in base64, transparent, with a small palette."""
    import plotly.graph_objects as go
    from PIL import Image

    fig = go.Figure({"data": figure["data"], "layout": figure["layout"]}, skip_invalid=True)
    height = fig.layout.height or 420
    # JupyterLab shows the picture at its own size until a cell is run: wider than a cell, it would be cut off.
    raw = fig.to_image(format="png", width=fig.layout.width or WIDTH, height=height)
    image = Image.open(io.BytesIO(raw)).convert("RGBA").quantize(256, method=Image.Quantize.FASTOCTREE)
    small = io.BytesIO()
    image.save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def _text_of(output: Any) -> str:
    if output.output_type == "stream":
        return output.text
    if output.output_type == "error":
        return "\n".join(output.traceback)
    return "\n".join(str(value) for kind, value in output.data.items() if kind != PNG)


if __name__ == "__main__":
    sys.exit(main())
