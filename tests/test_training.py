"""Training: what is optimised and how, what a run leaves behind, and that a stopped run ends like any other."""

from __future__ import annotations

import itertools
import json
import logging
import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent))
from training_fixtures import TINY, pretrain_av, tiny_lm, tiny_sample

from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.evaluation.late_fusion import late_fusion
from deepmlf_kit.training import Run, driver, train
from deepmlf_kit.training.callbacks import ClipByValue, StopWhenDiverged, epochs_of
from deepmlf_kit.training.presets import load_preset
from deepmlf_kit.training.trainer import StepOrder, decayed_parameters, last_checkpoint


@pytest.fixture(scope="module")
def dataset() -> Any:
    return tiny_sample()


@pytest.fixture(scope="module")
def language(dataset: Any) -> tuple[Any, Any]:
    return tiny_lm(dataset["train"]["text"])


def start(out: Path, dataset: Any, language: tuple[Any, Any], **more: Any) -> Run:
    lm, tokenizer = language
    overrides = {**TINY, **more.pop("overrides", {})}
    more = {"progress": False, "tensorboard": False, **more}
    return train("sample", dataset, out, overrides=overrides, lm=lm, tokenizer=tokenizer, **more)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, dataset: Any, language: Any) -> Run:
    """A run that nothing stopped."""
    return start(tmp_path_factory.mktemp("runs") / "whole", dataset, language, tensorboard=True)


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.best / "model.safetensors")


def assert_equal_runs(one: Run, other: Run) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    drop = {"seconds"}
    histories = [
        [{k: v for k, v in row.items() if k not in drop} for row in run.history()] for run in (one, other)
    ]
    assert histories[0] == histories[1]
    assert one.metrics == other.metrics
    assert one.info["best"] == other.info["best"]


# What a run leaves behind --------------------------------------------------------------------------------------


def test_a_run_folder_holds_settings_history_table_and_the_best_checkpoint(finished: Run) -> None:
    names = {path.name for path in finished.path.iterdir()}
    assert names == {
        "run.json",
        "preset.yaml",
        "metrics.jsonl",
        "table.json",
        "table.md",
        "predictions.csv",
        "best",
        "tensorboard",
    }
    run = Run.open(finished.path)
    assert run.finished and run.kind == "fused"
    assert run.preset == load_preset(run.path / "preset.yaml") == load_preset("sample", TINY)
    assert run.info["versions"]["torch"] == torch.__version__
    history = run.history()
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert {
        "train_loss",
        "train_loss_task",
        "valid_MAE",
        "valid_Corr",
        "valid_text_MAE",
        "learning_rate",
    } <= set(history[0])
    assert history[0]["valid_gate_1_layer_1"] == pytest.approx(0.5, abs=0.05)
    table = json.loads((run.path / "table.json").read_text())
    assert table["split"] == "test" and table["metrics"] == run.metrics
    assert "Acc-7" in (run.path / "table.md").read_text()
    assert list((run.path / "tensorboard").glob("events*"))


def test_the_best_checkpoint_is_the_one_with_the_least_validation_mae(
    finished: Run, dataset: Any, language: Any
) -> None:
    history = finished.history()
    best = min(history, key=lambda row: row["valid_MAE"])
    assert finished.info["best"] == {
        "epoch": best["epoch"],
        "step": best["step"],
        "metric": "valid_MAE",
        "value": best["valid_MAE"],
    }
    lm, tokenizer = language
    model = finished.load_model(lm=lm, tokenizer=tokenizer)
    rows = list(dataset["test"].with_format("numpy"))
    with torch.no_grad():
        output = model(**finished.collator(tokenizer)(rows))
    table = finished.predictions()
    np.testing.assert_allclose(output.prediction.numpy(), table["prediction"], atol=1e-6)
    np.testing.assert_allclose(output.fusion_prediction.mean(1).numpy(), table["fusion"], atol=1e-6)
    np.testing.assert_allclose(
        np.abs(table["prediction"] - table["label"]).mean(), finished.metrics["MAE"], atol=1e-6
    )


def test_checkpoints_hold_what_was_trained_and_nothing_of_the_language_model(
    finished: Run, language: Any
) -> None:
    lm, _ = language
    stored = weights(finished)
    sizes = {tuple(p.shape) for p in lm.get_input_embeddings().parameters()}
    assert not any(tuple(t.shape) in sizes for t in stored.values())
    assert sum(t.numel() for t in stored.values()) < 1.1 * finished.info["parameters"]["trained"]
    assert not any("lm." in name for name in stored)


