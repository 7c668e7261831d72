"""The LM in 8 or 4 bit through bitsandbytes: the same model as around its dequantized weights, saved without them."""

import copy
import importlib.util
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors import safe_open
from tiny_lms import tiny_batch, tiny_config
from torch import nn
from training_fixtures import TINY, tiny_sample
from transformers import GPT2Config, GPT2LMHeadModel

from deepmlf_kit import DeepMLFModel
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.model import lm_loading
from deepmlf_kit.training import train

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes (make test-all installs it)"
)
# Of the norm: 8 bit rounds activations too, 4 bit computes in bfloat16. Gradients that do not pass are 0.7 away.
STATES_CLOSE, GRADIENTS_CLOSE = 0.03, 0.1


def models(bits, **changes):
    """A model around the embedded LM in few bits, and one around the same LM's weights written out."""
    from peft.utils.integrations import dequantize_module_weight

    config = tiny_config(lm="embedded", lm_bits=bits, **changes)
    torch.manual_seed(0)
    few = DeepMLFModel(config).eval()
    plain = lm_loading.load_lm(tiny_config(lm="embedded"))
    with torch.no_grad():
        for name, module in few.language.lm.named_modules():
            if isinstance(module, nn.Linear) and not module.weight.is_floating_point():
                plain.get_submodule(name).weight.copy_(dequantize_module_weight(copy.deepcopy(module)))
    torch.manual_seed(0)
    same = DeepMLFModel(tiny_config(lm="embedded", **changes), lm=plain, tokenizer=few.tokenizer).eval()
    trained = {n: p for n, p in few.named_parameters() if p.requires_grad}
    missing = same.load_state_dict(trained, strict=False)
    assert not missing.unexpected_keys
    return few, same


def step(model, batch):
    output = model(**batch)
    output.loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return output.fusion_states.detach(), gradients


def distance(found, wanted):
    return ((found - wanted).norm() / wanted.norm()).item()


@pytest.mark.slow
@needs_bitsandbytes
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("ffw", ["full", "lora"])
@pytest.mark.parametrize("text_first", [True, False])
def test_states_and_gradients_are_those_of_the_dequantized_weights(bits, ffw, text_first):
    few, same = models(bits, ffw=ffw, text_first=text_first)
    # Labels far from the predictions: near them rounding could flip the sign of an absolute error's gradient.
    batch = tiny_batch() | {"labels": torch.full((3,), 9.0)}
    states, gradients = step(few, batch)
    wanted_states, wanted = step(same, batch)
    assert distance(states, wanted_states) < STATES_CLOSE
    assert gradients.keys() == wanted.keys()
    found, wanted = (torch.cat([g[n].flatten() for n in sorted(g)]) for g in (gradients, wanted))
    assert distance(found, wanted) < GRADIENTS_CLOSE


@pytest.mark.slow
@needs_bitsandbytes
@pytest.mark.parametrize("bits", [8, 4])
def test_several_threads_may_ask_a_quantized_lm_and_copies_of_it(bits):
    model, batch = DeepMLFModel(tiny_config(lm="embedded", lm_bits=bits)).eval(), tiny_batch()

    @torch.no_grad()
    def answer(asked):
        return asked(**batch).prediction

    expected = answer(model)
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(answer, [model, model, *copies]))
    assert all(torch.equal(prediction, expected) for prediction in found)


@pytest.mark.slow
@needs_bitsandbytes
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("ffw", ["full", "lora"])
def test_a_training_saves_what_was_trained_and_loads_again(bits, ffw, tmp_path):
    run = train(
        "sample",
        tiny_sample(),
        tmp_path / "run",
        overrides=TINY | {"lm.bits": bits, "lm.name": "embedded", "fusion.ffw": ffw, "fusion.layers": [5, 6]},
        progress=False,
    )
    with safe_open(run.best / "model.safetensors", "pt") as file:
        names = list(file.keys())
    assert names
    assert not [name for name in names if "language" in name or "quant" in name or "SCB" in name]
    model = run.load_model()
    assert model.config.lm_bits == bits
    plain = sum(p.numel() for p in lm_loading.load_lm(tiny_config(lm="embedded")).parameters())
    assert run.info["parameters"]["frozen"] == plain
    assert 0 < run.metrics["MAE"] < 4


@pytest.mark.slow
@needs_bitsandbytes
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("ffw", ["full", "lora"])
def test_gpt2_whose_projections_are_stored_turned_round_is_quantized_too(bits, ffw, tmp_path):
    torch.manual_seed(0)
    sizes = {"n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 64, "vocab_size": 97}
    GPT2LMHeadModel(GPT2Config(**sizes)).save_pretrained(tmp_path)
    # A loss without kinks (no ReLU in the fusion head, labels far from what it says), where rounding could flip a sign.
    batch = tiny_batch() | {"labels": torch.full((3,), 9.0)}
    found = []
    for lm_bits in (16, bits):
        config = tiny_config(lm=str(tmp_path), lm_bits=lm_bits, ffw=ffw)
        lm = lm_loading.load_lm(config)
        torch.manual_seed(1)
        model = DeepMLFModel(config, lm=lm).eval()
        output = model(**batch)
        output.loss_fusion.backward()
        found.append((output.fusion_states.detach(), model.fusion_tokens.grad))
    (wanted_states, wanted), (states, gradient) = found
    states_close, gradients_close = {8: (0.01, 0.02), 4: (0.05, 0.4)}[bits]  # what rounding the weights does
    assert distance(states, wanted_states) < states_close
    assert distance(gradient, wanted) < gradients_close


def test_without_bitsandbytes_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(DeepMLFError, match=r"pip install 'deepmlf-kit\[quantized\]'"):
        lm_loading.load_lm(tiny_config(lm="embedded", lm_bits=8))
