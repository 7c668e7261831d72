"""Sweeps: many trainings over some settings and seeds, one table, one report beside the paper's claims.

    sweep = run_sweep("depth", "data/sample", "runs/depth")
    sweep.table          # one row per training: settings, seed, metrics, seconds
    sweep.report         # report.html, report.md beside it

`plan.py` says what to train, `axes.py` translates the short names of a plan, `running.py` runs it, `trials.py` trains each
trial, `jobs.py` and `worker.py` distribute them over processes (coordinated by the lock files of `locks.py`),
`searching.py` lets optuna choose, `results.py` gathers, `verdicts.py` compares with claims, `report.py` writes.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "SweepPlan": "plan",
    "available_plans": "plan",
    "load_plan": "plan",
    "SweepResult": "running",
    "run_sweep": "running",
    "gather": "results",
    "findings": "verdicts",
    "joint_findings": "verdicts",
    "write_report": "report",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    # On first use: to list plans must not wait for torch.
    if name in _PUBLIC:
        return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
