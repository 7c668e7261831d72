import os
import pickle

import numpy as np
import pytest

from deepmlf_kit.data import safe_pickle, schema
from deepmlf_kit.data.mmsa import convert_mmsa, read_report
from deepmlf_kit.data.safe_pickle import load_pickle
from deepmlf_kit.data.schema import DatasetError
from deepmlf_kit.errors import DeepMLFError

# name, aligned, audio [La, da], vision [Lv, dv]
LAYOUTS = {
    "mosi_aligned": ("mosi", True, (50, 5), (50, 20)),
    "mosi_unaligned": ("mosi", False, (60, 5), (70, 20)),
    "mosei_aligned": ("mosei", True, (50, 74), (50, 35)),
    "mosei_unaligned": ("mosei", False, (80, 74), (60, 35)),
    "sims": ("sims", False, (90, 33), (55, 709)),
    "simsv2": ("simsv2", False, (92, 25), (62, 177)),
}


def make_mmsa(layout, sizes=(6, 3, 4), seed=0):
    name, aligned, audio, vision = LAYOUTS[layout]
    rng = np.random.default_rng(seed)
    scale = 1.0 if name.startswith("sims") else 3.0
    content = {}
    for split, n in zip(schema.SPLITS, sizes, strict=True):
        data = {
            "id": np.array([f"{split}{i:03d}$_${i}" for i in range(n)]),
            "raw_text": np.array([f"句子 {i} of {split}" for i in range(n)]),
            "audio": rng.normal(size=(n, *audio)).astype(np.float32),
            "vision": rng.normal(size=(n, *vision)),
            "text": rng.normal(size=(n, 50, 8)).astype(np.float32),
            "regression_labels": rng.uniform(-scale, scale, n).astype(np.float32),
            "classification_labels": np.zeros(n),
            "annotations": ["Neutral"] * n,
        }
        lengths = rng.integers(1, min(audio[0], vision[0]), n)
        if aligned:
            for i, length in enumerate(lengths):
                data["audio"][i, length:] = 0
                data["vision"][i, length:] = 0
        else:
            data["audio_lengths"] = lengths.tolist()
            data["vision_lengths"] = np.maximum(1, lengths - 1).tolist()
        if scale == 1:
            for modality in "TAV":
                data[f"regression_labels_{modality}"] = rng.uniform(-1, 1, n)
        content[split] = data
    return content


def write(content, path, protocol=4):
    with open(path, "wb") as file:
        pickle.dump(content, file, protocol=protocol)
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("protocol", [2, 4])
def test_each_layout_comes_out_as_it_was(layout, protocol, tmp_path):
    content = make_mmsa(layout)
    seen = []
    out = tmp_path / "out"
    dataset = convert_mmsa(
        write(content, tmp_path / "a.pkl", protocol), out, progress=lambda *state: seen.append(state)
    )
    name, aligned, (_, da), (_, dv) = LAYOUTS[layout]
    assert schema.dims_of(dataset) == (da, dv)
    assert schema.recipe_of(schema.load(out))["aligned"] is aligned
    assert seen == [("train", 6, 6), ("valid", 3, 3), ("test", 4, 4)]
    for split, data in content.items():
        rows = dataset[split].with_format("numpy")
        for i, row in enumerate(rows):
            assert str(row["id"]) == data["id"][i] and str(row["text"]) == data["raw_text"][i]
            assert row["label"] == pytest.approx(data["regression_labels"][i])
            for modality in ("audio", "vision"):
                whole = data[modality][i].astype(np.float32)
                length = len(row[modality])
                np.testing.assert_array_equal(row[modality], whole[:length])
                if aligned:
                    assert not whole[length:].any() and whole[length - 1].any()
                else:
                    assert length == data[f"{modality}_lengths"][i]
            if name.startswith("sims"):
                assert row["label_vision"] == pytest.approx(data["regression_labels_V"][i])
            else:
                assert np.isnan(row["label_vision"])


