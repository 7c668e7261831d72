"""What the README and its neighbours promise is there: files, commands, and the figure in both sets of colours."""

import re
import runpy
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from deepmlf_kit.cli import frame

ROOT = Path(__file__).parents[1]
PAGES = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_to_a_file_leads_somewhere(page: str):
    targets = re.findall(r"\]\(([^)#:]+)\)", PAGES[page]) + re.findall(
        r'(?:src|srcset)="([^":]+)"', PAGES[page]
    )
    missing = [target for target in targets if not (ROOT / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_exists(page: str):
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z-]+)", PAGES[page]) + re.findall(
        r"^make ([a-z-]+)", PAGES[page], re.M
    ):
        assert re.search(rf"^{target}:", makefile, re.M), f"{page} names `make {target}`"


@pytest.mark.parametrize("page", PAGES)
def test_every_verb_exists(page: str):
    for name in re.findall(r"deepmlf ([a-z][a-z-]+)\b", PAGES[page]):
        assert name in frame.SUBCOMMANDS, f"{page} names `deepmlf {name}`"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_figure_is_what_its_script_draws(theme: str):
    script = runpy.run_path(str(ROOT / "scripts" / "draw_model_figure.py"))
    committed = (ROOT / "docs" / f"figure-model-{theme}.svg").read_text(encoding="utf-8")
    ElementTree.fromstring(committed)
    assert committed == script["draw"](script["THEMES"][theme])
