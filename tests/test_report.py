"""The report: one offline page with the figures of a run."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from training_fixtures import TINY, tiny_lm, tiny_sample

from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.evaluation.late_fusion import late_fusion
from deepmlf_kit.plots.fusion_attention import fusion_attention
from deepmlf_kit.plots.modalities import modality_errors
from deepmlf_kit.plots.predictions import confusion_matrix, predicted_vs_true
from deepmlf_kit.plots.run_report import choose_utterance, write_report
from deepmlf_kit.plots.training_curves import training_losses, validation_errors
from deepmlf_kit.training import Run, train


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Any, Any, Any]:
    dataset = tiny_sample()
    lm, tokenizer = tiny_lm(dataset["train"]["text"])
    overrides = {**TINY, "training.epochs": 2}
    out = tmp_path_factory.mktemp("runs") / "run"
    run = train(
        "sample",
        dataset,
        out,
        overrides=overrides,
        lm=lm,
        tokenizer=tokenizer,
        progress=False,
        tensorboard=False,
    )
    return run, dataset, lm, tokenizer


def figures_of(page: str) -> int:
    return len(re.findall(r'class="plotly-graph-div"', page))


def test_the_report_is_one_page_without_links_to_scripts_or_fonts(made: Any, tmp_path: Path) -> None:
    run, dataset, lm, tokenizer = made
    rows = {"Text only": {**run.metrics, "MAE": 9.0}, "DeepMLF": run.metrics}
    path = write_report(
        run, dataset, tmp_path / "r.html", rows=rows, next_steps=["read on"], lm=lm, tokenizer=tokenizer
    )
    page = path.read_text()
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)
    assert figures_of(page) == 5
    for words in (
        "How training went",
        "What it predicts",
        "What the fusion tokens look at",
        "read on",
        "Acc-7",
    ):
        assert words in page
    assert "prefers-color-scheme: dark" in page


def test_a_chosen_utterance_is_shown_and_an_unknown_one_refused(made: Any, tmp_path: Path) -> None:
    run, dataset, lm, tokenizer = made
    wanted = dataset["test"]["id"][3]
    common = {"lm": lm, "tokenizer": tokenizer}
    page = write_report(run, dataset, tmp_path / "r.html", utterance=wanted, **common).read_text()
    assert wanted in page and figures_of(page) == 4
    with pytest.raises(DeepMLFError, match="no utterance 'nobody'"):
        write_report(run, dataset, tmp_path / "r.html", utterance="nobody", **common)
    with pytest.raises(DeepMLFError, match="dataset in memory"):
        write_report(run, None, tmp_path / "r.html", **common)


def test_attention_is_drawn_on_the_clock_of_the_encoder(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, dataset, lm, tokenizer = made
    drawn: list[np.ndarray] = []

    def recorded(attention: Any, times: np.ndarray, *rest: Any, **options: Any) -> Any:
        drawn.append(times)
        return fusion_attention(attention, times, *rest, **options)

    def voice_ends_half_way(row: dict[str, Any]) -> dict[str, Any]:
        half = len(row["audio"]) // 2
        return {"audio": row["audio"][:half], "audio_times": row["audio_times"][:half]}

    monkeypatch.setattr("deepmlf_kit.plots.run_report.fusion_attention", recorded)
    changed = dataset.map(voice_ends_half_way, features=dataset["test"].features)
    row = changed["test"].with_format("numpy")[0]
    write_report(run, changed, tmp_path / "r.html", utterance=str(row["id"]), lm=lm, tokenizer=tokenizer)
    step = drawn[0][1] - drawn[0][0]
    assert drawn[0][-1] + step / 2 >= row["vision_times"][-1] > row["audio_times"][-1] + step


def test_a_model_of_classes_is_reported_and_fused_by_its_probabilities(tmp_path: Path) -> None:
    dataset = tiny_sample()
    lm, tokenizer = tiny_lm(dataset["train"]["text"])
    small = {**TINY, "training.epochs": 2, "pretraining.epochs": 1, "heads.classes": 3}
    small |= {"training.select_on": "loss", "pretraining.select_on": "loss"}
    common = {"overrides": small, "tokenizer": tokenizer, "progress": False, "tensorboard": False}
    run = train("sample", dataset, tmp_path / "run", lm=lm, **common)
    page = write_report(run, dataset, tmp_path / "r.html", lm=lm, tokenizer=tokenizer).read_text()
    assert figures_of(page) == 4
    assert re.search(r"the text head says (negative|neutral|positive) \(\d+%\)", page)
    assert re.search(r"the label is (negative|neutral|positive)\.", page)
    assert {trace.name for trace in validation_errors(run).data} == {
        "task head",
        "fusion head",
        "AV head",
        "text head",
    }
    matrix = confusion_matrix(run.predictions(), ["negative", "neutral", "positive"]).data[0]
    assert np.asarray(matrix.text).sum() == 16 and matrix.z.max() <= 1

    av = train("sample", dataset, tmp_path / "av", model="av", **common)
    columns = ["probability_0", "probability_1", "probability_2"]
    for one in (run, av):
        table = one.predictions()
        np.testing.assert_allclose(table[columns].sum(axis=1), 1, atol=1e-5)
        assert (table[columns].to_numpy().argmax(axis=1) == table["prediction"]).all()
    fused = late_fusion(run, av)
    mean = (run.predictions()[columns] + av.predictions()[columns]) / 2
    np.testing.assert_allclose(fused[columns], mean)
    assert (fused["prediction"] == mean.to_numpy().argmax(axis=1)).all()

    kept = av.predictions().drop(columns=columns)
    kept.to_csv(av.path / "predictions.csv", index=False)
    with pytest.raises(DeepMLFError, match="no probability_0, and class indices cannot be averaged"):
        late_fusion(run, av)


def test_the_utterance_shown_is_one_where_fusion_helps() -> None:
    class Fake(Run):
        def predictions(self) -> pd.DataFrame:
            return pd.DataFrame(
                {
                    "id": ["a", "b", "c"],
                    "label": [2.0, -2.0, 0.0],
                    "prediction": [2.0, 2.0, 0.5],
                    "text": [2.0, -2.0, 3.0],
                }
            )

    assert choose_utterance(Fake(Path("nowhere"))) == "c"


def test_curves_have_one_line_a_head_and_mark_the_kept_epoch(made: Any) -> None:
    run = made[0]
    errors = validation_errors(run)
    assert {trace.name for trace in errors.data} == {"task head", "fusion head", "AV head", "text head"}
    assert [row["valid_MAE"] for row in run.history()] == list(errors.data[0].y)
    assert errors.layout.shapes[0].x0 == run.info["best"]["epoch"]
    assert {"task", "fusion tokens"} <= {trace.name for trace in training_losses(run).data}
    for fig in (errors, training_losses(run)):
        assert fig.layout.title.text and fig.layout.xaxis.title.text and fig.layout.yaxis.title.text


def test_predictions_are_drawn_by_group_with_their_words() -> None:
    table = pd.DataFrame(
        {"id": ["a", "b"], "label": [1.0, -2.0], "prediction": [0.5, -1.0], "text": [1.0, 1.0]}
    )
    fig = predicted_vs_true(table, ["good <day>", "bad"], ["sincere", "ironic"])
    drawn = [trace for trace in fig.data if trace.mode == "markers"]
    assert [trace.name for trace in drawn] == ["sincere (1)", "ironic (1)"]
    assert "good &lt;day&gt;" in drawn[0].hovertext[0] and "text head 1.00" in drawn[0].hovertext[0]


def test_attention_is_drawn_over_known_times_only() -> None:
    times = np.array([0.1, 0.2, np.nan, 0.4])
    maps = {3: np.full((2, 4), 0.25), 5: np.full((2, 4), 0.25)}
    tracks = {"loudness": (np.array([0.1, 0.4]), np.array([1.0, 3.0]))}
    fig = fusion_attention(maps, times, [{"word": "hey", "start": 0.1, "end": 0.3}], tracks)
    heat = [trace for trace in fig.data if trace.type == "heatmap"]
    assert len(heat) == 2 and list(heat[0].x) == [0.1, 0.2, 0.4]
    line = next(trace for trace in fig.data if trace.type == "scatter")
    assert list(line.y) == [0.0, 1.0] and list(line.customdata) == [1.0, 3.0]
    assert any(note.text == "hey" for note in fig.layout.annotations)


def test_bars_of_modalities_carry_deviations_over_seeds() -> None:
    fig = modality_errors({"Text only": (1.5, 0.1), "DeepMLF, 5 fusion layers": (0.9, 0.05)})
    bar = fig.data[0]
    assert list(bar.x) == [1.5, 0.9] and list(bar.error_x.array) == [0.1, 0.05]
    assert len(set(bar.marker.color)) == 2
    json.loads(fig.to_json())


def test_a_modality_has_its_own_colour_whatever_it_is_called() -> None:
    from deepmlf_kit.plots.style import COLOURS

    names = {"voice and face": "av", "voice only": "audio", "face only": "vision", "neither": "label"}
    names |= {
        "Text only": "text",
        "Late fusion (mean of both)": "label",
        "DeepMLF, 5 fusion layers": "fusion",
    }
    fig = modality_errors({name: (1.0, None) for name in names})
    assert list(fig.data[0].marker.color) == [COLOURS[stream] for stream in names.values()]