def test_training_leaves_the_language_model_as_it_was(dataset: Any, tmp_path: Path) -> None:
    lm, tokenizer = tiny_lm(dataset["train"]["text"])
    before = {name: p.clone() for name, p in lm.state_dict().items()}
    start(tmp_path / "run", dataset, (lm, tokenizer), overrides={"training.epochs": 1})
    for name, value in lm.state_dict().items():
        assert torch.equal(value, before[name]), name


# How it is trained ---------------------------------------------------------------------------------------------


def test_only_matrices_are_decayed(language: Any) -> None:
    from deepmlf_kit.model.deepmlf import DeepMLFModel

    lm, tokenizer = language
    model = DeepMLFModel(load_preset("sample", TINY).model_config(), lm=lm, tokenizer=tokenizer)
    decayed = set(decayed_parameters(model))
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert decayed < set(trained)
    left = set(trained) - decayed
    assert "fusion_tokens" in left
    assert any("alpha" in name for name in left) and any("norm" in name for name in left)
    assert all(trained[name].ndim < 2 for name in left - {"fusion_tokens"})
    assert any("cross_attention.query" in name for name in decayed)
    assert not any("alpha" in name or "norm" in name or name.endswith("bias") for name in decayed)


def test_gradients_are_clipped_by_value() -> None:
    class Plain:
        def unscale_gradients(self) -> None:
            pass

    layer = torch.nn.Linear(2, 1)
    layer.weight.grad = torch.tensor([[30.0, -0.2]])
    ClipByValue(5.0, Plain()).on_pre_optimizer_step(None, None, None, model=layer)
    assert layer.weight.grad[0, 0] == 5.0 and layer.weight.grad[0, 1] == pytest.approx(-0.2)


def test_clipping_reaches_the_optimiser(dataset: Any, language: Any, tmp_path: Path) -> None:
    """With every gradient clipped to nothing, and no decay, nothing is learned."""
    still = {"training.clip_value": 1e-30, "training.weight_decay": 0, "training.epochs": 1}
    run = start(tmp_path / "still", dataset, language, overrides=still)
    moved = start(tmp_path / "moved", dataset, language, overrides={"training.epochs": 1})
    gates = [next(v for k, v in weights(r).items() if k.endswith("gate_1.alpha")) for r in (run, moved)]
    assert abs(gates[0].item()) < 1e-20
    assert abs(gates[1].item()) > 1e-4


def test_learning_rate_warms_up_for_an_epoch_and_falls_along_a_cosine(finished: Run) -> None:
    # 40 utterances / (8 x 2): 3 steps an epoch, 12 in all, 3 of them warm-up
    rates = [row["learning_rate"] for row in finished.history()]
    peak, low = 1e-3, finished.preset.training.min_learning_rate

    def rate(step: int) -> float:  # of the step-th update, from 0
        if step < 3:
            return peak * step / 3
        return low + (peak - low) * 0.5 * (1 + np.cos(np.pi * (step - 3) / 9))

    assert rates == pytest.approx([rate(3 * epoch - 1) for epoch in (1, 2, 3, 4)], rel=1e-6)


def test_training_stops_when_the_validation_value_stops_falling(
    dataset: Any, language: Any, tmp_path: Path
) -> None:
    frozen = {
        "training.learning_rate": 1e-30,
        "training.min_learning_rate": 0,
        "training.epochs": 9,
        "training.early_stop": 2,
        "heads.task_norm": "layer",
    }
    run = start(tmp_path / "run", dataset, language, overrides=frozen)
    assert len(run.history()) == 3
    assert run.info["best"]["epoch"] == 1


def test_the_loss_can_select_the_best_checkpoint_too(dataset: Any, language: Any, tmp_path: Path) -> None:
    run = start(
        tmp_path / "run", dataset, language, overrides={"training.select_on": "loss", "training.epochs": 2}
    )
    assert run.info["best"]["metric"] == "valid_loss"
    assert run.info["best"]["value"] == min(row["valid_loss"] for row in run.history())


