"""What the README and its neighbours promise is there: files, commands with their options, and the figure in both sets of
colours."""

import json
import re
import runpy
import shlex
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import typer

from deepmlf_kit.cli import frame
from deepmlf_kit.training.presets import load_preset

ROOT = Path(__file__).parents[1]
PAGES = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
}


WITH_COMMANDS = [
    *(ROOT / name for name in PAGES if name != "CHANGELOG.md"),
    *sorted((ROOT / "docs").glob("*.md")),
]
WITH_COMMANDS += sorted((ROOT / "notebooks").glob("*.ipynb"))


def text_of(page: Path) -> str:
    """What a page says, or all cells of a notebook."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return text
    return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])


def commands_in(text: str) -> list[list[str]]:
    """The `deepmlf` commands of a text, each as its words: those in backticks, and lines that begin with one."""
    inline = re.findall(r"`((?:\.venv/bin/)?deepmlf [a-z][^`]*)`", text)
    lines = re.findall(r"^[!$ ]*((?:\.venv/bin/)?deepmlf [a-z](?:.*\\\n)*.*)$", text, re.M)
    bare = (found.replace("\\\n", " ").partition(" #")[0].partition(" | ")[0] for found in inline + lines)
    words = (shlex.split(command)[1:] for command in bare if " ..." not in command)
    return [command for command in words if len(command) > 1]


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.name)
def test_every_command_is_understood(page: Path):
    """As far as it can be without its files: its arguments and options, and the settings that it changes."""
    verbs = typer.main.get_command(frame.build_app()).commands
    for verb, *words in commands_in(text_of(page)):
        if not words[0].startswith("--") or len(words) > 1:  # else an option is spoken of, not given
            context = verbs[verb].make_context(verb, words)
            settings = context.params.get("settings") or context.params.get("set") or ()
            load_preset(context.params.get("preset") or "sample", list(settings))


def test_a_wrong_command_would_be_noticed():
    (verb, *words), *_ = commands_in("```sh\ndeepmlf train data/mine --set lm.bits=8 \\\n  lm.name=gpt2\n```")
    assert (verb, words) == ("train", ["data/mine", "--set", "lm.bits=8", "lm.name=gpt2"])
    with pytest.raises(Exception, match="unexpected extra argument"):
        typer.main.get_command(frame.build_app()).commands[verb].make_context(verb, words)


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
