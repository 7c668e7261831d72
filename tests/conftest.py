"""What all tests share: one thread each, no network, no leftovers in the user's cache, and the real material.

Real clips, the face model and golden tensors lie beside the checkout, in `../shared`; tests that need them ask
for a fixture here and are skipped, with the reason, on machines without that folder.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before anything imports torch or transformers: tests run side by side, so each keeps to one thread, and a
# test that would download something should fail at once instead of waiting for a network.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import pytest

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of this run's own, so that no test reads what an earlier one kept."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPMLF_CACHE", str(cache))
        yield cache


@pytest.fixture(scope="module")
def dataset() -> Any:
    """The sample set in little, see `training_fixtures.tiny_sample`."""
    from training_fixtures import tiny_sample

    return tiny_sample()


@pytest.fixture(scope="module")
def language(dataset: Any) -> dict[str, Any]:
    """A tiny LM and its tokenizer over `dataset`, as the trainings take them."""
    from training_fixtures import tiny_lm

    lm, tokenizer = tiny_lm(dataset["train"]["text"])
    return {"lm": lm, "tokenizer": tokenizer}


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `../shared`; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared (real clips, golden tensors), which is not on this machine")
    return SHARED


@pytest.fixture(scope="session")
def clips(shared: Path) -> Path:
    """The folder of real clips; skips where it is absent."""
    if not (shared / "clips").is_dir():
        pytest.skip("needs ../shared/clips, which is not on this machine")
    return shared / "clips"


@pytest.fixture
def face_model(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The face model's file, with `DEEPMLF_FACE_MODEL` set to it; skips where there is none."""
    given = os.environ.get("DEEPMLF_FACE_MODEL")
    path = Path(given) if given else SHARED / "models" / "face_landmarker.task"
    if not path.is_file():
        pytest.skip("needs the face model: DEEPMLF_FACE_MODEL or ../shared/models/face_landmarker.task")
    monkeypatch.setenv("DEEPMLF_FACE_MODEL", str(path))
    return path


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """The system's Chromium or Chrome; skips where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("needs Chromium (Debian: apt-get install chromium)")


@pytest.fixture(scope="session")
def chromium(chromium_path: str) -> Iterator[Any]:
    """A running headless Chromium (a Playwright `Browser`), for tests marked `browser`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()
