"""Capture sees everything and changes nothing."""

import threading

import numpy as np
import pytest
import torch
from tiny_lms import FAMILIES, one_of, tiny_batch, tiny_model
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.explain import capture


def hooks_of(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def lively(family="llama", **changes):
    model = tiny_model(family, **changes)
    with torch.no_grad():
        model.fusion_tokens.mul_(20)  # so that what tokens read shows in every number
    return model


@pytest.mark.parametrize("text_first", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_capture_does_not_change_the_forward(family, text_first):
    model, batch = lively(family, text_first=text_first), tiny_batch()
    before = model(**batch)
    seen = capture(model, batch)
    for name in ("prediction", "text_prediction", "fusion_prediction", "av_prediction", "fusion_states"):
        assert torch.equal(before[name], seen.output[name]), name
    assert torch.equal(before.prediction, model(**batch).prediction)
    assert hooks_of(model) == 0
    assert not ALL_ATTENTION_FUNCTIONS._local_mapping


@pytest.mark.parametrize("text_first", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_self_attention_is_what_eager_attention_gives(family, text_first):
    model, batch = lively(family, text_first=text_first), tiny_batch()
    seen = capture(model, batch, "self_attention").self_attention
    model.language.lm.set_attn_implementation("eager")
    eager = capture(model, batch, "self_attention").self_attention
    assert seen.shape == (3, 4, 4, 5, 9 + 5)
    np.testing.assert_allclose(seen, eager, atol=1e-5)
    np.testing.assert_allclose(seen.sum(axis=-1), 1, atol=1e-5)
    assert (seen[1, ..., 5:9] == 0).all()  # padding of the text with five tokens
    later = np.triu(np.ones((5, 5), bool), k=1)
    assert (seen[..., 9:][..., later] == 0).all()  # fusion tokens do not see later ones


def test_cross_attention_is_the_models_own():
    model, batch = lively(), tiny_batch()
    seen = capture(model, batch, "cross_attention")
    own = model(**batch, output_attentions=True).cross_attentions
    for index, layer in enumerate(seen.fusion_layers):
        np.testing.assert_allclose(seen.cross_attention[:, index], own[layer].detach().numpy(), atol=1e-6)
    assert seen.cross_attention.shape == (3, 2, 4, 5, 10)


def test_an_utterance_without_voice_and_face_attends_to_nothing():
    batch = tiny_batch()
    batch["audio_mask"][1] = batch["vision_mask"][1] = False
    seen = capture(lively(), batch)
    assert (seen.cross_attention[1] == 0).all() and not seen.av_mask[1].any()
    assert (seen.read_norms[1] == 0).all()
    np.testing.assert_allclose(seen.cross_attention[0].sum(axis=-1), 1, atol=1e-5)


def test_depth_ends_in_what_the_heads_say():
    model, batch = lively(), tiny_batch()
    seen = capture(model, batch, "depth")
    assert seen.fusion_sentiment.shape == (3, 5, 5)
    np.testing.assert_allclose(seen.fusion_sentiment[:, -1], seen.output.fusion_prediction.numpy(), atol=1e-6)
    np.testing.assert_allclose(seen.task_sentiment[:, -1], seen.output.prediction.numpy(), atol=1e-6)
    np.testing.assert_allclose(seen.text_sentiment[:, -1], seen.output.text_prediction.numpy(), atol=1e-6)
    similarity = seen.token_similarity
    np.testing.assert_allclose(np.diagonal(similarity, axis1=2, axis2=3), 1, atol=1e-5)


@pytest.mark.parametrize("text_first", [True, False])
def test_norms_are_the_lengths_of_what_was_added(text_first):
    # One MM Block after the first of two known states: what it adds is the difference of the states around it.
    model = lively(fusion_layers=[1], ffw="none", text_first=text_first)
    seen = capture(model, tiny_batch(), ("norms", "depth"))
    with torch.no_grad():
        model.mm_blocks["1"].gate_1.alpha.fill_(-1e4)  # shut
    shut = capture(model, tiny_batch(), ("norms", "depth"))
    open_state = seen.output.hidden_states[2][:, -5:]
    shut_state = shut.output.hidden_states[2][:, -5:]
    np.testing.assert_allclose(seen.read_norms[:, 0], (open_state - shut_state).norm(dim=-1), rtol=1e-4)
    np.testing.assert_allclose(seen.state_norms[:, 0], shut_state.norm(dim=-1), rtol=1e-4)
    assert (shut.read_norms == 0).all()
    assert np.isnan(seen.gates["feed_forward"]).all()


def test_think_norms_on_text_only_where_it_runs_on_text():
    on = capture(lively(), tiny_batch(), "norms").think_norms
    off = capture(lively(ffw_on_text=False), tiny_batch(), "norms").think_norms
    assert on.shape == off.shape == (3, 2, 9 + 5)
    assert (on[0] > 0).all() and np.isnan(on[1, :, 5:9]).all()
    assert np.isnan(off[..., :9]).all() and (off[..., 9:] > 0).all()


def test_only_what_is_asked_for_is_there():
    seen = capture(lively(), tiny_batch(), "gates")
    assert seen.gates["cross_attention"] == pytest.approx([0.5, 0.5])
    for name in ("cross_attention", "self_attention", "read_norms", "fusion_sentiment", "av_states"):
        assert getattr(seen, name) is None
    assert seen.output.hidden_states is None


def test_a_batch_is_captured_as_its_utterances_one_by_one():
    model, batch = lively(), tiny_batch()
    together = capture(model, batch)
    alone = capture(model, one_of(batch, 1))
    np.testing.assert_allclose(together.cross_attention[1], alone.cross_attention[0], atol=1e-5)
    np.testing.assert_allclose(
        together.self_attention[1][..., :5], alone.self_attention[0][..., :5], atol=1e-5
    )
    np.testing.assert_allclose(together.read_norms[1], alone.read_norms[0], rtol=1e-4)


def test_hooks_go_when_the_pass_fails():
    model, batch = lively(), tiny_batch()
    bad = {**batch, "audio": batch["audio"][..., :3]}
    with pytest.raises(RuntimeError):
        capture(model, bad)
    assert hooks_of(model) == 0
    assert not ALL_ATTENTION_FUNCTIONS._local_mapping
    capture(model, batch)  # and the next one works


def test_another_threads_pass_is_not_captured():
    model, batch = lively(), tiny_batch()
    other, inside, done = tiny_batch(seed=5), threading.Event(), threading.Event()
    seen = []

    def interfere():
        inside.wait(10)
        with torch.no_grad():
            seen.append(model(**other).prediction)
        done.set()

    thread = threading.Thread(target=interfere)
    thread.start()

    def pause(*_):
        if threading.current_thread() is not thread and not inside.is_set():
            inside.set()
            done.wait(10)

    handle = model.mm_blocks["2"].cross_attention.register_forward_hook(pause)
    try:
        held = capture(model, batch)
    finally:
        handle.remove()
        inside.set()
        thread.join()
    undisturbed = capture(model, batch)
    np.testing.assert_array_equal(held.cross_attention, undisturbed.cross_attention)
    np.testing.assert_array_equal(held.self_attention, undisturbed.self_attention)
    assert torch.equal(seen[0], model(**other).prediction)


def test_training_mode_and_unknown_measures_are_refused():
    with pytest.raises(DeepMLFError, match=r"model\.eval"):
        capture(lively().train(), tiny_batch())
    with pytest.raises(DeepMLFError, match="cross_attention"):
        capture(lively(), tiny_batch(), "attention")


def test_classes_are_read_as_a_number_from_minus_one_to_one():
    seen = capture(lively(num_classes=3), tiny_batch(), "depth")
    assert seen.fusion_sentiment.shape == (3, 5, 5)
    assert (np.abs(seen.task_sentiment) <= 1).all()
