"""Causes by layer: MM Blocks silenced together, pairs patched, parts deleted in order; each where the answer is known."""

import numpy as np
import pytest
import torch
from explain_fixtures import tiny_lens

from deepmlf_kit import plots
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.explain.cumulative import block_sets


@pytest.fixture(scope="module")
def lens():
    return tiny_lens()


def silent(block):
    """Close a block's first gate, as training could."""
    with torch.no_grad():
        block.gate_1.alpha.fill_(-1e4)


# Cumulative ablation ---------------------------------------------------------------------------------------------


def test_blocks_are_silenced_alone_and_from_both_ends():
    assert block_sets([3, 4, 6]) == [
        ("none", ()),
        *(("alone", (layer,)) for layer in (3, 4, 6)),
        *(("first", layers) for layers in ((3,), (3, 4), (3, 4, 6))),
        *(("last", layers) for layers in ((6,), (4, 6), (3, 4, 6))),
    ]


def test_silenced_blocks_are_the_model_without_them():
    lens = tiny_lens()
    found = lens.cumulative_ablation(draws=20)
    whole, first, both = (found.predictions[layers] for layers in ((), (1,), (1, 3)))
    np.testing.assert_allclose(whole, lens.survey(specialise=False).table["prediction"], atol=1e-5)
    silent(lens.model.mm_blocks["1"])
    np.testing.assert_allclose(lens.cumulative_ablation(draws=20).predictions[()], first, atol=1e-5)
    silent(lens.model.mm_blocks["3"])
    shut = lens.cumulative_ablation(draws=20)
    np.testing.assert_allclose(shut.predictions[()], both, atol=1e-5)
    assert np.abs(whole - first).max() > 1e-4 and (shut.of_kind()["change"].abs() < 1e-5).all()


def test_blocks_that_stand_in_for_each_other_show_only_together():
    lens = tiny_lens()

    # By hand: the answer is 1 where any block's cross-attention added something to the fusion tokens, else 0.
    added = {}
    for layer, block in lens.model.mm_blocks.items():

        def watched(fusion, *av, original=block.cross_attend, layer=layer):
            after, weights = original(fusion, *av)
            added[layer] = (after - fusion).abs().amax(dim=(1, 2))
            return after, weights

        block.cross_attend = watched

    def either(module, args, output):
        return {**output, "task": (torch.stack(list(added.values())).amax(dim=0) > 0).float().unsqueeze(-1)}

    lens.model.heads.register_forward_hook(either)
    found = lens.cumulative_ablation(draws=20)
    assert found.predictions[()].mean() > 0.9
    for layers in ((1,), (3,)):
        assert (found.predictions[layers] == found.predictions[()]).all()
    assert (found.predictions[1, 3] == 0).all()
    alone = found.of_kind().query("order == 'alone'")
    assert (alone["change"] == 0).all()


def test_errors_are_those_of_the_predictions_overall_and_by_kind(lens):
    found = lens.cumulative_ablation(draws=50)
    label = np.asarray(lens.rows.with_format(None)["label"])
    table = found.of_kind()
    assert list(table["order"]) == ["none", "alone", "alone", "first", "first", "last", "last"]
    for row, layers in zip(table.itertuples(), ((), (1,), (3,), (1,), (1, 3), (3,), (1, 3)), strict=True):
        predicted = found.predictions[layers]
        assert row.layers == ", ".join(map(str, layers))
        assert pytest.approx(np.abs(predicted - label).mean(), abs=1e-6) == row.MAE
        assert row[-1] == pytest.approx((np.sign(predicted) != np.sign(label)).mean())
        assert row.low <= row.change + 1e-9 and row.change <= row.high + 1e-9
    kinds = found.table[found.table["order"] == "none"].set_index("kind")
    assert kinds.loc["all", "utterances"] == kinds.drop("all")["utterances"].sum() == len(label)
    weighted = (kinds["MAE"] * kinds["utterances"]).drop("all").sum() / len(label)
    assert kinds.loc["all", "MAE"] == pytest.approx(weighted)


def test_a_silenced_feed_forward_is_the_block_without_it(lens):
    found = lens.cumulative_ablation("feed_forward", limit=3, draws=10)
    one = lens.effects(1, "blocks")
    expected = one.prediction - one.effect[one.names.index("layer 3: feed-forward")]
    assert found.predictions[(3,)][1] == pytest.approx(expected, abs=1e-5)
    with pytest.raises(DeepMLFError, match="choose from"):
        lens.cumulative_ablation("heads")
    with pytest.raises(DeepMLFError, match="no feed-forward"):
        tiny_lens(ffw="none").cumulative_ablation("both")


def test_the_plot_of_silenced_layers_draws_the_table(lens):
    found = lens.cumulative_ablation(draws=10)
    made = plots.layer_ablation(found)
    line = next(trace for trace in made.data if trace.name.startswith("all") and trace.xaxis == "x2")
    rows = found.of_kind().query("order == 'first'")
    assert list(line.x) == ["1", "1–3"]
    np.testing.assert_allclose(line.y, rows["MAE"])
    wrong = plots.layer_ablation(found, "wrong sign").data[0]
    assert wrong.error_y.array is None and wrong.hovertemplate
