"""What the model promises, for every tested family of language models."""

import dataclasses
import json

import pytest
import torch
from preset_lms import byte_level
from tiny_lms import FAMILIES, LAYERS, one_of, tiny_batch, tiny_config, tiny_lm, tiny_model

from deepmlf_kit import DeepMLFConfig, DeepMLFModel
from deepmlf_kit.data.collate import Collator
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.model import DeepMLFOutput
from deepmlf_kit.model.av_encoder import AVSentimentModel
from deepmlf_kit.model.cross_attention import CrossAttention

families = pytest.mark.parametrize("family", FAMILIES)
feed_forwards = pytest.mark.parametrize("ffw", ["full", "lora"])


@families
@pytest.mark.parametrize("text_first", [False, True])
def test_text_stream_ignores_audio_and_vision(family, text_first):
    model = tiny_model(family, text_first=text_first)
    batch = tiny_batch()
    other = batch | {"audio": batch["audio"] + 1, "vision": -batch["vision"]}
    with torch.no_grad():
        one, two = (model(**b, output_lm_logits=True, output_hidden_states=True) for b in (batch, other))
    length = batch["input_ids"].shape[1]
    for a, b in zip(one.hidden_states, two.hidden_states, strict=True):
        assert torch.equal(a[:, :length], b[:, :length])
    assert torch.equal(one.lm_logits, two.lm_logits)
    moved = (one.fusion_states - two.fusion_states).abs().amax(dim=-1)  # [B, F]
    assert (moved > 1e-6).all()


@families
@feed_forwards
def test_a_padded_batch_equals_its_samples_one_by_one(family, ffw):
    model = tiny_model(family, ffw=ffw)
    batch = tiny_batch()
    with torch.no_grad():
        together = model(**batch)
        for row in range(3):
            alone = model(**one_of(batch, row))
            for name in (
                "prediction",
                "text_prediction",
                "fusion_prediction",
                "av_prediction",
                "fusion_states",
            ):
                torch.testing.assert_close(alone[name][0], together[name][row], atol=1e-5, rtol=0)


@families
def test_a_fusion_token_never_depends_on_a_later_one(family):
    model = tiny_model(family)
    batch = tiny_batch()
    with torch.no_grad():
        before = model(**batch).fusion_states
        model.fusion_tokens[3] = torch.randn(48, generator=torch.Generator().manual_seed(9))
        after = model(**batch).fusion_states
    assert torch.equal(before[:, :3], after[:, :3])
    assert ((before - after)[:, 3:].abs().amax(dim=-1) > 1e-6).all()


@families
@feed_forwards
def test_frozen_means_no_lm_weight_changes_in_three_steps(family, ffw):
    model = tiny_model(family, ffw=ffw).train()
    before = {name: p.clone() for name, p in model.language.lm.named_parameters()}
    started = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        model(**tiny_batch()).loss.backward()
        optimizer.step()
    for name, parameter in model.language.lm.named_parameters():
        assert torch.equal(parameter, before[name]), name
    unmoved = [n for n, p in model.named_parameters() if n in started and torch.equal(p, started[n])]
    assert [n for n in unmoved if not n.endswith(".missing")] == []


@families
def test_closed_gates_give_the_lms_own_text_logits(family):
    model = tiny_model(family)
    batch = tiny_batch()
    with torch.no_grad():
        for block in model.mm_blocks.values():
            block.gate_1.alpha.fill_(float("-inf"))
            block.gate_2.alpha.fill_(float("-inf"))
        ours = model(**batch, output_lm_logits=True).lm_logits
        positions = torch.arange(batch["input_ids"].shape[1]).unsqueeze(0)
        own = model.language.lm(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], position_ids=positions
        ).logits
    valid = batch["attention_mask"].bool()
    torch.testing.assert_close(ours[valid], own[valid], atol=2e-5, rtol=0)


