"""Evaluation: intervals, error breakdowns, perturbations, paired tests, tables to print, classes."""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from training_fixtures import TINY

from deepmlf_kit import evaluation
from deepmlf_kit.data.labels import class_labels
from deepmlf_kit.data.schema import DatasetError
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.evaluation.evaluate import evaluate
from deepmlf_kit.evaluation.intervals import groups_of, percentile_interval
from deepmlf_kit.evaluation.perturbations import perturbations
from deepmlf_kit.training import train
from deepmlf_kit.training.metric_table import metric_table
from deepmlf_kit.training.metrics import score
from deepmlf_kit.training.presets import load_preset


def made_up(count: int = 120, error: float = 0.5, seed: int = 0, clips: int = 1) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    true = np.random.default_rng(7).uniform(-3, 3, count).round(1)
    ids = [f"v{i // clips}$_${i}" for i in range(count)]
    return pd.DataFrame(
        {"id": ids, "label": true, "prediction": true + error * random.standard_normal(count)}
    )


# Intervals -----------------------------------------------------------------------------------------------------


def test_an_interval_holds_the_value_and_narrows_with_more_utterances() -> None:
    few, many = (evaluation.bootstrap(made_up(n), draws=100)["MAE"] for n in (40, 640))
    for value, low, high in (few, many):
        assert low < value < high
    assert many[2] - many[1] < 0.5 * (few[2] - few[1])
    assert evaluation.bootstrap(made_up(40), draws=100)["MAE"] == few


def test_clips_of_a_video_are_drawn_together() -> None:
    groups = groups_of(pd.Series(["a$_$1", "b$_$1", "a$_$2", "c"]))
    assert sorted(map(tuple, groups)) == [(0, 2), (1,), (3,)]


def test_utterances_without_a_label_are_left_out() -> None:
    table = made_up(30)
    more = pd.concat([table, pd.DataFrame([{"id": "x", "label": np.nan, "prediction": 9.0}])])
    assert evaluation.bootstrap(more, draws=20) == evaluation.bootstrap(table, draws=20)


# Where the errors are ------------------------------------------------------------------------------------------


def test_bins_of_the_label_count_every_utterance_once() -> None:
    table = pd.DataFrame({"id": list("abcd"), "label": [-3, 3, 0.1, 2.9], "prediction": [-2, 1, 0.1, 2.9]})
    bins = evaluation.by_bin(table, "mosi", bins=3)
    assert list(bins["utterances"]) == [1, 1, 2]
    assert bins["MAE"].tolist() == pytest.approx([1, 0, 1])
    assert bins["bias"].tolist() == pytest.approx([1, 0, -1])


def test_lengths_are_counted_in_words() -> None:
    table = pd.DataFrame({"id": list("abc"), "label": [0.0, 0, 0], "prediction": [1.0, 2, 3]})
    lengths = evaluation.by_length(table, ["", "one two three four five", "w " * 41])
    assert list(lengths["utterances"]) == [2, 0, 0, 0, 1]
    assert lengths["MAE"].iloc[0] == 1.5 and np.isnan(lengths["MAE"].iloc[1])


def test_classes_are_broken_down_into_what_was_said_of_each() -> None:
    table = pd.DataFrame({"id": list("abcd"), "label": [0.0, 0, 2, np.nan], "prediction": [0.0, 2, 2, 1]})
    found = evaluation.by_class(table, 3)
    assert list(found["class"]) == ["negative", "neutral", "positive"]
    assert found["recall"].tolist() == pytest.approx([0.5, np.nan, 1.0], nan_ok=True)
    assert found[["predicted negative", "predicted neutral", "predicted positive"]].to_numpy().tolist() == [
        [1, 0, 1],
        [0, 0, 0],
        [0, 0, 1],
    ]
    lengths = evaluation.by_length(table, ["one", "one", "w " * 41, ""], classes=3)
    assert list(lengths["utterances"]) == [2, 0, 0, 0, 1]
    assert lengths["accuracy"].iloc[0] == 0.5 and lengths["accuracy"].iloc[-1] == 1.0


# Two runs ------------------------------------------------------------------------------------------------------


