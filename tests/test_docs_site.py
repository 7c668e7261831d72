"""The documentation's site: built from what is there, with no link that leads nowhere and nothing loaded from elsewhere."""

import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


class Loaded(HTMLParser):
    """Addresses of what a page loads by itself: scripts, styles, pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "source", "iframe"):
            self.found += [value for name in ("src", "srcset") if (value := given.get(name))]
        elif tag == "link" and given.get("rel") in ("stylesheet", "icon"):
            self.found.append(given.get("href") or "")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="needs the extra docs")
def test_the_site_builds_without_a_dead_link(tmp_path: Path):
    script = ROOT / "scripts" / "docs_site.py"
    done = subprocess.run(
        [
            sys.executable,
            str(script),
            "--out",
            str(tmp_path / "site"),
            "--pages",
            str(tmp_path / "pages" / "docs"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {
        path.relative_to(tmp_path / "site").as_posix(): path for path in (tmp_path / "site").rglob("*.html")
    }
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert {f"notebooks/{path.stem}.html" for path in notebooks} <= set(pages)
    assert (
        "train" in pages["api/training.html"].read_text()
        and "Predictor" in pages["api/index.html"].read_text()
    )
    for name, page in pages.items():
        text = page.read_text(encoding="utf-8")
        loaded = Loaded()
        loaded.feed(text)
        outside = [address for address in loaded.found if re.match(r"(https?:)?//", address)]
        assert not outside, f"{name} loads {outside}"
        missing = [
            address
            for address in loaded.found
            if not address.startswith(("data:", "http"))
            and not (page.parent / address.split("?")[0]).exists()
        ]
        assert not missing or name == "404.html", f"{name} lacks {missing}"
