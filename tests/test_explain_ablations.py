"""Ablations: the effect is the difference that each makes, whatever was computed together."""

import numpy as np
import pytest
import torch
from explain_fixtures import tiny_lens
from preset_lms import save_like
from tiny_lms import one_of, tiny_batch, tiny_config, tiny_model

from deepmlf_kit import DeepMLFModel
from deepmlf_kit.data.collate import Collator
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.explain import attention_vs_effect, effects, integrated_gradients
from deepmlf_kit.explain.ablations import ABLATIONS
from deepmlf_kit.explain.words import Words, words_of
from deepmlf_kit.model.av_encoder import mean_state


@pytest.fixture(scope="module")
def model():
    made = tiny_model()
    with torch.no_grad():
        made.fusion_tokens.mul_(20)
    return made


@pytest.fixture(scope="module")
def batch():
    return one_of(tiny_batch(), 0)


@pytest.fixture(scope="module")
def lens():
    return tiny_lens()


def single_words(count):
    names = [f"w{i}" for i in range(count)]
    unknown = np.full(count, np.nan)
    return Words(names, names, np.arange(count), unknown, unknown)


def predict(model, batch):
    with torch.no_grad():
        return float(model(**{k: v for k, v in batch.items() if k != "labels"}).prediction)


def test_a_missing_modality_is_the_models_own_missing_modality(model, batch):
    found = effects(model, batch, "modalities")
    whole = predict(model, batch)
    assert found.prediction == pytest.approx(whole, abs=1e-5)
    for name, without in (
        ("audio", {"audio": None, "audio_mask": None}),
        ("vision", {"vision": None, "vision_mask": None}),
        ("audio and vision", {"audio": None, "audio_mask": None, "vision": None, "vision_mask": None}),
    ):
        expected = whole - predict(model, {**batch, **without})
        assert found.effect[found.names.index(name)] == pytest.approx(expected, abs=1e-5), name


def test_a_removed_word_is_the_text_without_it(model, batch):
    found = effects(model, batch, "words", words=single_words(9))
    keep = [i for i in range(9) if i != 3]
    shorter = {
        **batch,
        "input_ids": batch["input_ids"][:, keep],
        "attention_mask": batch["attention_mask"][:, keep],
    }
    assert found.effect[3] == pytest.approx(predict(model, batch) - predict(model, shorter), abs=1e-5)
    assert len(found.names) == 9


@pytest.fixture(scope="module", params=["uer/gpt2-chinese-cluecorpussmall", "gpt2"])
def smaller_vocabulary(request, tmp_path_factory):
    """A model whose LM config names a bos token (50256) that its vocabulary does not have, and one utterance."""
    texts = ["这部电影很好看", "我不喜欢"] if "chinese" in request.param else ["that was fine", "not at all"]
    folder = save_like(request.param, tmp_path_factory.mktemp("lm"), texts)
    torch.manual_seed(0)
    model = DeepMLFModel(tiny_config(lm=str(folder), pad_token_id=None)).eval()
    assert model.language.config.bos_token_id >= model.language.config.vocab_size
    collator = Collator(model.tokenizer, 12)
    row = {"audio": np.ones((5, 7)), "vision": np.ones((4, 9))}
    return model, collator, row | {"text": texts[0]}, row | {"text": ""}


def test_removed_words_are_what_the_tokenizer_makes_of_an_empty_text(smaller_vocabulary):
    model, collator, row, empty = smaller_vocabulary
    found = effects(model, collator([row]), "modalities")
    expected = predict(model, collator([row])) - predict(model, collator([empty]))
    assert found.effect[found.names.index("text")] == pytest.approx(expected, abs=1e-5)


def test_the_only_word_removed_is_the_empty_text(smaller_vocabulary):
    model, collator, row, empty = smaller_vocabulary
    one = row | {"text": "好" if "这" in row["text"] else "fine"}
    words = words_of(one["text"], model.tokenizer, 12)
    assert len(words.words) == 1
    found = effects(model, collator([one]), "words", words=words)
    expected = predict(model, collator([one])) - predict(model, collator([empty]))
    assert found.effect[0] == pytest.approx(expected, abs=1e-5)


