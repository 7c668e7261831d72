import os
import pickle

import numpy as np
import pytest

from deepmlf_kit.data import schema
from deepmlf_kit.data.inspect import inspect_dataset
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


@pytest.mark.parametrize(("layout", "scale"), [("mosi_aligned", 3), ("sims", 1)])
def test_the_scale_of_the_labels_is_kept(layout, scale, tmp_path):
    content = make_mmsa(layout)
    for data in content.values():
        data["regression_labels"] = data["regression_labels"] * 0.1  # small labels alone do not make it SIMS
    dataset = convert_mmsa(write(content, tmp_path / "a.pkl"), tmp_path / "out")
    assert schema.scale_of(dataset) == scale
    bins = inspect_dataset(dataset).labels.index
    assert (bins[0].split()[0], bins[-1].split()[-1]) == (f"-{scale}.00", f"+{scale}.00")


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
