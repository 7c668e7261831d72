"""The fast path and kept text states give the plain path's outputs, losses and gradients."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_lms import FAMILIES, tiny_batch, tiny_lm, tiny_model

from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.text_store import open_text_store

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
    store = model.keep_text_states(tmp_path)
    assert_equal(results(model, batch), expected)  # fills the store
    assert len(store) == 3
    assert_equal(results(model, batch), expected)  # reads it


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ffw", ["full", "lora"])
@pytest.mark.parametrize("shape", ["padded", "full length"])
def test_a_step_without_lm_loss_leaves_out_text_that_nothing_reads(family, ffw, shape):
    calm = {"attention_dropout": 0.0, "av_dropout": 0.0, "seqaug_av_p_feat": 0.0, "lora_dropout": 0.0}
    model = tiny_model(family, ffw=ffw, loss_lm=0.0, text_first=False, **calm)
    last = len(model.language.layers) - 1
    model = tiny_model(family, ffw=ffw, loss_lm=0.0, text_first=False, fusion_layers=[0, last], **calm)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):  # those of an LM's own feed-forward
            module.p = 0.0
    model.heads.eval()  # BatchNorm would move its statistics between the two steps
    batch = SHAPES[shape]
    names = [name for name in STATES if name != "loss_lm"]

    def step():
        model.zero_grad()
        output = model(**batch)
        output.loss.backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        return output, ({name: getattr(output, name).detach() for name in names}, gradients)

    plain, expected = step()
    model.config.text_first = True
    rows = []
    block = model.mm_blocks[str(last)]
    block.feed_forward.register_forward_pre_hook(lambda _m, x: rows.append(x[0].shape[1]))
    fast, found = step()
    assert_equal(found, expected)
    assert rows == [1 + model.config.fusion_tokens]
    assert plain.text_states is not None
    assert fast.text_states is None
    assert model(**batch, output_hidden_states=True).text_states is not None
    assert model.eval()(**batch).text_states is not None


def test_kept_states_serve_other_batches_and_paddings(tmp_path):
    model = tiny_model()
    whole = tiny_batch()
    with torch.no_grad():
        expected = model(**whole).prediction
        model.keep_text_states(tmp_path)
        model(**whole)
        model.language.lm.get_input_embeddings().weight.zero_()  # only kept states can give the right answer now
        for rows in ([2, 0], [1], [0, 1, 2]):
            part = {name: value[rows] for name, value in whole.items()}
            torch.testing.assert_close(model(**part).prediction, expected[rows], atol=1e-5, rtol=0)


def test_a_later_run_finds_the_states_and_another_lm_does_not(tmp_path):
    model, batch = tiny_model(), tiny_batch()
    with torch.no_grad():
        expected = model(**batch).prediction
        store = model.keep_text_states(tmp_path)
        model(**batch)
        store.close()
        torch.testing.assert_close(model(**batch).prediction, expected, atol=1e-5, rtol=0)  # without it again
        again = tiny_model()
        assert len(again.keep_text_states(tmp_path)) == 3
        torch.testing.assert_close(again(**batch).prediction, expected, atol=1e-5, rtol=0)
    assert len(tiny_model(seed=7).keep_text_states(tmp_path)) == 0
    assert len(tiny_model(fusion_layers=[2]).keep_text_states(tmp_path)) == 0


FILL = """
import sys
sys.path.insert(0, sys.argv[1])
from test_text_first import tiny_batch, tiny_model
model = tiny_model()
store = model.keep_text_states(sys.argv[2])
model(**tiny_batch())
print(store.path.name, len(store), flush=True)
input()
"""


def test_two_trainings_at_once_do_not_write_into_one_file(tmp_path):
    arguments = [sys.executable, "-c", FILL, str(Path(__file__).parent), str(tmp_path)]
    other = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    theirs, kept = other.stdout.readline().split()
    assert kept == "3"
    model, batch = tiny_model(), tiny_batch()
    with torch.no_grad():
        expected = model(**batch).prediction
        store = model.keep_text_states(tmp_path)
        assert store.path.name != theirs
        assert len(store) == 0
        model(**batch)
        torch.testing.assert_close(model(**batch).prediction, expected, atol=1e-5, rtol=0)
    same = tiny_model().keep_text_states(tmp_path)
    assert same is store, "one process keeps the states of one LM once"
    other.communicate("\n", timeout=60)
    store.close()
    assert tiny_model().keep_text_states(tmp_path).path.name == theirs, (
        "free again after the other process ended"
    )


def test_the_store_stays_within_its_bound(tmp_path):
    model, batch = tiny_model(), tiny_batch()
    with torch.no_grad():
        expected = model(**batch).prediction
        numbers = 48 + 2 * 2 * 24  # hidden states, keys and values of two layers with two heads of 12
        store = model.keep_text_states(
            tmp_path, gigabytes=7 * numbers * 4 / 1e9
        )  # room for 7 tokens of 9 + 5 + 1
        for _ in range(2):
            torch.testing.assert_close(model(**batch).prediction, expected, atol=1e-5, rtol=0)
    assert len(store) == 2
    assert store.path.stat().st_size <= 7 * numbers * 4


def test_a_half_written_store_is_made_anew(tmp_path):
    model, batch = tiny_model(), tiny_batch()
    with torch.no_grad():
        expected = model(**batch).prediction
        store = model.keep_text_states(tmp_path)
        model(**batch)
        store.close()
        store.path.with_suffix(".json").write_text('{"shapes": [[48]')
        again = tiny_model()
        assert len(again.keep_text_states(tmp_path)) == 0
        torch.testing.assert_close(again(**batch).prediction, expected, atol=1e-5, rtol=0)


def test_seqaug_on_text_and_given_embeddings_do_not_use_the_store(tmp_path):
    model, batch = tiny_model(seqaug_text_p_feat=1.0, seqaug_text_p_apply=1.0).train(), tiny_batch()
    store = model.keep_text_states(tmp_path)
    model(**batch)
    assert len(store) == 0
    model.eval()
    embeddings = model.language.embed(batch["input_ids"]) * 0
    with torch.no_grad():
        without = model(**batch, text_embeddings=embeddings).prediction
        assert len(store) == 0
        plain = model(**batch).prediction
        assert len(store) == 3
        torch.testing.assert_close(model(**batch, text_embeddings=embeddings).prediction, without)
        assert (plain - without).abs().max() > 1e-4


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DeepMLFError, match="cannot be kept"):
        open_text_store(tmp_path / "file" / "inside", tiny_lm(), "tiny", 2)