def test_a_clear_difference_is_found_and_says_who_is_better() -> None:
    good, bad = made_up(error=0.3), made_up(error=1.0, seed=1)
    found = evaluation.compare(good, bad.sample(frac=1, random_state=0), draws=100)  # order does not matter
    assert found["MAE"].better == "one" and found["MAE"].high < 0
    assert found["Corr"].better == "one" and found["Corr"].difference > 0
    assert evaluation.compare(bad, good, draws=100)["MAE"].better == "other"


def test_equal_models_do_not_differ_and_chance_is_rarely_taken_for_a_difference() -> None:
    table = made_up()
    assert evaluation.compare(table, table, draws=50)["MAE"].p == 1.0
    wrong = sum(
        evaluation.compare(made_up(60, seed=2 * i), made_up(60, seed=2 * i + 1), "mosi", ("MAE",), 60)[
            "MAE"
        ].p
        < 0.05
        for i in range(8)
    )
    assert wrong <= 2


@pytest.mark.parametrize("collapsed_first", [True, False])
def test_a_metric_that_is_not_defined_wins_nothing_and_says_why(collapsed_first: bool) -> None:
    collapsed, other = made_up(40).assign(prediction=0.0), made_up(40)
    pair = (collapsed, other) if collapsed_first else (other, collapsed)
    found = evaluation.compare(*pair, draws=50)["Corr"]
    assert found.better == "cannot tell" and np.isnan([found.p, found.low, found.high]).all()
    assert f"not defined for {'one' if collapsed_first else 'other'}" in found.why_undecided()
    assert evaluation.compare(*pair, draws=50)["MAE"].better == ("other" if collapsed_first else "one")
    value, low, high = evaluation.bootstrap(collapsed, draws=20)["Corr"]
    assert np.isnan([value, low, high]).all()


def test_swaps_that_do_not_define_a_metric_count_against_a_difference() -> None:
    one, other = made_up(3, error=0.1), made_up(3, error=0.1, seed=1)
    one["prediction"], other["prediction"] = [1.0, 2.0, 3.0], [3.0, 1.0, 1.0]
    one["label"] = other["label"] = [1.0, 2.0, 3.0]
    found = evaluation.compare(one, other, metrics=("Corr",), draws=200)["Corr"]
    assert found.p > 0.2  # of 8 swaps, one and its mirror image are as large


def test_a_bound_among_draws_without_a_value_is_not_made_up() -> None:
    drawn = np.concatenate([np.linspace(0, 1, 95), np.full(5, np.nan)])
    assert np.isnan(percentile_interval(drawn)).all()
    low, high = percentile_interval(np.where(np.arange(1000) < 5, np.nan, np.linspace(0, 1, 1000)))
    assert 0 < low < 0.05 and 0.95 < high < 1


@pytest.mark.parametrize("order", [("collapsed", "good", "fair"), ("good", "fair", "collapsed")])
def test_a_metric_that_is_not_defined_is_never_bold_and_keeps_nobody_from_it(order: tuple[str, ...]) -> None:
    scores = {"collapsed": float("nan"), "good": 0.8, "fair": 0.5}
    text = evaluation.markdown({name: {"Corr": scores[name]} for name in order})
    assert "**0.800**" in text and text.count("**") == 2 and "not defined" in text
    table = metric_table({name: {"Corr": scores[name]} for name in order})
    assert [table.rows[i][j] for i, j in table.bold] == ["0.800"]


def test_other_utterances_or_labels_are_refused() -> None:
    table = made_up(20)
    with pytest.raises(DeepMLFError, match="different utterances"):
        evaluation.compare(table, table.iloc[:10])
    with pytest.raises(DeepMLFError, match="different labels"):
        evaluation.compare(table, table.assign(label=table["label"] + 1))


# Tables --------------------------------------------------------------------------------------------------------


