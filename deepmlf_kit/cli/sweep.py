"""`deepmlf sweep`: many trainings over some settings and seeds, one table, one report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import DeepMLFError
from .output import JsonOption, print_json, stdout_reserved_for_json
from .train import SetOption

if TYPE_CHECKING:
    from ..sweep import SweepPlan


def command(
    plan: Annotated[
        str | None, typer.Argument(help="A ready-made sweep's name or a YAML file; without it, list them.")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="Dataset folder; without it, a small sample set is made.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The sweep's folder; without it, runs/sweep-NAME.")] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            "--grid",
            metavar="KEY=A,B,...",
            help="Vary a setting of the preset, or depth, place, curriculum; repeatable. Replaces the plan's own.",
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Preset, in place of the plan's and of its changes.")
    ] = None,
    settings: SetOption = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds, e.g. 0,1,2.")] = None,
    samples: Annotated[
        int | None, typer.Option(help="How many settings optuna draws (a plan with search).")
    ] = None,
    jobs: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            help="Processes that share the trials, each with its part of the cores and, in turn, one GPU. auto: one for "
            "each GPU, or for each core where there is none.",
        ),
    ] = "1",
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="This machine takes every N-th setting, from the I-th.")
    ] = "1/1",
    as_json: JsonOption = False,
) -> None:
    """Train over a grid of settings and seeds, or let optuna choose; stopped and repeated, it goes on.

    Small trainings: --jobs N (or auto) trains N at once on this machine; on several machines, the same command on each
    with its --shard I/N and one shared --out. A training that needs several devices: under `accelerate launch` all
    processes share every training.
    """
    from ..sweep import available_plans, load_plan

    if plan is None and not grid:
        described = {name: load_plan(name).description for name in available_plans()}
        if as_json:
            print_json(described)
        else:
            for name, text in described.items():
                print(f"{name:<14} {text}")
        return
    from ..sweep import run_sweep
    from ..training.processes import processes

    with stdout_reserved_for_json(as_json):
        wanted = _plan(plan, grid, preset, settings, seeds, samples)
        result = run_sweep(wanted, dataset, out, jobs=jobs, shard=_shard(shard), tell=print)
    if not processes().is_main_process:  # under `accelerate launch` one process speaks for all
        return
    if as_json:
        print_json(
            {
                "sweep": result.path,
                "finished": len(result.table),
                "missing": result.missing,
                "report": result.report,
                "results": result.table.drop(columns="config", errors="ignore").to_dict("records"),
            }
        )
        return
    print(
        f"{len(result.table)} trainings finished, {result.missing} missing. Table: {result.path / 'results.csv'}"
    )
    if result.report is not None:
        text = result.report.with_suffix(".md").read_text(encoding="utf-8")
        print(f"\n{text}\nReport: {result.report}")


def _plan(
    plan: str | None,
    grid: list[str] | None,
    preset: str | None,
    settings: list[str] | None,
    seeds: str | None,
    samples: int | None,
) -> SweepPlan:
    from ..sweep import load_plan
    from ..sweep.plan import SweepPlan, grid_of, known_claims

    changes: dict[str, Any] = {"preset": preset, "samples": samples}
    if seeds is not None:
        try:
            changes["seeds"] = tuple(int(seed) for seed in seeds.replace(",", " ").split())
        except ValueError as error:
            raise DeepMLFError(
                f"--seeds is {seeds!r}, but must be whole numbers, for example 0,1,2."
            ) from error
    if grid:
        varied = grid_of(grid)
        changes |= {"grid": varied, "arms": {}, "search": {}, "claims": known_claims(list(varied))}
    made = SweepPlan(grid=changes["grid"]) if plan is None else load_plan(plan)
    if preset is not None and preset != made.preset:
        changes["set"] = {}  # the plan's sizes suit its own preset
    made = made.changed(**changes)
    return made.with_settings(settings or ())


def _shard(text: str) -> tuple[int, int]:
    try:
        index, count = (int(part) for part in text.split("/"))
    except ValueError as error:
        raise DeepMLFError(f"--shard is {text!r}, but must be I/N, for example 1/4.") from error
    return index, count
