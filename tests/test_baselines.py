"""The fusing baselines: what they read, what stays frozen, and that they go through the kit's own runs."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

sys.path.insert(0, str(Path(__file__).parent))
from training_fixtures import TINY

from deepmlf_kit import DeepMLFConfig
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.evaluation.evaluate import evaluate
from deepmlf_kit.model.base import SentimentOutput
from deepmlf_kit.model.baselines import TextSentimentModel
from deepmlf_kit.model.baselines_fusion import FlamingoSentimentModel, PrefixSentimentModel
from deepmlf_kit.training import Run, TrainableModel, models, register_model, train
from deepmlf_kit.training.presets import load_preset

MODELS = {"prefix": PrefixSentimentModel, "flamingo": FlamingoSentimentModel}
QUICK = {**TINY, "training.epochs": 1, "pretraining.epochs": 1}


def batch(lengths: tuple[int, ...] = (5, 3)) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    mask = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    for i, length in enumerate(lengths):
        mask[i, :length] = 1
    ids = torch.randint(2, 20, mask.shape, generator=random) * mask
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "audio": torch.randn(len(lengths), 12, 25, generator=random),
        "audio_mask": torch.ones(len(lengths), 12, dtype=torch.bool),
        "vision": torch.randn(len(lengths), 6, 58, generator=random),
        "vision_mask": torch.ones(len(lengths), 6, dtype=torch.bool),
    }


@pytest.fixture(params=MODELS)
def model(request: Any, language: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    return MODELS[request.param](load_preset("sample", QUICK).model_config(), **language).eval()


def test_a_baseline_refuses_texts_padded_on_the_left(model: Any, language: dict[str, Any]) -> None:
    given = batch((5, 3))
    given["input_ids"], given["attention_mask"] = given["input_ids"].flip(1), given["attention_mask"].flip(1)
    text_only = TextSentimentModel(model.config, **language).eval()
    for one in (model, text_only):
        with pytest.raises(DeepMLFError, match=r"Text 1 .*padded on the right"):
            one(**given)


@torch.no_grad()
def test_words_voice_and_face_all_move_the_prediction(model: Any) -> None:
    one = batch()
    plain = model(**one).prediction
    for name in ("input_ids", "audio", "vision"):
        changed = {**one, name: one[name].flip(1) if name == "input_ids" else -one[name]}
        if name == "input_ids":
            changed["input_ids"] = (one["input_ids"] + 1) % 20 * one["attention_mask"]
        assert (model(**changed).prediction - plain).abs().max() > 1e-6, name


@torch.no_grad()
def test_a_padded_batch_equals_the_samples_one_by_one(model: Any) -> None:
    together = model(**batch()).prediction
    for i, length in enumerate((5, 3)):
        alone = {k: v[i : i + 1] for k, v in batch().items()}
        alone = {k: v[:, :length] if k in ("input_ids", "attention_mask") else v for k, v in alone.items()}
        torch.testing.assert_close(model(**alone).prediction[0], together[i], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_missing_modality_is_no_crash(model: Any) -> None:
    text = {name: batch()[name] for name in ("input_ids", "attention_mask")}
    assert torch.isfinite(model(**text).prediction).all()


def test_the_language_model_gets_no_gradient_and_everything_else_does(model: Any) -> None:
    model.train()
    model(**batch(), labels=torch.tensor([1.0, -2.0])).loss.backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    wanted = {name for name, p in model.named_parameters() if p.requires_grad and "missing" not in name}
    assert wanted <= with_gradient
    assert not any(name.startswith("language.") for name in with_gradient)


@pytest.mark.parametrize("kind", MODELS)
def test_a_baseline_is_a_run_like_any_other(
    kind: str, dataset: Any, language: dict[str, Any], tmp_path: Path
) -> None:
    common = {"progress": False, "tensorboard": False, "overrides": QUICK}
    av = train("sample", dataset, tmp_path / "av", model="av", **common, **language)
    run = train("sample", dataset, tmp_path / kind, model=kind, av_encoder=av, **common, **language)
    assert run.kind == kind and run.metrics["MAE"] > 0
    assert evaluate(run, dataset, **language).metrics["MAE"] == pytest.approx(run.metrics["MAE"], abs=1e-6)
    stored = (run.best / "model.safetensors").stat().st_size
    assert stored < 5 * run.info["parameters"]["trained"] + 60_000  # nothing of the LM
    assert "baseline" in (run.best / "README.md").read_text()


def test_an_unknown_baseline_and_too_long_a_prompt_are_refused(
    dataset: Any, language: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(DeepMLFError, match="flamingo"):
        train("sample", dataset, tmp_path / "run", model="flamingos")
    config = load_preset("sample", {**QUICK, "av_encoder.steps": 60}).model_config()
    with pytest.raises(DeepMLFError, match="at most 40"):
        MODELS["prefix"](config, **language)


@pytest.mark.parametrize("kind", ["av", "text"])
def test_a_model_that_takes_no_av_encoder_refuses_one(kind: str, dataset: Any, tmp_path: Path) -> None:
    with pytest.raises(DeepMLFError, match=f"'{kind}' does not start from a pretrained AV encoder"):
        train("sample", dataset, tmp_path / "run", model=kind, av_encoder=tmp_path)
    assert not (tmp_path / "run").exists()


class MeanFrame(PreTrainedModel):
    """A model that the kit does not know: a linear layer on the mean audio frame."""

    config_class = DeepMLFConfig

    def __init__(self, config: DeepMLFConfig, lm: Any = None, tokenizer: Any = None) -> None:
        super().__init__(config)
        self.head = torch.nn.Linear(config.audio_dim, 1)
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Torch's own."""

    def forward(self, audio: Any, labels: Any = None, **_: Any) -> Any:
        prediction = self.head(audio.mean(dim=1)).squeeze(-1)
        loss = None if labels is None else (prediction - labels).abs().mean()
        return SentimentOutput(loss=loss, prediction=prediction)


