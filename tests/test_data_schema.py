import json

import numpy as np
import pytest
from datasets import Dataset, DatasetDict

from deepmlf_kit.data import schema
from deepmlf_kit.data.schema import DatasetError


def rows(n=3, da=4, dv=3, **extra):
    rng = np.random.default_rng(0)
    for i in range(n):
        yield schema.utterance(
            f"v$_${i}",
            f"text {i}",
            rng.normal(size=(5 + i, da)),
            None if i == 1 else rng.normal(size=(2 + i, dv)),
            label=i - 1.0,
            audio_dim=da,
            vision_dim=dv,
            audio_times=np.arange(5 + i) * 0.01,
            words=[{"word": "text", "start": 0.0, "end": 0.2}],
            recipe={"audio": "made up"},
            **extra,
        )


@pytest.fixture
def dataset():
    return DatasetDict({s: schema.build_split(rows(), 4, 3) for s in schema.SPLITS})


def test_rows_come_back_as_they_went_in(dataset, tmp_path):
    schema.save(dataset, tmp_path / "d")
    back = schema.load(tmp_path / "d")
    for made, read in zip(rows(), back["valid"].with_format("numpy"), strict=True):
        np.testing.assert_array_equal(made["audio"], read["audio"])
        assert read["audio"].dtype == np.float32
        assert read["vision"].shape == made["vision"].shape
        assert str(read["text"]) == made["text"]
        assert read["label"] == np.float32(made["label"])
        assert np.isnan(read["label_text"])
    assert schema.dims_of(back) == (4, 3)
    assert schema.recipe_of(back) == {"audio": "made up"}
    assert json.loads(back["test"][0]["recipe"]) == {"audio": "made up"}
    assert back["train"][0]["words"][0]["word"] == "text"


def test_split_written_to_a_file_equals_the_one_in_memory(tmp_path):
    memory = schema.build_split(rows(), 4, 3)
    disk = schema.build_split(rows(), 4, 3, file=tmp_path / "x" / "a.arrow")
    for column in ("id", "audio", "vision_times", "words", "label"):
        assert memory.data.column(column).to_pylist() == disk.data.column(column).to_pylist()
    assert disk.cache_files


def test_saving_over_itself_keeps_the_dataset(dataset, tmp_path):
    schema.save(dataset, tmp_path / "d")
    schema.save(schema.load(tmp_path / "d"), tmp_path / "d")
    assert len(schema.load(tmp_path / "d")["train"]) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_saving_into_a_folder_with_other_things_is_refused(dataset, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(DatasetError, match=r"thesis.tex, which the kit did not write"):
        schema.save(dataset, tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_wrong_width_and_wrong_times_say_found_and_expected():
    with pytest.raises(DatasetError, match=r"audio has shape \[5, 2\], expected \[frames, 4\]"):
        schema.utterance("a", "t", np.ones((5, 2)), None, audio_dim=4, vision_dim=3)
    with pytest.raises(DatasetError, match="2 entries for 5 frames"):
        schema.utterance("a", "t", np.ones((5, 4)), None, audio_dim=4, vision_dim=3, audio_times=[0, 1])


def test_a_dataset_without_the_column_of_classes_is_read_as_before(dataset, tmp_path):
    old = DatasetDict({name: part.remove_columns("label_class") for name, part in dataset.items()})
    schema.save(old, tmp_path / "d")
    rows = schema.for_batches(schema.load(tmp_path / "d")["train"])
    assert "label_class" not in rows[0] and rows[0]["label"] == -1


def test_saving_draws_no_bars(dataset, tmp_path, capsys):
    schema.save(dataset, tmp_path / "d")
    assert capsys.readouterr().err == ""


def test_a_dataset_of_another_kind_lists_every_mismatch(dataset):
    other = DatasetDict(train=dataset["train"].remove_columns(["words", "label"]), dev=dataset["test"])
    with pytest.raises(DatasetError) as caught:
        schema.check(other)
    message = str(caught.value)
    for part in ("'dev'", "train.words: found nothing", "train.label: found nothing"):
        assert part in message
    with pytest.raises(DatasetError, match=r"train\.audio"):
        schema.check(DatasetDict(train=Dataset.from_dict({"text": ["a"]})))
    with pytest.raises(DatasetError, match="differ between splits"):
        wide = schema.build_split(rows(da=5), 5, 3)
        schema.check(DatasetDict(train=dataset["train"], test=wide))


def test_loading_nothing_or_something_else_says_what_to_do(tmp_path):
    with pytest.raises(DatasetError, match="deepmlf sample"):
        schema.load(tmp_path / "none")
    with pytest.raises(DatasetError, match=r"dataset_dict\.json"):
        schema.load(tmp_path)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(DatasetError, match="cannot be read"):
        schema.load(tmp_path)
