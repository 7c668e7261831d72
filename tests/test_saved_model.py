"""A model that somebody's own `Trainer` or loop saved answers as a run does: by its folder, in Python and on the command line."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from clips_made import make_clip
from training_fixtures import tiny_lm, tiny_sample

from deepmlf_kit import DeepMLFConfig, DeepMLFModel, Predictor
from deepmlf_kit.cli.frame import run as deepmlf
from deepmlf_kit.data.collate import Collator
from deepmlf_kit.data.schema import PREPROCESSOR_FILE, DatasetError, for_batches
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.features import FeatureRecipe
from deepmlf_kit.model.av_encoder import AVSentimentModel
from deepmlf_kit.predict.fresh import expected_recipe
from deepmlf_kit.predict.many import predict_texts

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def data():
    return tiny_sample()


@pytest.fixture(scope="module")
def lm(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("lm")
    for part in tiny_lm(data["train"]["text"]):
        part.save_pretrained(folder)
    return str(folder)


def config(lm, **changes):
    sizes = {"fusion_layers": [1], "fusion_tokens": 3, "cross_attention_heads": 4, "max_text_tokens": 24}
    av = {"av_steps": 8, "av_width": 12, "av_layers": 1, "av_heads": 2}
    return DeepMLFConfig(lm=lm, **{**sizes, **av, **changes})


@pytest.fixture(scope="module")
def mine(tmp_path_factory, data, lm):
    """A model and its collator, saved together, and a batch's prediction before."""
    folder = tmp_path_factory.mktemp("mine")
    torch.manual_seed(0)
    model = DeepMLFModel(config(lm)).eval()
    collator = Collator.for_model(model, data["train"], normalize="clip")
    model.save_pretrained(folder)
    collator.save_pretrained(folder)
    rows = [data["test"][i] for i in range(5)]
    batch = collator(rows)
    labels = batch.pop("labels")
    assert len(labels) == 5
    with torch.no_grad():
        return folder, rows, batch, model(**batch).prediction.numpy()


def test_the_folder_of_a_model_and_its_collator_predicts_as_the_model_did(mine):
    folder, rows, _, expected = mine
    predictor = Predictor(folder, device="cpu")
    np.testing.assert_allclose(predictor.rows(rows)["task"], expected, atol=1e-6)
    assert predictor.recipe == FeatureRecipe(language="en") == expected_recipe(folder)
    assert predictor.notes == [] and predictor.scale == 3.0
    answer = predictor.text("what a great day")
    assert answer.answered_by["checkpoint"] == folder.name and answer.interval is None


def test_a_collator_comes_back_as_it_was_stored(mine, data):
    folder, rows, batch, _ = mine
    again = Collator.from_pretrained(folder)
    assert again.recipe == json.loads(data["train"][0]["recipe"])
    found = again(rows)
    for name, tensor in batch.items():
        assert torch.equal(found[name], tensor), name
    assert not torch.equal(
        Collator(again.tokenizer, 24, audio_dim=25, vision_dim=58)(rows)["audio"], batch["audio"]
    )


def test_a_model_alone_predicts_and_says_what_was_assumed(mine, tmp_path, capsys):
    shutil.copytree(mine[0], tmp_path / "alone")
    (tmp_path / "alone" / PREPROCESSOR_FILE).unlink()
    predictor = Predictor(tmp_path / "alone", device="cpu")
    assert predictor.recipe == FeatureRecipe()
    (note,) = predictor.text("what a great day").notes[-1:]
    assert "does not say how its features were made: taken as egemaps and blendshapes, not normalised" in note
    (tmp_path / "texts.csv").write_text("text\nwhat a day\nnever again\n")
    many = predict_texts(predictor, tmp_path / "texts.csv", tmp_path / "out.csv")
    assert [note for note in many.notes if "does not say" in note] == predictor.notes
    assert "does not say" not in (tmp_path / "out.csv").read_text()
    assert deepmlf(["predict", "--text", "so it is", "--checkpoint", str(tmp_path / "alone")]) == 0
    assert "does not say how its features were made" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("audio_dim", "says"), [(33, None), (74, "nothing says how they were made")])
def test_features_are_told_by_their_widths_or_not_at_all(lm, tmp_path, audio_dim, says):
    DeepMLFModel(config(lm, audio_dim=audio_dim)).save_pretrained(tmp_path)
    predictor = Predictor(tmp_path, device="cpu")
    assert predictor.text("what a day").sentiment
    if says is None:
        assert predictor.recipe == FeatureRecipe(audio="mfcc")
    else:
        with pytest.raises(DeepMLFError, match=f"{says}.*needs its collator beside it"):
            _ = predictor.recipe


