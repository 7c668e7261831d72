"""The MM Block's feed-forward: the LM layer's own, its two branches multiplied or added."""

import json

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from tiny_lms import WIDTH, tiny_batch, tiny_config, tiny_model
from transformers.pytorch_utils import Conv1D

from deepmlf_kit import DeepMLFConfig, DeepMLFModel
from deepmlf_kit.model.feed_forward import FeedForward, _sharing_copy, is_projection

GATED = ["llama", "qwen3", "gemma3"]


def both_ways(body, x):
    gate, up = body.act_fn(body.gate_proj(x)), body.up_proj(x)
    return {"sum": body.down_proj(gate + up), "product": body.down_proj(gate * up)}


@pytest.mark.parametrize("ffw", ["full", "lora"])
@pytest.mark.parametrize("form", ["sum", "product"])
@pytest.mark.parametrize("family", GATED)
def test_the_branches_of_a_gated_lm_meet_as_configured(family, form, ffw):
    model = tiny_model(family, ffw=ffw, ffw_form=form).eval()
    body = model.mm_blocks["1"].feed_forward.body
    x = torch.randn(2, 3, WIDTH)
    expected = both_ways(body, x)
    torch.testing.assert_close(body(x), expected[form])
    assert not torch.allclose(expected["sum"], expected["product"], atol=1e-3)


@pytest.mark.parametrize("family", ["gpt2", "neox", "opt"])
def test_an_lm_without_gated_feed_forward_has_one_form(family):
    batch = tiny_batch()
    answers = [tiny_model(family, ffw_form=form).eval()(**batch).prediction for form in ("sum", "product")]
    torch.testing.assert_close(answers[0], answers[1], atol=0, rtol=0)


@pytest.mark.parametrize("form", ["sum", "product"])
def test_both_forms_store_the_same_names_and_come_back_as_they_were(form, tmp_path):
    model = tiny_model(ffw_form=form).eval()
    names = set(tiny_model(ffw_form="product").state_dict())
    assert set(model.state_dict()) == names
    model.save_pretrained(tmp_path)
    again = DeepMLFModel.from_pretrained(tmp_path, lm=model.language.lm)
    batch = tiny_batch()
    torch.testing.assert_close(again(**batch).prediction, model(**batch).prediction)


def test_a_checkpoint_that_names_no_form_was_trained_with_the_product(tmp_path):
    DeepMLFConfig().save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored.pop("ffw_form") == "sum"
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert DeepMLFConfig.from_pretrained(tmp_path).ffw_form == "product"


def pefts(body, config):
    """The feed-forward with the layers of PEFT, which it is compared with."""
    projections = {name: m for name, m in body.named_modules() if is_projection(m)}
    return inject_adapter_in_model(
        LoraConfig(
            r=config.lora_r,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            target_modules=list(projections),
            fan_in_fan_out=any(isinstance(m, Conv1D) for m in projections.values()),
        ),
        _sharing_copy(body),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
def test_lora_has_the_names_the_start_the_answers_and_the_gradients_of_peft(family, dtype):
    config = tiny_config(ffw="lora", ffw_form="product", lora_r=3, lora_alpha=12.0, lora_dropout=0.3)
    body = tiny_model(family, ffw="none").language.feed_forward(1).to(dtype)
    torch.manual_seed(5)
    ours = FeedForward(body, config).body
    torch.manual_seed(5)
    theirs = pefts(body, config)
    for name, start in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], start, atol=0, rtol=0)
    assert set(ours.state_dict()) == set(theirs.state_dict())
    with torch.no_grad():
        for name, weight in ours.named_parameters():
            if "lora_B" in name:
                weight.normal_()
        theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, WIDTH, dtype=dtype)
    answers = []
    for each in (ours, theirs):
        torch.manual_seed(1)  # of the dropout
        answers.append(each.train()(x))
        answers[-1].float().square().sum().backward()
    torch.testing.assert_close(answers[0], answers[1], atol=0, rtol=0)
    found = [{n: p.grad for n, p in each.named_parameters() if p.requires_grad} for each in (ours, theirs)]
    assert set(found[0]) == set(found[1]) and all("lora_" in name for name in found[0])
    for name, gradient in found[1].items():
        torch.testing.assert_close(found[0][name], gradient, atol=0, rtol=0, msg=name)
