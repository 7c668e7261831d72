"""The code is linted and formatted (`make lint` adds the type checker)."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = [
    name for name in ("deepmlf_kit", "apps", "tests", "benchmarks", "scripts") if (ROOT / name).is_dir()
]


@pytest.mark.parametrize("check", [("check",), ("format", "--check")], ids=["lint", "format"])
def test_code_is_clean(check: tuple[str, ...]):
    run = subprocess.run(
        [sys.executable, "-m", "ruff", *check, *FOLDERS], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
