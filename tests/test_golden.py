"""The model reproduces golden tensors: outputs, losses, gradients.

Those of `DEEPMLF_GOLDEN` were computed with the authors' implementation; the one in `tests/golden`, which comes with
every clone, by the plain forward of `make_golden_case.py`.
"""

import json
import os
from pathlib import Path

import make_golden_case
import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from deepmlf_kit.model.convert import authors_config, load_authors_checkpoint, to_authors_names

GOLDEN = Path(os.environ.get("DEEPMLF_GOLDEN", Path(__file__).parents[1].parent / "shared" / "golden"))
CASES = [make_golden_case.FILE, *sorted(GOLDEN.glob("*.npz"))]


def tiny_lm(meta, state):
    sizes = {"vocab_size": meta["vocab"], "bos_token_id": 0, "eos_token_id": meta["pad_id"]}
    if meta["lm_flavor"] == "gpt2":
        return GPT2LMHeadModel(GPT2Config(**(sizes | meta["lm"])))
    tied = np.array_equal(
        state["lang_encoder.lm_head.weight"], state["lang_encoder.model.embed_tokens.0.embedding.weight"]
    )
    sizes |= {"rms_norm_eps": 1e-6, "tie_word_embeddings": tied}
    return LlamaForCausalLM(LlamaConfig(**(sizes | meta["lm"])))  # a case may name any of these itself


def load(path):
    with np.load(path) as arrays:
        return {key: arrays[key] for key in arrays.files}


@pytest.fixture(params=CASES, ids=lambda path: path.stem)
def case(request):
    return load(request.param)


def build(case):
    meta = json.loads(str(case["meta/config_json"]))
    state = {key[2:]: torch.from_numpy(value) for key, value in case.items() if key.startswith("p/")}
    models = []
    for form in ("product", "sum"):
        config = authors_config(meta["cfg"], lm="golden", pad_token_id=meta["pad_id"], ffw_form=form)
        models.append(load_authors_checkpoint(state, config, lm=tiny_lm(meta, state)))
    return min(models, key=lambda model: distance(model, case))


def distance(model, case):
    """How far the last states are from the golden ones: a case does not say in which form its feed-forwards are."""
    with torch.no_grad():
        states = model(**batch_of(case)).fusion_states.numpy()
    return np.abs(states - case["out/last_hidden"][:, -states.shape[1] :]).max()


def batch_of(case):
    names = ("input_ids", "attention_mask", "audio", "vision", "labels")
    return {name: torch.from_numpy(case[f"in/{name}"]) for name in names}


def atol_for(golden):
    """For states and logits of the LM: 5e-5, and where they are large (some are near 100) relative to their size."""
    return 5e-5 * max(1.0, float(np.abs(golden).max()) / 20)


def assert_near(ours, golden, atol, what):
    error = np.abs(ours.detach().numpy() - golden).max()
    assert error <= atol, f"{what}: worst error {error:.2e}, allowed {atol:.0e}"


@pytest.mark.parametrize("text_first", [False, True], ids=["plain", "text_first"])
def test_outputs_losses_and_gradients_are_the_authors(case, text_first):
    model = build(case)
    model.config.text_first = text_first
    batch = batch_of(case)
    out = model(**batch, output_lm_logits=True)
    out.loss.backward()
    with torch.no_grad():  # with gradients to them asked for, both paths are the plain one
        hidden_states = model(**batch, output_hidden_states=True).hidden_states

    assert_near(out.av_states, case["out/av_enc_ln"], 2e-6, "AV states")
    for ours, name in (
        (out.prediction.unsqueeze(-1), "task_logits"),
        (out.text_prediction.unsqueeze(-1), "text_logits"),
        (out.av_prediction.unsqueeze(-1), "av_logits"),
        (out.fusion_prediction.unsqueeze(-1), "bn_logits"),
    ):
        assert_near(ours, case[f"out/{name}"], 3e-6, name)

    valid = np.concatenate([case["in/attention_mask"], np.ones(case["out/bn_logits"].shape[:2])], axis=1) == 1
    assert len(hidden_states) == len(case["out/hidden_states"])
    for depth, (ours, golden) in enumerate(zip(hidden_states, case["out/hidden_states"], strict=True)):
        golden = golden[valid]
        assert_near(ours[torch.from_numpy(valid)], golden, atol_for(golden), f"hidden states {depth}")
    last = torch.cat([out.text_states, out.fusion_states], dim=1)
    golden = case["out/last_hidden"][valid]
    assert_near(last[torch.from_numpy(valid)], golden, atol_for(golden), "last hidden states")
    logits = torch.cat([out.lm_logits, model.language.logits(out.fusion_states)], dim=1)
    golden = case["out/lm_logits"][valid]
    assert_near(logits[torch.from_numpy(valid)], golden, atol_for(golden), "LM logits")

    for ours, name in (
        (out.loss_task, "task"),
        (out.loss_fusion, "bn"),
        (out.loss_av, "av"),
        (out.loss_text, "text"),
        (out.loss_lm, "clm"),
        (out.loss, "total"),
    ):
        assert_near(ours, case[f"loss/{name}"], 3e-6, f"loss {name}")

    for name, gradient, golden in gradients(model, case):
        assert_near(gradient, golden, 1e-5, f"gradient of {name}")
        largest = np.abs(golden).max()
        # The gradient of a gate is a sum that can cancel below what float32 resolves (in gpt2_lora terms that add
        # up to 1.15 in size leave 1.8e-5); such a small one is held to the same tolerance in float64, below.
        if largest > 1e-4:
            assert_near(gradient / largest, golden / largest, 2e-4, f"relative gradient of {name}")