def test_the_best_of_ours_is_bold_and_theirs_are_marked() -> None:
    rows = {"a_1": {"MAE": 0.8, "Corr": 0.7}, "b": {"MAE": (0.9, 0.01), "Corr": 0.75}, "MulT": {"MAE": 0.5}}
    theirs = {"MulT": "somewhere"}
    text = evaluation.markdown(rows, theirs)
    assert "| a_1 | **0.800** | 0.700 |" in text
    assert "| b | 0.900 ± 0.010 | **0.750** |" in text
    assert "| MulT † | 0.500 | - |" in text and "somewhere" in text
    tex = evaluation.latex(rows, theirs)
    assert r"a\_1 & \textbf{0.800} & 0.700 \\" in tex
    assert r"MulT$^\dagger$ & 0.500 & - \\" in tex and r"0.900 $\pm$ 0.010" in tex
    assert tex.startswith("% needs") and r"their numbers, as published: somewhere} \\" in tex


@pytest.mark.parametrize("dataset", ["mosi", "mosei", "sims"])
def test_published_numbers_are_shares_with_a_source(dataset: str) -> None:
    names = set(score([0.1, -0.2, 0.5], [0.3, -0.4, 0.5], dataset))
    for peer in evaluation.published(dataset):
        assert set(peer.metrics) == names
        assert all(0 < value < 1 for value in peer.metrics.values())
        assert "github.com/thuiar/MMSA" in peer.source
    with pytest.raises(DeepMLFError, match="mosei"):
        evaluation.published("moesi")


# On a trained run ----------------------------------------------------------------------------------------------


def start(out: Path, dataset: Any, language: dict[str, Any], **changes: Any) -> Any:
    overrides = {**TINY, "training.epochs": 1, **changes}
    return train("sample", dataset, out, overrides=overrides, progress=False, tensorboard=False, **language)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, dataset: Any, language: dict[str, Any]) -> Any:
    return start(tmp_path_factory.mktemp("runs") / "run", dataset, language)


def test_robustness_starts_from_the_runs_own_score_and_changes_what_it_says(
    run: Any, dataset: Any, language: dict[str, Any]
) -> None:
    table = evaluation.robustness(run, dataset, **language).set_index("perturbation")
    assert list(table.index) == list(perturbations())
    assert table.loc["unperturbed", "MAE"] == pytest.approx(run.metrics["MAE"], abs=1e-6)
    plain = evaluate(run, dataset, **language).metrics
    assert table.loc["no audio", "text_MAE"] == pytest.approx(plain["text_MAE"], abs=1e-5)
    assert table.loc["shuffled words", "av_MAE"] == pytest.approx(plain["av_MAE"], abs=1e-5)
    assert np.isnan(table.loc["text only", "av_MAE"]), "no head speaks for streams that are not there"
    assert abs(table.loc["no text", "text_MAE"] - plain["text_MAE"]) > 1e-4


def test_evaluating_writes_nothing_and_leaves_the_random_state_as_it_was(
    run: Any, dataset: Any, language: dict[str, Any], tmp_path: Path
) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run.path, copied)
    for folder in (copied, copied / "best"):
        folder.chmod(0o555)  # which stops all users but root

    def found() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in (copied, *copied.rglob("*"))}

    def states() -> list[Any]:
        return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]

    before = found(), states()
    assert evaluate(copied, dataset, **language).metrics == pytest.approx(run.metrics)
    evaluation.robustness(copied, dataset, **language)
    assert (found(), states()) == before
    for folder in (copied, copied / "best"):
        folder.chmod(0o755)


def test_validation_during_training_and_evaluation_after_it_give_the_same(
    run: Any, dataset: Any, language: dict[str, Any]
) -> None:
    (epoch,) = run.history()
    metrics = evaluate(run, dataset, "valid", **language).metrics
    measured = {name.removeprefix("valid_") for name in epoch if name.startswith("valid_")}
    assert set(metrics) == {name for name in measured if not name.startswith("gate_")}
    for name, value in metrics.items():
        assert value == pytest.approx(epoch[f"valid_{name}"], abs=1e-6), name


