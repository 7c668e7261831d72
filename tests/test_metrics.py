"""The field's metrics: the published rules, case by case, and what is done where they say nothing."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.training.metrics import mean_and_deviation, score

GOLDEN = Path(os.environ.get("DEEPMLF_GOLDEN", Path(__file__).parents[1].parent / "shared" / "golden"))


def test_metrics_reproduce_the_authors_values():
    path = GOLDEN / "metrics.json"
    if not path.exists():
        pytest.skip(f"no {path}: set DEEPMLF_GOLDEN to the folder of golden files")
    cases = json.loads(path.read_text())["cases"]
    assert cases
    for case in cases:
        ours = score(case["preds"], case["labels"], case["dataset"])
        assert set(ours) == set(case["metrics"]), case["name"]
        for name, value in case["metrics"].items():
            assert ours[name] == pytest.approx(value, abs=6e-5), (case["name"], name)


def test_rounding_to_classes_is_half_to_even():
    # 0.5 and 1.5 round to 0 and 2; 2.5 rounds to 2
    assert score([0.5, 1.5, 2.5, -0.5], [0.0, 2.0, 2.0, 0.0])["Mult_acc_7"] == 1.0


def test_zero_counts_as_positive_only_where_zero_labels_count():
    scores = score([0.0, -0.0, -1.0, 1.0], [0.0, 1.0, -1.0, 2.0])
    assert scores["Has0_acc_2"] == 1.0
    assert scores["Non0_acc_2"] == pytest.approx(2 / 3)


def test_mae_is_taken_on_unclipped_values_for_mosi_and_clipped_for_sims():
    assert score([5.0, -5.0], [3.0, -3.0], "mosei")["MAE"] == pytest.approx(2.0)
    assert score([5.0, -5.0], [1.0, -1.0], "sims")["MAE"] == pytest.approx(0.0)


def test_sims_intervals_are_closed_on_the_right():
    assert score([0.1, 0.7, -0.1], [0.0, 0.4, -0.6], "sims")["Mult_acc_3"] == 1.0
    assert score([0.1, 0.7, -0.1], [0.0, 0.4, -0.6], "sims")["Mult_acc_5"] == 1.0
    assert score([0.0, 0.01], [-0.6, 0.9], "sims")["Mult_acc_2"] == 1.0


def test_unknown_labels_are_left_out():
    assert score([1.0, 9.0, -1.0], [1.0, math.nan, -1.0])["MAE"] == 0.0


def test_a_constant_prediction_has_no_correlation():
    scores = score([0.5] * 4, [1.0, 2.0, -1.0, 0.0])
    assert math.isnan(scores["Corr"]) and not math.isnan(scores["MAE"])


def test_all_zero_labels_leave_negative_against_positive_undefined():
    assert math.isnan(score([1.0, -1.0], [0.0, 0.0])["Non0_acc_2"])


@pytest.mark.parametrize(
    ("predictions", "labels", "dataset", "words"),
    [
        ([1.0], [1.0, 2.0], "mosi", "1 predictions"),
        ([1.0], [1.0], "imdb", "mosi, mosei, sims"),
        ([1.0], [math.nan], "mosi", "nothing to score"),
        ([math.nan, 1.0], [1.0, 1.0], "mosi", "1 of 2 predictions"),
        ([], [], "mosi", "nothing to score"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_words(predictions, labels, dataset, words):
    with pytest.raises(DeepMLFError, match=words):
        score(predictions, labels, dataset)


def test_tensors_and_arrays_score_alike():
    import torch

    values = np.array([0.3, -1.2, 2.0], dtype=np.float32)
    labels = np.array([0.0, -1.0, 3.0], dtype=np.float32)
    assert score(torch.tensor(values).to(torch.float32)[:, None], labels) == score(values, labels.tolist())


def test_mean_and_deviation_over_seeds():
    table = mean_and_deviation([{"MAE": 1.0}, {"MAE": 2.0}, {"MAE": 3.0}])
    assert table["MAE"] == pytest.approx((2.0, 1.0))
    assert math.isnan(mean_and_deviation([{"MAE": 1.0}])["MAE"][1])
