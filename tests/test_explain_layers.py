"""Causes by layer: MM Blocks silenced together, pairs patched, parts deleted in order; each where the answer is known."""

import numpy as np
import pytest
import torch
from explain_fixtures import tiny_lens

from deepmlf_kit import plots
from deepmlf_kit.data.sample_grammar import Sentence
from deepmlf_kit.data.sample_pairs import TURNED, minimal_pair, opposite
from deepmlf_kit.data.schema import DatasetError
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.explain.cumulative import block_sets
from deepmlf_kit.explain.deletion import RANKINGS, deletion


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


# Minimal pairs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("polarity", [1, -1])
def test_a_pair_differs_in_what_was_turned_and_nothing_else(polarity):
    for seed in range(30):
        for turned in TURNED:
            clean, other = minimal_pair(turned, seed, polarity=polarity)
            same = {
                "words": clean["text"] == other["text"],
                "voice": np.array_equal(clean["audio"], other["audio"]),
                "face": np.array_equal(clean["vision"], other["vision"]),
            }
            assert same == {name: name != turned for name in same}
            assert np.array_equal(clean["audio_times"], other["audio_times"])
            assert clean["id"].endswith("_sincere")
            assert other["id"].endswith("_sincere" if turned == "words" else "_ironic")
            assert [word["start"] for word in clean["words"]] == [word["start"] for word in other["words"]]
            assert clean["label"] * polarity > 0


def test_the_pairs_labels_follow_the_sets_rule():
    clean, ironic = minimal_pair("face", 3)
    # Sincere: 0.9 of what the words say and 0.6 of the mood; ironic: words count -0.8, the moods cancel.
    said = -ironic["label"] / 0.8
    assert 0 < said <= 3.75
    mood = (min(clean["label"], 3) - 0.9 * min(said, 3)) / 0.6
    assert 0.5 <= mood <= 0.9 or clean["label"] == 3
    assert minimal_pair("voice", 3)[1]["label"] == pytest.approx(ironic["label"])
    with pytest.raises(DatasetError, match="choose turned"):
        minimal_pair("hat")


def test_turned_words_say_the_opposite_and_turned_twice_the_same():
    said = Sentence(("okay", "I", "did", "not", "love", "the", "good", "soup"), -1.2, 4)
    turned = opposite(said)
    assert turned.text == "okay I did not hate the bad soup" and turned.sentiment == 1.2
    assert opposite(turned) == said


# Activation patching ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def face_pair():
    return minimal_pair("face", 1)


def read_only(model, what):
    """A task head by hand that reads one input alone: `fusion`, `text` or `av`, linearly."""
    width = model.language.width
    parts = {"fusion": slice(0, width), "text": slice(width, 2 * width), "av": slice(2 * width, None)}
    weights = torch.randn(2 * width + model.config.av_width, generator=torch.Generator().manual_seed(4))
    mask = torch.zeros_like(weights)
    mask[parts[what]] = 1

    def head(module, args, output):
        fusion, last_text, av_mean = args
        both = torch.cat([fusion.mean(dim=1), last_text, av_mean], dim=-1)
        return {**output, "task": both @ (weights * mask).unsqueeze(-1)}

    # The hooks of a patch call `forward` of the heads again, so it is the forward that is replaced.
    original = model.heads.forward
    model.heads.forward = lambda *args: head(None, args, original(*args))
    return model


def test_all_that_a_face_changes_comes_through_the_av_states(lens, face_pair):
    found = lens.patch(*face_pair, of="time", width=4)
    assert found.rows == ["after layer 1", "after layer 3", "heads", "all"] and found.columns[-1] == "all"
    assert found.recovered.shape == (4, 6) and found.columns[0].endswith("s")
    assert found.recovered[-1, -1] == pytest.approx(1, abs=1e-4)
    predictions = [lens.read(row, "gates").sentiment for row in face_pair]
    assert [found.clean, found.corrupted] == pytest.approx(predictions, abs=1e-5)


def test_a_head_that_reads_the_av_mean_alone_recovers_there_alone(face_pair):
    lens = tiny_lens()
    read_only(lens.model, "av")
    recovered = lens.patch(*face_pair, of="time", width=5).recovered
    np.testing.assert_allclose(recovered[:2], 0, atol=1e-5)
    np.testing.assert_allclose(recovered[2:, -1], 1, atol=1e-5)
    assert recovered[2, :-1].sum() == pytest.approx(1, abs=1e-4)  # linear: the stretches add up


def test_fusion_tokens_carry_nothing_of_the_face_before_the_first_block_and_all_after_the_last(face_pair):
    lens = tiny_lens(fusion_layers=[0, 1])
    read_only(lens.model, "fusion")
    found = lens.patch(*face_pair, of="tokens")
    assert found.rows == [f"layer {i}" for i in range(4)] and found.columns == [
        *(f"token {i}" for i in range(4)),
        "all",
    ]
    np.testing.assert_allclose(found.recovered[0], 0, atol=1e-5)  # before the first MM Block
    assert abs(found.recovered[1, -1] - 1) > 0.01  # the second has yet to read the corrupted face
    np.testing.assert_allclose(found.recovered[2:, -1], 1, atol=1e-4)
    assert np.abs(found.recovered[3, :-1]).min() > 1e-6


def test_patched_cross_attention_is_the_clean_blocks_own(face_pair):
    lens = tiny_lens(fusion_layers=[3])
    read_only(lens.model, "fusion")
    found = lens.patch(*face_pair, of="cross_attention")
    assert found.rows == ["after layer 3", "all"]
    np.testing.assert_allclose(found.recovered[:, -1], 1, atol=2e-3)  # the only way in