def test_audio_and_vision_of_another_are_of_another_video() -> None:
    rows = [{"id": f"v{i // 5}$_${i}", "audio": i, "vision": i} for i in range(20)]
    for seed in range(5):
        changed = perturbations()["audio and vision of another"](rows, np.random.default_rng(seed))
        assert all(row["audio"] // 5 != i // 5 for i, row in enumerate(changed))
        assert all(
            row["audio"] == row["vision"] and row["id"] == rows[i]["id"] for i, row in enumerate(changed)
        )


def test_perturbations_change_what_they_say_and_nothing_else() -> None:
    random = np.random.default_rng(0)
    frames = np.arange(1, 13, dtype=np.float32).reshape(6, 2)
    rows = [{"text": f"a b c d {i}", "audio": frames + i, "vision": frames - i, "label": i} for i in range(5)]
    found = {name: perturb(rows, random) for name, perturb in perturbations().items()}
    assert (
        found["no audio"][0]["audio"].shape == (0, 2) and found["no audio"][0]["vision"] is rows[0]["vision"]
    )
    assert sorted(found["shuffled words"][0]["text"].split()) == sorted(["a", "b", "c", "d", "0"])
    np.testing.assert_array_equal(found["misaligned time"][1]["audio"], np.roll(frames + 1, 3, axis=0))
    strangers = found["audio and vision of another"]
    assert all(
        not np.array_equal(new["audio"], old["audio"]) for new, old in zip(strangers, rows, strict=True)
    )
    assert all(changed[2]["label"] == 2 for changed in found.values())
    assert rows[0]["text"] == "a b c d 0" and rows[0]["audio"].shape == (6, 2)


# Classes -------------------------------------------------------------------------------------------------------


def test_labels_become_classes_by_their_sign() -> None:
    labels = np.array([-3, -0.2, 0, 0.2, 3, np.nan])
    np.testing.assert_array_equal(class_labels(labels, 3), [0, 0, 1, 2, 2, np.nan])
    np.testing.assert_array_equal(class_labels(labels, 2), [0, 0, 1, 1, 1, np.nan])
    np.testing.assert_array_equal(class_labels(np.array([0, 4]), 5), [0, 4])
    with pytest.raises(DatasetError, match="negative, neutral and positive"):
        class_labels(labels, 5)


def test_classes_are_scored_by_accuracy_and_weighted_f1() -> None:
    from sklearn.metrics import f1_score

    true, said = [0, 1, 2, 2], [0, 2, 2, 1]
    scores = score(said, true, "mosi", classes=3)
    assert scores == {"Acc_3": 0.5, "F1_score_3": pytest.approx(f1_score(true, said, average="weighted"))}


def test_a_model_of_classes_is_trained_scored_and_loaded_again(
    dataset: Any, language: dict[str, Any], tmp_path: Path
) -> None:
    classes = {"heads.classes": 3, "training.select_on": "loss", "pretraining.select_on": "loss"}
    run = start(tmp_path / "classes", dataset, language, **classes)
    assert {"Acc_3", "F1_score_3", "text_Acc_3", "fusion_Acc_3", "av_Acc_3"} <= set(run.metrics)
    assert "MAE" not in run.metrics
    table = run.predictions()
    assert set(table["label"]) <= {0, 1, 2} and set(table["prediction"]) <= {0, 1, 2}
    np.testing.assert_array_equal(table["label"], np.sign(dataset["test"]["label"]) + 1)
    assert (table["label"] == table["prediction"]).mean() == pytest.approx(run.metrics["Acc_3"])
    assert evaluate(run, dataset, **language).metrics == pytest.approx(run.metrics)
    assert evaluation.bootstrap(evaluate(run, dataset, **language).predictions, draws=20, classes=3)["Acc_3"][
        0
    ]


def test_choosing_a_model_of_classes_by_mae_is_refused() -> None:
    with pytest.raises(DeepMLFError, match=r"training\.select_on=loss --set pretraining\.select_on=loss"):
        load_preset("sample", {"heads.classes": 3})


# The same again ------------------------------------------------------------------------------------------------


def test_the_same_seed_twice_gives_bitwise_the_same_metrics_and_another_does_not(
    run: Any, dataset: Any, language: dict[str, Any], tmp_path: Path
) -> None:
    again = start(tmp_path / "again", dataset, language)
    assert json.dumps(again.metrics) == json.dumps(run.metrics)
    assert again.predictions().equals(run.predictions())
    other = train(
        again.preset, dataset, tmp_path / "other", seed=1, progress=False, tensorboard=False, **language
    )
    assert other.metrics != run.metrics
