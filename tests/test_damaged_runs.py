"""Runs and checkpoints that were torn, edited or made to harm: one clear line each, and no memory spent on them."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent))
from training_fixtures import TINY, pretrain_av

from deepmlf_kit.cli.frame import run as command
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.model.config import DeepMLFConfig
from deepmlf_kit.model.deepmlf import DeepMLFModel
from deepmlf_kit.training import Run, train
from deepmlf_kit.training.trainer import last_checkpoint

QUICK = {**TINY, "training.epochs": 1}
WEIGHTS = "best/model.safetensors"


@pytest.fixture(scope="module")
def finished(dataset: Any, language: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    return train("sample", dataset, out, overrides=QUICK, progress=False, tensorboard=False, **language).path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def changed_weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def edit(run: Path) -> None:
        weights = load_file(run / WEIGHTS)
        change(weights)
        save_file(weights, run / WEIGHTS)

    return edit


def changed_json(name: str, **values: Any) -> Callable[[Path], None]:
    def edit(run: Path) -> None:
        tree = json.loads((run / name).read_text())
        for key, value in values.items():
            *path, last = key.split("__")
            inside = tree
            for part in path:
                inside = inside[part]
            if value is ...:
                del inside[last]
            else:
                inside[last] = value
        (run / name).write_text(json.dumps(tree))

    return edit


def written(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda run: (run / name).write_bytes(content) and None  # type: ignore[func-returns-value]


def cut(name: str, share: float) -> Callable[[Path], None]:
    def edit(run: Path) -> None:
        content = (run / name).read_bytes()
        (run / name).write_bytes(content[: int(len(content) * share)])

    return edit


def with_nan(weights: dict[str, torch.Tensor]) -> None:
    weights["fusion_tokens"][0, 0] = float("nan")


def without_fusion_tokens(weights: dict[str, torch.Tensor]) -> None:
    del weights["fusion_tokens"]


def narrower(weights: dict[str, torch.Tensor]) -> None:
    weights["fusion_tokens"] = weights["fusion_tokens"][:, :-1].contiguous()


def whole_numbers(weights: dict[str, torch.Tensor]) -> None:
    weights["fusion_tokens"] = weights["fusion_tokens"].long()


def with_the_lm_s(weights: dict[str, torch.Tensor]) -> None:
    weights["language.lm.model.embed_tokens.weight"] = torch.zeros(118, 32)


BILLION = 10**9
DAMAGES = {
    "empty weights": (cut(WEIGHTS, 0), "model.safetensors is damaged"),
    "truncated weights": (cut(WEIGHTS, 0.5), "model.safetensors is damaged"),
    "garbled weights": (written(WEIGHTS, b"\xff" * 4000), "model.safetensors is damaged"),
    "a header of terabytes": (written(WEIGHTS, (10**12).to_bytes(8, "little") + b"{}"), "is damaged"),
    "a web page as weights": (written(WEIGHTS, b"<html>" + b" " * 300), "model.safetensors is damaged"),
    "no weights": (lambda run: (run / WEIGHTS).unlink(), "No DeepMLF checkpoint"),
    "NaN weights": (changed_weights(with_nan), "NaN or infinite numbers in fusion_tokens"),
    "weights of another shape": (
        changed_weights(narrower),
        r"fusion_tokens is \[3, 31\], expected \[3, 32\]",
    ),
    "weights of another dtype": (changed_weights(whole_numbers), "fusion_tokens is I64"),
    "weights too few": (changed_weights(without_fusion_tokens), "1 weights are missing"),
    "weights too many": (changed_weights(lambda w: w.update(more=torch.zeros(3))), "not in the model.*more"),
    "the LM's weights": (changed_weights(with_the_lm_s), "frozen language model's"),
    "config torn": (cut("best/config.json", 0.5), "config.json is damaged"),
    "config a list": (written("best/config.json", b"[1]"), "expected a JSON object"),
    "config very deep": (written("best/config.json", b"[" * 200_000), "config.json is damaged"),
    "config in no encoding": (written("best/config.json", b"\xff\xfe{}"), "config.json is damaged"),
    "config of another model": (changed_json("best/config.json", model_type="gpt2"), "model_type is 'gpt2'"),
    "fusion tokens a text": (changed_json("best/config.json", fusion_tokens="8"), "fusion_tokens is '8'"),
    "fusion layers a number": (changed_json("best/config.json", fusion_layers=3), "fusion_layers is 3"),
    "extra modalities a list": (changed_json("best/config.json", extra_modalities=[1]), "extra_modalities"),
    "an endless dropout": (changed_json("best/config.json", av_dropout=float("inf")), "av_dropout is inf"),
    "labels by the billion": (changed_json("best/config.json", num_labels=BILLION), "num_labels"),
    "labels of another shape": (changed_json("best/config.json", id2label=5), "another shape"),
    **{
        f"{name} by the billion": (changed_json("best/config.json", **{name: value}), "config")
        for name, value in {
            "fusion_tokens": BILLION,
            "audio_dim": BILLION,
            "av_layers": BILLION,
            "av_steps": BILLION,
            "task_hidden": BILLION,
            "num_classes": BILLION,
            "av_width": 6 * 10**8,
            "max_text_tokens": BILLION,
            "vision_dim": 10**40,
        }.items()
    },
    "run torn": (cut("run.json", 0.7), "run.json is damaged"),
    "run empty": (cut("run.json", 0), "run.json is damaged"),
    "run a list": (written("run.json", b"[]"), "expected a JSON object"),
    "run without a kind": (changed_json("run.json", kind=...), "kind is missing"),
    "run in no known state": (changed_json("run.json", state="done"), "state is 'done'"),
    "run without preprocessing": (changed_json("run.json", preprocessing=...), "preprocessing is missing"),
    "run with a text for a number": (changed_json("run.json", seed="0"), "seed is '0'"),
    "run with metrics of text": (changed_json("run.json", test__MAE="good"), "test.MAE is 'good'"),
    "run with other sizes": (
        changed_json("run.json", dataset__audio_dim=7),
        "audio_dim 7.*config.json.* has 25",
    ),
    "run with long texts": (
        changed_json("run.json", preprocessing__max_text_tokens=99),
        "max_text_tokens 99",
    ),
    "run with half a normaliser": (
        changed_json("run.json", preprocessing__normalizer={"audio": {"mean": [0.0]}}),
        "preprocessing.normalizer",
    ),
    "run with a wrong preset": (changed_json("run.json", preset__fusion__tokens="many"), "fusion.tokens"),
    "run with an endless preset": (
        changed_json("run.json", preset__fusion__tokens=float("inf")),
        "fusion.tokens",
    ),
    "curves torn": (cut("metrics.jsonl", 0.6), "metrics.jsonl is damaged in line 1"),
    "curves of another shape": (written("metrics.jsonl", b"3\n"), "metrics.jsonl is damaged in line 1"),
    "predictions torn": (written("predictions.csv", b'id,label\n"a'), "predictions.csv"),
    "predictions empty": (cut("predictions.csv", 0), "predictions.csv is damaged"),
    "predictions of text": (written("predictions.csv", b"id,label,prediction\na,b,c\n"), "is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_one_clear_error(
    damage: str, run: Path, language: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit, told = DAMAGES[damage]
    edit(run)
    built: list[int] = []
    monkeypatch.setattr(
        DeepMLFModel, "__init__", _counting(DeepMLFModel.__init__, built)
    )  # a hostile size must not be allocated
    with pytest.raises(DeepMLFError, match=told) as raised:
        opened = Run.open(run)
        model = opened.load_model(**language)
        opened.collator(model.tokenizer)
        _ = opened.preset
        opened.history()
        opened.predictions()
    assert len(str(raised.value)) < 1500
    assert max(built, default=0) < 10**7


def _counting(init: Callable[..., None], built: list[int]) -> Callable[..., None]:
    """A constructor that notes how many weights were allocated, and not only planned."""

    def counting(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        built.append(sum(p.numel() for p in self.parameters() if p.device.type != "meta"))

    return counting


def test_the_whole_run_still_opens(run: Path, language: Any) -> None:
    opened = Run.open(run)
    opened.collator(opened.load_model(**language).tokenizer)
    assert opened.finished and len(opened.history()) == 1 and len(opened.predictions())


def test_a_damaged_av_checkpoint_is_named_and_not_called_missing(
    dataset: Any, language: Any, tmp_path: Path
) -> None:
    av = pretrain_av(
        dataset, tmp_path / "av", language["tokenizer"], overrides={**QUICK, "pretraining.epochs": 1}
    )
    cut(WEIGHTS, 0.5)(av.path)
    with pytest.raises(DeepMLFError, match=r"model.safetensors is damaged"):
        train("sample", dataset, tmp_path / "run", overrides=QUICK, av_encoder=av, progress=False, **language)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["optimizer.pt", "model.safetensors", "rng_state.pth", "trainer_state.json"])
def test_a_damaged_checkpoint_is_passed_over_for_an_older_one(
    name: str, dataset: Any, language: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepmlf_kit.training import driver

    class Killed(Exception):
        pass

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    monkeypatch.setattr(driver, "predict_split", killed)
    with pytest.raises(Killed):
        train("sample", dataset, tmp_path, overrides=QUICK, progress=False, tensorboard=False, **language)
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    assert last_checkpoint(tmp_path / "checkpoints") == checkpoint
    cut(name, 0.6)(checkpoint)
    assert last_checkpoint(tmp_path / "checkpoints") is None


@pytest.mark.parametrize("value", ["6", 6.5, True, None, [6]])
def test_a_setting_of_another_type_is_refused_by_name(value: Any) -> None:
    with pytest.raises(DeepMLFError, match=r"^av_layers is"):
        DeepMLFConfig(av_layers=value)


def test_evaluating_a_damaged_run_is_one_line_and_no_defect(
    run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cut("run.json", 0.3)(run)
    assert command(["evaluate", str(run)]) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and "defect" not in err and "run.json is damaged" in err