def test_nan_and_infinities_are_zeroed_and_counted(tmp_path):
    content = make_mmsa("mosi_unaligned")
    content["train"]["audio_lengths"][2] = 50
    content["train"]["audio"][2, :3, 1] = -np.inf
    content["train"]["audio"][2, 5, 2:4] = np.nan
    content["train"]["audio"][2, 55] = np.nan  # beyond the length
    content["valid"]["vision"][1] = 0
    dataset = convert_mmsa(write(content, tmp_path / "a.pkl"), tmp_path / "out")
    report = read_report(tmp_path / "out")
    assert report.splits["train"].infinite == {"audio": 3, "vision": 0}
    assert report.splits["train"].nan == {"audio": 2, "vision": 0}
    assert report.splits["valid"].empty == {"audio": 0, "vision": 1}
    row = dataset["train"].with_format("numpy")[2]["audio"]
    assert np.isfinite(row).all() and not row[:3, 1].any()
    assert len(dataset["valid"][1]["vision"]) == 0


@pytest.mark.parametrize("layout", ["mosi_aligned", "mosei_unaligned"])
def test_padding_in_front_is_no_time_and_counted(layout, tmp_path):
    content = make_mmsa(layout)
    said = {}
    for split, data in content.items():
        held = [int(np.flatnonzero(audio.any(axis=1))[-1]) + 1 for audio in data["audio"]]
        for modality in ("audio", "vision"):
            array, size = data[modality], data[modality].shape[1]
            lengths = data.get(f"{modality}_lengths", held)
            said[split, modality] = [array[i, :length].copy() for i, length in enumerate(lengths)]
            array[:] = 0
            for i, length in enumerate(lengths):
                array[i, size - length :] = said[split, modality][i]
    dataset = convert_mmsa(write(content, tmp_path / "a.pkl"), tmp_path / "out")
    report = read_report(tmp_path / "out")
    for (split, modality), arrays in said.items():
        for frames, row in zip(arrays, dataset[split].with_format("numpy")[modality], strict=True):
            np.testing.assert_array_equal(row, frames.astype(np.float32))
        assert report.splits[split].padded_in_front[modality] == len(arrays)


def test_empty_frames_inside_an_announced_length_are_padding_at_either_end_only(tmp_path):
    content = make_mmsa("mosei_unaligned")  # frames beyond the lengths hold numbers here
    data = content["train"]
    data["audio_lengths"][0], data["vision_lengths"][0] = 30, 20
    data["audio"][0, :4] = data["audio"][0, 10:12] = data["audio"][0, 27:30] = 0
    row = convert_mmsa(write(content, tmp_path / "a.pkl"), tmp_path / "out")["train"].with_format("numpy")[0]
    np.testing.assert_array_equal(row["audio"], data["audio"][0, 4:27])
    assert not row["audio"][6:8].any() and len(row["vision"]) == 20
    report = read_report(tmp_path / "out").splits["train"]
    assert report.padded_in_front == {"audio": 1, "vision": 0}


def test_aligned_modalities_are_cut_at_the_same_steps(tmp_path):
    content = make_mmsa("mosi_aligned")
    data = content["train"]
    for modality, first in (("audio", 10), ("vision", 14)):
        data[modality][0] = 1
        data[modality][0, :first] = 0
    data["vision"][0, 45:] = 0
    row = convert_mmsa(write(content, tmp_path / "a.pkl"), tmp_path / "out")["train"].with_format("numpy")[0]
    assert len(row["audio"]) == len(row["vision"]) == 40
    assert not row["vision"][:4].any() and not row["vision"][35:].any() and row["vision"][4:35].all()


def test_published_sizes_are_recognised_and_others_remarked(tmp_path):
    convert_mmsa(write(make_mmsa("sims"), tmp_path / "a.pkl"), tmp_path / "out")
    report = read_report(tmp_path / "out")
    assert report.name == "sims" and "no published dataset" in report.remarks[0]
    convert_mmsa(write(make_mmsa("mosei_aligned"), tmp_path / "a.pkl"), tmp_path / "out", name="mosei")
    assert "as published has" in read_report(tmp_path / "out").remarks[0]


