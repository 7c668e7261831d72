"""The table of a sweep: one row per finished trial, read from its run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import feather

from ..errors import DeepMLFError
from ..storage.files import misshapen, read_json, replacing
from ..training import Run


def gather(out: str | Path) -> pd.DataFrame:
    """Every finished trial of a sweep's folder.

    Returns:
        One row per trial, sorted by name: `trial`, the varied settings, `seed`, the metrics of the test split by name,
        `valid` (the validation metric that selected the best checkpoint), `epochs`, `seconds`, `trained` (number of
        weights), `config` (the complete preset, JSON). Empty where nothing is finished.
    """
    rows: list[dict[str, Any]] = []
    for note, folder in _trials(Path(out)):
        if not (folder / "run.json").is_file():
            continue
        run = Run.open(folder)
        if not run.finished:
            continue
        rows.append(
            {
                "trial": folder.name,
                **{key: _cell(value) for key, value in note["shown"].items()},
                "seed": note["seed"],
                **run.metrics,
                "valid": run.info["best"]["value"],
                "epochs": len(run.history()),
                "seconds": run.info["seconds"],
                "trained": run.info["parameters"]["trained"],
                "config": json.dumps(run.info["preset"]),
            }
        )
    return pd.DataFrame(rows)


def failures(out: str | Path) -> dict[str, str]:
    """Failed trials and why they failed."""
    found = {}
    for note, folder in _trials(Path(out)):
        if "failed" in note:
            found[folder.name] = note["failed"]
    return found


def write_table(table: pd.DataFrame, out: Path) -> None:
    """`results.csv` and `results.arrow` (Arrow IPC: `pandas.read_feather`, `pyarrow.feather.read_table`)."""
    # Arrow: one type a column
    mixed = {c: table[c].astype(str) for c in table if table[c].map(type).nunique() > 1}
    arrow = pa.Table.from_pandas(table.assign(**mixed), preserve_index=False)
    with replacing(out / "results.csv") as csv, replacing(out / "results.arrow") as ipc:
        table.to_csv(csv, index=False)
        feather.write_feather(arrow, str(ipc), compression="uncompressed")


def ordered(table: pd.DataFrame, axis: str, values: list[Any]) -> pd.DataFrame:
    """The table sorted by one axis, in the order of the plan's values."""
    rank = {str(_cell(value)): i for i, value in enumerate(values)}
    known = table[axis].map(lambda value: rank.get(str(value), len(rank)))
    return table.assign(_rank=known).sort_values(["_rank", "seed"], kind="stable").drop(columns="_rank")


def _trials(out: Path) -> list[tuple[dict[str, Any], Path]]:
    found = []
    for path in sorted((out / "trials").glob("*.json")):
        if (note := read_note(path)) is not None:
            found.append((note, path.with_suffix("")))
    return found


def read_note(path: Path) -> dict[str, Any] | None:
    """A trial's settings, or why it failed; None where there is none or it is damaged, since the next attempt writes it
    again."""
    try:
        note = read_json(path, "repeat the sweep.")
    except (OSError, DeepMLFError):
        return None
    return None if misshapen(note, {"shown": dict, "seed": int, "failed?": str}) else note


def _cell(value: Any) -> Any:
    """A value as a table cell: containers as JSON."""
    return value if isinstance(value, (int, float, str)) or value is None else json.dumps(value)
