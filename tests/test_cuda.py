"""On a GPU: the same numbers as on the CPU, in every way to compute a step, and a training that saves what a CPU opens.

`python -m pytest -m cuda tests/test_cuda.py`
"""

import importlib.util
import shutil

import pytest
import torch
from tiny_lms import FAMILIES, tiny_batch, tiny_config, tiny_model
from training_fixtures import TINY, tiny_sample

from deepmlf_kit import DeepMLFModel, Predictor
from deepmlf_kit.data.schema import for_batches
from deepmlf_kit.training import train
from deepmlf_kit.training.compiling import compile_layers

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes"
)


def on_gpu(batch):
    return {name: tensor.cuda() for name, tensor in batch.items()}


def step(model, batch):
    model.zero_grad()
    output = model(**batch)
    output.loss.backward()
    gradients = {name: p.grad.cpu().clone() for name, p in model.named_parameters() if p.grad is not None}
    return output.prediction.detach().float().cpu(), output.loss.detach().float().cpu(), gradients


def distance(found, wanted):
    """Between two steps' gradients, as a share of their norm."""
    assert found.keys() == wanted.keys()
    found, wanted = (torch.cat([g[n].flatten().float() for n in sorted(g)]) for g in (found, wanted))
    return ((found - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ffw", ["full", "lora"])
@pytest.mark.parametrize("text_first", [True, False], ids=["text first", "plain"])
def test_a_step_gives_the_cpus_answers_and_gradients(family, ffw, text_first, tmp_path):
    batch = tiny_batch()
    answer, loss, gradients = step(tiny_model(family, ffw=ffw, text_first=text_first), batch)
    model = tiny_model(family, ffw=ffw, text_first=text_first).cuda()
    if text_first:
        model.cache_text_states(tmp_path)
        step(model, on_gpu(batch))  # the second step reads what the first one kept
    found = step(model, on_gpu(batch))
    torch.testing.assert_close(found[0], answer, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(found[1], loss, atol=2e-4, rtol=1e-4)
    assert distance(found[2], gradients) < 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_stays_near_single(dtype):
    model, batch = tiny_model().cuda(), on_gpu(tiny_batch())
    with torch.no_grad():
        wanted = model(**batch).prediction
        with torch.autocast("cuda", dtype):
            found = model(**batch).prediction
    assert not torch.equal(found.float(), wanted)
    torch.testing.assert_close(found.float(), wanted, atol=0.05, rtol=0.05)


def test_checkpointing_gives_the_same_gradients():
    model, batch = tiny_model().cuda(), on_gpu(tiny_batch())
    _, _, wanted = step(model, batch)
    model.gradient_checkpointing_enable()
    assert distance(step(model, batch)[2], wanted) < 1e-5


@pytest.mark.skipif(shutil.which("cc") is None, reason="Triton needs a C compiler")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("ffw", ["full", "lora"])
def test_compiled_layers_give_the_same_numbers(ffw):
    model = tiny_model(ffw=ffw).cuda()
    batches = [on_gpu(tiny_batch()), on_gpu(tiny_batch(lengths=(6, 8), audio=(20, 11), vision=(5, 14)))]
    wanted = [step(model, batch) for batch in batches]
    torch._dynamo.reset()
    compile_layers(model)
    for batch, (answer, _, gradients) in zip(batches, wanted, strict=True):
        found = step(model, batch)
        torch.testing.assert_close(found[0], answer, atol=1e-3, rtol=1e-3)
        assert distance(found[2], gradients) < 5e-3


@needs_bitsandbytes
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("text_first", [True, False])
def test_in_few_bits_a_step_stays_near_the_whole_weights(bits, text_first):
    batch = on_gpu(tiny_batch() | {"labels": torch.full((3,), 9.0)})
    found = []
    for lm_bits in (16, bits):
        torch.manual_seed(0)
        model = DeepMLFModel(tiny_config(lm="embedded", lm_bits=lm_bits, text_first=text_first)).cuda().eval()
        output = model(**batch)
        output.loss.backward()
        assert model.fusion_tokens.grad.isfinite().all()
        found.append(output.fusion_states.detach().float())
    assert 0 < ((found[0] - found[1]).norm() / found[0].norm()).item() < {8: 0.1, 4: 0.3}[bits]


@pytest.mark.parametrize("bf16", [False, True], ids=["single", "bf16"])
def test_a_training_on_the_gpu_leaves_a_run_that_answers_alike_on_the_cpu(bf16, tmp_path):
    data = tiny_sample()
    settings = TINY | {"training.bf16": bf16, "lm.name": "embedded", "fusion.layers": [5, 6]}
    run = train("sample", data, tmp_path / "run", overrides=settings, progress=False)
    assert 0 < run.metrics["MAE"] < 4
    rows = list(for_batches(data["test"].select(range(8))))
    found, wanted = (Predictor(run, device=device).rows(rows)["task"] for device in ("cuda", "cpu"))
    assert found == pytest.approx(wanted, abs=2e-3)
