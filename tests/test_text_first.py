"""The fast path and kept text states give the plain path's outputs, losses and gradients."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file
from tiny_lms import FAMILIES, tiny_batch, tiny_lm, tiny_model
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm

from deepmlf_kit import DeepMLFModel
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.model.decoder_pass import DecoderPass
from deepmlf_kit.model.text_cache import open_text_cache

SHAPES = {
    "padded": tiny_batch(),
    "not padded": tiny_batch(lengths=(7, 7, 7), audio=(12, 12, 12), vision=(8, 8, 8)),
    "full length": tiny_batch(lengths=(12, 3, 12)),
    "no audio": {k: v for k, v in tiny_batch().items() if not k.startswith("audio")},
    "no vision": {k: v for k, v in tiny_batch().items() if not k.startswith("vision")},
}
STATES = (
    "loss",
    "prediction",
    "text_prediction",
    "fusion_prediction",
    "av_prediction",
    "loss_lm",
    "fusion_states",
)


CPU = torch.device("cpu")


def kept(store):
    """How many texts a store would read now."""
    return len(store.file(CPU))


def results(model, batch):
    model.zero_grad()
    output = model(**batch)
    output.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {name: getattr(output, name).detach() for name in STATES}, gradients


def assert_equal(found, expected):
    for got, wanted in zip(found, expected, strict=True):
        assert got.keys() == wanted.keys()
        for name, value in wanted.items():
            torch.testing.assert_close(
                got[name], value, atol=1e-5, rtol=0, msg=lambda m, name=name: f"{name}: {m}"
            )


def test_unless_told_the_fast_path_is_taken_on_cpus_alone(monkeypatch):
    taken = []
    for path in ("text_first", "joint"):
        run = getattr(DecoderPass, path)
        monkeypatch.setattr(DecoderPass, path, lambda self, *x, p=path, r=run: taken.append(p) or r(self, *x))
    batch = tiny_batch()
    tiny_model()(**batch)
    assert taken == ["text_first"]
    for chosen in (True, False):
        assert tiny_model(text_first=chosen).config.takes_text_first("cuda") is chosen
    assert not tiny_model().config.takes_text_first("cuda")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ffw", ["full", "lora", "none"])
@pytest.mark.parametrize("ffw_on_text", [True, False], ids=["ffw_on_text", "ffw_on_fusion_only"])
@pytest.mark.parametrize("shape", SHAPES)
def test_text_first_and_kept_states_equal_the_plain_path(family, ffw, ffw_on_text, shape, tmp_path):
    model = tiny_model(family, ffw=ffw, ffw_on_text=ffw_on_text, text_first=False)
    batch = SHAPES[shape]
    expected = results(model, batch)
    model.config.text_first = True
    assert_equal(results(model, batch), expected)
    store = model.cache_text_states(tmp_path)
    assert_equal(results(model, batch), expected)  # fills the store
    assert kept(store) == 3
    assert_equal(results(model, batch), expected)  # reads it


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ffw_on_text", [True, False], ids=["ffw_on_text", "ffw_on_fusion_only"])
@pytest.mark.parametrize("text_first", [True, False])
def test_shared_texts_give_every_row_its_own_numbers(family, ffw_on_text, text_first, monkeypatch):
    """Rows of one text with different frames, and texts that begin alike, in one sequence without padding."""
    model = tiny_model(family, ffw_on_text=ffw_on_text, text_first=text_first).eval()
    batch = tiny_batch(lengths=(7, 7, 7, 7, 7, 7, 7), audio=(12,) * 7, vision=(8,) * 7)
    batch.pop("labels")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    ids[1], ids[2, :3], ids[3, :6], mask[3, 4:] = (
        ids[0],
        ids[0, :3],
        ids[2, :6],
        0,
    )  # the same; alike; within another
    ids[6], mask[5, 1:] = ids[0], 0
    embedded = []
    embed = model.language.prepare
    monkeypatch.setattr(
        model.language, "prepare", lambda x, *more: embedded.append(x.shape) or embed(x, *more)
    )
    with torch.no_grad():
        expected = model(**batch)
        embedded.clear()
        found = model(**batch, share_texts=True)
    assert embedded == [(1, 7 + 4 + 7 + 1 + 7 * model.config.fusion_tokens, model.language.width)]
    for name in ("prediction", "text_prediction", "fusion_prediction", "av_prediction", "fusion_states"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=1e-5, rtol=0)
    real = mask.bool()
    torch.testing.assert_close(found.text_states[real], expected.text_states[real], atol=1e-5, rtol=0)


CALM = {"attention_dropout": 0.0, "av_dropout": 0.0, "seqaug_av_p_feat": 0.0, "lora_dropout": 0.0}


def training_model(family, **changes):
    """A model in training mode whose step depends on nothing but weights and batch."""
    model = tiny_model(family, loss_lm=0.0, text_first=False, **CALM, **changes).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):  # those of an LM's own feed-forward
            module.p = 0.0
    model.heads.eval()  # BatchNorm would move its statistics between two steps
    return model


def training_step(model, batch):
    model.zero_grad()
    output = model(**batch)
    output.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return output, ({name: getattr(output, name).detach() for name in STATES if name != "loss_lm"}, gradients)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ffw", ["full", "lora"])
@pytest.mark.parametrize("fusion_layers", [[0, 3], [1, 2], [3]], ids=["0, last", "1, 2", "last"])
@pytest.mark.parametrize("shape", ["padded", "full length"])
def test_a_step_without_lm_loss_leaves_out_text_that_nothing_reads(family, ffw, fusion_layers, shape):
    model, batch = training_model(family, ffw=ffw, fusion_layers=fusion_layers), SHAPES[shape]
    plain, expected = training_step(model, batch)
    model.config.text_first = True
    rows = []
    if "3" in model.mm_blocks:
        model.mm_blocks["3"].feed_forward.register_forward_pre_hook(lambda _, x: rows.append(x[0].shape[1]))
    fast, found = training_step(model, batch)
    assert_equal(found, expected)
    assert rows == [1 + model.config.fusion_tokens] * (3 in fusion_layers)
    assert plain.text_states is not None
    assert fast.text_states is None
    assert model(**batch, output_hidden_states=True).text_states is not None
    assert model.eval()(**batch).text_states is not None


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("fusion_layers", [[1, 2], [1, 3]], ids=["1, 2", "1, last"])
@pytest.mark.parametrize("hooked", [False, True], ids=["free", "hooked"])
def test_the_last_layer_runs_on_what_is_used_unless_it_has_hooks(family, fusion_layers, hooked):
    model, batch = training_model(family, fusion_layers=fusion_layers, ffw="lora"), tiny_batch()
    model.config.gradient_checkpointing_layers = hooked
    _, expected = training_step(model, batch)
    model.config.text_first = True
    rows = []
    last = model.language.layers[-1]
    last.mlp.register_forward_pre_hook(lambda _, x: rows.append(x[0].shape[1]))
    if hooked:  # as FSDP does
        last.register_forward_hook(lambda *_: None)
    assert_equal(training_step(model, batch)[1], expected)
    assert set(rows) == {(batch["input_ids"].shape[1] if hooked else 1) + model.config.fusion_tokens}


@pytest.mark.parametrize("checkpointing", [False, True], ids=["activations kept", "computed again"])
def test_a_step_without_lm_loss_takes_empty_texts(checkpointing):
    batch = tiny_batch(lengths=(4, 0, 1))
    model = training_model("llama", gradient_checkpointing_layers=checkpointing)
    _, expected = training_step(model, batch)
    model.config.text_first = True
    assert_equal(training_step(model, batch)[1], expected)


ADAPTED = {"gpt2": ["c_attn"], "neox": ["query_key_value"]}  # elsewhere q_proj and v_proj


def adapt(lm, family):
    """LoRA on the LM's own attention, as a user of PEFT puts it there."""
    targets = ADAPTED.get(family, ["q_proj", "v_proj"])
    config = LoraConfig(r=4, target_modules=targets, init_lora_weights=False, fan_in_fan_out=family == "gpt2")
    return get_peft_model(lm, config)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("checkpointing", [False, True], ids=["activations kept", "computed again"])