def test_rows_per_pass_change_nothing(model, batch):
    for of in ("words", "tokens", "blocks", "time"):
        many = effects(model, batch, of, words=single_words(9), width=3)
        few = effects(model, batch, of, words=single_words(9), width=3, rows=2)
        np.testing.assert_allclose(many.effect, few.effect, atol=1e-5)


def test_masked_steps_matter_only_where_they_are_attended_to(model, batch):
    with torch.no_grad():
        gates = [model.mm_blocks[name].gate_1.alpha for name in ("1", "2")]
        for gate in gates:
            gate.fill_(-1e4)  # fusion tokens read nothing: only the AV mean is left
        found = effects(model, batch, "time", width=2)
        for gate in gates:
            gate.zero_()
    assert np.abs(found.fusion_tokens).max() < 1e-6
    assert np.abs(found.heads["av"]).max() > 1e-3
    assert list(found.start) == [0, 2, 4, 6, 8] and list(found.end) == [2, 4, 6, 8, 10]


def test_a_token_without_cross_attention_does_not_change_earlier_tokens(model, batch):
    found = effects(model, batch, "tokens", "cross_attention")
    own = found.fusion_tokens  # [token taken, token that changes]
    assert np.abs(np.triu(own.T, k=1)).max() < 1e-5  # causal: earlier ones cannot notice
    assert (np.abs(np.diagonal(own)) > 1e-6).all()


def test_a_token_whose_readout_is_ablated_is_left_out_of_the_mean(model, batch):
    found = effects(model, batch, "tokens", "readout")
    with torch.no_grad():
        output = model(**batch)
    last = int(batch["attention_mask"].sum()) - 1
    others = output.fusion_states[:, [0, 1, 3, 4]]
    with torch.no_grad():
        predictions = model.heads(
            others, output.text_states[:, last], mean_state(output.av_states, output.av_mask)
        )
    assert found.effect[2] == pytest.approx(float(output.prediction) - float(predictions["task"]), abs=1e-5)


def test_an_ablated_branch_is_the_model_without_it(model, batch):
    found = effects(model, batch, "blocks")
    whole = predict(model, batch)
    shut = model.mm_blocks["1"]
    with torch.no_grad():
        shut.gate_1.alpha.fill_(-1e4)
        reading_off = predict(model, batch)
        shut.gate_2.alpha.fill_(-1e4)
        both_off = predict(model, batch)
        shut.gate_1.alpha.zero_()
        shut.gate_2.alpha.zero_()
    assert found.effect[found.names.index("layer 1: cross-attention")] == pytest.approx(
        whole - reading_off, abs=1e-5
    )
    assert found.effect[found.names.index("layer 1: both")] == pytest.approx(whole - both_off, abs=1e-5)


def test_resampling_from_itself_changes_nothing(model, batch):
    for of in ("modalities", "time", "tokens", "blocks"):
        found = effects(model, batch, of, "resampled", donors=batch, draws=1, width=3)
        np.testing.assert_allclose(found.effect, 0, atol=1e-5, err_msg=of)


def test_the_same_seed_draws_the_same(model, batch):
    donors = tiny_batch(seed=3)
    first = effects(model, batch, "modalities", "resampled", donors=donors, draws=2, seed=1)
    again = effects(model, batch, "modalities", "resampled", donors=donors, draws=2, seed=1)
    np.testing.assert_array_equal(first.effect, again.effect)
    assert first.draws == 2 and first.spread.max() > 0


@pytest.mark.parametrize(
    ("of", "ablation"), [(of, ablation) for of, choices in ABLATIONS.items() for ablation in choices]
)
def test_every_ablation_describes_its_replacement(lens, of, ablation):
    found = lens.effects(2, of, ablation, draws=2)
    assert len(found.replacement) > 10 and len(found.names) == len(found.effect)
    assert np.isfinite(found.effect).all() and np.abs(found.effect).max() > 0
    assert list(found.table()["effect"].abs()) == sorted(np.abs(found.effect), reverse=True)


