"""A tenth of `benchmarks/fuzz.py`: no fault, no hang, no memory without bounds."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import fuzz


@pytest.mark.slow
def test_damaged_clips_are_answered_or_refused_in_one_line(tmp_path, face_model):
    result = fuzz.fuzz("clips", 30, seed=7, keep=tmp_path / "failed")
    assert result.tried == 30 and result.answered > 10
    assert not result.failed, str(result)
