"""Sweeps: what a plan trains, that nothing is trained twice, what the table and the report say."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from training_fixtures import TINY, tiny_sample

from deepmlf_kit.cli.frame import run as command
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.plots import ablation_curve
from deepmlf_kit.sweep import available_plans, findings, joint_findings, load_plan, run_sweep, searching
from deepmlf_kit.sweep.axes import apply, av_preset, fusion_layers
from deepmlf_kit.sweep.plan import Claim, SweepPlan, grid_of, known_claims, plan_of
from deepmlf_kit.sweep.report import figures, write_report
from deepmlf_kit.sweep.results import failures, gather, write_table
from deepmlf_kit.sweep.trials import check_comparable, trial_name
from deepmlf_kit.sweep.verdicts import holm, paired_test
from deepmlf_kit.training.presets import load_preset

QUICK = {**TINY, "training.epochs": 1, "pretraining.epochs": 1}


@pytest.fixture(scope="module")
def language(language: dict[str, Any]) -> dict[str, Any]:
    return {**language, "tell": lambda line: None}


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
        ({"arms": {False: {"loss.av": 0}}}, "quotes"),  # YAML reads off as False
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
        (1, "middle", [3]),
        (5, "middle", [1, 2, 3, 4, 5]),
        (1, "spread", [7]),
        (4, "spread", [1, 3, 5, 7]),
        (8, "spread", [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_depth_and_place_choose_the_layers(depth: int, place: str, layers: list[int]) -> None:
    assert fusion_layers(depth, 8, place) == layers


def test_the_place_plan_crosses_number_and_place_without_training_anything_twice() -> None:
    points = [point.shown for point in load_plan("place").points()]
    layers = {tuple(fusion_layers(p["depth"], 8, p["place"])) for p in points}
    depths, places = ({p[axis] for p in points} for axis in ("depth", "place"))
    assert len(layers) == len(points) == len(depths) * len(places)


def test_seqaug_is_off_where_the_plan_says_so_whatever_the_preset_has() -> None:
    published = load_preset("mosei-base")
    assert published.seqaug.text_p_feat > 0
    on = {
        name: [
            stream
            for stream, share in (("text", changed.text_p_feat), ("av", changed.av_p_feat))
            if share > 0
        ]
        for name, settings in load_plan("seqaug").arms.items()
        for changed in [published.with_overrides(dict(settings)).seqaug]
    }
    assert on == {"off": [], "text": ["text"], "audio and vision": ["av"], "both": ["text", "av"]}


def test_every_claim_of_a_ready_made_sweep_names_its_source_and_values_of_the_sweep() -> None:
    for name in available_plans():
        plan = load_plan(name)
        for claim in plan.claims:
            assert "2504.11082" in claim.source
            assert set(claim.favoured) & set(plan.arms or plan.grid[claim.axis])
            assert not set(plan.arms or plan.grid[claim.axis]) <= set(claim.favoured)


def test_of_a_crossed_sweep_each_axis_has_an_effect_of_its_own() -> None:
    # By hand: each block takes off 0.1, each step to the middle 0.5; a little noise by seed.
    worth = {"early": 0.0, "middle": -0.5, "late": -0.25}
    table = pd.DataFrame(
        {"depth": d, "place": p, "seed": s, "MAE": 2 - 0.1 * d + worth[p] + 0.01 * ((s * d) % 3)}
        for d in (1, 3, 5)
        for p in worth
        for s in (0, 1, 2)
    )
    assert paired_test(table, "depth", 5, 1).difference == pytest.approx(-0.4, abs=0.01)
    assert paired_test(table, "place", "middle", "late").difference == pytest.approx(-0.25)
    # Only the last n, as the plan depth has it, could not tell: here both are in the table.
    made = ablation_curve(table, "depth", by="place")
    means = {t.name: t for t in made.data if t.mode == "lines+markers"}
    assert list(means) == list(worth)
    np.testing.assert_allclose(means["middle"].y, [1.41, 1.21, 1.01], atol=0.011)
    assert len({t.line.color for t in means.values()}) == 3


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
        json.loads((path / "run.json").read_text())["av_encoder"]["path"]
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


# What is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "varied",
    [
        {"search": {"loss.fusion": {"low": 0.1, "high": 1.0}}},
        {"grid": {"loss.av": [0.5, 1.0]}},
        {"arms": {"all": {}, "no text": {"loss.text": 0}}},
    ],
)
def test_loss_weights_are_not_judged_by_the_loss(
    varied: dict[str, Any], dataset: Any, language: Any, tmp_path: Path
) -> None:
    by_loss = SweepPlan(set={**QUICK, "training.select_on": "loss"}, seeds=(0,), samples=1, **varied)
    with pytest.raises(DeepMLFError, match=r"smaller weight makes a smaller loss.*select_on=mae"):
        run_sweep(by_loss, dataset, tmp_path / "s", **language)
    assert not (tmp_path / "s" / "trials").exists()
    base = load_preset("sample", QUICK)
    by_error = SweepPlan(seeds=(0,), **varied)
    check_comparable(by_error, base, [apply(base, point.settings, 3)[0] for point in by_error.points()])


def test_other_settings_may_be_judged_by_the_loss_but_not_by_different_values() -> None:
    base = load_preset("sample", {"training.select_on": "loss"})
    for key, values in (("depth", [1, 2]), ("training.select_on", ["loss", "mae"])):
        plan = SweepPlan(grid={key: values})
        presets = [apply(base, point.settings, 8)[0] for point in plan.points()]
        if key == "depth":
            check_comparable(plan, base, presets)
        else:
            with pytest.raises(DeepMLFError, match="cannot be compared"):
                check_comparable(plan, base, presets)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_sweep_on_other_features_is_not_mixed_up(
    swept: Any, language: Any, tmp_path: Path, jobs: int
) -> None:
    from training_fixtures import with_other_features

    from deepmlf_kit.data import schema

    plan, result = swept
    other = with_other_features(tiny_sample())
    options = language if jobs == 1 else {"jobs": jobs}
    dataset = other if jobs == 1 else schema.save(other, tmp_path / "data")
    with pytest.raises(DeepMLFError, match="holds a sweep on another dataset"):
        run_sweep(plan, dataset, result.path, **options)


def test_a_variant_that_means_something_else_now_is_refused(
    dataset: Any, language: Any, tmp_path: Path
) -> None:
    def plan(tokens: int) -> SweepPlan:
        return SweepPlan(set=QUICK, arms={"few": {"fusion.tokens": tokens}}, seeds=(0,), curriculum="random")

    run_sweep(plan(1), dataset, tmp_path / "s", **language)
    with pytest.raises(DeepMLFError, match=r"few.* with other settings"):
        run_sweep(plan(2), dataset, tmp_path / "s", **language)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"training.learning_rate": 1.00001e-3}, {"training.learning_rate": 1.00002e-3}),
        ({"variant": "no gates"}, {"variant": "no_gates"}),
        ({"lm.name": "a/b"}, {"lm.name": "a_b"}),
        ({"x": True}, {"x": "True"}),
        ({"x": None}, {"x": "None"}),
        ({"x": "1_y=2", "y": "3"}, {"x": "1", "y": "2_y=3"}),
        ({"fusion.layers": [1, 2]}, {"fusion.layers": [12]}),
        ({"fusion.heads": 1, "av_encoder.heads": 2}, {"fusion.heads": 2, "av_encoder.heads": 1}),
    ],
)
def test_unequal_values_have_unequal_trial_names(one: dict[str, Any], other: dict[str, Any]) -> None:
    names = {trial_name(shown, 0) for shown in (one, other)}
    assert len(names) == 2 and all(len(name) < 100 and "/" not in name for name in names)
    assert (
        trial_name({"fusion.tokens": 8, "training.learning_rate": 3e-4}, 1)
        == "tokens=8_learning_rate=0.0003_seed=1"
    )


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
        # Two standard errors apart, which three seeds reach by chance: p is 0.15.
        ({1: [1.0, 1.1, 1.2], 5: [0.92, 0.83, 0.8]}, "cannot tell"),
        ({1: [1.0], 5: [0.5]}, "cannot tell"),
        ({1: [1.0, 1.1]}, "cannot tell"),
        ({1: [1.0, 1.1, 1.2], 5: [0.8, float("nan"), 1.0]}, "cannot tell"),
        ({1: [1.0, 1.0, 1.0], 5: [0.5, 0.5, 0.5]}, "cannot tell"),  # no spread to judge by
    ],
)
def test_a_verdict_follows_from_the_numbers(errors: dict[int, list[float]], verdict: str) -> None:
    claim = Claim("five is best", "a test", "depth", (5, 6))
    (found,) = findings(made_up(errors), SweepPlan(grid={"depth": list(errors)}, claims=(claim,)))
    assert found.verdict == verdict
    assert (found.p < 0.05) == (verdict != "cannot tell")


def test_a_finding_holds_the_test_behind_its_verdict() -> None:
    table = made_up({1: [1.0, 1.1, 1.2], 2: [1.3, 1.2, 1.5], 5: [0.8, 0.91, 1.0]})
    claim = Claim("five is best", "a test", "depth", (5,))
    (found,) = findings(table, SweepPlan(grid={"depth": [1, 2, 5]}, claims=(claim,)))
    assert found.test == paired_test(table, "depth", 5, 1)
    assert found.comparisons == 2 and found.p == pytest.approx(2 * found.test.p)


@pytest.mark.parametrize("shared", [0.0, 0.7, 1.0])
def test_pure_noise_gets_a_verdict_in_at_most_one_report_of_twenty(shared: float) -> None:
    """200 reports of three claims each; validation and test scores of a training share some of their luck."""
    random = np.random.default_rng(0)
    grid = {"depth": [1, 2, 3, 4, 5, 6, 7]}
    sizes = ((5, 6, 7), (4,), (1,))  # the last two are one against six
    claims = tuple(Claim(f"{favoured} best", "a test", "depth", favoured) for favoured in sizes)
    plan = SweepPlan(grid=grid, claims=claims)
    told = 0
    for _ in range(200):
        luck = random.standard_normal((7, 3)) + random.standard_normal(
            3
        )  # some seeds are better for every setting
        own = random.standard_normal((7, 3))
        table = made_up({depth: list(luck[i]) for i, depth in enumerate(grid["depth"])})
        table["valid"] = (shared * luck + (1 - shared**2) ** 0.5 * own).flatten()
        told += any(found.verdict != "cannot tell" for found in findings(table, plan))
    assert told <= 10


def test_a_large_difference_is_told_in_spite_of_the_correction() -> None:
    random = np.random.default_rng(0)
    errors = {depth: 1.2 - 0.1 * depth + 0.01 * random.standard_normal(5) for depth in (1, 2, 3, 4, 5)}
    claims = (Claim("deep", "a test", "depth", (4, 5)), Claim("flat", "a test", "depth", (1,)))
    plan = SweepPlan(grid={"depth": list(errors)}, claims=claims)
    assert [found.verdict for found in findings(made_up(errors), plan)] == ["agrees", "does not agree"]


def test_claims_of_one_report_are_corrected_together() -> None:
    table = made_up({1: [1.0, 1.1, 1.2], 5: [0.8, 0.95, 1.0]})
    plan = SweepPlan(grid={"depth": [1, 5]}, claims=(Claim("five", "a test", "depth", (5,)),))
    (alone,) = findings(table, plan)
    noise = made_up({1: [1.0, 1.1, 1.2], 5: [1.1, 1.0, 1.19]})
    together = joint_findings([(table, plan), (noise, plan)])
    assert together[0].p == pytest.approx(2 * alone.p) and "corrected for 2 comparisons" in together[0].text


def test_holm_multiplies_the_smallest_most_and_keeps_the_order() -> None:
    assert holm([0.01, 0.04, 0.03, float("nan")]) == pytest.approx(
        [0.04, 0.09, 0.09, float("nan")], nan_ok=True
    )
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_a_paired_t_interval_uses_the_degrees_of_freedom_of_its_seeds() -> None:
    from scipy.stats import ttest_rel

    one, other = [1.0, 1.1, 1.25], [0.8, 0.93, 1.0]
    test = paired_test(made_up({1: one, 5: other}), "depth", 1, 5)
    reference = ttest_rel(one, other)
    interval = reference.confidence_interval()
    assert (test.p, test.low, test.high) == pytest.approx((reference.pvalue, interval.low, interval.high))


def test_the_best_setting_is_chosen_on_validation_and_reported_on_test(tmp_path: Path) -> None:
    table = made_up({1: [1.0, 1.1, 1.2], 5: [0.8, 0.91, 1.0], 3: [0.5, 0.5, 0.5]})
    table["valid"] = [0.9, 0.9, 0.9, 0.7, 0.8, 0.7, 1.0, 1.0, 1.0]
    claim = Claim("five is best", "a paper", "depth", (5,))
    plan = SweepPlan(name="depth", grid={"depth": [1, 3, 5]}, claims=(claim,))
    page = write_report(tmp_path, plan, table)
    text = (tmp_path / "report.md").read_text()
    assert "Best on the validation split: depth 5, with a mean MAE of 0.903 ± 0.100 on the test split" in text
    assert (
        "**agrees**: “five is best” (a paper)" in text
        and "against 1.100 at 1 (the best of the others)" in text
    )
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    assert rows == ["depth", "---", "1", "3", "5"]  # the plan's order
    assert "five is best" in page.read_text() and "plotly" in page.read_text()


def test_a_setting_with_a_collapsed_training_is_neither_best_nor_averaged_over_the_rest(
    tmp_path: Path,
) -> None:
    table = made_up({1: [1.0, 1.1, 1.2], 5: [0.8, 0.91, 1.0]}).assign(
        valid=[1.0, 1.0, 1.0, 0.1, float("nan"), 0.1]
    )
    table["Corr"] = [0.4, 0.4, 0.4, 0.9, float("nan"), 0.9]
    write_report(tmp_path, SweepPlan(name="depth", grid={"depth": [1, 5]}), table)
    text = (tmp_path / "report.md").read_text()
    assert "Best on the validation split: depth 1" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| 5 |")]
    assert "not defined" in row and "0.900" not in row


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


# Damaged files of a sweep --------------------------------------------------------------------------------------


def test_a_journal_torn_in_its_last_line_goes_on(tmp_path: Path) -> None:
    plan = SweepPlan(name="s", search={"fusion.tokens": [1, 2]}, samples=3)
    study = searching._study(plan, tmp_path)
    study.tell(study.ask(), 0.5)
    with (tmp_path / "optuna.journal").open("ab") as journal:
        journal.write(b'{"op_code": 4, "worker')  # a kill in the middle of a line
    study = searching._study(plan, tmp_path)
    study.tell(study.ask(), 0.4)
    assert [trial.value for trial in searching._study(plan, tmp_path).get_trials()] == [0.5, 0.4]


@pytest.mark.parametrize("damage", [b"\xff\xfe\n{}\n", b"[1]\n", b'{"op_code": 99}\n', b"{}\n{}\n"])
def test_a_damaged_journal_is_named(damage: bytes, tmp_path: Path) -> None:
    (tmp_path / "optuna.journal").write_bytes(damage)
    plan = SweepPlan(name="s", search={"fusion.tokens": [1, 2]}, samples=3)
    with pytest.raises(DeepMLFError, match=r"optuna.journal is damaged"):
        searching.draws_left(plan, tmp_path)


@pytest.mark.parametrize("note", ["", "{", "[1]", '{"shown": {}}', '{"shown": 1, "seed": 0}', "[" * 100_000])
def test_a_damaged_note_of_a_trial_counts_as_none(note: str, tmp_path: Path) -> None:
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / "a.json").write_text(note)
    assert gather(tmp_path).empty and not failures(tmp_path)


def test_a_damaged_plan_and_a_file_as_folder_are_named(dataset: Any, tmp_path: Path) -> None:
    plan = SweepPlan(grid={"fusion.tokens": [1]}, seeds=(0,))
    for text in ("grid: [", "3"):
        (tmp_path / "plan.yaml").write_text(text)
        with pytest.raises(DeepMLFError, match=r"plan.yaml"):
            run_sweep(plan, dataset, tmp_path)
    with pytest.raises(DeepMLFError, match="is a file, but a sweep is a folder"):
        run_sweep(plan, dataset, tmp_path / "plan.yaml")
