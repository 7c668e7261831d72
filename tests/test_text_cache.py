"""Kept text states are never stale, damaged, over their budget, or the end of a training whose disk is full."""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_lms import tiny_batch, tiny_lm, tiny_model
from transformers import DynamicCache

from deepmlf_kit import DeepMLFModel
from deepmlf_kit.model import text_cache
from deepmlf_kit.model.text_cache import TextStates, fingerprint

CPU = torch.device("cpu")
BATCH = tiny_batch()


@torch.no_grad()
def predict(model, batch=BATCH):
    return model(**batch).prediction


def fill(folder, gigabytes=1.0, batch=BATCH, **changes):
    """A model whose store holds the texts of a batch, and what it predicts."""
    model = tiny_model(**changes)
    model.cache_text_states(folder, gigabytes)
    return model, predict(model, batch)


def files_of(folder):
    return sorted(folder.glob("*.states"))


def taken(folder):
    return sum(path.stat().st_size for path in files_of(folder))


# Never stale ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filled_under_autocast", [True, False])
def test_states_of_autocast_are_not_read_without_it_and_the_other_way_round(tmp_path, filled_under_autocast):
    model = tiny_model()

    def said(autocast):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return predict(model).float()

    expected = said(not filled_under_autocast)
    model.cache_text_states(tmp_path)
    said(filled_under_autocast)
    found = said(not filled_under_autocast)
    torch.testing.assert_close(found, expected, atol=1e-6 if filled_under_autocast else 2e-3, rtol=0)
    assert len(files_of(tmp_path)) == 2


def test_states_come_back_as_they_were_in_each_parts_own_dtype_and_shape(tmp_path):
    file = text_cache.open_text_cache(tmp_path, tiny_lm(), 2).file(CPU)
    cache = DynamicCache()
    for layer, dtype in enumerate((torch.float16, torch.bfloat16)):
        cache.update(torch.randn(1, 3, 4, 5).to(dtype), torch.randn(1, 3, 4, 7).to(dtype), layer)
    states = TextStates(torch.randn(1, 4, 9), cache)
    file.save(b"0" * 16, states)
    found = file.load([b"0" * 16] * 2, 6, CPU)
    assert_same = torch.testing.assert_close
    assert_same(found.hidden[:, :4], states.hidden.expand(2, -1, -1), rtol=0, atol=0)
    for layer, given in zip(found.cache.layers, cache.layers, strict=True):
        assert_same(layer.keys[:, :, :4], given.keys.expand(2, -1, -1, -1), rtol=0, atol=0)
        assert_same(layer.values[:, :, :4], given.values.expand(2, -1, -1, -1), rtol=0, atol=0)


def edit_weight(lm):
    with torch.no_grad():
        lm.model.layers[0].self_attn.v_proj.weight.mul_(1.5)


def edit_buffer(lm):
    lm.model.rotary_emb.inv_freq.mul_(0.5)


def edit_config(lm):
    for module in lm.modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = 0.5
    lm.config.rms_norm_eps = 0.5


def edit_module(lm):
    lm.model.layers[0].mlp.act_fn = torch.nn.Tanh()


@pytest.mark.parametrize("edit", [edit_weight, edit_buffer, edit_config, edit_module])
def test_an_edited_lm_does_not_read_the_states_of_the_one_it_was(tmp_path, edit):
    fill(tmp_path)

    def edited():
        lm = tiny_lm()
        edit(lm)
        torch.manual_seed(1)
        return DeepMLFModel(tiny_model().config, lm=lm).eval()

    expected = predict(edited())
    model = edited()
    model.cache_text_states(tmp_path)
    torch.testing.assert_close(predict(model), expected, atol=1e-6, rtol=0)
    assert len(files_of(tmp_path)) == 2


def test_equal_lms_have_one_fingerprint_whatever_their_name():
    one, other = tiny_lm("gpt2"), tiny_lm("gpt2")
    other.config._name_or_path = "elsewhere"
    assert fingerprint(one) == fingerprint(other)
    assert fingerprint(tiny_lm("gpt2").bfloat16()) != fingerprint(one)


@pytest.mark.parametrize("what", ["threads", "torch", "matmul precision", "transformers"])
def test_other_arithmetic_has_other_states(tmp_path, monkeypatch, what):
    model, _ = fill(tmp_path)
    before = torch.get_float32_matmul_precision(), torch.get_num_threads()
    try:
        if what == "threads":
            torch.set_num_threads(before[1] + 1)
        elif what == "matmul precision":
            torch.set_float32_matmul_precision("medium")
        else:
            monkeypatch.setattr(getattr(text_cache, what), "__version__", "99")
        predict(model)
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.set_num_threads(before[1])
    first, second = files_of(tmp_path)
    assert first.stat().st_size == second.stat().st_size > 0


def test_a_warm_store_gives_bitwise_what_a_cold_one_gives(tmp_path):
    model, cold = fill(tmp_path)
    model._text_cache.close()
    model, warm = fill(tmp_path)
    assert len(files_of(tmp_path)) == 1
    assert torch.equal(warm, cold)


# Never damaged -------------------------------------------------------------------------------------------------


def zero_all(raw):
    raw[:] = bytes(len(raw))


