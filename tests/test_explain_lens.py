"""One call a question: rows, words, seconds, a whole split."""

import numpy as np
import pytest
import torch
from explain_fixtures import subword_tokenizer, tiny_lens

from deepmlf_kit.data.collate import Collator
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.explain import Lens, survey
from deepmlf_kit.explain.words import words_of


@pytest.fixture(scope="module")
def lens():
    return tiny_lens()


def test_tokens_belong_to_the_words_they_spell(lens):
    for i in range(len(lens)):
        row = lens.row(i)
        words = words_of(row["text"], lens.model.tokenizer, 100, row["words"])
        assert words.words == row["text"].split() and words.cut == 0
        for w, word in enumerate(words.words):
            assert "".join(words.tokens[t].strip() for t in words.tokens_of(w)) == word
        np.testing.assert_allclose(words.start, [entry["start"] for entry in row["words"]])


@pytest.mark.parametrize("long_texts", ["end", "start"])
def test_of_a_long_text_the_words_that_are_read_are_shown(long_texts):
    text = "the film was great and the film was long"
    words = words_of(text, subword_tokenizer([text]), 4, long_texts=long_texts)
    read = len(words.words)
    assert len(words.tokens) == 4 and 0 < read < 9 and read + words.cut == 9
    assert words.words == (text.split()[-read:] if long_texts == "end" else text.split()[:read])
    assert words.word_of.min() == 0 and words.word_of.max() == read - 1


def test_a_full_stop_that_is_read_belongs_to_no_word():
    tokenizer = subword_tokenizer(["so good ."])
    words = words_of("so good", tokenizer, 9, full_stop=True)
    ids = Collator(tokenizer, 9, full_stop=True).text(["so good"])["input_ids"][0]
    assert words.words == ["so", "good"]
    assert len(words.word_of) == len(ids) and words.word_of[-1] == -1 and words.tokens[-1].strip() == "."


def test_times_follow_the_words_by_spelling():
    tokenizer = subword_tokenizer(["well the film was great"])
    timed = [{"word": w, "start": i, "end": i + 0.5} for i, w in enumerate(["The", "film", "was", "great."])]
    words = words_of("well the film is great", tokenizer, 50, timed)
    assert np.isnan(words.start[0])  # never said
    assert list(words.start[1:]) == [0, 1, 2, 3]  # a corrected word keeps its time


def test_text_without_spaces_is_read_by_character():
    tokenizer = subword_tokenizer(["很 好 看"])
    assert words_of("很好看", tokenizer, 10).words == ["很", "好", "看"]


def test_words_that_one_token_reads_together_are_one():
    tokenizer = subword_tokenizer(["很好看"])  # learns a token of all three
    timed = [{"word": w, "start": i, "end": i + 1} for i, w in enumerate("很好看")]
    words = words_of("很好看", tokenizer, 10, timed)
    assert words.words == ["很好看"] and list(words.word_of) == [0]
    assert (words.start[0], words.end[0]) == (0, 3)


def test_repeated_words_have_names_of_their_own():
    tokenizer = subword_tokenizer(["so so good"])
    assert words_of("so so good", tokenizer, 10).labels == ["so", "so (2)", "good"]


def test_a_reading_has_seconds_and_words(lens):
    reading = lens.read(3)
    row = lens.row(3)
    assert reading.timed and reading.time_axis == "time (s)"
    assert len(reading.steps) == 20 and (np.diff(reading.steps) > 0).all()
    assert reading.steps[-1] <= row["audio_times"][-1] and reading.steps[0] >= row["audio_times"][0]
    assert reading.attention_to_words().shape == (4, 4, 4, len(reading.words.words))
    assert reading.sentiment == pytest.approx(float(reading.seen.output.prediction))
    assert set(reading.heads) == {"task", "text", "fusion", "av"}


def test_a_clip_of_ones_own_without_times_has_steps(lens):
    row = lens.row(3)
    mine = {"text": "a b", "audio": row["audio"], "vision": row["vision"]}
    reading = lens.read(mine)
    assert not reading.timed and reading.steps[-1] == 19 and reading.time_axis == "AV step"


def test_an_utterance_goes_by_number_or_id(lens):
    assert lens.row(lens.ids[5])["text"] == lens.row(5)["text"]
    assert lens.row(-1)["id"] == lens.ids[-1]
    with pytest.raises(DeepMLFError, match="16"):
        lens.row(16)
    with pytest.raises(DeepMLFError, match="nobody"):
        lens.row("nobody")


