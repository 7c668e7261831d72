"""Intervals of predictions: they hold what they say on data that they were not measured on."""

import json

import numpy as np
import pytest

from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.training.calibration import SMALLEST_GROUP, Calibration, streams_of


def drawn(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Predictions that err more without words."""
    streams = rng.choice(["text", "audio+vision"], count).tolist()
    noise = np.where(np.asarray(streams) == "text", 0.5, 1.5)
    labels = rng.normal(size=count)
    return labels + noise * rng.normal(size=count), labels, streams


def test_an_interval_holds_four_labels_of_five_in_every_group() -> None:
    rng = np.random.default_rng(0)
    calibration = Calibration.fit(*drawn(rng, 2000))
    assert calibration is not None
    for share in calibration.covered(*drawn(rng, 4000)).values():
        assert 0.77 < share < 0.83
    assert calibration.half_width("audio+vision") > 2 * calibration.half_width("text")
    again = Calibration.from_dict(json.loads(json.dumps(calibration.to_dict())))
    assert again == calibration


def test_a_group_too_small_to_measure_takes_the_width_of_all() -> None:
    rng = np.random.default_rng(0)
    predictions, labels, streams = drawn(rng, 200)
    streams[:10] = ["vision"] * 10
    calibration = Calibration.fit(predictions, labels, streams)
    assert calibration is not None and "vision" not in calibration.half_widths
    assert calibration.half_width("vision") == calibration.half_widths["any"]
    assert (
        Calibration.fit(
            predictions[: SMALLEST_GROUP - 1], labels[: SMALLEST_GROUP - 1], streams[: SMALLEST_GROUP - 1]
        )
        is None
    )
    labels[20:] = np.nan
    assert Calibration.fit(predictions, labels, streams) is None


def test_beyond_the_zone_four_signs_of_five_are_right() -> None:
    rng = np.random.default_rng(0)

    def answered(count: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
        labels = np.where(rng.random(count) < 0.3, 0.0, rng.normal(size=count))
        return labels + 0.7 * rng.normal(size=count), labels, ["text"] * count

    calibration = Calibration.fit(*answered(4000))
    assert calibration is not None
    predictions, labels, _ = answered(8000)
    zone = calibration.zone("text")
    edge = (np.abs(predictions) > zone - 0.1) & (np.abs(predictions) < zone + 0.1)
    assert 0.74 < (predictions * labels > 0)[edge].mean() < 0.86
    held_out = calibration.right_signs(predictions, labels, ["text"] * 8000)
    assert held_out["right"] > 0.85 and 0.1 < held_out["share"] < 0.6


def test_predictions_that_know_no_sign_stay_inside_the_zone() -> None:
    rng = np.random.default_rng(0)
    predictions, labels = rng.normal(size=(2, 500))
    calibration = Calibration.fit(predictions, labels, ["text"] * 500)
    assert calibration is not None and calibration.zone("text") > 2
    surely = Calibration.fit(labels, labels, ["text"] * 500)
    assert surely is not None and surely.zone("text") == 0


def test_a_damaged_calibration_is_one_clear_error() -> None:
    for wrong in ({}, {"coverage": 0.8, "half_widths": {}, "zones": {}, "utterances": {}}, []):
        with pytest.raises(DeepMLFError, match="calibration is damaged"):
            Calibration.from_dict(wrong)


@pytest.mark.parametrize(
    ("text", "audio", "vision", "expected"),
    [("hi", 1, 1, "text+audio+vision"), (" ", 0, 1, "vision"), ("hi", 0, 0, "text"), ("", 0, 0, "nothing")],
)
def test_streams_are_those_with_anything_in_them(text: str, audio: int, vision: int, expected: str) -> None:
    row = {
        "text": text,
        "audio": np.full((4, 3), audio),
        "vision": np.full((0 if not vision else 2, 2), vision),
    }
    assert streams_of(row) == expected
