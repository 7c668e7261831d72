"""Linear mix: heads built by hand, of which it is known how much a sum of the others explains."""

import numpy as np
import pandas as pd
import pytest

from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.evaluation import linear_mix


def made_up(count=400, seed=0, clips=4):
    """Text and AV heads that know nothing of each other; every fourth utterance is ironic."""
    random = np.random.default_rng(seed)
    text, av = random.standard_normal((2, count))
    kinds = np.where(np.arange(count) % 4 == 0, "ironic", "sincere")
    ids = [f"sample_v{i // clips}$_${i}_{kind}" for i, kind in enumerate(kinds)]
    table = pd.DataFrame({"id": ids, "text": text, "av": av})
    table["label"] = np.where(kinds == "ironic", -text, text)
    return table.assign(prediction=table["label"], fusion=table["label"])


def test_a_head_that_is_a_weighted_sum_is_explained_entirely():
    table = made_up()
    table["fusion"] = 0.7 * table["text"] + 0.2 * table["av"] + 0.3
    found = linear_mix(table, "fusion", draws=50)
    assert found.r2 == pytest.approx(1) and found.low == pytest.approx(1)
    assert found.weights == pytest.approx({"text": 0.7, "av": 0.2, "intercept": 0.3})


def test_a_head_that_is_a_product_is_not_explained_at_all():
    table = made_up()
    found = linear_mix(table.assign(prediction=table["text"] * table["av"]), draws=200)
    assert found.r2 < 0.05 and found.low <= 0.02


def test_half_of_the_variance_is_reported_as_half():
    table = made_up(2000)
    own = np.random.default_rng(5).standard_normal(len(table))
    found = linear_mix(table.assign(prediction=(table["text"] + table["av"]) / np.sqrt(2) + own), draws=200)
    assert found.r2 == pytest.approx(0.5, abs=0.05)
    assert found.low < 0.5 < found.high and found.high - found.low < 0.15


def test_what_fits_by_chance_alone_explains_nothing_on_held_out_utterances():
    table = made_up(80)
    noise = np.random.default_rng(1).standard_normal((10, len(table)))
    table = table.assign(**{f"n{i}": values for i, values in enumerate(noise[1:])}, prediction=noise[0])
    assert linear_mix(table, others=[f"n{i}" for i in range(9)], folds=4, draws=20).r2 < 0.02


def test_clips_of_a_video_are_never_on_both_sides_of_a_fold():
    # Each video has a text of its own, and the head says it: held out by clip, the mix would know the video.
    table = made_up(120, clips=12)
    video = np.arange(120) // 12
    spread = np.random.default_rng(3).standard_normal(10)
    heads = {f"v{k}": (video == k).astype(float) for k in range(9)}
    table = table.assign(**heads, prediction=spread[video])
    assert linear_mix(table, others=list(heads), folds=5, draws=20).r2 < 0.5


def test_errors_are_set_beside_late_fusion_of_the_same_heads_by_kind():
    table = made_up(2000)
    errors = linear_mix(table, draws=100).errors.set_index("kind")
    assert list(errors.index) == ["all", "ironic", "sincere"]
    assert errors.loc["ironic", "utterances"] == 500
    assert errors["head"].tolist() == [0, 0, 0]
    text, av = table["text"], table["av"]
    ironic = table["id"].str.endswith("_ironic")
    by_hand = ((text + av) / 2 + text)[ironic].abs().mean()  # the label is -text there
    assert errors.loc["ironic", "mean"] == pytest.approx(by_hand)
    # The best mix is text / 2: of four labels three are text and one is -text.
    assert errors.loc["ironic", "mix"] == pytest.approx(1.5 * text.abs().mean(), rel=0.06)
    assert errors.loc["sincere", "mix"] == pytest.approx(0.5 * text.abs().mean(), rel=0.1)
    assert (errors["low"] > 0).all() and (errors["gain"] == errors["mix"]).all()


def test_utterances_without_voice_and_face_are_left_out_and_counted():
    table = made_up()
    table.loc[:9, "av"] = np.nan
    found = linear_mix(table, draws=20)
    assert found.left_out == 10 and found.errors["utterances"].iloc[0] == 390
    assert np.isfinite(found.r2)


def test_other_datasets_have_no_kinds_unless_they_are_given():
    table = made_up().assign(id=[f"v{i}$_$ironic" for i in range(400)])
    assert list(linear_mix(table, draws=20).errors["kind"]) == ["all"]
    given = linear_mix(table, kinds=["a", "b"] * 200, draws=20).errors
    assert list(given["kind"]) == ["all", "a", "b"]


def test_what_cannot_be_mixed_is_refused():
    table = made_up()
    with pytest.raises(DeepMLFError, match="no predictions of fusion"):
        linear_mix(table.drop(columns="fusion"), "fusion")
    with pytest.raises(DeepMLFError, match="class indices"):
        linear_mix(table.assign(probability_0=0.5))
    with pytest.raises(DeepMLFError, match="too few"):
        linear_mix(table.head(8))