def test_every_gradient_is_the_authors_relative_to_its_own_size(case):
    model = build(case).double()
    model(
        **{name: v.double() if v.is_floating_point() else v for name, v in batch_of(case).items()}
    ).loss.backward()
    for name, gradient, golden in gradients(model, case):
        largest = max(np.abs(golden).max(), 1e-12)
        assert_near(gradient / largest, golden / largest, 2e-4, f"relative gradient of {name}")


def gradients(model, case):
    golden = {key[5:]: value for key, value in case.items() if key.startswith("grad/")}
    ours = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    found = to_authors_names(model, ours, golden)
    assert set(found) == set(golden)
    assert len(found) == len(ours)
    return [(name, gradient, golden[name]) for name, gradient in found.items()]


def test_trained_parameters_are_the_authors(case):
    model = build(case)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    keys = {str(key): None for key in case["meta/trainable"]}
    theirs_unused = {str(key) for key in case["meta/trainable_without_grad"]}
    named = {pair for pair in to_authors_names(model, dict.fromkeys(trained, torch.zeros(1, 1)), keys)}
    assert named == set(keys) - theirs_unused
    assert len(named) == len(trained)


def test_trimmed_padding_changes_nothing(case):
    model, batch = build(case), batch_of(case)
    longest = int(batch["attention_mask"].sum(1).max())
    short = int(batch["attention_mask"].sum(1).argmin())
    whole = model(**batch)
    alone = {name: value[short : short + 1] for name, value in batch.items()}
    length = int(alone["attention_mask"].sum())
    alone["input_ids"], alone["attention_mask"] = (
        alone["input_ids"][:, :length],
        alone["attention_mask"][:, :length],
    )
    assert length < longest
    torch.testing.assert_close(model(**alone).prediction[0], whole.prediction[short], atol=1e-5, rtol=0)


def test_a_checkpoint_that_does_not_fit_is_refused_by_name(case):
    from deepmlf_kit.errors import DeepMLFError

    meta = json.loads(str(case["meta/config_json"]))
    state = {key[2:]: torch.from_numpy(value) for key, value in case.items() if key.startswith("p/")}
    config = authors_config(meta["cfg"], lm="golden", pad_token_id=meta["pad_id"])
    del state["W_av.weight"]
    state["surprise.weight"] = torch.zeros(1)
    with pytest.raises(DeepMLFError, match=r"surprise\.weight.*heads\.av\.weight"):
        load_authors_checkpoint(state, config, lm=tiny_lm(meta, state))


# The case of our own ------------------------------------------------------------------------------------------


def test_the_shipped_case_is_what_its_maker_makes_and_has_states_near_100():
    shipped, made = load(make_golden_case.FILE), make_golden_case.make_case()
    assert shipped.keys() == made.keys()
    for name, array in made.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(shipped[name], array, rtol=1e-5, atol=1e-6, err_msg=name)
        else:
            assert np.array_equal(shipped[name], array), name
    assert 80 < np.abs(shipped["out/hidden_states"]).max() < 200
    assert "tie_word_embeddings" in json.loads(str(shipped["meta/config_json"]))["lm"]


@pytest.mark.skipif(not (GOLDEN / "llama_product.npz").is_file(), reason="needs the authors' golden tensors")
def test_the_makers_plain_forward_gives_the_authors_tensors():
    """The case of our own is worth what its forward is: checked where the authors' tensors are at hand."""
    authors = load(GOLDEN / "llama_product.npz")
    meta = json.loads(str(authors["meta/config_json"]))
    weights, given = (
        make_golden_case.double(
            {k.removeprefix(group): torch.from_numpy(v) for k, v in authors.items() if k.startswith(group)}
        )
        for group in ("p/", "in/")
    )
    out, terms = make_golden_case.forward(weights, given, meta)
    real = np.concatenate([authors["in/attention_mask"], np.ones(authors["out/bn_logits"].shape[:2])], axis=1)
    for name, ours in out.items():
        golden, ours = authors[f"out/{name}"], ours.numpy()
        if golden.ndim > 2 and golden.shape[-2] == real.shape[1]:  # padded rows are read by nobody
            golden, ours = golden[..., real == 1, :], ours[..., real == 1, :]
        np.testing.assert_allclose(ours, golden, rtol=0, atol=5e-5, err_msg=name)
    for name, ours in terms.items():
        np.testing.assert_allclose(ours.numpy(), authors[f"loss/{name}"], rtol=0, atol=3e-6, err_msg=name)