def test_what_cannot_predict_is_refused_by_name(lm, tmp_path):
    DeepMLFModel(config(lm, num_classes=3)).save_pretrained(tmp_path / "classes")
    with pytest.raises(DeepMLFError, match="model of 3 classes"):
        Predictor(tmp_path / "classes")
    AVSentimentModel(config(lm)).save_pretrained(tmp_path / "av")
    with pytest.raises(DeepMLFError, match=r"kind 'AVSentimentModel'.*needs a fused model"):
        Predictor(tmp_path / "av")
    with pytest.raises(DeepMLFError, match="No run at"):
        Predictor(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"max_text_tokens": 20}, r"preprocessor_config\.json has max_text_tokens 20.*has 24"),
        ({"audio_dim": 26}, "normalizer does not hold mean, std and limit"),
        ({"normalizer": {"audio": {"mean": 1}}}, "normalizer does not hold"),
        ({"recipe": 3}, r"preprocessor_config\.json: recipe is 3"),
        ({"long_texts": "middle"}, "long_texts is 'middle', expected end or start"),
        ({"extra_dims": {"gaze": "2"}}, "gaze"),
        (None, r"preprocessor_config\.json is damaged.*save the collator again"),
    ],
)
def test_a_collator_that_was_edited_is_one_clear_error(mine, tmp_path, changes, says):
    shutil.copytree(mine[0], tmp_path / "edited")
    file = tmp_path / "edited" / PREPROCESSOR_FILE
    values = json.loads(file.read_text())
    file.write_text("{" if changes is None else json.dumps(values | changes))
    with pytest.raises(DeepMLFError, match=says):
        Predictor(tmp_path / "edited")


def test_a_collator_is_made_for_the_model_s_sizes_or_not_at_all(lm, data, tmp_path):
    model = DeepMLFModel(config(lm, audio_dim=33))
    with pytest.raises(DatasetError, match=r"'audio': 25.*model expects \{'audio': 33.*audio_dim=25"):
        Collator.for_model(model, data["train"])
    with pytest.raises(DatasetError, match="needs the training split"):
        Collator.for_model(model, normalize="train")
    with pytest.raises(DatasetError, match="must be none, train or clip"):
        Collator.for_model(model, data["train"], normalize="batch")
    with pytest.raises(DatasetError, match=r"without its sizes.*audio_dim"):
        Collator(model.tokenizer, 24).save_pretrained(tmp_path)
    with pytest.raises(DatasetError, match="no collator at"):
        Collator.from_pretrained(tmp_path)
    plain = Collator.for_model(model)
    assert plain.dims == {"audio": 33, "vision": 58} and plain.normalizer is None and plain.recipe is None


def test_for_model_fits_the_statistics_of_the_training_split(lm, data):
    model = DeepMLFModel(config(lm))
    collator = Collator.for_model(model, data["train"], normalize="train")
    rows = list(for_batches(data["train"]))
    batch = collator(rows)
    valid = batch["vision"][batch["vision_mask"]]
    assert valid.mean().abs() < 0.05 and 0.5 < valid.std() < 1.1
    assert collator.max_text_tokens == 24


@pytest.mark.filterwarnings("ignore")
def test_the_readme_trains_saves_loads_and_predicts_a_folder_of_clips(data, tmp_path, monkeypatch, capsys):
    """Its section for users of transformers, word by word, on a small dataset."""
    monkeypatch.chdir(tmp_path)
    data.save_to_disk("data/mine")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## If you know transformers")[2].partition("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```", section, re.S | re.M)
    names: dict = {"__name__": "readme"}
    exec(compile(code, "README.md", "exec"), names)
    assert type(names["model"]) is DeepMLFModel and names["prediction"].shape == (1,)
    assert {"config.json", "model.safetensors", PREPROCESSOR_FILE, "README.md"} <= {
        path.name for path in Path("mine").iterdir()
    }

    # Sound alone: nothing asks for a face model, which this machine need not have.
    monkeypatch.setenv("DEEPMLF_FACE_MODEL", str(tmp_path / "nowhere.task"))
    Path("clips").mkdir()
    for name in ("a", "b"):
        make_clip(Path("clips") / f"{name}.wav", 1.0, video=None, audio="pcm_s16le")
    Path("clips/label.csv").write_text("path,text\na.wav,what a great day\nb.wav,never again\n")
    command = next(line for line in section.splitlines() if ".venv/bin/deepmlf predict" in line)
    arguments = command.partition("#")[0].split()[1:]
    capsys.readouterr()
    assert deepmlf(arguments) == 0
    assert "out.csv: 2 predictions" in capsys.readouterr().out
    assert len(Path("out.csv").read_text().splitlines()) == 3