def test_a_registered_model_is_trained_scored_and_loaded_like_the_kits_own(
    dataset: Any, language: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "_MODELS", dict(models._MODELS))

    def load(folder: Path, lm: Any = None, tokenizer: Any = None) -> PreTrainedModel:
        return MeanFrame.from_pretrained(folder).eval()

    mine = TrainableModel(MeanFrame, load, "Training mine", "a linear layer on the mean audio frame")
    register_model("mine", mine)
    common = {"progress": False, "tensorboard": False, "overrides": QUICK}
    run = train("sample", dataset, tmp_path / "mine", model="mine", **common, **language)
    assert run.kind == "mine" and "mean audio frame" in (run.best / "README.md").read_text()
    opened = Run.open(tmp_path / "mine")
    assert isinstance(opened.load_model(), MeanFrame)
    assert evaluate(opened, dataset, **language).metrics["MAE"] == pytest.approx(run.metrics["MAE"], abs=1e-6)
    register_model("mine", mine)  # a notebook cell that is run again
    with pytest.raises(DeepMLFError, match="'fused' is the kit's own"):
        register_model("fused", mine)
    monkeypatch.delitem(models._MODELS, "mine")
    with pytest.raises(DeepMLFError, match="register it first"):
        opened.load_model()


@torch.no_grad()
def test_kept_last_states_give_what_the_language_model_gives(
    language: dict[str, Any], tmp_path: Path
) -> None:
    from deepmlf_kit.model.baselines import TextSentimentModel

    model = TextSentimentModel(load_preset("sample", QUICK).model_config(), **language).eval()
    one = batch((5, 3, 4))
    plain = model(**one).prediction
    model.cache_text_states(tmp_path)
    torch.testing.assert_close(model(**one).prediction, plain)  # computed and kept
    calls = []
    handle = model.language.decoder.register_forward_hook(lambda *_: calls.append(1))
    swapped = {name: value.flip(0) for name, value in one.items()}
    torch.testing.assert_close(model(**swapped).prediction, plain.flip(0))  # read back
    assert calls == []
    with torch.autocast("cpu", torch.bfloat16):
        model(**one)
    assert calls.pop() == 1, "states without autocast are not those with it"
    model.cache_text_states(tmp_path, gigabytes=0)
    torch.testing.assert_close(model(**one).prediction, plain)
    assert calls == [1] and model._cached == {}
    handle.remove()


def test_adapters_on_the_language_model_of_the_text_baseline_are_trained(
    language: dict[str, Any], tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    from deepmlf_kit.model.baselines import TextSentimentModel

    lm = copy.deepcopy(language["lm"])
    model = TextSentimentModel(load_preset("sample", QUICK).model_config(), lm=lm, tokenizer=None).eval()
    model.cache_text_states(tmp_path)
    before = model(**batch()).prediction
    get_peft_model(lm, LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    after = model(**batch(), labels=torch.ones(2))
    assert not torch.allclose(after.prediction, before)  # the state that was kept is the frozen LM's
    after.loss.backward()
    adapters = [p.grad for name, p in model.named_parameters() if "lora_" in name]
    assert adapters and all(gradient is not None and gradient.abs().sum() > 0 for gradient in adapters)
