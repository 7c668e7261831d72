"""The worked examples of docs/extending.md run, and what they register takes part in a model like the built-in parts."""

import re
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from tiny_lms import tiny_batch, tiny_config, tiny_model

from deepmlf_kit import DeepMLFConfig
from deepmlf_kit.data.inspect import inspect_dataset, normalization_report, print_normalization, print_report
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.evaluation.evaluate import evaluate
from deepmlf_kit.evaluation.perturbations import robustness
from deepmlf_kit.explain.capturing import capture
from deepmlf_kit.model.av_encoder import AV_ENCODERS
from deepmlf_kit.model.cross_attention import FUSION_MECHANISMS
from deepmlf_kit.model.gates import GATES, Gate
from deepmlf_kit.model.modalities import register_modality
from deepmlf_kit.plots.effect_views import effect_bars
from deepmlf_kit.plots.style import modality_label
from deepmlf_kit.training import Run
from deepmlf_kit.training.presets import load_preset
from deepmlf_kit.widgets import Explorer

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What is defined after all code blocks of the page were run, one after another, in an empty folder."""
    names: dict = {"__name__": "extending"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("extending"))
        for code in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.S | re.M):
            exec(compile(code, str(PAGE), "exec"), names)
    return names


def test_the_page_runs_and_its_third_modality_is_read_from_end_to_end(examples: dict):
    model, run, lens = examples["run"].load_model(), examples["run"], examples["lens"]
    assert model.config.modalities == {"audio": 25, "vision": 58, "physiology": 4}
    weight = model.av_encoder.physiology.projection.weight
    assert weight.shape == (30, 4)
    assert run.collator(model.tokenizer)([lens.row(0)])["physiology_mask"].sum() == 40
    assert {"audio", "vision", "physiology"} < set(examples["effects"].names)
    row = lens.row(0)
    with torch.no_grad():
        answers = [
            float(model(**{k: v for k, v in lens.batch(r).items() if k != "labels"}).av_states.sum())
            for r in (row, {**row, "physiology": row["physiology"] + 1})
        ]
    assert answers[0] != answers[1]


@pytest.mark.parametrize(
    "changes", [{"gating": "per_token"}, {"fusion_mechanism": "mean"}, {"av_encoder": "gru"}], ids=str
)
def test_a_registered_part_trains_and_is_explained(examples: dict, changes: dict):
    model = tiny_model(**changes).train()
    model(**tiny_batch()).loss.backward()
    new = [p for n, p in model.named_parameters() if any(k in n for k in (".score.", ".project.", ".gru."))]
    assert new and all(p.grad is not None and p.grad.any() for p in new)
    seen = capture(model.eval(), tiny_batch(), ("gates", "norms", "cross_attention"))
    assert np.isfinite(seen.gates["cross_attention"]).all()
    assert len(seen.cross_attention[0]) == len(model.config.fusion_layers)


@pytest.mark.parametrize(
    ("setting", "registry"),
    [("gating", GATES), ("fusion_mechanism", FUSION_MECHANISMS), ("av_encoder", AV_ENCODERS)],
)
def test_an_unknown_part_is_refused_with_the_registered_ones(setting: str, registry):
    for name in registry:
        assert registry[name]  # every name that a configuration may give has its class
    with pytest.raises(
        DeepMLFError, match=f"{setting} is 'mine', but must be one of '{next(iter(registry))}'"
    ):
        DeepMLFConfig(**{setting: "mine"})


def test_a_name_is_registered_once():
    with pytest.raises(DeepMLFError, match="gating='tanh' is registered as"):
        GATES.register("tanh")(type("Mine", (Gate,), {}))
    with pytest.raises(DeepMLFError, match="is registered already"):
        register_modality("audio", "sound")
    with pytest.raises(DeepMLFError, match="cannot be called 'text'"):
        register_modality("text")


def test_a_modality_that_is_not_registered_or_not_the_models_is_refused():
    with pytest.raises(DeepMLFError, match=r"register_modality\('smell'\) first"):
        tiny_config(extra_modalities={"smell": 3})
    with pytest.raises(DeepMLFError, match="has no input 'smell': its modalities are audio, vision"):
        tiny_model()(**tiny_batch(), smell=torch.zeros(3, 4, 2))


def test_a_modality_is_set_on_the_command_line():
    preset = load_preset("sample", ["av_encoder.extra_modalities={physiology: 4}"])
    assert preset.av_encoder.extra_modalities == {"physiology": 4}


def test_a_model_of_ones_own_leaves_a_run_that_is_scored(examples: dict):
    run = Run.open(examples["bag"].path)
    assert run.kind == "bag" and run.finished
    assert evaluate(run, examples["sample"]).metrics["MAE"] == pytest.approx(run.metrics["MAE"])
    stored = load_file(run.best / "model.safetensors")
    assert stored and all(name.split(".")[0] in ("av_encoder", "text_head", "av_head") for name in stored)


def test_a_third_modality_is_inspected(examples: dict):
    report = inspect_dataset(examples["data"])
    assert list(report.features.loc["physiology"].index) == ["0", "1", "2", "3"]
    assert abs(report.features.loc["physiology"]["std"] - 1).max() < 0.2
    assert report.lengths.loc[("train", "physiology seconds"), "mean"] == pytest.approx(4.0)
    assert report.missing.loc["train", "no physiology"] == 0
    table = normalization_report(examples["data"])
    assert table.loc["physiology"]["std after"].to_numpy() == pytest.approx(np.ones(4), abs=0.01)
    shown = Console(record=True, width=120, file=StringIO())
    print_report(report, shown)
    print_normalization(table, "train", shown)
    assert "physiology frames" in (text := shown.export_text()) and "physiology  normalize=train" in text


def test_a_third_modality_is_perturbed(examples: dict):
    table = robustness(examples["run"], examples["data"]).set_index("perturbation")
    assert {"no physiology", "noisy physiology", "audio and vision and physiology of another"} < set(
        table.index
    )
    assert table.loc["no physiology", "loss_task"] != table.loc["unperturbed", "loss_task"]
    assert table.loc["noisy physiology", "loss_task"] != table.loc["unperturbed", "loss_task"]


def test_a_third_modality_is_in_the_explorer(examples: dict, tmp_path: Path):
    explorer = Explorer(examples["lens"], progress=False)
    assert {"name": "physiology", "label": "pulse"} in explorer.modalities
    assert [track["name"] for track in explorer.payload["tracks"]["physiology"]] == ["pulse features"]
    recorded = explorer.payload["sentiment"]
    explorer.without = ["physiology"]
    assert not explorer.trouble and explorer.payload["sentiment"] != recorded
    explorer.view = "effects"
    assert "pulse" in explorer.effects["modalities"]["names"]
    page = explorer.export_html(tmp_path / "explorer.html", [0]).read_text()
    assert '"text,audio,vision,physiology": {' in page


def test_figures_call_a_modality_by_its_label(examples: dict):
    assert modality_label("physiology") == "pulse" and modality_label("audio and vision") == "voice and face"
    drawn = effect_bars(examples["effects"])
    assert {"words", "voice", "face", "pulse"} < set(drawn.data[0].x)
