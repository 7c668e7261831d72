"""Several threads ask one model at once and get the numbers that one thread gets; models pickle and copy."""

import copy
import io
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_lms import FAMILIES, tiny_batch, tiny_lm, tiny_model
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from deepmlf_kit.explain import capture, effects
from deepmlf_kit.explain.hooks import forward_hooks
from deepmlf_kit.model.frozen_lm import LanguageStream


@pytest.fixture
def eager_switches():
    """Threads take turns far more often than they do otherwise."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def at_once(*tasks):
    """What each task gives, all of them started together."""
    barrier = threading.Barrier(len(tasks))

    def run(task):
        barrier.wait(30)
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return [future.result(60) for future in [pool.submit(run, task) for task in tasks]]


def answer(model, batch):
    with torch.no_grad():
        return model(**batch).prediction


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("text_first", [True, False], ids=["text first", "plain"])
def test_three_threads_get_the_numbers_of_one(family, text_first, eager_switches):
    model = tiny_model(family, text_first=text_first)
    batches = [tiny_batch(seed=seed) for seed in range(3)]
    expected = [answer(model, batch) for batch in batches]

    def ask(batch):
        return [answer(model, batch) for _ in range(6)]

    found = at_once(*(lambda batch=batch: ask(batch) for batch in batches))
    for predictions, wanted in zip(found, expected, strict=True):
        assert all(torch.equal(prediction, wanted) for prediction in predictions)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_dry_run_leaves_the_decoder_as_it_is(family):
    """What another thread sees in the middle of `prepare`."""
    model = tiny_model(family)
    layers = list(model.language.layers)
    seen = []

    def look(*_):
        seen.append(list(model.language.layers) == layers)

    final_norm = model.language.decoder.get_submodule(model.language._finish_paths[0])
    handle = final_norm.register_forward_hook(look)
    answer(model, tiny_batch())
    handle.remove()
    assert len(seen) > 1  # dry runs and the pass itself
    assert all(seen)


def test_models_around_one_lm_can_be_built_while_another_thread_asks_it(eager_switches):
    lm = tiny_lm("llama")
    expected = LanguageStream(lm)._finish_paths
    ids = torch.ones(1, 4, dtype=torch.long)
    stop = threading.Event()

    def ask():
        while not stop.is_set():
            lm.model.norm(torch.ones(1, 1, lm.config.hidden_size))
            lm(input_ids=ids)

    def build():
        try:
            return [LanguageStream(lm)._finish_paths for _ in range(8)]
        finally:
            stop.set()

    assert at_once(ask, build)[1] == [expected] * 8


def test_threads_that_explain_do_not_disturb_threads_that_ask(eager_switches):
    model, batch, other = tiny_model(), tiny_batch(), tiny_batch(seed=5)
    one = {name: value[:1] for name, value in batch.items()}
    expected, seen, ablated = answer(model, other), capture(model, batch), effects(model, one, "blocks")
    found = at_once(
        lambda: [answer(model, other) for _ in range(12)],
        lambda: [capture(model, batch) for _ in range(3)],
        lambda: [effects(model, one, "blocks") for _ in range(2)],
    )
    assert all(torch.equal(prediction, expected) for prediction in found[0])
    for again in found[1]:
        assert torch.equal(again.output.prediction, seen.output.prediction)
        np.testing.assert_array_equal(again.self_attention, seen.self_attention)
        np.testing.assert_array_equal(again.cross_attention, seen.cross_attention)
    for again in found[2]:
        np.testing.assert_array_equal(again.effect, ablated.effect)
    assert not ALL_ATTENTION_FUNCTIONS._local_mapping


def test_a_pass_may_meet_another_threads_hook_while_it_is_removed():
    module, met, removed = nn.Identity(), threading.Event(), threading.Event()

    def wait(*_):
        met.set()
        removed.wait(30)

    module.register_forward_hook(wait)  # runs first: the pass has taken its list of hooks by then
    with ThreadPoolExecutor(1) as pool:
        with forward_hooks([(module, lambda *_: torch.zeros(1))]):
            other = pool.submit(module, torch.ones(1))
            assert met.wait(30)
        removed.set()
        assert torch.equal(other.result(30), torch.ones(1))


def test_threads_that_fill_the_text_cache_together_keep_every_text_once(tmp_path, eager_switches):
    model = tiny_model()
    batches = [tiny_batch(lengths=(9, 5, 1, 7), audio=(4,) * 4, vision=(4,) * 4, seed=s) for s in range(8)]
    expected = [answer(model, batch) for batch in batches]
    store = model.cache_text_states(tmp_path)
    try:
        at_once(
            *(lambda s=s: [answer(model, batch) for batch in batches[s:] + batches[:s]] for s in range(4))
        )
        file = model.usable_text_cache()
        texts = {key for batch in batches for key in file.key(batch["input_ids"], batch["attention_mask"])}
        assert len(file) == len(texts)
        for batch, wanted in zip(batches, expected, strict=True):
            torch.testing.assert_close(answer(model, batch), wanted, atol=1e-5, rtol=0)
    finally:
        store.close()


def through_torch_save(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": through_torch_save,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize(("family", "ffw"), [("llama", "lora"), ("gpt2", "full")])
def test_a_whole_model_can_be_copied_with_its_text_cache_left_behind(way, family, ffw, tmp_path):
    model, batch = tiny_model(family, ffw=ffw), tiny_batch()
    store = model.cache_text_states(tmp_path)
    expected = answer(model, batch)
    again = COPIES[way](model)
    assert again.usable_text_cache() is None
    assert model.usable_text_cache() is not None
    store.close()
    assert list(again.state_dict()) == list(model.state_dict())
    torch.testing.assert_close(answer(again, batch), expected, atol=1e-5, rtol=0)
    with torch.no_grad():  # the copy runs its own layers, not the first model's
        for parameter in model.language.layers.parameters():
            parameter.zero_()
    torch.testing.assert_close(answer(again, batch), expected, atol=1e-5, rtol=0)


def test_adapters_on_the_lm_and_several_threads_go_together(eager_switches):
    model, batch = tiny_model(), tiny_batch()
    adapters = LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(model.language.lm, adapters)
    expected = answer(model, batch)
    found = at_once(*[lambda: answer(model, batch)] * 3, lambda: answer(COPIES["pickle"](model), batch))
    assert all(torch.equal(prediction, expected) for prediction in found)


@pytest.mark.parametrize("family", FAMILIES)
def test_threads_that_compute_a_training_loss_get_the_loss_of_one(family, eager_switches):
    changes = {"loss_lm": 0.0, "fusion_layers": [1, 3], "seqaug_av_p_feat": 0.0, "av_dropout": 0.0}
    model, batches = (
        tiny_model(family, attention_dropout=0.0, **changes),
        [tiny_batch(), tiny_batch((4, 12, 2))],
    )
    model.training = True  # no other module: dropout stays off

    def loss(batch):
        value = model(**batch).loss
        return value.detach(), *torch.autograd.grad(value, [model.fusion_tokens])

    expected = [loss(batch) for batch in batches]
    found = at_once(*[lambda batch=batch: loss(batch) for batch in batches * 2])
    for got, wanted in zip(found, expected * 2, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-6, rtol=0)


def test_half_precision_and_several_threads_go_together(eager_switches):
    model = tiny_model("gemma3")
    model.language.lm.to(torch.bfloat16)
    batch = tiny_batch()
    expected = answer(model, batch)
    assert expected.isfinite().all()
    found = at_once(*[lambda: answer(COPIES["pickle"](model), batch), lambda: answer(model, batch)])
    assert all(torch.equal(prediction, expected) for prediction in found)


def test_a_decoder_whose_forward_was_replaced_still_tells_its_calls():
    """As accelerate replaces it, for a quantized LM say: by a function that runs the decoder itself."""
    model, batch = tiny_model(), tiny_batch()
    expected = answer(model, batch)
    decoder = model.language.decoder
    decoder.forward = decoder.forward  # bound to this decoder, in its own dictionary
    assert torch.equal(answer(model, batch), expected)
    assert torch.equal(answer(copy.deepcopy(model), batch), expected)
