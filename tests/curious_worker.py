"""An extraction worker in which looking at a clip is an attempt to reach the network. Run by tests/test_no_network.py."""

from __future__ import annotations

from typing import Any

from test_no_network import reached

from deepmlf_kit.data import extraction_worker


def look(path: str, limit: Any) -> None:
    raise ValueError(reached())


if __name__ == "__main__":
    extraction_worker.probe = look
    extraction_worker.main()