def test_other_words_and_missing_modalities_move_the_prediction(lens):
    whole = lens.read(0, "cross_attention")
    assert lens.predict(0).sentiment == pytest.approx(whole.sentiment, abs=1e-6)
    assert lens.predict(0, text="terrible").sentiment != pytest.approx(whole.sentiment, abs=1e-4)
    text_only = lens.predict(0, without=("audio", "vision"))
    assert not text_only.seen.av_mask.any()
    assert text_only.heads["text"] == pytest.approx(whole.heads["text"], abs=1e-5)
    without_text = lens.predict(0, without=("text",))
    assert (
        without_text.heads["av"] == pytest.approx(whole.heads["av"], abs=1e-5)
        and without_text.words.words == []
    )
    with pytest.raises(DeepMLFError, match="audio"):
        lens.predict(0, without=("smell",))


def test_donors_are_other_utterances(lens):
    donors = lens.donors(2, count=4)
    assert len(donors["input_ids"]) == 4
    video = lens.ids[2].split("$_$")[0]
    asked = []
    lens = Lens(lens.model, lens.dataset, collator=asked.extend)
    lens.donors(2, count=100)
    assert asked and {row["id"].split("$_$")[0] for row in asked} == {
        id.split("$_$")[0] for id in lens.ids
    } - {video}
    lens = tiny_lens()
    mine = lens.batch(2)
    for i in range(4):
        length = min(mine["input_ids"].shape[1], donors["input_ids"].shape[1])
        assert not torch.equal(donors["input_ids"][i, :length], mine["input_ids"][0, :length])


def test_a_survey_holds_the_predictions_of_the_heads(lens):
    found = lens.survey()
    assert len(found.table) == 16 and list(found.table["id"]) == lens.ids
    for i in (0, 7, 15):
        alone = lens.read(i, "gates")
        row = found.table.iloc[i]
        assert row["prediction"] == pytest.approx(alone.sentiment, abs=1e-4)
        assert row["fusion_head"] == pytest.approx(alone.heads["fusion"], abs=1e-4)
        assert row["error"] == pytest.approx(alone.sentiment - alone.label, abs=1e-4)
    assert found.specialisation.shape == (4, 3) and (found.specialisation > 0).all()
    assert abs(found.worst(1)["error"].iloc[0]) == pytest.approx(found.table["error"].abs().max())
    assert lens.survey() is found


def test_a_survey_replaces_voice_and_face_by_those_of_other_videos():
    lens = tiny_lens()
    videos = [i // 4 for i in range(16)]  # four clips of each in a row
    ids = [f"v{video}$_${i}" for i, video in enumerate(videos)]
    lens.rows = lens.rows.remove_columns("id").add_column("id", ids)
    found = lens.survey()
    assert all(videos[i] != videos[other] for i, other in enumerate(found.donors))
    assert found.replacement == "utterances of other videos"
    again = survey(lens.model, _rows(lens), lens.collator, batch_size=3)
    np.testing.assert_array_equal(again.donors, found.donors)
    np.testing.assert_allclose(again.specialisation, found.specialisation, atol=1e-5)
    other = survey(lens.model, _rows(lens), lens.collator, seed=1)
    assert (other.donors != found.donors).any()
    # The vision column is the change that comes of giving each utterance the vision of its donor.
    moved = []
    for i, donor in enumerate(found.donors):
        batch = lens.batch(i)
        vision = {name: value for name, value in lens.batch(int(donor)).items() if name.startswith("vision")}
        with torch.no_grad():
            before, after = (lens.model(**of).fusion_prediction[0] for of in (batch, {**batch, **vision}))
        moved.append((after - before).abs().numpy())
    np.testing.assert_allclose(np.mean(moved, axis=0), found.specialisation[:, 2], atol=1e-4)


def test_a_survey_of_one_video_says_that_its_own_clips_stand_in():
    lens = tiny_lens()
    lens.rows = lens.rows.remove_columns("id").add_column("id", [f"v$_${i}" for i in range(16)])
    found = lens.survey()
    assert all(i != other for i, other in enumerate(found.donors))
    assert "same video" in found.replacement
    alone = survey(lens.model, _rows(lens)[:1], lens.collator, specialise=False)
    assert alone.donors is None and len(alone.table) == 1
    with pytest.raises(DeepMLFError, match="at least two"):
        survey(lens.model, _rows(lens)[:1], lens.collator)


def _rows(lens):
    return [lens.row(i) for i in range(len(lens))]


def test_a_token_that_hears_nothing_does_not_specialise_on_voice():
    lens = tiny_lens()
    with torch.no_grad():
        for block in lens.model.mm_blocks.values():
            block.gate_1.alpha.fill_(-1e4)
    found = lens.survey().specialisation
    assert (found[:, 1:] < 1e-6).all() and (found[:, 0] > 0).all()


def test_what_cannot_be_opened_is_said(lens, tmp_path):
    with pytest.raises(DeepMLFError, match="dataset"):
        Lens(lens.model)
    with pytest.raises(DeepMLFError, match="No run"):
        Lens(tmp_path, lens.dataset)
    with pytest.raises(DeepMLFError, match="split"):
        Lens(lens.model, lens.dataset, split="dev")