def test_a_text_token_carries_the_turned_words_where_they_stand_until_the_head_reads_the_last():
    lens = tiny_lens()
    read_only(lens.model, "text")
    row = dict(lens.row(2), text="the cat was fine")
    other = dict(row, text="the dot was fine")
    sizes = [len(lens.model.tokenizer(r["text"])["input_ids"]) for r in (row, other)]
    assert sizes[0] == sizes[1]
    found = lens.patch(row, other, of="words")
    assert found.columns == ["the", "dot", "was", "fine", "all words"]
    np.testing.assert_allclose(found.recovered[:, 0], 0, atol=1e-5)  # causal: it does not know
    np.testing.assert_allclose(found.recovered[:, -1], 1, atol=1e-4)
    np.testing.assert_allclose(found.recovered[-1], [0, 0, 0, 1, 1], atol=1e-4)
    assert abs(found.recovered[0, 1]) > 1e-3  # from there it has moved on to the last token


def test_the_word_all_has_a_column_of_its_own(lens):
    row = dict(lens.row(2), text="all was fine")
    found = lens.patch(row, dict(row, text="all was fun"), of="words")
    assert found.columns == ["all", "was", "fun", "all words"]
    drawn = plots.patching_map(found).data[0]
    assert len(set(drawn.x)) == found.recovered.shape[1]


def test_pairs_that_cannot_be_compared_are_refused(lens, face_pair):
    clean, corrupted = face_pair
    with pytest.raises(DeepMLFError, match="choose from"):
        lens.patch(clean, corrupted, of="pixels")
    with pytest.raises(DeepMLFError, match="as many tokens"):
        lens.patch(clean, dict(corrupted, text="no"))
    with pytest.raises(DeepMLFError, match="no difference to follow"):
        lens.patch(clean, clean)


def test_the_patching_map_draws_what_was_recovered_on_a_fixed_scale(lens, face_pair):
    found = lens.patch(*face_pair, of="cross_attention")
    drawn = plots.patching_map(found).data[0]
    np.testing.assert_allclose(drawn.z, found.recovered)
    assert (drawn.zmin, drawn.zmax) == (-1, 1) and list(drawn.x) == found.columns


# Deletion curves -------------------------------------------------------------------------------------------------


def additive(model, worth):
    """By hand: the prediction is the sum of what the AV steps that are left are worth [K]."""

    def head(module, args, output):
        return {**output, "task": (seen[0].float() @ worth).unsqueeze(-1)}

    seen = []
    # The mask as it comes out of the ablation: cross-attention is handed it.
    first = next(iter(model.mm_blocks.values())).cross_attention
    first.register_forward_pre_hook(lambda module, args: seen.__setitem__(slice(None), [args[2]]))
    model.heads.register_forward_hook(head)
    return model


def test_of_a_sum_the_area_is_known_and_the_true_ranking_has_the_largest():
    lens = tiny_lens(fusion_layers=[0, 1])
    of_stretch = torch.tensor([5.0, 1, 3, 0, 2])  # all upwards, so that every deletion moves it on
    additive(lens.model, of_stretch.repeat_interleave(4) / 4)
    batch = lens.batch(2)
    best = deletion(lens.model, batch, of_stretch, width=4, orders=400)
    np.testing.assert_allclose(best.change, [0, 5, 8, 10, 11, 11], atol=1e-4)
    np.testing.assert_allclose(best.random.mean(axis=0), [0, 2.2, 4.4, 6.6, 8.8, 11], atol=0.25)
    # Expected along random orders: 11 n / 5.
    assert best.area == pytest.approx(np.mean([5 - 2.2, 8 - 4.4, 10 - 6.6, 11 - 8.8]), abs=0.2)
    assert best.p_value < 0.05 and best.names[0] == "AV steps 0 to 3"
    worst = deletion(lens.model, batch, 1 / (of_stretch + 0.1), width=4, orders=400)
    assert worst.area == pytest.approx(-best.area, abs=0.3) and worst.p_value > 0.95


def test_every_ranking_ends_where_everything_is_deleted(lens):
    for of in ("time", "words"):
        curves = [lens.deletion(3, of, by, orders=3, width=5) for by in RANKINGS]
        ends = [curve.change[-1] for curve in curves] + [v for curve in curves for v in curve.random[:, -1]]
        np.testing.assert_allclose(ends, ends[0], atol=1e-5)
        assert all(curve.change[0] == 0 and np.isfinite(curve.area) for curve in curves)
    first = lens.deletion(3, "words", orders=1)
    alone = lens.effects(3, "words").table().iloc[0]
    assert first.names[0] == alone["name"] and first.change[1] == pytest.approx(
        abs(alone["effect"]), abs=1e-5
    )
    nothing = lens.deletion(dict(lens.row(3)), "words", orders=1).change[-1]
    empty = lens.read(dict(lens.row(3), text=""), "gates").sentiment
    assert nothing == pytest.approx(abs(first.prediction - empty), abs=1e-5)


def test_rankings_that_do_not_fit_are_refused(lens):
    with pytest.raises(DeepMLFError, match="choose from effect"):
        lens.deletion(1, by="luck")
    with pytest.raises(DeepMLFError, match="one a part"):
        deletion(lens.model, lens.batch(1), [1.0, 2.0])
    with pytest.raises(DeepMLFError, match="time, words"):
        deletion(lens.model, lens.batch(1), [1.0], "blocks")


def test_the_deletion_plot_draws_both_curves(lens):
    found = lens.deletion(3, "words", orders=5)
    made = plots.deletion_curve(found)
    np.testing.assert_allclose(made.data[2].y, found.change)
    np.testing.assert_allclose(made.data[1].y, found.random.mean(axis=0))