def with_classes(numbers=None, names=None):
    """A small MOSI whose training split says the classes of its utterances."""
    content = make_mmsa("mosi_aligned")
    for data in content.values():
        del data["classification_labels"], data["annotations"]
    content["train"]["regression_labels"][:] = [-2, -0.4, 0, 0.4, 1, 3]
    if numbers is not None:
        content["train"]["classification_labels"] = np.array(numbers, float)
    if names is not None:
        content["train"]["annotations"] = np.array(names)
    return content


@pytest.mark.parametrize(
    ("numbers", "names", "kept", "remark"),
    [
        (None, None, [np.nan] * 6, ""),
        ([0, 0, 1, 2, 2, 2], None, [0, 0, 1, 2, 2, 2], ""),
        ([-1, -1, 0, 1, 1, 1], None, [0, 0, 1, 2, 2, 2], ""),
        (
            None,
            ["Negative", "neutral", "Neutral", "Neutral", "Positive", "?"],
            [0, 1, 1, 1, 2, np.nan],
            "1 are not",
        ),
        ([0, 0, 1, 2, 2, 2], ["Negative"] * 5 + ["?"], [0, 0, 0, 0, 0, 2], "3 utterances: annotations and"),
        ([0, 1, 2, 3, 4, 6], None, [np.nan] * 6, "expected 0, 1, 2 or -1, 0, 1; left out"),
        ([0, 1], None, [np.nan] * 6, "found array [2]"),
    ],
)
def test_the_annotated_class_is_read(numbers, names, kept, remark, tmp_path):
    dataset = convert_mmsa(write(with_classes(numbers, names), tmp_path / "a.pkl"), tmp_path / "out")
    np.testing.assert_array_equal(dataset["train"]["label_class"][:], kept)
    assert np.isnan(dataset["test"]["label_class"][:]).all()
    assert remark in "\n".join(read_report(tmp_path / "out").remarks)


def test_classes_unlike_the_sign_of_their_label_are_remarked(tmp_path):
    names = ["Negative", "Neutral", "Neutral", "Neutral", "Positive", "Positive"]
    convert_mmsa(write(with_classes(names=names), tmp_path / "a.pkl"), tmp_path / "out")
    assert any(remark.startswith("2 utterances") for remark in read_report(tmp_path / "out").remarks)


@pytest.mark.parametrize(
    ("layout", "largest", "chinese", "name", "scale"),
    [
        ("mosi_aligned", 3.0, False, None, 3),
        ("mosi_aligned", 3.0, True, None, 3),
        ("mosi_aligned", 1.0, True, None, 1),  # CH-SIMS without its unimodal labels
        ("mosi_aligned", 0.3, False, "mosi", 3),
        ("mosi_aligned", 0.3, False, "sims", 1),
        ("sims", 0.3, True, None, 1),
    ],
)
def test_the_scale_of_the_labels_is_read_from_them(layout, largest, chinese, name, scale, tmp_path):
    content = with_largest(make_mmsa(layout), largest, chinese)
    dataset = convert_mmsa(write(content, tmp_path / "a.pkl"), tmp_path / "out", name=name)
    assert schema.scale_of(dataset) == scale


def test_a_scale_that_nothing_tells_is_asked_for(tmp_path):
    content = with_largest(make_mmsa("mosi_aligned"), 0.8, chinese=False)
    with pytest.raises(DatasetError, match="--name mosi or --name sims"):
        convert_mmsa(write(content, tmp_path / "a.pkl"), tmp_path / "out")


def with_largest(content, largest, chinese):
    """The content with labels up to `largest`, and texts in one language."""
    for data in content.values():
        labels = np.abs(data["regression_labels"])
        data["regression_labels"] = data["regression_labels"] / labels.max() * largest
        data["raw_text"] = ["这电影真好看" if chinese else "a good film"] * len(labels)
    return content


