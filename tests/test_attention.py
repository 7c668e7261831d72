"""Attention over short sequences: the fused kernel's numbers, on CPU used where it would run."""

import pytest
import torch
from tiny_lms import FAMILIES, tiny_batch, tiny_lm, tiny_model
from torch.nn import functional as F

from deepmlf_kit.model import attention
from deepmlf_kit.model.attention import SHORT, attend, attend_short

on_cpu = pytest.mark.skipif(
    torch.accelerator.is_available(), reason="the fused kernel stays on an accelerator"
)


@pytest.mark.parametrize(("heads", "groups"), [(6, 6), (6, 2), (6, 1)])
@pytest.mark.parametrize("queries", [1, 4, 9])
def test_attend_gives_the_fused_kernels_numbers_and_gradients(heads, groups, queries):
    torch.manual_seed(0)
    query = torch.randn(3, heads, queries, 8, requires_grad=True)
    key, value = (torch.randn(3, groups, 9, 8, requires_grad=True) for _ in range(2))
    causal = torch.ones(queries, 9, dtype=torch.bool).tril(9 - queries).expand(3, 1, -1, -1)
    added = torch.zeros(causal.shape).masked_fill(~causal, float("-inf"))
    found, weights = attend(query, key, value, added, scale=0.3)
    expected = F.scaled_dot_product_attention(query, key, value, causal, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert weights.shape == (3, heads, queries, 9)
    assert (weights.masked_select(~causal) == 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, heads, queries))
    seed = torch.randn_like(found)
    for got, wanted in zip(
        torch.autograd.grad(found, (query, key, value), seed),
        torch.autograd.grad(expected, (query, key, value), seed),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)


def test_dropout_leaves_out_weights_and_keeps_their_mean():
    torch.manual_seed(0)
    query, key = torch.randn(1, 1, 2000, 4), torch.randn(1, 1, 5, 4)
    mask = torch.zeros(1, 1, 1, 5)
    kept, weights = attend(query, key, torch.eye(5)[None, None], mask, scale=0.5, dropout=0.25)
    assert weights.min() > 0  # what is given back is before dropout
    assert (kept == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert kept.mean().item() == pytest.approx(weights.mean().item(), rel=0.05)


@on_cpu
@pytest.mark.parametrize("family", FAMILIES)
def test_an_lm_gives_the_fused_kernels_states(family):
    batch = tiny_batch(lengths=(5, 0, 9))
    asked = {key: batch[key] for key in ("input_ids", "attention_mask")}
    some = asked["attention_mask"].bool()
    lm = tiny_lm(family).eval()
    lm.set_attn_implementation("sdpa")
    expected = lm(**asked).logits
    attend_short(lm)
    assert lm.config.get_text_config()._attn_implementation == SHORT
    torch.testing.assert_close(lm(**asked).logits[some], expected[some], atol=1e-5, rtol=0)


@on_cpu
def test_in_bfloat16_an_lm_errs_no_more_than_with_the_fused_kernel():
    lm = tiny_model("llama").language.lm
    ids = torch.randint(1, lm.config.vocab_size, (4, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = lm(input_ids=ids).logits
        ours = lm.to(torch.bfloat16)(input_ids=ids).logits.float()
        lm.set_attn_implementation("sdpa")
        fused = lm(input_ids=ids).logits.float()
    assert (ours != exact).any(), "half the precision"
    assert (ours - exact).abs().mean() < 1.5 * (fused - exact).abs().mean()


@on_cpu
def test_long_texts_and_float16_stay_with_the_fused_kernel(monkeypatch):
    calls = []
    fused = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or fused(*a, **k))
    lm = tiny_model("llama").language.lm
    ids = torch.ones(1, 6, dtype=torch.long)
    lm(input_ids=ids)
    assert not calls
    monkeypatch.setattr(attention, "LONGEST", 5)
    lm(input_ids=ids)
    assert len(calls) == len(lm.model.layers)
    monkeypatch.setattr(attention, "LONGEST", 6)
    lm.to(torch.float16)(input_ids=ids)
    assert len(calls) == 2 * len(lm.model.layers)


def test_another_choice_of_attention_is_left_as_it_is():
    lm = tiny_lm("llama")
    lm.set_attn_implementation("eager")
    attend_short(lm)
    assert lm.config._attn_implementation == "eager"
