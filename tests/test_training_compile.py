"""`training.compile`: the parts that repeat are compiled, once for all batches, and give the same numbers."""

import shutil

import pytest
import torch
from tiny_lms import tiny_batch, tiny_model

from deepmlf_kit.training.compiling import compile_layers

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on CPU needs g++"),
]

BATCHES = [
    tiny_batch(),
    tiny_batch(lengths=(12, 3, 12, 4), audio=(23, 10, 4, 9), vision=(8, 10, 16, 2)),
    tiny_batch(lengths=(6, 8), audio=(20, 11), vision=(5, 14)),
]


def step(model, batch):
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return {"loss": loss.detach()} | {
        name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None
    }


def test_a_model_compiled_as_a_whole_gives_the_same_numbers():
    model = tiny_model("llama")
    expected = [step(model, batch) for batch in BATCHES]
    torch._dynamo.reset()
    model.compile(backend="eager")
    torch.testing.assert_close([step(model, batch) for batch in BATCHES], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("family", "ffw", "loss_lm"), [("llama", "lora", 0.5), ("gpt2", "full", 0.5), ("gpt2", "full", 0.0)]
)
def test_compiled_parts_give_the_same_numbers_and_are_made_once_for_all_batches(
    family, ffw, loss_lm, tmp_path
):
    counters = torch._dynamo.utils.counters
    model = tiny_model(family, ffw=ffw, loss_lm=loss_lm)
    model.training = not loss_lm  # no other module: dropout stays off; the last layer runs on what is used
    model.cache_text_states(tmp_path)
    expected = [step(model, batch) for batch in BATCHES]
    names = list(model.state_dict())
    torch._dynamo.reset()
    counters.clear()
    compile_layers(model)
    assert list(model.state_dict()) == names

    graphs = []
    for batch, wanted in zip(BATCHES, expected, strict=True):
        found = step(model, batch)
        graphs.append(counters["stats"]["unique_graphs"])
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert graphs[0] > 0
    assert graphs == [graphs[0]] * len(BATCHES)
    assert not counters["graph_break"]