@families
def test_without_gating_and_with_zero_output_the_lm_is_untouched(family):
    gated = tiny_model(family, gating="none", ffw="none")
    batch = tiny_batch()
    with torch.no_grad():
        for block in gated.mm_blocks.values():
            block.cross_attention.output.weight.zero_()
        ours = gated(**batch, output_lm_logits=True)
        own = gated.language.lm(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    row = 0  # full length: the LM's own default positions are the same
    torch.testing.assert_close(ours.lm_logits[row], own.logits[row], atol=2e-5, rtol=0)


@families
def test_without_feed_forward_on_text_the_language_stream_is_the_lms(family):
    model = tiny_model(family, ffw_on_text=False)
    batch = tiny_batch()
    with torch.no_grad():
        ours = model(**batch, output_lm_logits=True).lm_logits[0]
        own = model.language.lm(input_ids=batch["input_ids"][:1]).logits[0]
    torch.testing.assert_close(ours, own, atol=2e-5, rtol=0)


@pytest.mark.parametrize("missing_modality", ["learned", "zero"])
@pytest.mark.parametrize("streams", [["audio"], ["vision"], ["audio", "vision"]], ids="+".join)
def test_a_missing_modality_gives_finite_answers_and_gradients(missing_modality, streams):
    model = tiny_model(missing_modality=missing_modality).train()
    batch = tiny_batch()
    none_at_all = {k: v for k, v in batch.items() if k.removesuffix("_mask") not in streams}
    masked = batch | {f"{s}_mask": torch.zeros_like(batch[f"{s}_mask"]) for s in streams}
    for given in (none_at_all, masked):
        output = model(**given)
        output.loss.backward()
        assert torch.isfinite(output.loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(
            model(**none_at_all).prediction, model(**masked).prediction, atol=1e-6, rtol=0
        )


def test_one_sample_without_voice_does_not_move_the_others():
    model = tiny_model()
    batch = tiny_batch()
    mask = batch["audio_mask"].clone()
    mask[1] = False
    with torch.no_grad():
        whole, lacking = model(**batch), model(**(batch | {"audio_mask": mask}))
    torch.testing.assert_close(whole.prediction[[0, 2]], lacking.prediction[[0, 2]], atol=1e-6, rtol=0)
    assert (whole.prediction[1] - lacking.prediction[1]).abs() > 1e-6


@pytest.mark.parametrize("gating", ["sigmoid", "tanh", "none"])
@pytest.mark.parametrize("scale", ["width", "head"])
def test_every_gating_and_scale_trains(gating, scale):
    model = tiny_model(gating=gating, attention_scale=scale).train()
    output = model(**tiny_batch())
    output.loss.backward()
    gates = [p for n, p in model.named_parameters() if n.endswith("alpha")]
    assert len(gates) == (0 if gating == "none" else 4)
    assert torch.isfinite(output.loss)


def test_tanh_gates_start_closed():
    model, batch = tiny_model(gating="tanh"), tiny_batch()
    with torch.no_grad():
        assert torch.equal(
            model(**batch).fusion_states, model(**(batch | {"audio": batch["audio"] + 1})).fusion_states
        )


@pytest.mark.parametrize("need_weights", [False, True], ids=["read only", "weights"])
@pytest.mark.parametrize(("tokens", "steps"), [(3, 11), (11, 3)])
def test_cross_attention_equals_keys_and_values_of_every_head_spelled_out(tokens, steps, need_weights):
    torch.manual_seed(0)
    width, heads = 48, 4
    attention = CrossAttention(
        DeepMLFConfig(cross_attention_heads=heads, av_width=10, av_heads=2), width
    ).eval()
    fusion = torch.randn(2, tokens, width, requires_grad=True)
    av_states = torch.randn(2, steps, 10, requires_grad=True)
    mask = torch.ones(2, steps, dtype=torch.bool)
    mask[1, 1:] = False

    def by_head(x):
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)  # [B, h, T, D/h]

    key, value = attention.key_value(av_states).chunk(2, dim=-1)
    scores = by_head(attention.query(fusion)) @ by_head(key).transpose(-1, -2) * attention.scale
    spelled = scores.masked_fill(~mask[:, None, None], float("-inf")).softmax(dim=-1)
    wanted = attention.output((spelled @ by_head(value)).transpose(1, 2).flatten(2))
    read, weights = attention(fusion, av_states, mask, need_weights)
    torch.testing.assert_close(read, wanted, atol=1e-6, rtol=0)
    if need_weights:
        torch.testing.assert_close(weights, spelled, atol=1e-6, rtol=0)
    learned = [fusion, av_states, *attention.parameters()]
    pull = torch.randn_like(read)
    for ours, theirs in zip(
        torch.autograd.grad((read * pull).sum(), learned),
        torch.autograd.grad((wanted * pull).sum(), learned),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_attention_on_request_equals_attention_as_usual_and_sums_to_one():
    model, batch = tiny_model(), tiny_batch()
    with torch.no_grad():
        usual, asked = model(**batch), model(**batch, output_attentions=True)
    assert usual.cross_attentions is None
    assert set(asked.cross_attentions) == {1, 2}
    for weights in asked.cross_attentions.values():
        assert weights.shape == (3, 4, 5, 10)
        torch.testing.assert_close(weights.sum(-1), torch.ones(3, 4, 5))
    torch.testing.assert_close(usual.prediction, asked.prediction, atol=1e-6, rtol=0)


@pytest.mark.parametrize("classes", [0, 3])
def test_the_output_begins_with_the_loss_and_then_the_prediction(classes):
    model = tiny_model(num_classes=classes)
    batch = tiny_batch() | {"labels": torch.tensor([0.0, 1.0, 2.0])}
    out = model(**batch, output_lm_logits=True, output_hidden_states=True, output_attentions=True)
    assert list(out) == [field.name for field in dataclasses.fields(DeepMLFOutput)]
    assert out[0] is out.loss and out["loss"] is out.loss and out[1] is out.prediction
    del batch["labels"]
    without = model(**batch)
    assert without[0] is without.prediction and without.loss is None


class Rows(torch.utils.data.Dataset):
    """The rows of a batch, their texts trimmed to their own length as a collator gets them."""

    def __init__(self, batch):
        self.rows = [one_of(batch, i) for i in range(len(batch["input_ids"]))]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


@pytest.mark.parametrize(("classes", "shape"), [(0, (3,)), (3, (3, 3))])
def test_a_stock_trainer_predicts_an_array_a_metric_can_take(classes, shape, tmp_path):
    from transformers import Trainer, TrainingArguments

    model, batch = tiny_model(num_classes=classes), tiny_batch()
    if classes:
        batch["labels"] = torch.tensor([0.0, 1.0, 2.0])
    seen = {}

    def compute_metrics(given):
        predictions, labels = given
        seen.update(predictions=predictions, labels=labels)
        return {"mean": float(predictions.mean())}

    trainer = Trainer(
        model,
        TrainingArguments(
            str(tmp_path), per_device_eval_batch_size=1, use_cpu=True, report_to="none", disable_tqdm=True
        ),
        data_collator=lambda rows: rows[0],
        eval_dataset=Rows(batch),
        compute_metrics=compute_metrics,
    )
    assert "eval_mean" in trainer.evaluate()
    assert seen["predictions"].shape == shape and seen["labels"].shape == (3,)
    with torch.no_grad():
        expected = model(**batch).prediction
    torch.testing.assert_close(torch.from_numpy(seen["predictions"]), expected, atol=1e-5, rtol=0)
    everything = {field.name for field in dataclasses.fields(DeepMLFOutput)}
    assert everything - set(model.config.keys_to_ignore_at_inference) == {"loss", "prediction"}


@pytest.mark.parametrize("checkpointing", [False, True], ids=["activations kept", "computed again"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_what_is_asked_for_is_in_the_graph_on_both_paths(family, checkpointing):
    found = []
    for text_first in (False, True):
        model = tiny_model(
            family,
            text_first=text_first,
            gradient_checkpointing_layers=checkpointing,
            attention_dropout=0.0,
            av_dropout=0.0,
            seqaug_av_p_feat=0.0,
            lora_dropout=0.0,
            ffw="lora",
        ).train()
        out = model(**tiny_batch(), output_hidden_states=True, output_attentions=True)
        given = {f"hidden_states {i}": state for i, state in enumerate(out.hidden_states)}
        given |= {f"cross_attentions {i}": weights for i, weights in out.cross_attentions.items()}
        names = ("prediction", "text_prediction", "fusion_prediction", "av_prediction", "av_states")
        given |= {name: out[name] for name in names}
        for tensor in given.values():
            tensor.retain_grad()
        out.loss.backward()
        gradients = {name: tensor.grad for name, tensor in given.items()}
        assert [name for name, grad in gradients.items() if grad is None or not grad.any()] == []
        found.append(gradients)
    plain, fast = found
    assert plain.keys() == fast.keys() and len(plain) == LAYERS + 1 + 2 + 5
    for name, gradient in plain.items():
        torch.testing.assert_close(
            fast[name], gradient, atol=1e-5, rtol=0, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_cross_attentions_alone_leave_the_fast_path_its_speed(monkeypatch):
    """Attention is the fusion tokens' own: no gradient of it passes the text, so the text may still come first."""
    gradients = []
    for text_first in (False, True):
        model = tiny_model(text_first=text_first)
        if text_first:
            monkeypatch.setattr("deepmlf_kit.model.deepmlf.DecoderPass.joint", None)
        out = model(**tiny_batch(), output_attentions=True)
        gradients.append(torch.autograd.grad(out.loss, list(out.cross_attentions.values())))
    for plain, fast in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, plain, atol=1e-5, rtol=0)


def test_the_loss_is_the_weighted_sum_of_its_terms():
    model = tiny_model(loss_fusion=0.3, loss_av=0.5, loss_text=0.7, loss_lm=1.1)
    out = model(**tiny_batch())
    total = (
        out.loss_task + 0.3 * out.loss_fusion + 0.5 * out.loss_av + 0.7 * out.loss_text + 1.1 * out.loss_lm
    )
    torch.testing.assert_close(out.loss, total)


def test_the_lm_loss_pads_as_the_collator_does_where_the_tokenizer_has_no_pad_token():
    tokenizer = byte_level(["that was fine"])
    torch.manual_seed(0)
    model = DeepMLFModel(tiny_config(pad_token_id=None), lm=tiny_lm(), tokenizer=tokenizer)
    padded = Collator(tokenizer, 12).text(["fine", "that was fine"])["input_ids"][0, -1]
    assert tokenizer.pad_token_id is None
    assert model.pad_token_id == int(padded)
    assert torch.isfinite(model(**tiny_batch()).loss_lm)


def test_unknown_labels_are_left_out():
    model, batch = tiny_model(loss_lm=0.0), tiny_batch()
    labels = batch["labels"].clone()
    labels[1] = float("nan")
    with torch.no_grad():
        some = model(**(batch | {"labels": labels}))
        full = model(**batch)
    expected = (full.prediction - batch["labels"]).abs()[[0, 2]].mean()
    torch.testing.assert_close(some.loss_task, expected)


def test_classes_are_learned_with_cross_entropy():
    model = tiny_model(num_classes=3).train()
    batch = tiny_batch() | {"labels": torch.tensor([0.0, 1.0, 2.0])}
    output = model(**batch)
    output.loss.backward()
    assert output.prediction.shape == (3, 3)
    assert output.fusion_prediction.shape == (3, 5, 3)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(**batch).loss_task
        loss.backward()
        optimizer.step()
    assert loss < output.loss_task / 2


def test_gradient_checkpointing_changes_no_gradient():
    gradients = []
    for again in (False, True):
        model = tiny_model(attention_dropout=0.0, av_dropout=0.0, seqaug_av_p_feat=0.0)
        model.config.gradient_checkpointing_layers = again
        model.train()
        model(**tiny_batch()).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-6, rtol=0)


# Saving and loading ------------------------------------------------------------------------------------------


@families
@feed_forwards
def test_load_save_load_gives_equal_outputs(family, ffw, tmp_path):
    lm = tiny_lm(family)
    lm.save_pretrained(tmp_path / "lm")
    torch.manual_seed(5)
    model = DeepMLFModel(tiny_config(lm=str(tmp_path / "lm"), ffw=ffw)).eval()
    batch = tiny_batch()
    with torch.no_grad():
        expected = model(**batch).prediction
        model.save_pretrained(tmp_path / "first")
        again = DeepMLFModel.from_pretrained(tmp_path / "first")
        torch.testing.assert_close(again(**batch).prediction, expected, atol=0, rtol=0)
        again.save_pretrained(tmp_path / "second")
        third = DeepMLFModel.from_pretrained(tmp_path / "second")
    torch.testing.assert_close(third(**batch).prediction, expected, atol=0, rtol=0)
    assert again.config.lm == str(tmp_path / "lm")


@feed_forwards
def test_a_checkpoint_holds_only_what_was_trained(ffw, tmp_path):
    from safetensors import safe_open

    model = tiny_model(ffw=ffw)
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        stored = set(file.keys())
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained <= stored
    assert not any(name.startswith("language.") for name in stored)
    assert {n for n in stored - trained if "running_" not in n and "num_batches" not in n} == set()


def test_an_in_memory_lm_must_be_given_again(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    with pytest.raises(DeepMLFError, match="in memory"):
        DeepMLFModel.from_pretrained(tmp_path)
    again = DeepMLFModel.from_pretrained(tmp_path, lm=tiny_lm())
    with torch.no_grad():
        torch.testing.assert_close(again(**tiny_batch()).prediction, model(**tiny_batch()).prediction)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(DeepMLFError, match=r"expected a folder with config\.json"):
        DeepMLFModel.from_pretrained(tmp_path)


def test_an_av_encoder_checkpoint_starts_the_fused_model(tmp_path):
    pretrained = AVSentimentModel(tiny_config()).eval()
    pretrained.save_pretrained(tmp_path)
    model, batch = tiny_model(av_trainable=False), tiny_batch()
    model.load_av_encoder(tmp_path)
    streams = {name: batch[name] for name in ("audio", "audio_mask", "vision", "vision_mask")}
    with torch.no_grad():
        expected, _ = pretrained.av_encoder(**streams)
        torch.testing.assert_close(model(**batch).av_states, expected)
    model.train()(**batch).loss.backward()
    assert all(p.grad is None for p in model.av_encoder.parameters())
    with pytest.raises(DeepMLFError, match="av_steps 10 there, 11 here"):
        tiny_model(av_steps=11).load_av_encoder(tmp_path)


# Bad configurations ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "changes", "words"),
    [
        ("llama", {"fusion_layers": [1, LAYERS]}, "Fusion layer 4 .* has 4 layers"),
        (
            "gpt2",
            {"max_text_tokens": 60},
            "is 65, but the LM .* takes 64 positions: lower max_text_tokens to at most 59",
        ),
        ("llama", {"cross_attention_heads": 7}, "is 7, which does not divide the width 48"),
        ("gemma3", {"max_text_tokens": 28}, "sliding attention window of 32 tokens, but .* take 33"),
    ],
)
def test_what_the_lm_cannot_do_is_refused_when_built(family, changes, words):
    with pytest.raises(DeepMLFError, match=words):
        tiny_model(family, **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gating": "relu"}, "gating is 'relu', but must be one of 'sigmoid', 'tanh', 'none'"),
        ({"fusion_layers": []}, "fusion_layers is empty"),
        ({"fusion_layers": [1, 1]}, "names a layer twice"),
        ({"fusion_tokens": 0}, "fusion_tokens is 0, but must be at least 1"),
        ({"av_heads": 5}, "av_heads 5 does not divide av_width 12"),
        ({"lora_dropout": 1.5}, "lora_dropout is 1.5"),
        ({"num_classes": 1}, "num_classes is 1"),
    ],
)
def test_a_bad_configuration_is_refused_in_one_sentence(changes, words):
    with pytest.raises(DeepMLFError, match=words) as raised:
        tiny_config(**changes)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("fusion_token", "no setting 'fusion_token': did you mean 'fusion_tokens'"),
        ("lora_rank", "no setting 'lora_rank': did you mean 'lora_r"),
        ("surprise", "no setting 'surprise': there are lm, lm_revision"),
    ],
)
def test_a_setting_that_does_not_exist_is_refused_with_the_right_one(key, words, tmp_path):
    with pytest.raises(DeepMLFError, match=words):
        DeepMLFConfig(**{key: 5})
    tiny_config().save_pretrained(tmp_path)
    with pytest.raises(DeepMLFError, match=words):
        DeepMLFConfig.from_pretrained(tmp_path, **{key: 5})
    stored = json.loads((tmp_path / "config.json").read_text())
    newer = {"deepmlf_version": "99.0.0", key: 5}  # it may be a setting that this version does not know
    for others in (newer, {"deepmlf_version": None, key: 5}):
        (tmp_path / "config.json").write_text(json.dumps(stored | others))
        with pytest.raises(DeepMLFError, match=words):
            DeepMLFConfig.from_pretrained(tmp_path)