def test_wrong_choices_are_refused(model, batch):
    with pytest.raises(DeepMLFError, match="modalities"):
        effects(model, batch, "pixels")
    with pytest.raises(DeepMLFError, match="removed"):
        effects(model, batch, "words", "burnt")
    with pytest.raises(DeepMLFError, match="donors"):
        effects(model, batch, "time", "resampled")
    with pytest.raises(DeepMLFError, match="words="):
        effects(model, batch, "words")
    left = batch["attention_mask"].clone()
    left[0, 0] = 0
    with pytest.raises(DeepMLFError, match="padded on the right"):
        effects(model, {**batch, "attention_mask": left}, "time")
    with pytest.raises(DeepMLFError, match="One utterance"):
        effects(model, tiny_batch(), "modalities")


def test_a_stretch_of_time_ablates_the_frames_of_that_time(lens):
    row = lens.row(2)
    length = max(row["audio_times"][-1], row["vision_times"][-1])
    lost = dict(row, vision=row["vision"].copy())
    lost["vision"][row["vision_times"] > length / 2] = 0  # the face is lost half-way
    steps = lens.model.config.av_steps
    found = lens.effects(lost, "time", "zeroed", width=steps // 2)
    silent = lens.effects(dict(lost, audio=np.zeros_like(row["audio"])), "time", "zeroed", width=steps // 2)
    assert np.abs(found.effect).min() > 1e-6  # the voice is there all the time
    assert abs(silent.effect[1]) < 1e-6 < abs(silent.effect[0])


def test_integrated_gradients_add_up_to_the_difference(lens, model, batch):
    for shares in (
        integrated_gradients(model, batch, steps=48),
        lens.gradients(1, steps=64),
        lens.gradients(1, steps=64, frame_baseline="mean"),
    ):
        total = shares.text.sum() + shares.audio.sum() + shares.vision.sum()
        difference = shares.prediction - shares.baseline_prediction
        assert total == pytest.approx(difference, abs=0.02 * max(1.0, abs(difference)) + 0.01)
        assert shares.convergence_delta == pytest.approx(difference - total, abs=1e-4)
        assert np.abs(shares.audio).sum() > 0 and np.abs(shares.vision).sum() > 0


def test_gradients_of_a_missing_modality_are_zero(model, batch):
    silent = {**batch, "audio_mask": torch.zeros_like(batch["audio_mask"])}
    shares = integrated_gradients(model, silent, steps=4)
    assert (shares.audio == 0).all() and (shares.vision != 0).any()


def test_attention_vs_effect_ranks_them(lens):
    found = lens.compare(2, "time", width=2)
    assert len(found.attention) == len(found.effect) == 10
    assert found.attention.sum() == pytest.approx(1, abs=1e-4)
    assert -1 <= found.rank_correlation <= 1
    words = lens.compare(2, "words")
    assert words.names == lens.read(2, "gates").words.labels
    reading = lens.read(2, "cross_attention")
    one = attention_vs_effect(reading, lens.effects(2, "time", width=2), layer=0, head=1, token=3)
    np.testing.assert_allclose(
        one.attention, reading.get("cross_attention")[0, 1, 3].reshape(10, 2).sum(axis=1), rtol=1e-5
    )


def test_a_model_that_looks_where_it_matters_ranks_high(lens):
    reading, found = lens.read(2, "cross_attention"), lens.effects(2, "time", width=2)
    share = reading.get("cross_attention").mean(axis=(0, 1, 2)).reshape(10, 2).sum(axis=1)
    found.effect = -share  # the size of an effect counts, not its sign
    assert attention_vs_effect(reading, found).rank_correlation == pytest.approx(1)
    found.effect = 1 / share
    assert attention_vs_effect(reading, found).misleading