def test_adapters_on_the_lm_get_the_plain_paths_gradients(family, checkpointing):
    model = training_model(family, gradient_checkpointing_layers=checkpointing)
    adapt(model.language.lm, family)
    batch = tiny_batch()
    _, expected = training_step(model, batch)
    model.config.text_first = True
    assert_equal(training_step(model, batch)[1], expected)
    adapters = {name: gradient for name, gradient in expected[1].items() if name.startswith("language.")}
    assert any("layers.0." in name or "h.0." in name for name in adapters)  # those that the text alone passes
    assert all(gradient.abs().sum() > 0 for gradient in adapters.values())


@pytest.mark.parametrize("built", [False, True], ids=["replaced", "built with"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_peft_model_takes_the_lms_place(family, built, tmp_path):
    """As PEFT's users write it: `model.language.lm = get_peft_model(model.language.lm, config)`."""
    model, batch = training_model(family), tiny_batch()
    if built:
        model = training_model(family, lm=adapt(tiny_lm(family), family))
    else:
        model.language.lm = adapt(model.language.lm, family)
    _, expected = training_step(model, batch)
    model.config.text_first = True
    assert_equal(training_step(model, batch)[1], expected)
    adapters = {name for name in expected[1] if name.startswith("language.")}
    assert adapters and all("lora_" in name for name in adapters)

    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name in stored if name.startswith("language.")} == adapters <= trained
    again = DeepMLFModel.from_pretrained(tmp_path, lm=adapt(tiny_lm(family), family))
    with torch.no_grad():
        torch.testing.assert_close(again(**batch).prediction, model.eval()(**batch).prediction)


def test_prompts_of_peft_are_refused():
    model = tiny_model()
    prompts = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    model.language.lm = get_peft_model(model.language.lm, prompts)
    with pytest.raises(DeepMLFError, match="PromptTuningConfig puts prompts before the text"):
        model(**tiny_batch())


def test_a_checkpoint_holds_no_frozen_weight_of_a_layer_that_peft_adapted_in_place(tmp_path):
    model = training_model("llama")
    adapt(model.language.lm, "llama")
    model.save_pretrained(tmp_path)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    stored = load_file(tmp_path / "model.safetensors")
    assert not frozen & set(stored)
    assert any("lora_" in name for name in stored)


def test_texts_kept_before_the_lm_was_trained_are_not_used(tmp_path):
    model, batch = tiny_model(), tiny_batch()
    store = model.cache_text_states(tmp_path)
    with torch.no_grad():
        before = model(**batch).prediction
    assert kept(store) == 3
    adapt(model.language.lm, "llama")
    with torch.no_grad():
        adapted = model(**batch).prediction
        model.language.lm.requires_grad_(False)  # its training is over
        after = model(**batch).prediction
        model.config.text_first = False
        expected = model(**batch).prediction
    store.close()
    assert (expected - before).abs().max() > 1e-3
    torch.testing.assert_close(adapted, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(after, expected, atol=1e-5, rtol=0)


STEPS = 15


@pytest.mark.parametrize("family", ["gemma3", "gpt2", "neox", "opt"])
@pytest.mark.parametrize("ffw", ["full", "lora"])
def test_after_many_steps_both_paths_have_trained_the_same_model(family, ffw, monkeypatch):
    """In float64, where rounding is far below any fault."""
    monkeypatch.setattr(  # transformers computes it in float32 whatever it is given
        Gemma3RMSNorm, "forward", lambda self, x: self._norm(x) * (1.0 + self.weight)
    )
    batches = [
        {k: v.double() if v.is_floating_point() else v for k, v in tiny_batch(seed=seed).items()}
        for seed in range(3)
    ]
    predictions = []
    for text_first in (False, True):
        model = training_model(family, ffw=ffw).double()
        model.config.text_first = text_first
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        said = []
        for step in range(STEPS):
            optimizer.zero_grad()
            output = model(**batches[step % 3])
            output.loss.backward()
            optimizer.step()
            said.append(output.prediction.detach())
        predictions.append(torch.stack(said))
    plain, fast = predictions
    assert (plain[-1] - plain[(STEPS - 1) % 3]).abs().max() > 0.05  # there was something to learn
    torch.testing.assert_close(fast, plain, atol=1e-11, rtol=0)


def test_kept_states_serve_other_batches_and_paddings(tmp_path):
    model = tiny_model()
    whole = tiny_batch()
    with torch.no_grad():
        expected = model(**whole).prediction
        model.cache_text_states(tmp_path)
        model(**whole)
        model.language.lm.get_input_embeddings().weight.zero_()  # only kept states can give the right answer now
        for rows in ([2, 0], [1], [0, 1, 2]):
            part = {name: value[rows] for name, value in whole.items()}
            torch.testing.assert_close(model(**part).prediction, expected[rows], atol=1e-5, rtol=0)


def test_a_later_run_finds_the_states_and_another_lm_does_not(tmp_path):
    model, batch = tiny_model(), tiny_batch()
    with torch.no_grad():
        expected = model(**batch).prediction
        store = model.cache_text_states(tmp_path)
        model(**batch)
        store.close()
        torch.testing.assert_close(model(**batch).prediction, expected, atol=1e-5, rtol=0)  # without it again
        again = tiny_model()
        assert kept(again.cache_text_states(tmp_path)) == 3
        torch.testing.assert_close(again(**batch).prediction, expected, atol=1e-5, rtol=0)
    assert kept(tiny_model(seed=7).cache_text_states(tmp_path)) == 0
    assert kept(tiny_model(fusion_layers=[2]).cache_text_states(tmp_path)) == 0


FILL = """
import sys
sys.path.insert(0, sys.argv[1])
from test_text_first import tiny_batch, tiny_model
model = tiny_model()
store = model.cache_text_states(sys.argv[2])
model(**tiny_batch())
file = store.file(model.device)
print(file.path.name, len(file), flush=True)
input()
"""


def test_two_trainings_at_once_do_not_write_into_one_file(tmp_path):
    arguments = [sys.executable, "-c", FILL, str(Path(__file__).parent), str(tmp_path)]
    other = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    theirs, count = other.stdout.readline().split()
    assert count == "3"
    model, batch = tiny_model(), tiny_batch()
    with torch.no_grad():
        expected = model(**batch).prediction
        store = model.cache_text_states(tmp_path)
        assert store.file(CPU).path.name != theirs
        assert kept(store) == 0
        model(**batch)
        torch.testing.assert_close(model(**batch).prediction, expected, atol=1e-5, rtol=0)
    same = tiny_model().cache_text_states(tmp_path)
    assert same is store, "one process keeps the states of one LM once"
    other.communicate("\n", timeout=60)
    store.close()
    assert tiny_model().cache_text_states(tmp_path).file(CPU).path.name == theirs, (
        "free again after the other process ended"
    )


def test_the_store_stays_within_its_bound(tmp_path):
    model, batch = tiny_model(), tiny_batch(lengths=(5, 1, 9))
    with torch.no_grad():
        expected = model(**batch).prediction
        numbers = 48 + 2 * 2 * 24  # hidden states, keys and values of two layers with two heads of 12
        bound = 12 * numbers * 4  # bytes of 12 tokens of 5 + 1 + 9, headers among them
        store = model.cache_text_states(tmp_path, gigabytes=bound / 1e9)
        for _ in range(2):
            torch.testing.assert_close(model(**batch).prediction, expected, atol=1e-5, rtol=0)
    assert kept(store) == 2
    assert store.file(CPU).path.stat().st_size <= bound


def test_seqaug_on_text_and_given_embeddings_do_not_use_the_store(tmp_path):
    model, batch = tiny_model(seqaug_text_p_feat=1.0, seqaug_text_p_apply=1.0).train(), tiny_batch()
    store = model.cache_text_states(tmp_path)
    model(**batch)
    assert kept(store) == 0
    model.eval()
    embeddings = model.language.embed(batch["input_ids"]) * 0
    with torch.no_grad():
        without = model(**batch, text_embeddings=embeddings).prediction
        assert kept(store) == 0
        plain = model(**batch).prediction
        assert kept(store) == 3
        torch.testing.assert_close(model(**batch, text_embeddings=embeddings).prediction, without)
        assert (plain - without).abs().max() > 1e-4


def test_without_a_folder_to_write_in_nothing_is_cached_and_that_is_said(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert open_text_cache(tmp_path / "file" / "inside", tiny_lm(), 2) is None
    assert "text states are not cached" in caplog.text