def texts_of(column, tmp_path, protocol=4):
    """What comes out of a column of texts, and the remarks on it."""
    content = make_mmsa("mosi_aligned", sizes=(len(column),) * 3)
    for data in content.values():
        data["raw_text"] = column
    path = write(content, tmp_path / "a.pkl", protocol)
    dataset = convert_mmsa(path, tmp_path / "out", name="mosi")
    return dataset["train"]["text"][:], read_report(tmp_path / "out").remarks


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (["good", None, float("nan")], ["good", "", ""]),
        (np.array(["good", None, np.nan], object), ["good", "", ""]),
        (np.array(["good", "nan", "None"]), ["good", "", ""]),
        ([["a", "good", "film"], [], ["fine"]], ["a good film", "", "fine"]),
        ([["这", "电影", "好看"], ["好"], []], ["这电影好看", "好", ""]),
        (np.array([[b"sp", b"it's", b""], [b"good", b"sp", b"film"]]), ["it's", "good film"]),
        ([np.array(["a", "film"]), ("so", "so")], ["a film", "so so"]),
        (["这电影真好看".encode(), "It’s great".encode()], ["这电影真好看", "It’s great"]),
        (["这电影真好看".encode("gbk"), "我很喜欢".encode("gbk")], ["这电影真好看", "我很喜欢"]),
        (["It’s “great”".encode("cp1252"), "café".encode("cp1252")], ["It’s “great”", "café"]),
        (["It’s great".encode().decode("latin-1"), "plain"], ["It’s great", "plain"]),
        (["It’s great".encode().decode("cp1252"), "plain"], ["It’s great", "plain"]),
        (["half \ud83d a pair", "x"], ["half ? a pair", "x"]),
        ([7, "x"], ["7", "x"]),
    ],
)
def test_texts_are_the_words_that_people_meant(column, texts, tmp_path):
    assert texts_of(column, tmp_path)[0] == texts


def test_strings_of_python_2_are_read_as_utf_8(tmp_path):
    # Python 2 wrote `str` as bytes with an operation of their own; protocol 2 of Python 3 cannot.
    content = make_mmsa("mosi_aligned")
    for data in content.values():
        data["raw_text"] = ["@@@@@@@@@@@@@@@@@@"] * len(data["id"])
    whole = pickle.dumps(content, 2)
    unicode = b"X\x12\0\0\0" + b"@" * 18
    assert unicode in whole
    path = tmp_path / "a.pkl"
    path.write_bytes(whole.replace(unicode, b"U\x12" + "这电影真好看".encode()))
    dataset = convert_mmsa(path, tmp_path / "out", name="mosi")
    assert set(dataset["train"]["text"][:]) == {"这电影真好看"}


def test_missing_texts_are_counted(tmp_path):
    remarks = texts_of(["good", None, None], tmp_path)[1]
    assert any(remark.startswith("6 utterances have no text") for remark in remarks)


@pytest.mark.parametrize(
    "column", [[1.5, 2.5], [{"a": 1}, "x"], [b"\xdd\xe0\xf0\xee\xe4 \xf1\xeb\xee\xe2", b"x"]]
)
def test_what_is_no_text_or_in_an_unknown_encoding_is_refused(column, tmp_path):
    with pytest.raises(DatasetError, match="raw_text"):
        texts_of(column, tmp_path)


@pytest.mark.parametrize("name", ["dev", "val", "validation", "Valid", b"valid"])
def test_a_validation_split_is_found_under_its_other_names(name, tmp_path):
    content = make_mmsa("mosi_aligned")
    content[name] = content.pop("valid")
    dataset = convert_mmsa(write(content, tmp_path / "a.pkl"), tmp_path / "out")
    assert {split: len(part) for split, part in dataset.items()} == {"train": 6, "valid": 3, "test": 4}


def test_a_file_of_mult_gets_a_hint(tmp_path):
    content = make_mmsa("mosi_aligned")
    for data in content.values():
        del data["raw_text"]
        data["labels"] = data.pop("regression_labels").reshape(-1, 1, 1)
    with pytest.raises(DatasetError, match=r"MulT.*raw_text"):
        convert_mmsa(write(content, tmp_path / "a.pkl"), tmp_path / "out")
    for data in content.values():
        data["raw_text"] = ["words"] * len(data["id"])
    dataset = convert_mmsa(write(content, tmp_path / "a.pkl"), tmp_path / "out")
    assert dataset["train"]["label"][:] == content["train"]["labels"].ravel().tolist()