def test_accumulated_batches_train_like_one_large_batch(dataset: Any, language: Any, tmp_path: Path) -> None:
    quiet = {
        "heads.task_norm": "layer",
        "fusion.dropout": 0,
        "av_encoder.dropout": 0,
        "seqaug.text_p_apply": 0,
        "seqaug.av_p_feat": 0,
        "training.epochs": 1,
        "training.clip_value": 0,
    }
    dataset = {name: part.select(range(16)) for name, part in dataset.items()}
    from datasets import DatasetDict

    histories = []
    for batch, accumulation in ((16, 1), (4, 4)):
        setting = {**quiet, "training.batch_size": batch, "training.accumulation": accumulation}
        run = start(tmp_path / str(batch), DatasetDict(dataset), language, overrides=setting)
        histories.append(run.history()[0])
    for name in ("train_loss", "valid_loss", "valid_MAE", "train_grad_norm"):
        assert histories[0][name] == pytest.approx(histories[1][name], rel=1e-4), name


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    finished: Run, dataset: Any, language: Any, tmp_path: Path
) -> None:
    again = start(tmp_path / "again", dataset, language)
    assert_equal_runs(finished, again)
    other = start(tmp_path / "other", dataset, language, seed=1)
    assert other.metrics["MAE"] != finished.metrics["MAE"]


@pytest.mark.parametrize(
    ("size", "batch", "accumulation"), [(200, 4, 5), (203, 4, 5), (202, 8, 3), (50, 16, 8)]
)
def test_an_optimiser_step_is_drawn_from_the_random_order_whatever_the_lengths(
    size: int, batch: int, accumulation: int
) -> None:
    lengths = list(np.random.default_rng(0).integers(1, 50, size))
    sampler = StepOrder(size, batch, accumulation, seed=3, lengths=lengths)
    plain = StepOrder(size, batch, accumulation, seed=3)
    for epoch in (0, 2):
        sampler.set_epoch(epoch)
        plain.set_epoch(epoch)
        order, random = list(sampler), list(plain)
        assert order == list(sampler) and sorted(order) == list(range(size)) and random != sorted(random)
        step = batch * accumulation
        for start in range(0, size, step):
            assert set(order[start : start + step]) == set(random[start : start + step])
        spread = [
            np.mean([np.ptp([lengths[i] for i in o[at : at + batch]]) for at in range(0, size, batch)])
            for o in (order, random)
        ]
        assert spread[0] < 0.6 * spread[1]
    plain.set_epoch(3)
    assert list(plain) != random


def test_without_accumulation_nothing_is_sorted() -> None:
    lengths = list(range(40))
    assert list(StepOrder(40, 4, 1, 3, lengths)) == list(StepOrder(40, 4, 1, 3))


@pytest.mark.parametrize("accumulation", [1, 4])
def test_the_trainers_optimiser_steps_see_the_same_utterances_with_and_without_grouping(
    dataset: Any, language: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulation: int
) -> None:
    from deepmlf_kit.training import trainer

    batches: dict[bool, list[list[float]]] = {}

    class Noting(trainer._Collate):
        def __call__(self, rows: list[Any]) -> Any:
            if len(rows) <= 4:  # of training; those of validation are larger
                batches[grouped].append([float(np.abs(row["audio"]).sum()) for row in rows])
            return super().__call__(rows)

    monkeypatch.setattr(trainer, "_Collate", Noting)
    for grouped in (False, True):
        batches[grouped] = []
        setting = {"group_by_length": grouped, "batch_size": 4, "accumulation": accumulation, "epochs": 1}
        start(
            tmp_path / str(grouped),
            dataset,
            language,
            overrides={f"training.{key}": value for key, value in setting.items()},
        )
    steps = {
        grouped: [
            sorted(itertools.chain(*found[i : i + accumulation])) for i in range(0, len(found), accumulation)
        ]
        for grouped, found in batches.items()
    }
    assert len(steps[True]) == math.ceil(40 / (4 * accumulation)) and steps[True] == steps[False]
    assert (batches[True] == batches[False]) == (accumulation == 1)


def test_a_loss_that_is_no_number_ends_training_with_advice() -> None:
    class Now:
        global_step = 7

    class Args:
        learning_rate = 1.0

    with pytest.raises(DeepMLFError, match=r"step 7.*learning_rate \(now 1\)"):
        StopWhenDiverged().on_log(Args(), Now(), None, {"loss": float("nan")})
    StopWhenDiverged().on_log(Args(), Now(), None, {"eval_loss": 1.0})