def test_a_misspelt_setting_in_a_file_is_refused_where_the_right_one_is_missing(tmp_path, caplog):
    tiny_config().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"fusion_token": 3}))
    assert DeepMLFConfig.from_pretrained(tmp_path).fusion_tokens == 5
    assert "'fusion_token' is no setting of DeepMLFConfig ('fusion_tokens' is one)" in caplog.text
    stored["fusion_token"] = stored.pop("fusion_tokens")
    path.write_text(json.dumps(stored))
    with pytest.raises(DeepMLFError, match="no setting 'fusion_token': did you mean 'fusion_tokens'"):
        DeepMLFConfig.from_pretrained(tmp_path)


def test_attributes_given_to_a_config_come_back_with_it(tmp_path, caplog):
    """As of any of transformers' models: what was trained with a note in its config can be opened."""
    model = tiny_model(lm_revision=None)
    model.config.trained_on = {"corpus": "mosei", "seed": 3}
    model.save_pretrained(tmp_path)
    loaded = DeepMLFModel.from_pretrained(tmp_path, lm=tiny_lm())
    assert loaded.config.trained_on == {"corpus": "mosei", "seed": 3}
    again = DeepMLFModel.from_pretrained(tmp_path, lm=tiny_lm(), loss_av=0.25)
    assert (again.config.trained_on["seed"], again.config.loss_av) == (3, 0.25)
    assert not caplog.records