def test_frames_beyond_an_announced_length_are_counted(tmp_path):
    content = make_mmsa("mosi_unaligned")
    for data in content.values():
        for i, length in enumerate(data["audio_lengths"]):
            data["audio"][i, length:] = 0
    content["train"]["audio"][2, :20] = 1
    content["train"]["audio_lengths"][2] = 10
    convert_mmsa(write(content, tmp_path / "a.pkl"), tmp_path / "out")
    assert read_report(tmp_path / "out").splits["train"].beyond_lengths["audio"] == 1


def test_every_mismatch_is_listed_in_one_error(tmp_path):
    content = make_mmsa("mosi_unaligned")
    content["train"]["audio"] = content["train"]["audio"][:, 0]
    content["valid"].pop("raw_text")
    content["test"]["vision"] = content["test"]["vision"][:, :, :7]
    content["test"]["regression_labels"] = content["test"]["regression_labels"][:-1]
    content["train"]["audio_lengths"][0] = -4
    with pytest.raises(DatasetError) as caught:
        convert_mmsa(write(content, tmp_path / "a.pkl"), tmp_path / "out")
    message = str(caught.value)
    for part in (
        "train.audio: found array [6, 5] of float32, expected [6, La, da]",
        "valid.raw_text: found nothing",
        "vision: found widths {'train': 20, 'valid': 20, 'test': 7}",
        "test.regression_labels: found array [3] of float32, expected [4] numbers",
        "train.audio_lengths: found -4",
        "keys found",
    ):
        assert part in message, message
    assert not (tmp_path / "out").exists()


