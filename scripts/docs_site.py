"""The documentation as a site: `make docs` (or `python scripts/docs_site.py`) writes it to site/.

README, docs/, the notebooks as they are stored, the cards of the models that come along, and a page of the public names of every
folder of the package, from their docstrings. The pages keep their places in the repository, so that their links hold; a link
that leads nowhere fails the build.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "apps/README.md", "notebooks/README.md")
FACES = (
    "",
    "training",
    "predict",
    "evaluation",
    "explain",
    "plots",
    "sweep",
    "data",
    "features",
    "model",
    "app",
    "widgets",
)
LINK = re.compile(r"""\]\(([^)#:\s]+)(?:#[^)\s]*)?\)|(?:src|srcset|href)=["']([^"'#:]+)["']""")


def main() -> None:
    """Lay the pages out and build."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "site", help="folder of the site")
    parser.add_argument("--pages", type=Path, default=ROOT / "build" / "docs", help="folder of its sources")
    arguments = parser.parse_args()
    navigation = lay_out(arguments.pages)
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    settings |= {"docs_dir": str(arguments.pages), "site_dir": str(arguments.out), "nav": navigation}
    settings["plugins"][-1]["mkdocstrings"]["handlers"]["python"]["paths"] = [str(ROOT)]
    config = arguments.pages.parent / "mkdocs.yml"
    config.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-f", str(config)])
    sys.exit(done.returncode)


def lay_out(pages: Path) -> list[Any]:
    """Copy every page and what it links to, write the pages of the package; returns the site's navigation."""
    shutil.rmtree(pages, ignore_errors=True)
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    docs = sorted((ROOT / "docs").glob("*.md"))
    cards = sorted((ROOT / "deepmlf_kit" / "assets").glob("*/README.md"))
    for page in [*(ROOT / name for name in PAGES), *docs, *cards, *notebooks]:
        _copy(page, pages)
    api = {_title(face): _api_page(face, pages) for face in FACES}
    return [
        {"Start": "README.md"},
        {"Guide": [{_heading(page): page.relative_to(ROOT).as_posix()} for page in docs]},
        {"Notebooks": [{_heading(page): page.relative_to(ROOT).as_posix()} for page in notebooks]},
        {"Models": [{_heading(page): page.relative_to(ROOT).as_posix()} for page in cards]},
        {"Python": [{title: name} for title, name in api.items()]},
        {"Project": [{"Changes": "CHANGELOG.md"}, {"Contributing": "CONTRIBUTING.md"}]},
    ]


def _copy(page: Path, pages: Path) -> None:
    place = pages / page.relative_to(ROOT)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(page, place)
    for found in LINK.finditer(_text(page)):
        target = (page.parent / (found[1] or found[2])).resolve()
        if not target.is_relative_to(ROOT) or target.suffix in (".md", ".ipynb"):
            continue
        copied = pages / target.relative_to(ROOT)
        if target.is_file() and not copied.exists():
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(target, copied)


def _text(page: Path) -> str:
    """A page's Markdown: of a notebook, that of its text cells."""
    content = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return content
    cells = json.loads(content)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def _heading(page: Path) -> str:
    for line in _text(page).splitlines():
        if line.startswith("# "):
            return line[2:].replace("`", "").split(":")[0].strip()
    return page.stem


def _title(face: str) -> str:
    return f"deepmlf_kit.{face}" if face else "deepmlf_kit"


def _api_page(face: str, pages: Path) -> str:
    """A page of the public names of one folder of the package."""
    module = importlib.import_module(_title(face))
    lines = [f"# {_title(face)}", "", inspect.cleandoc(module.__doc__ or "").split("\n\n")[0], ""]
    lines += [f"::: {name}\n" for name in _public(module)]
    path = pages / "api" / f"{face or 'index'}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines), encoding="utf-8")
    return f"api/{path.name}"


def _public(module: ModuleType) -> list[str]:
    """Full names of a folder's public classes and functions: of its face, or of its modules where it has none."""
    if hasattr(module, "__all__"):
        values = [getattr(module, name) for name in sorted(module.__all__)]
    else:
        names = sorted(found.name for found in pkgutil.iter_modules(module.__path__) if found.name[0] != "_")
        inside = [importlib.import_module(f"{module.__name__}.{name}") for name in names]
        values = [value for part in inside for name, value in vars(part).items() if name[0] != "_"]
        values = [
            value for value in values if getattr(value, "__module__", "").startswith(module.__name__ + ".")
        ]
    return list(
        dict.fromkeys(
            f"{value.__module__}.{value.__qualname__}"
            for value in values
            if inspect.isclass(value) or inspect.isfunction(value)
        )
    )


if __name__ == "__main__":
    main()