def test_a_validation_value_that_is_no_number_is_never_the_best(
    dataset: Any, language: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepmlf_kit.training.trainer import SentimentTrainer

    original = SentimentTrainer._metrics
    undefined = {1}

    def metrics(self: Any, prediction: Any) -> dict[str, float]:
        calls.append(1)
        found = original(self, prediction)
        return {**found, "MAE": float("nan")} if len(calls) in undefined else found

    monkeypatch.setattr(SentimentTrainer, "_metrics", metrics)
    calls: list[int] = []
    run = start(tmp_path / "one", dataset, language, overrides={"training.epochs": 2})
    assert run.info["best"]["epoch"] == 2 and math.isfinite(run.info["best"]["value"])
    calls, undefined = [], {1, 2}
    with pytest.raises(DeepMLFError, match="valid_MAE was not a number after any epoch"):
        start(tmp_path / "all", dataset, language, overrides={"training.epochs": 2})
    assert not Run.open(tmp_path / "all").finished


def test_history_has_one_row_an_epoch_with_train_values_averaged_by_steps() -> None:
    rows = epochs_of(
        [
            {"loss": 1.0, "learning_rate": 0.1, "epoch": 0.5, "step": 3},
            {"loss": 2.0, "learning_rate": 0.2, "epoch": 1.0, "step": 4},
            {"eval_loss": 5.0, "eval_MAE": 1.0, "eval_runtime": 9.0, "epoch": 1.0, "step": 4},
        ]
    )
    assert rows == [
        {"epoch": 1, "step": 4, "train_loss": 1.25, "learning_rate": 0.2, "valid_loss": 5.0, "valid_MAE": 1.0}
    ]


# Stopped and resumed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before the first checkpoint", "within an epoch", "before a checkpoint"])
def test_a_stopped_run_ends_like_one_that_was_not(
    moment: str, finished: Run, dataset: Any, language: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepmlf_kit.training.callbacks import EpochLog, LogAtEpochEnd
    from deepmlf_kit.training.trainer import SentimentTrainer

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if moment == "before the first checkpoint":
            patch.setattr(LogAtEpochEnd, "on_epoch_end", stop)
        elif moment == "within an epoch":
            step = SentimentTrainer.training_step

            def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
                return stop() if self.state.global_step == 7 else step(self, *args, **kwargs)

            patch.setattr(SentimentTrainer, "training_step", training_step)
        else:
            log = EpochLog.on_evaluate

            def on_evaluate(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                log(self, args, state, control, **kwargs)
                if state.global_step == 9:
                    stop()

            patch.setattr(EpochLog, "on_evaluate", on_evaluate)
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path / "run", dataset, language)
    assert not Run.open(tmp_path / "run").finished
    assert_equal_runs(finished, start(tmp_path / "run", dataset, language))


@pytest.mark.parametrize("ended_by", ["epochs", "early stop"])
def test_a_run_stopped_after_its_last_epoch_is_only_finished(
    ended_by: str, dataset: Any, language: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = {"training.epochs": 2}
    if ended_by == "early stop":
        setting = {
            "training.epochs": 6,
            "training.early_stop": 1,
            "training.learning_rate": 1e-30,
            "training.min_learning_rate": 0,
            "heads.task_norm": "layer",
        }
    whole = start(tmp_path / "whole", dataset, language, overrides=setting)
    if ended_by == "early stop":
        assert len(whole.history()) == 2
    with monkeypatch.context() as patch:
        patch.setattr(driver, "predict_split", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path / "run", dataset, language, overrides=setting)
    assert_equal_runs(whole, start(tmp_path / "run", dataset, language, overrides=setting))


def test_early_stopping_counts_on_after_a_resume(
    dataset: Any, language: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    from deepmlf_kit.training.trainer import SentimentTrainer

    frozen = {
        "training.learning_rate": 1e-30,
        "training.min_learning_rate": 0,
        "training.epochs": 9,
        "training.early_stop": 3,
        "heads.task_norm": "layer",
    }
    step = SentimentTrainer.training_step
    with monkeypatch.context() as patch:

        def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
            if self.state.global_step == 7:
                raise KeyboardInterrupt
            return step(self, *args, **kwargs)

        patch.setattr(SentimentTrainer, "training_step", training_step)
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path / "run", dataset, language, overrides=frozen)
    run = start(tmp_path / "run", dataset, language, overrides=frozen)
    assert len(run.history()) == 4  # one best epoch and three without a better one


def test_a_half_written_checkpoint_is_passed_over_and_a_moved_folder_finds_its_best(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for step, text in (
        (3, '{"global_step": 3, "best_model_checkpoint": "elsewhere/checkpoint-3"}'),
        (6, '{"glo'),
    ):
        (folder / f"checkpoint-{step}").mkdir(parents=True)
        (folder / f"checkpoint-{step}" / "trainer_state.json").write_text(text)
        save_file({"weight": torch.zeros(1)}, folder / f"checkpoint-{step}" / "model.safetensors")
    (folder / "checkpoint-9").mkdir()
    found = last_checkpoint(folder)
    assert found == folder / "checkpoint-3"
    state = json.loads((found / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(folder / "checkpoint-3")
    assert last_checkpoint(tmp_path / "nothing") is None


def test_loading_a_checkpoint_of_trained_weights_only_warns_of_nothing(
    dataset: Any, language: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        start(tmp_path / "run", dataset, language, overrides={"training.epochs": 2})
    finally:
        logger.removeHandler(caplog.handler)
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


# The folder and its errors -------------------------------------------------------------------------------------


def test_a_finished_run_is_returned_as_it_is_and_other_settings_are_refused(
    finished: Run, dataset: Any, language: Any, tmp_path: Path
) -> None:
    shutil.copytree(finished.path, tmp_path / "run")
    before = (tmp_path / "run" / "run.json").stat().st_mtime_ns
    assert start(tmp_path / "run", dataset, language).metrics == finished.metrics
    assert (tmp_path / "run" / "run.json").stat().st_mtime_ns == before
    with pytest.raises(DeepMLFError, match=r"fusion\.tokens is 3 there, 4 here.*overwrite"):
        start(tmp_path / "run", dataset, language, overrides={"fusion.tokens": 4})
    with pytest.raises(DeepMLFError, match="seed is 0 there, 5 here"):
        start(tmp_path / "run", dataset, language, seed=5)
    new = start(tmp_path / "run", dataset, language, seed=5, overwrite=True, overrides={"training.epochs": 1})
    assert new.info["seed"] == 5 and len(new.history()) == 1


def test_a_folder_with_something_else_in_it_is_left_alone(
    dataset: Any, language: Any, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("do not lose")
    with pytest.raises(DeepMLFError, match="holds no run"):
        start(tmp_path, dataset, language, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "do not lose"


def test_a_dataset_that_does_not_fit_is_refused_before_anything_is_trained(
    dataset: Any, language: Any, tmp_path: Path
) -> None:
    from datasets import DatasetDict

    with pytest.raises(DeepMLFError, match=r"25 audio features.*expects 74.*set av_encoder\.audio_dim=25"):
        start(tmp_path / "a", dataset, language, overrides={"av_encoder.audio_dim": 74})
    with pytest.raises(DeepMLFError, match="'valid'; the dataset has train"):
        start(tmp_path / "b", DatasetDict({"train": dataset["train"]}), language)
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()
    with pytest.raises(DeepMLFError, match="No run at"):
        Run.open(tmp_path)


# The curriculum and the baselines ------------------------------------------------------------------------------


def test_the_fused_model_starts_from_the_pretrained_av_encoder(
    dataset: Any, language: Any, tmp_path: Path
) -> None:
    _, tokenizer = language
    av = pretrain_av(dataset, tmp_path / "av", tokenizer)
    assert av.kind == "av" and "MAE" in av.metrics
    rows = list(dataset["test"].with_format("numpy"))
    with torch.no_grad():
        said = av.load_model()(**av.collator(tokenizer)(rows)).prediction
    np.testing.assert_allclose(said.numpy(), av.predictions()["prediction"], atol=1e-6)

    still = {"training.learning_rate": 1e-30, "training.min_learning_rate": 0, "training.epochs": 1}
    run = start(tmp_path / "run", dataset, language, av_encoder=av, overrides=still)
    pretrained, fused = weights(av), weights(run)
    shared = [name for name in pretrained if name.startswith("av_encoder.")]
    assert shared
    for name in shared:
        torch.testing.assert_close(fused[name], pretrained[name], rtol=0, atol=1e-20)


def test_the_text_baseline_reads_text_alone_and_late_fusion_averages(
    dataset: Any, language: Any, tmp_path: Path
) -> None:
    lm, tokenizer = language
    small = {**TINY, "training.epochs": 2}
    common = {"overrides": small, "tokenizer": tokenizer, "progress": False, "tensorboard": False}
    text = train("sample", dataset, tmp_path / "text", model="text", lm=lm, **common)
    av = train("sample", dataset, tmp_path / "av", model="av", **common)
    model = text.load_model(lm=lm, tokenizer=tokenizer)
    batch = text.collator(tokenizer)(list(dataset["test"].with_format("numpy")))
    with torch.no_grad():
        said = model(**batch).prediction
        batch["audio"] += 1
        assert torch.equal(model(**batch).prediction, said)
    np.testing.assert_allclose(said.numpy(), text.predictions()["prediction"], atol=1e-6)
    mean = late_fusion(text, av)
    expected = (text.predictions()["prediction"] + av.predictions()["prediction"]) / 2
    np.testing.assert_allclose(mean["prediction"], expected)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