def test_labels_off_the_scale_and_missing_splits_are_refused(tmp_path):
    content = make_mmsa("sims")
    content["train"]["regression_labels"][0] = 2.6
    with pytest.raises(DatasetError, match=r"values up to 2\.6, expected \[-1, 1\]"):
        convert_mmsa(write(content, tmp_path / "a.pkl"), tmp_path / "out")
    with pytest.raises(DatasetError, match="valid: found nothing"):
        convert_mmsa(write({"train": content["train"]}, tmp_path / "a.pkl"), tmp_path / "out")
    with pytest.raises(DatasetError, match="list of 2, expected a dict of the splits"):
        convert_mmsa(write([1, 2], tmp_path / "a.pkl"), tmp_path / "out")
    with pytest.raises(DatasetError, match="expected one of mosi"):
        convert_mmsa(tmp_path / "a.pkl", tmp_path / "out", name="iemocap")


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"echo pwned > {self.path}",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_malicious_pickle_is_refused_by_name_and_writes_nothing(protocol, tmp_path):
    content = make_mmsa("mosi_aligned")
    content["train"]["annotations"] = Evil(tmp_path / "written")
    path = write(content, tmp_path / "a.pkl", protocol)
    with pytest.raises(DatasetError, match=f"{os.system.__module__}.system"):
        convert_mmsa(path, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pkl"]
    with path.open("rb") as file:
        pickle.load(file)  # the same file does write where it is trusted
    assert (tmp_path / "written").exists()


@pytest.mark.parametrize(
    "program",
    [
        b'cbuiltins\neval\n(S\'open("written", "w")\'\ntR.',
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\nfromfile\n(S'x'\ntR.",
        b"cbuiltins\nbytes\n(I99999999999\ntR.",
        b"cbuiltins\ngetattr\n.",
        b"cos\nsystem\n.",
        b"\x82\x01.",
        b"Pabc\n.",
        b"cnumpy\ndtype\n(S'O8'\ntRcnumpy\ndtype\n\x85R.",
    ],
)
def test_programs_in_a_pickle_are_refused(program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pkl").write_bytes(program)
    with pytest.raises(DatasetError):
        load_pickle(tmp_path / "a.pkl")
    assert [p.name for p in tmp_path.iterdir()] == ["a.pkl"]


def test_lengths_beyond_the_file_ask_for_no_memory(tmp_path):
    for opcode in (b"\x8e", b"\x8d", b"\x96"):  # BINBYTES8, BINUNICODE8, BYTEARRAY8
        (tmp_path / "a.pkl").write_bytes(b"\x80\x05" + opcode + (40 * 2**30).to_bytes(8, "little") + b"abc.")
        with pytest.raises(DatasetError, match="not a whole pickle"):
            load_pickle(tmp_path / "a.pkl")
    # A memo index of 4 billion: the C unpickler would make room for them all.
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02K\x01r\xff\xff\xff\xff.")
    assert load_pickle(tmp_path / "a.pkl") == 1


def loaded(program, tmp_path):
    """What the bytes of a pickle load to."""
    (tmp_path / "a.pkl").write_bytes(program)
    return load_pickle(tmp_path / "a.pkl")


NESTED_TUPLES = b"\x80\x04K\x01" + b"2\x86" * 60  # t = (t, t), sixty times


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(b"\x80\x04}" + NESTED_TUPLES[2:] + b"K\x01s.", id="a key whose hash takes 2^60 steps"),
        pytest.param(b"\x80\x04\x8f(" + NESTED_TUPLES[2:] + b"\x90.", id="such an item of a set"),
        pytest.param(b"\x80\x04}K\x01" + b"\x85" * 100_000 + b"K\x01s.", id="a key a hundred thousand deep"),
        pytest.param(b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".", id="lists a hundred thousand deep"),
        pytest.param(b"\x80\x04(" + b"K\x01" * 300_000 + b"l.", id="many operations"),
        pytest.param(
            b"\x80\x04(cbuiltins\nlist\nq\x000("
            + b"K\x01" * 100_000
            + b"lq\x010"
            + b"h\x00h\x01\x85R" * 5_000
            + b"l.",
            id="one list copied five thousand times",
        ),
        pytest.param(
            b"\x80\x02(c_codecs\nencode\nq\x000X\x00\x00\x10\x00"
            + b"a" * 2**20
            + b"q\x010U\x06latin1q\x020"
            + b"h\x00h\x01h\x02\x86R" * 200
            + b"l.",
            id="one text encoded two hundred times",
        ),
        pytest.param(b"\x80\x02\x8b\x00\x00\x10\x00" + b"\x7f" * 2**20 + b".", id="a number of a megabyte"),
    ],
)
@pytest.mark.timeout(60)
def test_a_small_pickle_can_not_ask_for_endless_time_or_memory(program, tmp_path, monkeypatch):
    monkeypatch.setattr(safe_pickle, "_OPERATIONS", 250_000)
    with pytest.raises(DatasetError) as refused:
        loaded(program, tmp_path)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    "program",
    [
        b"cnumpy\nndarray\n(N}(Vnumpy\ncnumpy.core.multiarray\nscalar\nutb.",
        b"cnumpy\nndarray\n}(Vnumpy\nN\x75b.",
        b"cnumpy.core.multiarray\n_reconstruct\n}(Vmarked\nN\x75b.",
    ],
)
def test_a_pickle_changes_nothing_of_the_reader(program, tmp_path):
    with pytest.raises(DatasetError):
        loaded(program, tmp_path)
    array = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(load_pickle(write(array, tmp_path / "good.pkl", 2)), array)


