"""The MM Block's feed-forward: the LM layer's own, its two branches multiplied or added."""

import json

import pytest
import torch
from tiny_lms import WIDTH, tiny_batch, tiny_model

from deepmlf_kit import DeepMLFConfig, DeepMLFModel

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
