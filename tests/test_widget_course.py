"""What the notebooks of the course stand on: settings that fit the data, checked exercises, texts that the run writes."""

import re

import numpy as np
import pandas as pd
import pytest
import torch

from deepmlf_kit.data import schema
from deepmlf_kit.data.sample import make_sample
from deepmlf_kit.sweep import SweepResult, load_plan
from deepmlf_kit.widgets import Course, check, fold
from deepmlf_kit.widgets import course as course_module


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """A dataset of 5 and 20 feature dimensions, as MMSA's MOSI pickles have them."""
    made = make_sample(0, train=4, valid=2, test=2)
    splits = {
        split: schema.build_split(
            [
                schema.utterance(
                    row["id"],
                    row["text"],
                    np.asarray(row["audio"], np.float32)[:, :5],
                    np.asarray(row["vision"], np.float32)[:, :20],
                    row["label"],
                    audio_dim=5,
                    vision_dim=20,
                )
                for row in rows
            ],
            5,
            20,
        )
        for split, rows in made.items()
    }
    return schema.save(type(made)(splits), tmp_path_factory.mktemp("narrow") / "data")


def test_a_preset_is_made_to_fit_the_dimensions_of_the_data(narrow, capsys):
    course = Course("03", "mosi", str(narrow), ["training.epochs=1"])
    assert (course.preset.av_encoder.audio_dim, course.preset.av_encoder.vision_dim) == (5, 20)
    assert "av_encoder.audio_dim=5" in capsys.readouterr().out
    assert course.preset.training.epochs == 1


def test_the_readers_overrides_come_after_what_keeps_the_sample_set_short(narrow):
    sizes = {"train": 4, "valid": 2, "test": 2}
    short = ["training.epochs=2"]
    assert Course("04", sizes=sizes, short=short).preset.training.epochs == 2
    assert Course("04", overrides=["training.epochs=5"], sizes=sizes, short=short).preset.training.epochs == 5
    published = Course("04", dataset=str(narrow)).preset.training.epochs
    assert Course("04", dataset=str(narrow), short=short).preset.training.epochs == published


def test_a_sweep_trains_the_readers_recipe_on_the_readers_data(narrow, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = {}

    def trained(plan, dataset, out, tell):
        asked.update(plan=plan, dataset=dataset, out=out)
        return SweepResult(tmp_path, pd.DataFrame({"MAE": [1.0]}), None, 0)

    monkeypatch.setattr(course_module, "run_sweep", trained)
    table = Course("07", "mosei-base", str(narrow), ["training.epochs=1"]).sweep("depth", "deep")
    assert list(table["MAE"]) == [1.0]
    assert (asked["dataset"], asked["out"]) == (str(narrow), "runs/07-mosei-base/deep")
    assert asked["plan"].preset == "mosei-base"
    # The plan's own settings are for its sample set; the reader's, and what the data need, are for theirs.
    assert asked["plan"].set == {
        "av_encoder.audio_dim": 5,
        "av_encoder.vision_dim": 20,
        "training.epochs": 1,
    }
    Course("07", overrides=["training.epochs=2"]).sweep("depth", "deep")
    assert asked["dataset"] is None and asked["plan"].sample == load_plan("depth").sample
    assert asked["plan"].set == {**load_plan("depth").set, "training.epochs": 2}


def test_the_cost_of_trainings_is_told_before_one_of_them_starts(narrow, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(course_module, "measured_rate", lambda: 1e9)
    course = Course("07", "mosei-base", str(narrow), ["training.epochs=3"])
    assert re.fullmatch(
        r"57 trainings of up to 3 epochs on 4 utterances: [\d.]+ (min|h) or more on this machine, one after another",
        course.cost(57),
    )
    assert not list(tmp_path.iterdir())


def test_a_story_of_the_sample_set_is_skipped_in_words_on_other_data(narrow, capsys):
    assert Course("03", sizes={"train": 4, "valid": 2, "test": 2}).story()
    assert "Markdown" not in capsys.readouterr().out
    assert not Course("03", dataset=str(narrow)).story()
    assert "Markdown" in capsys.readouterr().out  # outside a notebook IPython prints what it would show


@pytest.mark.parametrize(
    ("answer", "expected", "said"),
    [
        (..., 1.0, "Your turn"),
        (1.004, 1.0, "Right."),
        (torch.tensor(1.0), 1.0, "Right."),
        (1.2, 1.0, "Not yet. Look again."),
        ((1.0, 2.0), (1.0, 2.0), "Right."),
        ((1.0,), (1.0, 2.0), "Not yet."),
        ("Voice ", "voice", "Right."),
        ("one", 1.0, "Not yet."),
        (None, 1.0, "Not yet."),
        (3, lambda value: value > 2, "Right."),
        (1, lambda value: value > 2, "Not yet."),
    ],
)
def test_an_answer_is_judged_in_a_sentence(answer, expected, said, capsys):
    check(answer, expected, hint="Look again.")
    assert capsys.readouterr().out.startswith(said)


def test_folded_texts_are_closed(monkeypatch):
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", shown.append)
    fold("1. A title", "An answer of 0.5.")
    assert shown[0].data == "<details><summary>1. A title</summary>\n\nAn answer of 0.5.\n\n</details>"