@pytest.mark.parametrize("place", ["module", "key", "opcode"])
def test_messages_echo_little_of_a_pickle_and_no_control_character(place, tmp_path):
    rude = "\x1b[31mred\x07" + "x" * 5000
    path = tmp_path / "a.pkl"
    if place == "module":
        path.write_bytes(b"c" + rude.encode() + b"\nname\n.")
    elif place == "key":
        write({"train": {rude: 1}, rude: 2}, path)
    else:
        path.write_bytes(b"\x80\x04\x1b[31m")
    with pytest.raises(DatasetError) as refused:
        convert_mmsa(path, tmp_path / "out")
    said = str(refused.value).replace("\n", "")
    assert said.isprintable() and "x" * 200 not in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\n <!DOCTYPE html><html>Google Drive can't scan this file</html>", "web page"),
        (b'{"error": "no access"}', "JSON"),
        (b"PK\x03\x04" + b"\0" * 40, "ZIP"),
        (b"\x1f\x8b\x08" + b"\0" * 40, "gunzip"),
        (b"\0" * 257 + b"ustar", "TAR"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\0" * 5000, "zeros"),
    ],
)
def test_a_file_that_is_no_pickle_is_named_as_what_it_is(content, said, tmp_path):
    with pytest.raises(DatasetError, match=said):
        loaded(content, tmp_path)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_copied_as_text_is_named_so(protocol, tmp_path):
    whole = pickle.dumps(make_mmsa("mosi_aligned"), protocol)
    with pytest.raises(DatasetError, match="as text"):
        loaded(whole.replace(b"\n", b"\r\n"), tmp_path)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_transposed_arrays_load(protocol, tmp_path):
    array = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)
    for axes in ((0, 2, 1), (2, 0, 1), (2, 1, 0)):
        np.testing.assert_array_equal(
            load_pickle(write(array.transpose(axes), tmp_path / "a.pkl", protocol)), array.transpose(axes)
        )


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_containers_survive_every_protocol(protocol, tmp_path):
    rng = np.random.default_rng(0)
    big = rng.normal(size=(60, 40, 7))
    content = {
        "big": big,
        "fortran": np.asfortranarray(big[0]),
        "big_endian": np.arange(4).astype(">i4"),
        "text": np.array(["a", "bé", "你好"]),
        "objects": np.array(["x", None, 3], object),
        "empty": np.zeros((0, 4)),
        "list": [np.float32(3), np.int64(5), np.str_("hey"), b"raw", b"", 1.5, None, True, {1, 2}, (1, "é")],
        "bytes": b"x" * 100_000,
        "string": "é" * 100_000,
    }
    back = load_pickle(write(content, tmp_path / "a.pkl", protocol))
    assert list(back) == list(content)
    assert back["list"] == content["list"] and type(back["list"][0]) is np.float32
    assert back["bytes"] == content["bytes"] and back["string"] == content["string"]
    for key, value in content.items():
        if isinstance(value, np.ndarray):
            assert back[key].dtype == value.dtype and back[key].shape == value.shape
            np.testing.assert_array_equal(back[key], value)


def damaged(rng, whole):
    """One random damage of a pickle's bytes."""
    data = bytearray(whole)
    kind = rng.integers(3)
    if kind == 0:
        return bytes(data[: rng.integers(0, len(data))])
    for _ in range(int(rng.integers(1, 12))):
        # Half of the flips hit the first kilobytes, where keys, types and shapes stand.
        at = int(rng.integers(min(len(data), 4000) if rng.random() < 0.5 else len(data)))
        data[at] = int(rng.integers(256)) if kind == 1 else data[at] ^ (1 << int(rng.integers(8)))
    return bytes(data)


def misshapen(rng):
    """A pickle whose content does not fit."""
    content = make_mmsa(str(rng.choice(list(LAYOUTS))), seed=int(rng.integers(1 << 30)))
    data = content[str(rng.choice(schema.SPLITS))]
    key = str(rng.choice([k for k in data if k not in ("text", "annotations", "classification_labels")]))
    change = rng.integers(6)
    if change == 0:
        del data[key]
    elif change == 1:
        data[key] = data[key][:-1]
    elif change == 2:
        data[key] = np.asarray(data[key])[None]
    elif change == 3:
        data[key] = [None] * 3
    elif change == 4:
        data[key] = {"a": 1}
    else:
        data[key] = "text instead"
    return pickle.dumps(content)


def fuzz(count, seed, tmp_path):
    """Every damaged pickle converts (the damage hit a value) or ends in the kit's own error."""
    rng = np.random.default_rng(seed)
    whole = [pickle.dumps(make_mmsa(layout), protocol=p) for layout, p in (("mosi_aligned", 2), ("sims", 4))]
    refused = 0
    for i in range(count):
        path = tmp_path / f"{i}.pkl"
        path.write_bytes(misshapen(rng) if i % 3 == 0 else damaged(rng, whole[i % 2]))
        try:
            convert_mmsa(path, tmp_path / "out")
        except DeepMLFError as error:
            assert len(str(error)) < 5000
            refused += 1
        finally:
            path.unlink()
    return refused


@pytest.mark.timeout(120)
def test_damaged_pickles_end_in_a_clear_error(tmp_path):
    assert fuzz(15, 1, tmp_path) >= 5


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_damaged_pickles_end_in_a_clear_error(tmp_path):
    assert fuzz(240, 2, tmp_path) >= 100