def test_what_transformers_itself_writes_into_a_config_is_taken(tmp_path):
    model = tiny_model(num_labels=3, problem_type="regression", use_cache=False, tie_word_embeddings=False)
    model.config.auto_map = {"AutoConfig": "somewhere.Config"}
    model.save_pretrained(tmp_path)
    again = DeepMLFModel.from_pretrained(tmp_path, lm=tiny_lm()).config
    assert (again.num_labels, again.problem_type) == (3, "regression")
    assert again.architectures == ["DeepMLFModel"]
    replaced = DeepMLFConfig.from_pretrained(tmp_path, fusion_tokens=3, attn_implementation="eager")
    assert (replaced.fusion_tokens, replaced._attn_implementation) == (3, "eager")
    assert DeepMLFConfig.from_dict(again.to_dict()).to_dict() == again.to_dict()
    with pytest.raises(DeepMLFError, match="fusion_tokens is 0"):
        DeepMLFConfig.from_pretrained(tmp_path, fusion_tokens=0)


def test_a_text_that_is_too_long_is_refused():
    with pytest.raises(DeepMLFError, match="13 tokens, but max_text_tokens is 12"):
        tiny_model()(**tiny_batch(lengths=(13, 2, 1)))


def padded_left(batch):
    """The same texts with their padding in front."""
    length = batch["input_ids"].shape[1]
    shifts = (length - batch["attention_mask"].sum(dim=1)).tolist()
    turned = {
        name: torch.stack([row.roll(shift) for row, shift in zip(batch[name], shifts, strict=True)])
        for name in ("input_ids", "attention_mask")
    }
    return batch | turned


