"""Sweeps: many trainings over some settings and seeds, one table, one report beside the paper's claims.

    sweep = run_sweep("depth", "data/sample", "runs/depth")
    sweep.table          # one row per training: settings, seed, metrics, seconds
    sweep.report         # report.html, report.md beside it

`plan.py` says what to train, `axes.py` translates the short names of a plan, `running.py` runs it, `trials.py` trains each
trial, `jobs.py` and `worker.py` distribute them over processes (coordinated by the lock files of `locks.py`),
`searching.py` lets optuna choose, `results.py` gathers, `verdicts.py` compares with claims, `report.py` writes.
"""

import lazy_loader

# On first use: to list plans must not wait for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "plan": ["SweepPlan", "available_plans", "load_plan"],
        "report": ["write_report"],
        "results": ["gather"],
        "running": ["SweepResult", "run_sweep"],
        "verdicts": ["findings", "joint_findings"],
    },
)
