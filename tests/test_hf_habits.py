"""The habits of people who know transformers: what they type at any of its models works on the kit's."""

from __future__ import annotations

import copy
import io
import json
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from clips_made import make_clip
from made_wheels import tiny_gguf
from tiny_lms import FAMILIES, tiny_batch, tiny_config, tiny_lm, tiny_model
from transformers import AutoConfig, AutoModel, Trainer, TrainingArguments

from deepmlf_kit import DeepMLFConfig, DeepMLFModel
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.model.av_encoder import AVSentimentModel
from deepmlf_kit.model.checkpoints import INDEX_FILE, WEIGHTS_FILE
from deepmlf_kit.model.frozen_lm import attention_of
from deepmlf_kit.training import Run

ROOT = Path(__file__).parents[1]


def unlabelled(**sizes):
    return {name: value for name, value in tiny_batch(**sizes).items() if name != "labels"}


@torch.no_grad()
def answer(model):
    return model(**unlabelled()).prediction


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model around an LM in a folder, saved whole in `whole` and in shards in `shards`, and its answer."""
    folder = tmp_path_factory.mktemp("saved")
    tiny_lm().save_pretrained(folder / "lm")
    torch.manual_seed(3)
    model = DeepMLFModel(tiny_config(lm=str(folder / "lm"))).eval()
    model.save_pretrained(folder / "whole")
    model.save_pretrained(folder / "shards", max_shard_size="30KB")
    return folder, answer(model)


# Loading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["whole", "shards"])
def test_a_saved_model_loads_by_its_own_class_and_by_automodel(saved, kind):
    folder, expected = saved
    assert (folder / kind / INDEX_FILE).exists() == (kind == "shards")
    for load in (DeepMLFModel.from_pretrained, AutoModel.from_pretrained):
        model = load(folder / kind)
        assert type(model) is DeepMLFModel and not model.training
        assert torch.equal(answer(model), expected)
    assert type(AutoConfig.from_pretrained(folder / kind)) is DeepMLFConfig


@pytest.mark.parametrize(
    "imports",
    [
        "import deepmlf_kit; from transformers import AutoConfig, AutoModel",
        "from transformers import AutoConfig, AutoModel; AutoModel.from_pretrained; import deepmlf_kit",
        "import transformers, deepmlf_kit; from transformers import AutoConfig, AutoModel",
    ],
)
def test_importing_the_kit_before_or_after_transformers_registers_its_models(saved, imports):
    script = f"""
{imports}
import sys
assert type(AutoConfig.from_pretrained({str(saved[0] / "whole")!r})).__name__ == "DeepMLFConfig"
assert "deepmlf_kit.model.deepmlf" not in sys.modules and "peft" not in sys.modules
assert type(AutoModel.from_pretrained({str(saved[0] / "whole")!r})).__name__ == "DeepMLFModel"
assert type(AutoConfig.for_model("deepmlf", fusion_tokens=3)).__name__ == "DeepMLFConfig"
"""
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_automodel_takes_settings_and_a_language_model_in_memory(saved):
    folder, expected = saved
    lm = tiny_lm()
    model = AutoModel.from_pretrained(folder / "whole", lm=lm, text_first=False)
    assert model.language.lm is lm and model.config.text_first is False
    torch.testing.assert_close(answer(model), expected, atol=1e-5, rtol=0)


def test_loading_takes_where_to_look_as_others_do(saved, tmp_path):
    folder, expected = saved
    where = {"token": False, "cache_dir": tmp_path, "local_files_only": True, "revision": "main"}
    assert torch.equal(answer(DeepMLFModel.from_pretrained(folder / "whole", **where)), expected)
    assert torch.equal(answer(DeepMLFModel.from_pretrained(folder, subfolder="shards")), expected)
    assert torch.equal(answer(AutoModel.from_pretrained(folder, subfolder="shards", **where)), expected)


def test_where_to_look_holds_for_the_language_model_and_its_tokenizer_too(saved, monkeypatch):
    seen = []

    def looked(source, **options):
        seen.append(options)
        raise OSError("not there")

    given = {"token": "hf_secret", "cache_dir": "/nowhere", "local_files_only": True}
    model = DeepMLFModel.from_pretrained(saved[0] / "whole", **given)
    assert "hf_secret" not in str(model.__getstate__()) and b"hf_secret" not in pickle.dumps(model)
    monkeypatch.setattr("deepmlf_kit.model.lm_loading.AutoTokenizer.from_pretrained", looked)
    with pytest.raises(DeepMLFError, match="could not be loaded"):
        _ = model.tokenizer
    monkeypatch.setattr("deepmlf_kit.model.lm_loading.AutoConfig.from_pretrained", looked)
    with pytest.raises(DeepMLFError):
        DeepMLFModel.from_pretrained(saved[0] / "whole", subfolder="", **given)
    assert len(seen) == 2 and all(options.items() >= given.items() for options in seen)


@pytest.mark.parametrize("argument", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16, "float16", torch.float16])
def test_a_dtype_is_that_of_the_whole_model(saved, dtype, argument):
    folder, expected = saved
    model = DeepMLFModel.from_pretrained(folder / "whole", **{argument: dtype})
    wanted = getattr(torch, str(dtype).removeprefix("torch."))
    assert {p.dtype for p in model.parameters()} == {wanted} and model.dtype == wanted
    assert model.config.lm_dtype == str(wanted).removeprefix("torch.")
    torch.testing.assert_close(answer(model).float(), expected, atol=0.02, rtol=0)


def test_a_model_saved_in_half_precision_loads_as_it_was(saved, tmp_path):
    model = DeepMLFModel.from_pretrained(saved[0] / "whole").to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    again = DeepMLFModel.from_pretrained(tmp_path)
    assert again.dtype == again.language.dtype == torch.bfloat16
    torch.testing.assert_close(answer(again), answer(model), atol=0.01, rtol=0)
    assert DeepMLFModel.from_pretrained(tmp_path, dtype="float32").dtype == torch.float32
    values = json.loads((tmp_path / "config.json").read_text()) | {"dtype": "float32"}
    (tmp_path / "config.json").write_text(
        json.dumps(values)
    )  # as of the checkpoint that comes along: only stored in half
    assert DeepMLFModel.from_pretrained(tmp_path).fusion_tokens.dtype == torch.float32


@pytest.mark.parametrize("device_map", ["cpu", "auto", torch.device("cpu"), {"": "cpu"}])
def test_a_device_map_of_one_device_is_taken(saved, device_map):
    model = DeepMLFModel.from_pretrained(saved[0] / "whole", device_map=device_map)
    wanted = "cpu" if device_map != "auto" or not torch.accelerator.is_available() else None
    assert {p.device.type for p in model.parameters()} == {wanted or model.device.type}


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_the_language_model_attends_as_asked(saved, implementation):
    folder, expected = saved
    model = DeepMLFModel.from_pretrained(folder / "whole", attn_implementation=implementation)
    assert model.language.lm.config._attn_implementation == implementation
    torch.testing.assert_close(answer(model), expected, atol=1e-5, rtol=0)


def test_a_model_where_a_run_is_expected_is_told_from_nothing(saved):
    with pytest.raises(DeepMLFError, match=r"No run at .*AutoModel\.from_pretrained"):
        Run.open(saved[0] / "whole")


def test_weights_in_memory_replace_the_stored_ones(saved):
    folder, expected = saved
    state = DeepMLFModel.from_pretrained(folder / "whole").state_dict()
    state = {name: tensor.clone() for name, tensor in state.items()}
    assert torch.equal(answer(DeepMLFModel.from_pretrained(folder / "whole", state_dict=state)), expected)
    state["heads.task.3.bias"] += 1
    shifted = DeepMLFModel.from_pretrained(folder / "whole", state_dict=state)
    torch.testing.assert_close(answer(shifted), expected + 1)
    del state["fusion_tokens"]
    with pytest.raises(DeepMLFError, match=r"1 weights are missing.*fusion_tokens"):
        DeepMLFModel.from_pretrained(folder / "whole", state_dict=state)


def test_other_sizes_are_one_clear_error_or_start_anew_when_asked(saved):
    folder, _ = saved
    with pytest.raises(DeepMLFError, match=r"another shape.*ignore_mismatched_sizes=True"):
        DeepMLFModel.from_pretrained(folder / "whole", num_classes=3)
    model, info = DeepMLFModel.from_pretrained(
        folder / "whole", num_classes=3, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert answer(model).shape == (3, 3) and not info["missing_keys"] and not info["unexpected_keys"]
    assert ("heads.task.3.weight", (1, 16), (3, 16)) in info["mismatched_keys"]
    assert {name.split(".")[0] for name, *_ in info["mismatched_keys"]} == {"heads"}
    whole = DeepMLFModel.from_pretrained(folder / "whole")
    assert torch.equal(model.fusion_tokens, whole.fusion_tokens)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"fusion_token": 3}, "did you mean 'fusion_tokens'"),
        ({"atn_implementation": "eager"}, "did you mean 'attn_implementation'"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"device_map": {"language": 0, "heads": "cpu"}}, "stands on one device"),
        ({"device_map": "gpu"}, "stands on one device"),
        ({"attn_implementation": "flash_attention_2"}, "sdpa"),
    ],
)
def test_an_argument_that_does_not_fit_is_named(saved, wrong, says):
    with pytest.raises(DeepMLFError, match=says):
        DeepMLFModel.from_pretrained(saved[0] / "whole", **wrong)


def test_shards_are_read_with_distrust(saved, tmp_path):
    folder, _ = saved
    whole = DeepMLFModel.from_pretrained(folder / "shards")
    whole.save_pretrained(tmp_path, max_shard_size="30KB")
    index = tmp_path / INDEX_FILE
    good = index.read_text()
    for name in ("../whole/model.safetensors", "/etc/passwd", "other.bin"):
        values = json.loads(good)
        values["weight_map"]["fusion_tokens"] = name
        index.write_text(json.dumps(values))
        with pytest.raises(DeepMLFError, match="expected shards such as"):
            DeepMLFModel.from_pretrained(tmp_path)
    index.write_text("{}")
    with pytest.raises(DeepMLFError, match="weight_map"):
        DeepMLFModel.from_pretrained(tmp_path)
    index.write_text(good)
    one, another = sorted(tmp_path.glob("model-*"))[:2]
    kept = one.read_bytes()
    one.write_bytes(another.read_bytes())
    with pytest.raises(DeepMLFError, match="as another shard does"):
        DeepMLFModel.from_pretrained(tmp_path)
    one.write_bytes(kept)
    one.unlink()
    with pytest.raises(DeepMLFError, match=f"shard {one.name} .* is missing"):
        DeepMLFModel.from_pretrained(tmp_path)


def test_saving_leaves_a_model_card_and_spares_one_that_is_there(saved, tmp_path):
    card = (saved[0] / "whole" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: deepmlf-kit\n") and "AutoModel.from_pretrained" in card
    assert str(saved[0]) not in card
    (tmp_path / "README.md").write_text("mine")
    tiny_model().save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine" and (tmp_path / WEIGHTS_FILE).exists()


def test_the_av_encoder_s_model_loads_in_the_same_way(tmp_path):
    AVSentimentModel(tiny_config()).save_pretrained(tmp_path, max_shard_size="20KB")
    model, info = AVSentimentModel.from_pretrained(
        tmp_path, dtype="bfloat16", device_map="cpu", token=False, output_loading_info=True
    )
    assert model.dtype == torch.bfloat16 and not any(info.values())
    av = unlabelled()
    assert model(**av, return_dict=False)[0].shape == (3,)


# One model, its copies and its outputs -------------------------------------------------------------------------


def test_a_model_survives_pickle_torch_save_and_deepcopy():
    model = tiny_model()
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    copies = [
        pickle.loads(pickle.dumps(model)),
        torch.load(file, weights_only=False),
        copy.deepcopy(model),
    ]
    for copied in copies:
        assert torch.equal(answer(copied), answer(model))
        with torch.no_grad():
            copied.fusion_tokens.add_(1)
    assert not torch.equal(answer(copies[0]), answer(model))


def test_return_dict_false_gives_the_fields_in_order():
    model, batch = tiny_model(), tiny_batch()
    with torch.no_grad():
        output = model(**batch)
        fields = model(**batch, return_dict=False)
        assert isinstance(fields, tuple) and len(fields) == len(output)
        assert torch.equal(fields[0], output.loss) and torch.equal(fields[1], output.prediction)
        model.config.return_dict = False
        assert isinstance(model(**batch), tuple)


def test_the_config_asks_for_hidden_states_and_attentions_too():
    model = tiny_model()
    for config in (model.config, tiny_config(output_hidden_states=True, output_attentions=True)):
        config.output_hidden_states = config.output_attentions = True
        config = DeepMLFConfig.from_dict(config.to_dict())
        assert config.output_hidden_states and config.output_attentions
    with torch.no_grad():
        asked = model(**unlabelled())
        assert len(asked.hidden_states) == 5 and set(asked.cross_attentions) == {1, 2}
        spared = model(**unlabelled(), output_hidden_states=False, output_attentions=False)
    assert spared.hidden_states is None and spared.cross_attentions is None


@pytest.mark.parametrize("asked", [[0, 2, -1], 0, (3,)])
@torch.no_grad()
def test_hidden_states_are_chosen_by_their_indices(asked):
    model = tiny_model()
    whole = model(**unlabelled(), output_hidden_states=True).hidden_states
    some = model(**unlabelled(), output_hidden_states=asked).hidden_states
    kept = {i % len(whole) for i in ([asked] if asked == 0 else asked)}
    assert {i for i, state in enumerate(some) if state is not None} == kept
    for i in kept:
        torch.testing.assert_close(some[i], whole[i])
    with pytest.raises(DeepMLFError, match="asks for hidden state 5, but there are 5"):
        model(**unlabelled(), output_hidden_states=[1, 5])


def test_the_input_embeddings_are_the_language_model_s():
    model = tiny_model()
    embeddings = model.get_input_embeddings()
    assert embeddings is model.language.lm.get_input_embeddings()
    batch = unlabelled()
    with torch.no_grad():
        given = model(**batch, text_embeddings=embeddings(batch["input_ids"])).prediction
    torch.testing.assert_close(given, answer(model), atol=1e-5, rtol=0)


@pytest.mark.parametrize("text_first", [False, True])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_(en|dis)able:FutureWarning")
def test_gradient_checkpointing_recomputes_layers_and_changes_no_gradient(family, text_first):
    found = []
    for enabled in (False, True):
        model = tiny_model(family, text_first=text_first, attention_dropout=0.0, av_dropout=0.0).train()
        model.config.seqaug_av_p_feat = model.config.lora_dropout = 0.0
        if enabled:
            model.gradient_checkpointing_enable()
        assert model.gradient_checkpointing == enabled
        calls = []
        model.language.layers[-1].register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        loss = model(**tiny_batch()).loss
        forward = len(calls)
        loss.backward()
        assert len(calls) == forward * (2 if enabled else 1)
        found.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    plain, recomputed = found
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient, atol=1e-5, rtol=1e-4, msg=name)
    model.gradient_checkpointing_disable()
    assert not model.gradient_checkpointing


@pytest.mark.filterwarnings("ignore")
def test_a_model_is_planned_on_the_meta_device(saved):
    """As accelerate's `init_empty_weights` and the estimates of `device_map` do: nothing is read."""
    folder = saved[0] / "whole"
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        planned = DeepMLFModel(config)
        with pytest.raises(DeepMLFError, match=r"from_pretrained. with a meta device"):
            AutoModel.from_pretrained(folder)
    assert {p.device.type for p in planned.parameters()} == {"meta"}
    real = DeepMLFModel.from_pretrained(folder).state_dict()
    assert {n: p.shape for n, p in planned.state_dict().items()} == {n: p.shape for n, p in real.items()}