@pytest.mark.parametrize("text_first", [False, True])
def test_a_text_padded_on_the_left_or_inside_is_refused(text_first):
    model, batch = tiny_model(text_first=text_first), tiny_batch()
    with pytest.raises(DeepMLFError, match=r"Text 1 .*\[0, 0, 0, 0, 1, 1.*padding_side = 'right'"):
        model(**padded_left(batch))
    holed = batch["attention_mask"].clone()
    holed[0, 3] = 0
    with pytest.raises(DeepMLFError, match="Text 0 of the batch has padding before or between its tokens"):
        model(**batch | {"attention_mask": holed})
    model(**batch | {"attention_mask": batch["attention_mask"].bool()})


def test_an_unknown_architecture_names_what_was_not_found():
    from transformers import MambaConfig, MambaForCausalLM

    lm = MambaForCausalLM(MambaConfig(hidden_size=48, num_hidden_layers=4, vocab_size=97, state_size=4))
    with pytest.raises(DeepMLFError, match="No self-attention was found in layer 0 of MambaForCausalLM"):
        DeepMLFModel(tiny_config(), lm=lm)


def test_a_layer_without_a_feed_forward_is_named():
    lm = tiny_lm("llama")
    for layer in lm.model.layers:
        layer.extra = torch.nn.Linear(3, 4)
    with pytest.raises(DeepMLFError, match=r"No feed-forward .*extra \(Linear\)"):
        DeepMLFModel(tiny_config(), lm=lm)


