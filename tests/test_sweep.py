"""Sweeps: what a plan trains, that nothing is trained twice, what the table and the report say."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from training_fixtures import TINY, tiny_lm, tiny_sample

from deepmlf_kit.cli.frame import run as command
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.sweep import available_plans, findings, load_plan, run_sweep
from deepmlf_kit.sweep.axes import apply, av_preset, fusion_layers
from deepmlf_kit.sweep.plan import Claim, SweepPlan, grid_of, known_claims, plan_of
from deepmlf_kit.sweep.report import figures, write_report
from deepmlf_kit.sweep.results import write_table
from deepmlf_kit.sweep.trials import trial_name
from deepmlf_kit.training.presets import load_preset

QUICK = {**TINY, "training.epochs": 1, "pretraining.epochs": 1}


@pytest.fixture(scope="module")
def dataset() -> Any:
    return tiny_sample()


@pytest.fixture(scope="module")
def language(dataset: Any) -> dict[str, Any]:
    lm, tokenizer = tiny_lm(dataset["train"]["text"])
    return {"lm": lm, "tokenizer": tokenizer, "tell": lambda line: None}


# Plans ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", available_plans())
def test_every_ready_made_sweep_names_settings_that_exist(name: str) -> None:
    plan = load_plan(name)
    base = load_preset(plan.preset, dict(plan.set))
    layers = 12 if name == "lm-size" else 8
    for point in plan.points():
        preset, _ = apply(base, point.settings, layers, plan.curriculum)
        preset.model_config()
    assert plan.description and (plan.points() or plan.search)
    assert all(claim.axis in plan.axes for claim in plan.claims)


def test_a_grid_is_every_combination_and_arms_multiply_it() -> None:
    plan = SweepPlan(grid={"depth": [1, 2], "fusion.tokens": [4, 8]}, arms={"a": {}, "b": {"loss.av": 0}})
    shown = [point.shown for point in plan.points()]
    assert len(shown) == 8
    assert {"depth": 2, "fusion.tokens": 4, "variant": "b"} in shown
    assert plan.points()[1].settings == {"depth": 1, "fusion.tokens": 4, "loss.av": 0}
    assert plan.axes == ["depth", "fusion.tokens", "variant"]


def test_grids_are_read_from_the_command_line() -> None:
    assert grid_of(["depth=1,3", "fusion.gating=sigmoid,none", "fusion.layers=[1,2],[3]"]) == {
        "depth": [1, 3],
        "fusion.gating": ["sigmoid", "none"],
        "fusion.layers": [[1, 2], [3]],
    }
    with pytest.raises(DeepMLFError, match="depth=1,3,5"):
        grid_of(["depth"])


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"gird": {"depth": [1]}}, "grid"),
        ({}, "varies nothing"),
        ({"grid": {"depth": 3}}, "list of values"),
        ({"grid": {"depth": [1]}, "seeds": []}, "no seeds"),
        ({"grid": {"depth": [1]}, "search": {"depth": [1]}}, "both"),
        ({"grid": {"depth": [1]}, "claims": [{"text": "x"}]}, "favoured"),
    ],
)
def test_a_wrong_plan_is_refused_with_what_is_wrong(tree: dict[str, Any], said: str) -> None:
    with pytest.raises(DeepMLFError, match=said):
        plan_of(tree)


def test_an_unknown_sweep_names_the_known_ones() -> None:
    with pytest.raises(DeepMLFError, match="tokens"):
        load_plan("depht")


# What an axis means --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("depth", "place", "layers"),
    [
        (3, "late", [5, 6, 7]),
        (3, "early", [0, 1, 2]),
        (1, "spread", [7]),
        (4, "spread", [1, 3, 5, 7]),
        (8, "spread", [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_depth_and_place_choose_the_layers(depth: int, place: str, layers: list[int]) -> None:
    assert fusion_layers(depth, 8, place) == layers


def test_spread_layers_are_distinct_and_end_with_the_last() -> None:
    for layers in range(1, 40):
        for depth in range(1, layers + 1):
            chosen = fusion_layers(depth, layers, "spread")
            assert len(set(chosen)) == depth and chosen == sorted(chosen)
            assert chosen[0] >= 0 and chosen[-1] == layers - 1


def test_more_depth_than_the_language_model_has_is_refused() -> None:
    with pytest.raises(DeepMLFError, match="8 layers"):
        fusion_layers(9, 8)


def test_the_curriculum_says_whether_to_pretrain_and_whether_to_freeze() -> None:
    base = load_preset("sample")
    found = {name: apply(base, {"curriculum": name}, 8) for name in ("random", "pretrained", "frozen")}
    assert {name: start for name, (_, start) in found.items()} == {
        "random": False,
        "pretrained": True,
        "frozen": True,
    }
    assert [found[name][0].av_encoder.trainable for name in found] == [True, True, False]


def test_trials_that_differ_in_fusion_only_share_a_pretraining() -> None:
    base = load_preset("sample")
    one, _ = apply(base, {"depth": 1, "curriculum": "frozen"}, 8)
    other, _ = apply(base, {"fusion.tokens": 20, "loss.av": 0}, 8)
    wider, _ = apply(base, {"av_encoder.width": 60}, 8)
    assert av_preset(base, one) == av_preset(base, other) != av_preset(base, wider)


# Running -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, dataset: Any, language: Any) -> Any:
    """A grid of 2 x 2 seeds, and what was told."""
    out = tmp_path_factory.mktemp("sweeps") / "depth"
    plan = SweepPlan(
        name="tiny",
        set=QUICK,
        grid={"depth": [1, 2]},
        seeds=(0, 1),
        claims=(Claim("two are better", "a test", "depth", (2,)),),
    )
    return plan, run_sweep(plan, dataset, out, **language)


def test_every_setting_and_seed_is_a_row_of_the_table(swept: Any) -> None:
    _, result = swept
    table = pd.read_csv(result.path / "results.csv")
    assert result.missing == 0
    assert sorted(zip(table["depth"], table["seed"], strict=True)) == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert {"MAE", "Corr", "valid", "seconds", "epochs", "trained", "config"} <= set(table)
    layers = {json.loads(row.config)["fusion"]["layers"][0]: row.depth for row in table.itertuples()}
    assert layers == {2: 1, 1: 2}
    arrow = pd.read_feather(result.path / "results.arrow")
    pd.testing.assert_frame_equal(arrow, result.table)
    one, two = (table[table["depth"] == depth]["trained"].iloc[0] for depth in (1, 2))
    assert two > one


def test_trials_of_a_seed_share_one_pretraining(swept: Any) -> None:
    _, result = swept
    assert len(list((result.path / "av").iterdir())) == 2  # one a seed
    starts = {
        json.loads((path / "run.json").read_text())["av_encoder"]
        for path in (result.path / "trials").iterdir()
        if path.is_dir()
    }
    assert len(starts) == 2


def test_a_second_call_trains_nothing_and_new_points_only_themselves(
    swept: Any, dataset: Any, language: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepmlf_kit.training.trainer import SentimentTrainer

    plan, result = swept
    trained = []
    original = SentimentTrainer.train_or_resume
    monkeypatch.setattr(
        SentimentTrainer, "train_or_resume", lambda self: (trained.append(self), original(self))[1]
    )
    again = run_sweep(plan, dataset, result.path, **language)
    assert trained == []
    pd.testing.assert_frame_equal(again.table, result.table)
    more = run_sweep(plan.changed(grid={"depth": [1, 2, 3]}), dataset, result.path, **language)
    assert len(trained) == 2 and len(more.table) == 6  # depth 3, two seeds; their pretrainings are there
    run_sweep(plan, dataset, result.path, **language)


def test_a_stopped_sweep_goes_on_where_it_stopped(dataset: Any, language: Any, tmp_path: Path) -> None:
    from deepmlf_kit.training import callbacks

    plan = SweepPlan(set={**QUICK, "training.epochs": 2}, grid={"fusion.tokens": [2, 3]}, seeds=(0,))
    whole = run_sweep(plan, dataset, tmp_path / "whole", **language)
    calls = []

    def stop(self: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        calls.append(state.epoch)
        if len(calls) == 6:  # pretraining 1, first trial 2, then into the second trial's second epoch
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.LogAtEpochEnd, "on_epoch_begin", stop, raising=False)
        with pytest.raises(KeyboardInterrupt):
            for _ in range(2):
                calls.append(0)
                run_sweep(plan, dataset, tmp_path / "stopped", **language)
    assert len(pd.read_csv(tmp_path / "stopped" / "results.csv")) == 1
    resumed = run_sweep(plan, dataset, tmp_path / "stopped", **language)
    drop = ["seconds"]
    pd.testing.assert_frame_equal(resumed.table.drop(columns=drop), whole.table.drop(columns=drop))


def test_shards_divide_the_points_and_gather_all_rows(dataset: Any, language: Any, tmp_path: Path) -> None:
    plan = SweepPlan(set=QUICK, grid={"fusion.tokens": [1, 2, 3]}, seeds=(0,), curriculum="random")
    first = run_sweep(plan, dataset, tmp_path / "s", shard=(1, 2), **language)
    assert set(first.table["fusion.tokens"]) == {1, 3} and first.missing == 1
    second = run_sweep(plan, dataset, tmp_path / "s", shard=(2, 2), **language)
    assert set(second.table["fusion.tokens"]) == {1, 2, 3} and second.missing == 0
    assert not (tmp_path / "s" / "av").exists()  # nothing is pretrained for a random start
    with pytest.raises(DeepMLFError, match="3/2"):
        run_sweep(plan, dataset, tmp_path / "s", shard=(3, 2), **language)


def test_a_trial_that_another_process_holds_is_passed_by(dataset: Any, language: Any, tmp_path: Path) -> None:
    from filelock import FileLock

    plan = SweepPlan(set=QUICK, grid={"fusion.tokens": [1, 2]}, seeds=(0,), curriculum="random")
    locks = tmp_path / "s" / "locks"
    run_sweep(plan, dataset, tmp_path / "s", shard=(2, 2), **language)
    with FileLock(locks / f"{trial_name({'fusion.tokens': 1}, 0)}.lock"):
        held = run_sweep(plan, dataset, tmp_path / "s", **language)
    assert held.missing == 1


def test_a_failing_trial_is_reported_and_the_others_go_on(
    dataset: Any, language: Any, tmp_path: Path
) -> None:
    plan = SweepPlan(
        set=QUICK, grid={"training.learning_rate": [1e-3, 1e30]}, seeds=(0,), curriculum="random"
    )
    result = run_sweep(plan, dataset, tmp_path / "s", **language)
    assert len(result.table) == 1 and result.missing == 1
    assert (
        "diverged" in (tmp_path / "s" / "report.md").read_text()
        or "NaN" in (tmp_path / "s" / "report.md").read_text()
    )


def test_a_wrong_setting_is_refused_before_anything_is_trained(
    dataset: Any, language: Any, tmp_path: Path
) -> None:
    plan = SweepPlan(set=QUICK, grid={"fusion.gating": ["sigmoid", "sigmod"]}, seeds=(0,))
    with pytest.raises(DeepMLFError, match="sigmod"):
        run_sweep(plan, dataset, tmp_path / "s", **language)
    assert not (tmp_path / "s" / "trials").exists()


def test_another_sweeps_folder_is_not_mixed_up(swept: Any, dataset: Any, language: Any) -> None:
    plan, result = swept
    with pytest.raises(DeepMLFError, match="curriculum"):
        run_sweep(plan.changed(curriculum="random"), dataset, result.path, **language)


def test_optuna_draws_within_its_ranges_and_goes_on(dataset: Any, language: Any, tmp_path: Path) -> None:
    space = {"depth": {"low": 1, "high": 3}, "fusion.gating": ["sigmoid", "none"]}
    plan = SweepPlan(set=QUICK, search=space, samples=2, seeds=(0,), curriculum="random")
    first = run_sweep(plan, dataset, tmp_path / "s", **language)
    assert 1 <= len(first.table) <= 2  # a draw may repeat
    assert set(first.table["depth"]) <= {1, 2, 3}
    second = run_sweep(plan.changed(samples=3), dataset, tmp_path / "s", **language)
    assert set(first.table["trial"]) <= set(second.table["trial"])
    assert "optuna.journal" in {path.name for path in (tmp_path / "s").iterdir()}


# What it says --------------------------------------------------------------------------------------------------


def made_up(values: dict[Any, list[float]], axis: str = "depth") -> pd.DataFrame:
    rows = [
        {axis: value, "seed": seed, "MAE": error, "seconds": 1.0, "trial": f"{value}-{seed}"}
        for value, errors in values.items()
        for seed, error in enumerate(errors)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("errors", "verdict"),
    [
        ({1: [1.0, 1.1, 1.2], 5: [0.8, 0.91, 1.0]}, "agrees"),
        ({1: [0.8, 0.91, 1.0], 5: [1.0, 1.1, 1.2]}, "does not agree"),
        ({1: [1.0, 1.1, 1.2], 5: [1.1, 1.0, 1.19]}, "cannot tell"),
        ({1: [1.0], 5: [0.5]}, "cannot tell"),
        ({1: [1.0, 1.1]}, "cannot tell"),
    ],
)
def test_a_verdict_follows_from_the_numbers(errors: dict[int, list[float]], verdict: str) -> None:
    claim = Claim("five is best", "a test", "depth", (5, 6))
    (found,) = findings(made_up(errors), SweepPlan(grid={"depth": list(errors)}, claims=(claim,)))
    assert found.verdict == verdict


def test_the_report_states_best_setting_verdict_and_spread(tmp_path: Path) -> None:
    table = made_up({1: [1.0, 1.1, 1.2], 5: [0.8, 0.91, 1.0], 3: [0.9, 1.0, 1.12]})
    claim = Claim("five is best", "a paper", "depth", (5,))
    plan = SweepPlan(name="depth", grid={"depth": [1, 3, 5]}, claims=(claim,))
    page = write_report(tmp_path, plan, table)
    text = (tmp_path / "report.md").read_text()
    assert "0.903 ± 0.100, at depth 5" in text
    assert "**agrees**: “five is best” (a paper)" in text
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    assert rows == ["depth", "---", "1", "3", "5"]  # the plan's order
    assert "five is best" in page.read_text() and "plotly" in page.read_text()


def test_a_second_axis_gets_a_curve_for_each_of_its_values() -> None:
    table = pd.concat(
        [made_up({1: [1.0, 1.1], 2: [0.9, 1.0]}).assign(place=place) for place in ("early", "late")]
    )
    plan = SweepPlan(grid={"depth": [1, 2], "place": ["early", "late"]})
    titles = [figure.layout.title.text for figure in figures(table, plan)]
    assert len(titles) == 2 and titles[0].endswith("place early")


def test_values_of_several_types_still_make_an_arrow_table(tmp_path: Path) -> None:
    table = made_up({"all": [1.0], 3: [2.0]}, "loss.av")
    write_table(table, tmp_path)
    assert list(pd.read_feather(tmp_path / "results.arrow")["loss.av"]) == ["all", "3"]


def test_a_grid_of_ones_own_is_still_set_beside_the_claims() -> None:
    assert {claim.axis for claim in known_claims(["depth", "fusion.gating"])} == {"depth", "fusion.gating"}


# The verb ------------------------------------------------------------------------------------------------------


def test_the_verb_lists_the_sweeps(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["sweep"]) == 0
    listed = capsys.readouterr().out
    assert all(f"{name} " in listed for name in available_plans())
    assert command(["sweep", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == set(available_plans())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["depht"], "depth"),
        (["depth", "--shard", "2"], "I/N"),
        (["depth", "--seeds", "one"], "whole numbers"),
        (["--grid", "depth"], "depth=1,3,5"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command(["sweep", *arguments, "--out", str(tmp_path / "s")]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
