"""Before and after a run: the dry run, running again, the model card and the upload."""

from __future__ import annotations

import copy
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parent))
from training_fixtures import TINY, pretrain_av, with_other_features

from deepmlf_kit.cli.frame import run as command
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.experiments.rerun import rerun
from deepmlf_kit.model.deepmlf import DeepMLFModel
from deepmlf_kit.training import run_folder, train
from deepmlf_kit.training.dry_run import plan_model
from deepmlf_kit.training.presets import load_preset

QUICK = {**TINY, "training.epochs": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, dataset: Any, language: dict[str, Any]) -> Any:
    out = tmp_path_factory.mktemp("runs") / "first"
    return train("sample", dataset, out, overrides=QUICK, progress=False, tensorboard=False, **language)


# Dry run -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def config_only(tmp_path_factory: pytest.TempPathFactory, language: dict[str, Any]) -> Path:
    """A folder with the LM's config and nothing else."""
    folder = tmp_path_factory.mktemp("lm")
    language["lm"].config.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("ffw", ["full", "lora", "none"])
def test_a_dry_run_counts_what_the_model_has_without_its_weights(
    ffw: str, config_only: Path, language: dict[str, Any]
) -> None:
    preset = load_preset("sample", {**QUICK, "fusion.ffw": ffw, "lm.name": str(config_only)})
    plan = plan_model(preset)
    model = DeepMLFModel(preset.model_config(), **language)
    assert sum(plan.trained.values()) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert plan.frozen == sum(p.numel() for p in language["lm"].parameters())
    assert (plan.layers, plan.width, plan.fusion_layers) == (3, 32, [1, 2])
    trained = 4 * sum(plan.trained.values())
    counted = {"trained weights": trained, "gradients": trained, "optimiser": 2 * trained}
    assert counted.items() <= plan.memory.items() and plan.memory["language model"] == 4 * plan.frozen
    assert plan.memory_bytes == sum(plan.memory.values())
    assert ".FF" in plan.to_text()


