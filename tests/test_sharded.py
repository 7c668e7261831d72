"""Sharded over processes (FSDP2), the model computes what it computes alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "sharding_script.py"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize(("ffw", "port"), [("full", 29731), ("lora", 29732)])
def test_sharded_loss_and_gradients_are_those_of_one_process(ffw: str, port: int) -> None:
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--master_port",
        str(port),
    ]
    done = subprocess.run(
        [*launch, str(SCRIPT), ffw],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=240,
    )
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["losses"][0] == pytest.approx(found["losses"][1], abs=1e-6)
    assert found["gradients_apart"] < 1e-5
    assert found["share"] < 0.6, "each process holds about half of the weights"
