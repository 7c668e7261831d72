import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from deepmlf_kit.data import schema
from deepmlf_kit.data.collate import Collator
from deepmlf_kit.data.normalize import ClipReference, Normalizer
from deepmlf_kit.data.schema import DatasetError
from deepmlf_kit.model.special_tokens import kept_tokens


@pytest.fixture
def tokenizer():
    words = {w: i for i, w in enumerate(["<unk>", "<eos>", "a", "b", "c"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", eos_token="<eos>")


def row(text, la, lv, label=0.5, da=3, dv=2):
    audio = np.arange(1, la * da + 1, dtype=np.float32).reshape(la, da)
    vision = np.arange(1, lv * dv + 1, dtype=np.float32).reshape(lv, dv)
    return {"text": text, "audio": audio, "vision": vision, "label": label}


def test_batch_has_the_shapes_types_and_masks_of_the_contract(tokenizer):
    batch = Collator(tokenizer, 5)([row("a b", 4, 1), row("a b c a b c a", 2, 3, label=-3)])
    assert batch["input_ids"].tolist() == [[2, 3, 1, 1, 1], [4, 2, 3, 4, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0, 0], [1] * 5]
    assert batch["audio"].shape == (2, 4, 3) and batch["vision"].shape == (2, 3, 2)
    assert batch["audio_mask"].tolist() == [[True] * 4, [True, True, False, False]]
    assert batch["vision_mask"].tolist() == [[True, False, False], [True] * 3]
    assert batch["labels"].tolist() == [0.5, -3.0]
    kinds = {name: value.dtype for name, value in batch.items()}
    assert kinds == {
        "input_ids": torch.int64,
        "attention_mask": torch.int64,
        "audio": torch.float32,
        "audio_mask": torch.bool,
        "vision": torch.float32,
        "vision_mask": torch.bool,
        "audio_spans": torch.float32,
        "vision_spans": torch.float32,
        "labels": torch.float32,
    }
    assert batch["audio_spans"].shape == (2, 4, 2) and batch["vision_spans"].shape == (2, 3, 2)


def test_text_is_trimmed_to_the_longest_of_the_batch(tokenizer):
    assert Collator(tokenizer, 50).text(["a", "a b c"])["input_ids"].shape == (2, 3)


@pytest.mark.parametrize(("long_texts", "read"), [("end", [4, 2, 3]), ("start", [2, 3, 4])])
def test_of_a_long_text_the_named_part_is_read(tokenizer, long_texts, read):
    collator = Collator(tokenizer, 3, long_texts=long_texts)
    assert collator.text(["a b c a b", "a"])["input_ids"].tolist() == [read, [2, 1, 1]]
    assert collator.lengths(["a b c a b", "a"]) == [5, 1]


@pytest.mark.parametrize(
    ("text", "read"),
    [("a b", "a b."), ("a b ", "a b."), ("a b.", "a b."), ("a?", "a?"), ("a,", "a,"), ("", ""), ("  ", "")],
)
def test_with_full_stop_a_final_stop_makes_no_difference(tokenizer, text, read):
    whole = Collator(tokenizer, 50).text([read])
    found = Collator(tokenizer, 50, full_stop=True).text([text])
    assert found["input_ids"].tolist() == whole["input_ids"].tolist()


@pytest.mark.parametrize(
    ("special", "longest", "end", "start"),
    [
        ([1, 0, 0, 0, 1], 4, [0, 2, 3, 4], [0, 1, 2, 4]),  # [CLS] a b c [SEP]
        ([1, 0, 0, 0], 3, [0, 2, 3], [0, 1, 2]),  # <s> a b c
        ([0, 0, 0], 3, [0, 1, 2], [0, 1, 2]),
        ([1, 0, 1], 1, [0], [0]),  # no room for a word
        ([1, 1], 5, [0, 1], [0, 1]),
    ],
)
def test_the_tokens_around_a_text_are_kept(special, longest, end, start):
    assert kept_tokens(special, longest, "end") == end and kept_tokens(special, longest, "start") == start


def test_empty_text_becomes_one_token(tokenizer):
    out = Collator(tokenizer, 5).text(["", "a"])
    assert out["input_ids"].tolist() == [[1], [2]]
    assert out["attention_mask"].tolist() == [[1], [1]]


def test_nan_and_infinities_become_zero_and_zero_rows_are_missing(tokenizer):
    bad = row("a", 4, 1)
    bad["audio"][0] = [np.nan, -np.inf, np.inf]
    bad["audio"][1] = [np.nan, 1, 2]
    bad["audio"][2] = 0
    batch = Collator(tokenizer, 5)([bad])
    assert batch["audio_mask"].tolist() == [[False, True, False, True]]
    assert batch["audio"][0, :3].tolist() == [[0, 0, 0], [0, 1, 2], [0, 0, 0]]


def test_missing_modality_gives_a_masked_frame(tokenizer):
    batch = Collator(tokenizer, 5)([row("a", 0, 2), row("b", 0, 1)])
    assert batch["audio"].shape == (2, 1, 3) and not batch["audio_mask"].any()
    nothing = {"text": "a", "audio": [], "vision": [[1.0, 2.0]]}
    batch = Collator(tokenizer, 5, audio_dim=7)([nothing])
    assert batch["audio"].shape == (1, 1, 7) and torch.isnan(batch["labels"]).all()


def test_long_sequences_are_averaged_over_adjacent_valid_frames(tokenizer):
    long = row("a", 7, 1)
    long["audio"] = np.arange(1, 8, dtype=np.float32)[:, None].repeat(3, 1)
    long["audio"][1] = 0
    batch = Collator(tokenizer, 5, max_audio_frames=3)([long])
    assert batch["audio"][0, :, 0].tolist() == [2.0, 5.0, 7.0]  # frames 1-3 without 2, 4-6, 7
    np.testing.assert_allclose(batch["audio_spans"][0], np.array([[0, 3], [3, 6], [6, 7]]) / 7, atol=1e-6)


def test_width_that_does_not_fit_is_refused(tokenizer):
    with pytest.raises(DatasetError, match="one d"):
        Collator(tokenizer, 5)([row("a", 2, 1), row("a", 2, 1, da=4)])
    with pytest.raises(DatasetError, match="one d = 9"):
        Collator(tokenizer, 5, audio_dim=9)([row("a", 2, 1)])


def normal_split():
    rng = np.random.default_rng(1)
    rows = []
    for i in range(40):
        audio = rng.normal([100, -3, 7], [10, 0.1, 0], (30, 3))
        audio[::5] = 0
        rows.append(
            schema.utterance(str(i), "a", audio, rng.normal(0, 2, (i % 3, 2)), audio_dim=3, vision_dim=2)
        )
    return schema.build_split(rows, 3, 2)


def test_normalizer_ignores_missing_frames_and_leaves_them_zero(tokenizer):
    split = normal_split()
    normalizer = Normalizer.fit(split)
    np.testing.assert_allclose(normalizer.statistics["audio"].mean, [100, -3, 7], rtol=0.02)
    assert normalizer.statistics["audio"].std[2] == 0
    again = Normalizer.from_dict(normalizer.to_dict())
    np.testing.assert_array_equal(again.statistics["vision"].std, normalizer.statistics["vision"].std)
    batch = Collator(tokenizer, 5, normalizer=again)(list(schema.for_batches(split)))
    valid = batch["audio"][batch["audio_mask"]]
    np.testing.assert_allclose(valid.mean(0), [0, 0, 0], atol=0.01)
    np.testing.assert_allclose(valid.std(0), [1, 1, 0], atol=0.02)
    assert not batch["audio"][~batch["audio_mask"]].any()


def test_normalised_outliers_are_clipped():
    normalizer = Normalizer.fit(normal_split())
    assert normalizer.statistics["audio"].apply(np.array([[1e9, -1e9, 0]], np.float32)).tolist() == [
        [5, -5, 0]
    ]


def test_three_classes_are_those_that_people_chose_else_the_sign(tokenizer):
    rows = [
        {**row("a", 2, 1), "label": label, "label_class": chosen}
        for label, chosen in ((-0.5, 1.0), (-0.5, np.nan), (2.0, 0.0))
    ]
    assert Collator(tokenizer, 5, classes=3)(rows)["labels"].tolist() == [1, 0, 0]
    assert Collator(tokenizer, 5, classes=2)(rows)["labels"].tolist() == [0, 0, 1]
    assert Collator(tokenizer, 5)(rows)["labels"].tolist() == [-0.5, -0.5, 2]


def test_a_voice_relative_to_its_clip_does_not_tell_the_microphone_or_the_depth_of_the_voice() -> None:
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(60, 25)).astype(np.float32)
    frames[:, 10] = 30 + frames[:, 10]
    frames[::4, 10:13] = 0.0  # no pitch, so no jitter nor shimmer either
    frames[::4, 18] = -201.0
    frames[:, 0] = np.abs(frames[:, 0])
    own = ClipReference(pitch=10, levels=(0,))
    moved = frames.copy()
    moved[:, 0] *= 3.0  # a louder microphone
    moved[frames[:, 10] > 0, 10] -= 8.0  # a deeper voice
    valid = np.ones(60, bool)
    ours, theirs = own.apply(frames, valid), own.apply(moved, valid)
    assert np.allclose(ours, theirs, atol=1e-4)
    assert not ours[::4, [10, 11, 12, 18]].any()
    assert np.abs(np.median(ours[frames[:, 10] > 0], axis=0)).max() < 1e-5
    assert not np.allclose(ours, own.apply(frames * 1.5, valid), atol=0.1)


def test_normalising_relative_to_the_clip_reaches_the_batch_and_survives_json(tokenizer) -> None:
    split = normal_split()
    normalizer = Normalizer.fit(split, relative_audio=True)
    again = Normalizer.from_dict(json.loads(json.dumps(normalizer.to_dict())))
    assert again.statistics["audio"].reference == ClipReference()
    assert again.statistics["vision"].reference is None
    quiet = next(iter(schema.for_batches(split)))
    louder = {**quiet, "audio": np.where(quiet["audio"].any(1, keepdims=True), quiet["audio"] + 3.0, 0)}
    batch = Collator(tokenizer, 8, normalizer=again)([quiet, louder])
    assert torch.allclose(batch["audio"][0], batch["audio"][1], atol=1e-4)