def saved_bytes(model: DeepMLFModel, batch: dict[str, torch.Tensor]) -> int:
    """What autograd keeps for the backward pass, besides weights and buffers."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}  # held, so that no address is used twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            kept[place] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(**batch)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize(
    "changes", [{}, {"fusion.layers": [7]}, {"fusion.tokens": 32}, {"fusion.ffw": "lora"}]
)
def test_the_rules_for_activations_and_operations_are_near_what_torch_keeps_and_counts(
    changes: dict[str, Any],
) -> None:
    preset = load_preset("sample", {**changes, "training.batch_size": 4})
    model = DeepMLFModel(preset.model_config()).train()
    batch = {
        "input_ids": torch.zeros(4, 25, dtype=torch.long),
        "attention_mask": torch.ones(4, 25, dtype=torch.long),
        "audio": torch.randn(4, 400, 25),
        "audio_mask": torch.ones(4, 400, dtype=torch.bool),
        "vision": torch.randn(4, 40, 58),
        "vision_mask": torch.ones(4, 40, dtype=torch.bool),
        "labels": torch.zeros(4),
    }
    plan = plan_model(preset, text_tokens=25)
    assert 0.8 < plan.memory["activations"] / saved_bytes(model, batch) < 1.4
    with FlopCounterMode(display=False) as counter:
        model(**batch).loss.backward()
    assert 0.9 < 4 * plan.flops_per_utterance / counter.get_total_flops() < 1.05


@pytest.mark.parametrize("name", ["mosi", "mosei-base", "mosei-large", "sims"])
def test_the_published_recipes_are_planned_without_a_network(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoConfig

    def refused(*_: Any, **__: Any) -> None:
        raise OSError("no network here")

    monkeypatch.setattr(AutoConfig, "from_pretrained", refused)
    sizes = {
        "mosi": 1_711_376_384,
        "mosei-base": 124_439_808,
        "mosei-large": 774_030_080,
        "sims": 102_068_736,
    }
    assert plan_model(load_preset(name)).frozen == sizes[name]


def test_estimates_grow_as_the_work_grows(config_only: Path) -> None:
    def work(**changes: Any) -> float:
        preset = load_preset("sample", {**QUICK, "lm.name": str(config_only), **changes})
        return plan_model(preset, text_tokens=10).flops_per_utterance

    assert work(**{"fusion.layers": [1]}) < work() < work(**{"fusion.layers": [0, 1, 2]})
    assert work() < work(**{"fusion.tokens": 12})


def test_a_dry_run_refuses_what_the_language_model_cannot_do(config_only: Path, capsys: Any) -> None:
    settings = [f"lm.name={config_only}", *(f"{key}={json.dumps(value)}" for key, value in QUICK.items())]
    words = [word for setting in settings for word in ("--set", setting)]
    assert command(["train", "--dry-run", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plan"]["layers"] == 3
    assert command(["train", "--dry-run", *words, "--set", "fusion.layers=[7]"]) == 2
    assert "3 layers" in capsys.readouterr().err


def test_training_without_a_dataset_says_how_to_make_one(capsys: Any) -> None:
    assert command(["train"]) == 2
    assert "deepmlf sample" in capsys.readouterr().err


# Again ---------------------------------------------------------------------------------------------------------


def test_running_again_from_the_folder_gives_bitwise_the_same(
    run: Any, dataset: Any, language: dict[str, Any]
) -> None:
    again = rerun(run.path, dataset=dataset, progress=False, **language)
    assert again.same and again.run.metrics == run.metrics and again.versions == {}
    assert again.run.path == run.path.with_name("first-again")


def test_running_again_says_what_differs(
    run: Any, dataset: Any, language: dict[str, Any], tmp_path: Path
) -> None:
    from deepmlf_kit.training import Run

    changed = Run(run.path, json.loads(json.dumps(run.info)))
    changed.info["seed"] = 5
    changed.info["versions"]["torch"] = "1.0"
    again = rerun(changed, tmp_path / "again", dataset, progress=False, **language)
    assert not again.same and "MAE" in again.differing
    assert again.versions["torch"] == ("1.0", torch.__version__)


def test_another_dataset_is_refused(run: Any, dataset: Any, language: dict[str, Any], tmp_path: Path) -> None:
    from deepmlf_kit.data.sample import make_sample

    with pytest.raises(DeepMLFError, match="digest"):
        rerun(run, tmp_path / "again", make_sample(seed=3, train=8, valid=4, test=4), **language)
    with pytest.raises(DeepMLFError, match="is the run itself"):
        rerun(run, run.path, dataset, **language)


def test_other_features_of_the_same_utterances_are_other_data(
    run: Any, dataset: Any, language: dict[str, Any], tmp_path: Path
) -> None:
    other = with_other_features(dataset)
    for stopped in (False, True):
        folder = tmp_path / str(stopped)
        shutil.copytree(run.path, folder)
        if stopped:
            (folder / "run.json").write_text(json.dumps({**run.info, "state": "running"}))
        with pytest.raises(DeepMLFError, match="features and their recipe"):
            train("sample", other, folder, overrides=QUICK, progress=False, tensorboard=False, **language)
    with pytest.raises(DeepMLFError, match="other utterances, labels or features"):
        rerun(run, tmp_path / "again", other, **language)


def test_a_datasets_digest_is_that_of_its_content_wherever_and_however_it_is_stored(
    dataset: Any, tmp_path: Path
) -> None:
    from datasets import DatasetDict, concatenate_datasets

    from deepmlf_kit.data import schema
    from deepmlf_kit.training.run_folder import digest_of

    stored = schema.load(schema.save(dataset, tmp_path / "data"))
    pieces = DatasetDict(
        {
            n: concatenate_datasets([p.select(range(7)), p.select(range(7, len(p)))])
            for n, p in dataset.items()
        }
    )
    assert digest_of(stored) == digest_of(pieces) == digest_of(dataset)
    recipe = dataset.map(lambda row: {"recipe": json.dumps({**json.loads(row["recipe"]), "fps": 5.0})})
    turned = DatasetDict({name: part.select(range(len(part) - 1, -1, -1)) for name, part in dataset.items()})
    times = dataset.map(lambda row: {"audio_times": [time + 1 for time in row["audio_times"]]})
    changed = (recipe, turned, times, with_other_features(dataset))
    assert len({digest_of(data) for data in (dataset, *changed)}) == 5


def test_an_overwritten_language_model_is_another_start(
    dataset: Any, language: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "lm"
    lm = copy.deepcopy(language["lm"])
    lm.save_pretrained(folder)
    language["tokenizer"].save_pretrained(folder)
    settings = {**QUICK, "lm.name": str(folder)}

    def again(**options: Any) -> Any:
        quiet = {"progress": False, "tensorboard": False}
        return train("sample", dataset, tmp_path / "run", overrides=settings, **quiet, **options)

    first = again()
    assert again().metrics == first.metrics
    with torch.no_grad():
        lm.get_input_embeddings().weight[5] += 1
    lm.save_pretrained(folder)
    with pytest.raises(DeepMLFError, match="digest of the language model"):
        again()
    in_memory = {"lm": lm, "tokenizer": language["tokenizer"]}
    second = again(overwrite=True, **in_memory)
    assert second.metrics != first.metrics
    assert again(**in_memory).metrics == second.metrics
    with pytest.raises(DeepMLFError, match="digest of the language model"):
        again(**language)


def test_an_overwritten_pretraining_is_another_start(
    dataset: Any, language: dict[str, Any], tmp_path: Path
) -> None:
    quiet = {"progress": False, "tensorboard": False}
    settings = {**QUICK, "pretraining.epochs": 1}

    def pretrain(seed: int) -> Any:
        options = {"overrides": settings, "seed": seed, "overwrite": True}
        return pretrain_av(dataset, tmp_path / "av", language["tokenizer"], **options)

    def fused(av: Any) -> Any:
        return train(
            "sample", dataset, tmp_path / "run", overrides=settings, av_encoder=av, **quiet, **language
        )

    first = fused(pretrain(0))
    assert fused(pretrain(0)).metrics == first.metrics  # the same weights: nothing to do
    shutil.copytree(tmp_path / "av", tmp_path / "moved")
    assert fused(tmp_path / "moved").metrics == first.metrics  # wherever they lie
    other = pretrain(1)
    with pytest.raises(DeepMLFError, match="pretrained AV encoder's weights"):
        fused(other)
    with pytest.raises(DeepMLFError, match="other weights than those"):
        rerun(first, tmp_path / "again", dataset, progress=False, **language)


# Card and upload -----------------------------------------------------------------------------------------------


def test_the_card_says_what_it_is_how_well_it_does_and_what_it_is_not_for(run: Any) -> None:
    card = (run.best / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: deepmlf-kit\n")
    assert f"{run.metrics['MAE']:.4f}" in card and run.info["dataset"]["digest"] in card
    assert "synthetic" in card and "must not be used to judge" in card
    assert f"{run.info['parameters']['trained']:,}" in card


def test_an_upload_holds_what_prediction_needs_and_no_path_of_this_machine(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: dict[str, bytes] = {}

    class Hub:
        def __init__(self, token: str | None) -> None:
            pass

        def create_repo(self, name: str, private: bool, exist_ok: bool) -> str:
            return f"hub/{name}"

        def upload_file(self, path_or_fileobj: Any, path_in_repo: str, repo_id: str) -> None:
            assert repo_id == "me/first"
            content = path_or_fileobj
            sent[path_in_repo] = content if isinstance(content, bytes) else Path(content).read_bytes()

    monkeypatch.setattr(run_folder, "HfApi", Hub)
    assert run.push_to_hub("me/first") == "hub/me/first"
    assert {"README.md", "run.json", "preset.yaml", "best/config.json", "best/model.safetensors"} <= set(sent)
    texts = b"".join(content for name, content in sent.items() if not name.endswith("safetensors"))
    assert str(run.path).encode() not in texts


def test_changed_classes_are_other_data(tmp_path):
    from deepmlf_kit.data.sample import make_sample
    from deepmlf_kit.training.run_folder import digest_of

    data = make_sample(seed=0, train=6, valid=3, test=3)
    classes = [data.map(lambda row, c=c: {"label_class": float(c)}) for c in (0, 1)]
    without = data.map(lambda row: {"label_class": float("nan")})
    assert digest_of(without) == digest_of(data)
    assert len({digest_of(data), *map(digest_of, classes)}) == 3