def zero_the_second_half(raw):
    raw[len(raw) // 2 :] = bytes(len(raw) - len(raw) // 2)


def flip_a_bit(raw):
    raw[len(raw) * 3 // 4] ^= 4


def tear(raw):
    del raw[len(raw) * 2 // 3 :]


def cut_the_header(raw):
    del raw[5:]


DAMAGES = [zero_all, zero_the_second_half, flip_a_bit, tear, cut_the_header]


def damage(path, how):
    raw = bytearray(path.read_bytes())
    how(raw)
    with open(path, "r+b") as file:  # the same file, as a process that has it open sees it
        file.write(raw)
        file.truncate(len(raw))


@pytest.mark.parametrize("when", ["before it is opened", "while it is open"])
@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_file_is_found_said_and_computed_again(tmp_path, caplog, how, when):
    model, expected = fill(tmp_path)
    (path,) = files_of(tmp_path)
    if when == "before it is opened":
        model._text_cache.close()
        damage(path, how)
        model = tiny_model()
        model.cache_text_states(tmp_path)
    else:
        damage(path, how)
    assert torch.equal(predict(model), expected)
    if not (how is cut_the_header and when == "while it is open"):
        assert "is damaged" in caplog.text
    assert torch.equal(predict(model), expected)
    file = model._text_cache.file(CPU)
    assert file.path == path and len(file) == 3, "kept again, and read from there"
    assert caplog.text.count("is damaged") == 1, "said once"


# Never over the budget -----------------------------------------------------------------------------------------


def test_the_oldest_unused_states_go_where_the_budget_is_used_up(tmp_path):
    sizes = []
    for seed in (1, 2, 3):
        model, _ = fill(tmp_path, seed=seed)
        path = model._text_cache.file(CPU).path
        sizes.append(path.stat().st_size)
        model._text_cache.close()
        os.utime(path, (seed, seed))
        if seed == 1:
            oldest = path
    assert len(set(sizes)) == 1
    model, expected = fill(tmp_path, gigabytes=3 * sizes[0] / 1e9, seed=4)
    assert len(files_of(tmp_path)) == 3 and oldest not in files_of(tmp_path)
    assert taken(tmp_path) == 3 * sizes[0]
    assert torch.equal(predict(model), expected)


def test_states_that_a_live_process_uses_stay_and_all_processes_share_one_budget(tmp_path):
    script = (
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "from pathlib import Path\n"
        "from test_text_cache import fill, files_of\n"
        "model, _ = fill(Path(sys.argv[3]), float(sys.argv[4]), seed=1)\n"
        "print(model._text_cache.file(model.device).path, flush=True)\n"
        "input()\n"
    )
    here = Path(__file__).parent
    whole = 12_000  # bytes: three texts take more than half of it
    arguments = [sys.executable, "-c", script, str(here), str(here.parent), str(tmp_path), str(whole / 1e9)]
    other = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    theirs = Path(other.stdout.readline().strip())
    size = theirs.stat().st_size
    assert size > whole / 2
    plain = predict(tiny_model(seed=2))
    model, found = fill(tmp_path, whole / 1e9, seed=2)
    torch.testing.assert_close(found, plain, atol=1e-6, rtol=0)
    assert theirs.stat().st_size == size
    assert taken(tmp_path) <= whole
    other.communicate("\n", timeout=60)
    model._text_cache.close()
    fill(tmp_path, whole / 1e9, seed=2)
    assert not theirs.exists() and taken(tmp_path) <= whole


def test_half_of_the_free_disk_is_left_by_all_stores_together(tmp_path, monkeypatch):
    fill(tmp_path / "measured")
    size = taken(tmp_path / "measured")
    disk = 5 * size  # on which only the states lie
    folder = tmp_path / "small"

    class Usage:
        @property
        def free(self):
            return disk - taken(folder)

    monkeypatch.setattr(text_cache.shutil, "disk_usage", lambda _: Usage())
    models = [fill(folder, seed=seed) for seed in (1, 2, 3, 4)]
    assert size < taken(folder) <= disk / 2
    for seed, (_, found) in zip((1, 2, 3, 4), models, strict=True):
        torch.testing.assert_close(found, predict(tiny_model(seed=seed)), atol=1e-6, rtol=0)


# Never the end of a training -----------------------------------------------------------------------------------

FULL_DISK = """
import sys; sys.path[:0] = sys.argv[1:3]
import resource
import torch
from pathlib import Path
from test_text_cache import BATCH, fill, predict, taken, tiny_model
expected = predict(tiny_model())
bytes = 7_000  # no file grows beyond this, as if the disk were full
resource.setrlimit(resource.RLIMIT_FSIZE, (bytes, bytes))
model, found = fill(Path(sys.argv[3]))
for found in (found, predict(model)):
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
print(len(model._text_cache.file(model.device)), taken(Path(sys.argv[3])))
"""


def test_a_disk_that_fills_ends_the_keeping_and_nothing_else(tmp_path):
    here = Path(__file__).parent
    arguments = [sys.executable, "-c", FULL_DISK, str(here), str(here.parent), str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    texts, size = map(int, done.stdout.split())
    assert texts in (1, 2) and size <= 7_000
    assert done.stderr.count("no more text states are cached") == 1
    model, _ = fill(tmp_path)
    assert len(model._text_cache.file(CPU)) == 3, "what was written is whole, and the rest is added later"


def test_a_copied_or_pickled_model_comes_without_its_store(tmp_path):
    model, expected = fill(tmp_path)
    twin = copy.deepcopy(model)
    assert twin._text_cache is None and pickle.loads(pickle.dumps(model._text_cache)) is None
    torch.testing.assert_close(predict(twin), expected, atol=1e-6, rtol=0)