def test_an_lm_that_cannot_be_had_says_what_was_expected(tmp_path):
    with pytest.raises(
        DeepMLFError, match=r"could not be loaded .*Expected 'embedded', 'smollm2', a Hugging Face name"
    ):
        DeepMLFModel(tiny_config(lm=str(tmp_path / "nothing")))


def test_every_av_encoder_layer_starts_from_weights_of_its_own():
    model = tiny_model(av_layers=3)
    for stream in (model.av_encoder.audio, model.av_encoder.vision):
        assert len(stream.encoder.layers) == 3
        first, *others = (dict(layer.named_parameters()) for layer in stream.encoder.layers)
        for other in others:
            same = [name for name, p in other.items() if p.dim() > 1 and torch.equal(p, first[name])]
            assert same == []


@pytest.mark.skipif(torch.accelerator.is_available(), reason="accelerators' kernels may need the copies")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_cpu_grouped_keys_and_values_are_not_copied_for_every_query_head(monkeypatch, dtype):
    def refuse(*_):
        raise AssertionError("keys or values were copied")

    monkeypatch.setattr("transformers.integrations.sdpa_attention.repeat_kv", refuse)
    model = tiny_model("llama")  # 4 query heads, 2 of keys and values
    model.language.lm.to(dtype)
    model(**tiny_batch()).loss.backward()