def test_a_config_asks_for_eager_attention_too(saved):
    config = AutoConfig.from_pretrained(saved[0] / "whole")
    assert DeepMLFModel(copy.deepcopy(config)).language.config._attn_implementation != "eager"
    config._attn_implementation = "eager"
    assert DeepMLFModel(config).language.config._attn_implementation == "eager"


def test_gradients_reach_the_attentions_that_come_with_hidden_states():
    model = tiny_model()
    out = model(**tiny_batch(), output_hidden_states=True, output_attentions=True)
    reached = torch.autograd.grad(out.loss, [*out.attentions, *out.hidden_states])
    assert all(gradient.abs().sum() > 0 for gradient in reached)


def test_what_is_not_saved_is_named_as_the_state_dict_names_it():
    model = tiny_model()
    assert model._keys_to_ignore_on_save <= model.state_dict().keys()


def test_a_stock_trainer_trains_resumes_and_leaves_a_folder_that_automodel_opens(saved, tmp_path):
    def train(model, steps, resume):
        arguments = TrainingArguments(
            str(tmp_path),
            max_steps=steps,
            save_steps=1,
            learning_rate=0.01,
            lr_scheduler_type="constant",
            gradient_checkpointing=True,
            remove_unused_columns=False,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = Trainer(model, arguments, data_collator=lambda rows: tiny_batch(), train_dataset=[0, 1, 2])
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    first = train(DeepMLFModel.from_pretrained(saved[0] / "whole"), 1, None)
    second = train(DeepMLFModel.from_pretrained(saved[0] / "whole"), 2, True)
    assert second.model.gradient_checkpointing and second.state.global_step == 2
    answers = [answer(trainer.model.eval()) for trainer in (first, second)]
    assert not torch.equal(answers[0], saved[1]) and not torch.equal(answers[0], answers[1])
    second.save_model(str(tmp_path / "final"))
    for folder, expected in (
        ("checkpoint-1", answers[0]),
        ("checkpoint-2", answers[1]),
        ("final", answers[1]),
    ):
        assert torch.equal(answer(AutoModel.from_pretrained(tmp_path / folder)), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_answers_in_half_precision(family, dtype):
    model = tiny_model(family)
    expected = answer(model)
    found = answer(model.to(dtype))
    assert found.dtype == dtype and found.isfinite().all()
    torch.testing.assert_close(found.float(), expected, atol=0.05, rtol=0.05)


# Graphs --------------------------------------------------------------------------------------------------------

INPUTS = ("input_ids", "attention_mask", "audio", "audio_mask", "vision", "vision_mask")


class Prediction(torch.nn.Module):
    """What people export: tensors in, a tensor out."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *tensors):
        return self.model(**dict(zip(INPUTS, tensors, strict=True))).prediction


def tensors(**sizes):
    batch = tiny_batch(**sizes)
    return tuple(batch[name] for name in INPUTS)


OTHER = {"lengths": (9, 2, 7), "audio": (23, 2, 9), "vision": (3, 16, 8), "seed": 5}


@torch.no_grad()
@pytest.mark.parametrize("text_first", [False, True])
def test_the_inference_path_compiles_as_one_graph(text_first):
    torch.compiler.reset()
    model = tiny_model(text_first=text_first, av_batchnorm=True)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for sizes in ({}, OTHER):
        batch = unlabelled(**sizes)
        torch.testing.assert_close(compiled(**batch).prediction, model(**batch).prediction, atol=1e-5, rtol=0)


OTHER_SIZES = [
    OTHER,
    {"lengths": (12, 3, 7, 4), "audio": (31, 2, 9, 4), "vision": (3, 20, 8, 3)},
    {"lengths": (4,), "audio": (5,), "vision": (3,)},
]
"""Batches of other values, then of other numbers of clips, tokens and frames."""


def free_sizes(batch):
    """Shapes for `torch.export`: clips, and tokens or frames, are as many as they are."""
    return {name: {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC} for name in batch}


def check_export(model):
    batch = unlabelled()
    exported = torch.export.export(model, (), kwargs=batch, dynamic_shapes=free_sizes(batch)).module()
    for sizes in OTHER_SIZES:
        batch = unlabelled(**sizes)
        torch.testing.assert_close(exported(**batch).prediction, model(**batch).prediction, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_inference_path_exports_and_answers_other_numbers_of_clips_tokens_and_frames():
    check_export(tiny_model(av_batchnorm=True))


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("text_first", [False, True])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_exports_with_sizes_left_free(family, text_first):
    check_export(tiny_model(family, text_first=text_first))


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")
def test_the_inference_path_compiles_to_machine_code():
    torch.compiler.reset()
    model = tiny_model(av_batchnorm=True)
    compiled = torch.compile(model, fullgraph=True)
    for sizes in ({}, OTHER):
        batch = unlabelled(**sizes)
        torch.testing.assert_close(compiled(**batch).prediction, model(**batch).prediction, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_the_inference_path_can_be_traced():
    model = Prediction(tiny_model())
    traced = torch.jit.trace(model, tensors(), check_trace=False)
    for sizes in ({}, OTHER):
        torch.testing.assert_close(traced(*tensors(**sizes)), model(*tensors(**sizes)), atol=1e-5, rtol=0)


# The page ------------------------------------------------------------------------------------------------------


def run_page(page: str, folder: Path) -> dict:
    """What is defined after all Python blocks of a page were run, one after another, in an empty folder."""
    names: dict = {"__name__": page}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for code in re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.S | re.M):
            exec(compile(code, page, "exec"), names)
    return names


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hugging_face")
    return folder, run_page("hugging_face.md", folder)


@pytest.mark.slow
def test_the_page_trains_saves_and_loads(page):
    folder, names = page
    assert 0 < names["mae"] < 10
    assert names["trainer"].model.gradient_checkpointing
    assert (folder / "out" / "final" / WEIGHTS_FILE).stat().st_size < 40e6
    assert type(names["again"]) is DeepMLFModel and names["half"].dtype == torch.bfloat16
    assert names["plain"].config.text_first is False and names["classes"].config.num_classes == 3
    assert -3 < names["sentiment"] < 3


def answers_of(names, indices):
    """A batch of the page's test split, and what the page's model says to it."""
    batch = names["collator"]([names["data"]["test"][i] for i in indices])
    del batch["labels"]
    with torch.no_grad():
        return batch, names["model"](**batch).prediction


@pytest.mark.slow
def test_the_page_s_exported_graph_takes_one_clip_and_many(page):
    for indices in ([0], range(6)):
        batch, expected = answers_of(page[1], indices)
        torch.testing.assert_close(
            page[1]["exported"].module()(**batch).prediction, expected, atol=1e-5, rtol=0
        )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_page_s_onnx_file_takes_one_clip_and_many(page, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    page[1]["to_onnx"](str(tmp_path / "mine.onnx"))
    for indices in ([0], range(6)):
        batch, expected = answers_of(page[1], indices)
        found = torch.from_numpy(page[1]["run_onnx"](str(tmp_path / "mine.onnx"), batch))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_the_page_s_model_answers_clips(page, tmp_path):
    make_clip(tmp_path / "a.wav", 1.0, video=None, audio="pcm_s16le")
    predictor = page[1]["predictor"]
    said = [predictor.clip(tmp_path / "a.wav", words) for words in ("what a great day", "never again")]
    assert said[0].sentiment != said[1].sentiment and said[0].clip["voiced_share"] > 0
    assert predictor.notes == [] and -3 < page[1]["words_alone"] < 3


@pytest.mark.slow
def test_the_page_s_gguf_language_model_answers(page, tmp_path):
    tiny_gguf(tmp_path / "tiny.gguf")
    model = page[1]["around_gguf"](str(tmp_path), "tiny.gguf").eval()
    ids = torch.tensor([model.tokenizer("the a")["input_ids"]])
    with torch.no_grad():
        expected = model(ids).prediction
        model.save_pretrained(tmp_path / "saved")
        assert torch.equal(AutoModel.from_pretrained(tmp_path / "saved")(ids).prediction, expected)


# Activations ---------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3", "neox"])
def test_attentions_are_square_on_both_paths_and_those_of_eager_attention(family):
    given = []
    for text_first, implementation in ((True, None), (False, None), (True, "eager")):
        model = tiny_model(family, text_first=text_first)
        if implementation:
            model.set_attn_implementation(implementation)
        output = model(**unlabelled(), output_attentions=True)
        assert len(output.attentions) == 4 and output.attentions[0].shape == (3, 4, 14, 14)
        given.append(torch.stack(output.attentions))
        torch.testing.assert_close(output.prediction, answer(model), atol=1e-6, rtol=0)
        assert not any(module._forward_hooks for module in model.modules())
    real = unlabelled()["attention_mask"].bool()
    real = torch.cat(
        [real, torch.ones(3, 5, dtype=torch.bool)], dim=1
    )  # what padding attends to counts nowhere
    for attentions in given:
        rows = attentions.permute(1, 3, 0, 2, 4)[real]  # [real tokens, layers, heads, S]
        torch.testing.assert_close(rows.sum(dim=-1), torch.ones(rows.shape[:-1]))
        torch.testing.assert_close(rows, given[0].permute(1, 3, 0, 2, 4)[real], atol=1e-5, rtol=0)
        assert not attentions.triu(1).any()


def activations():
    """Name, place and shape of each row of the table in docs/activations.md."""
    table = re.findall(
        r"^\| `(\S+)` \| `(.+)` \| (.+) \|$", (ROOT / "docs" / "activations.md").read_text(), re.M
    )
    assert len(table) > 20 and len({name for name, *_ in table}) == len(table)
    return table


@torch.no_grad()
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_every_activation_of_the_list_is_where_the_page_says(family):
    model, batch = tiny_model(family, text_first=False), unlabelled()
    names = {"model": model, "attention_of": attention_of, "i": 1}
    sizes = {"B": 3, "L": 9, "F": 5, "S": 14, "D": 48, "H": 4, "K": 10, "d": 12, "h": 4, "1": 1}
    values = {}
    handles = [
        eval(place, names).register_forward_hook(
            lambda module, inputs, value, name=name: values.setdefault(name, []).append(value)
        )
        for name, place, _ in activations()
        if not place.startswith("output")
    ]
    names["output"] = model(**batch, output_hidden_states=True, output_attentions=True)
    for handle in handles:
        handle.remove()
    for name, place, shape in activations():
        (value,) = (
            [eval(place, names)] if place.startswith("output") else values[name]
        )  # one call of every module
        value = value[0] if isinstance(value, tuple) else value
        assert list(value.shape) == [sizes[size] for size in shape.split(", ")], name


@pytest.fixture(scope="module")
def activations_page(tmp_path_factory):
    return run_page("activations.md", tmp_path_factory.mktemp("activations"))


def test_the_activations_page_runs_and_captum_adds_up(activations_page):
    names = activations_page
    model, ids, rest = names["model"], names["ids"], names["rest"]
    length, tokens = ids.shape[1], len(names["tokens"])
    assert names["seen"]["out"].shape == (2, 8, model.language.width)
    assert all(layer.shape[-2:] == (tokens, tokens) for layer in names["output"].attentions)
    assert names["by_word"].shape == (1, length, model.language.width)
    assert names["by_fusion_token"].shape == (1, 8, model.language.width)
    assert names["states"].shape == (1, tokens, model.language.width)
    with torch.no_grad():
        baseline = torch.full_like(ids, model.pad_token_id)
        difference = names["predict"](ids, *rest) - names["predict"](baseline, *rest)
        none = [torch.zeros_like(names["one"][name]) for name in ("audio", "vision")]
        heard = float(names["output"].prediction - names["from_frames"](*none))
    assert float(names["by_word"].sum()) == pytest.approx(float(difference), abs=0.1)
    assert sum(float(part.sum()) for part in names["by_frame"]) == pytest.approx(
        heard, abs=0.1 * abs(heard) + 1e-3
    )


def test_the_activations_page_s_pictures_are_drawn_by_bertviz(activations_page, capsys):
    pytest.importorskip("bertviz")
    activations_page["show"]()
    assert capsys.readouterr().out.count("IPython.core.display.Javascript object") == 2
