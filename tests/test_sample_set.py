import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deepmlf_kit.data import schema
from deepmlf_kit.data.sample import SHORTEST, label_of, make_sample, make_utterance
from deepmlf_kit.data.sample_grammar import Sentence, make_sentence
from deepmlf_kit.data.sample_signals import (
    Expression,
    make_audio,
    make_speaker,
    make_vision,
    statistics,
    time_words,
)
from deepmlf_kit.data.schema import DatasetError


@pytest.fixture(scope="module")
def small():
    return make_sample(seed=3, train=150, valid=10, test=20)


def test_set_fits_the_schema_and_the_announced_sizes(small):
    schema.check(small)
    assert [len(small[split]) for split in schema.SPLITS] == [150, 10, 20]
    assert schema.dims_of(small) == (25, 58)
    for split in small.values():
        for row in split.with_format("numpy"):
            assert np.isfinite(row["audio"]).all() and np.isfinite(row["vision"]).all()
            assert len(row["audio"]) == len(row["audio_times"]) and len(row["vision"]) == len(
                row["vision_times"]
            )
            assert SHORTEST - 0.1 <= row["audio_times"][-1] <= 6.0
            assert -3 <= row["label"] <= 3
            assert 4 <= len(str(row["text"]).split()) <= 30
            assert (row["vision"][:, :52] >= 0).all() and (row["vision"][:, :52] <= 1).all()


def test_recipe_is_what_a_real_clip_would_be_extracted_with(small):
    from deepmlf_kit.features.recipe import FeatureRecipe

    recipe = FeatureRecipe.from_json(small["test"][0]["recipe"])
    assert (recipe.audio, recipe.vision, recipe.fps) == ("egemaps", "blendshapes", 10.0)


def test_dimensions_are_the_extractors_own():
    from deepmlf_kit.features.audio_egemaps import AUDIO_NAMES
    from deepmlf_kit.features.vision_blendshapes import VISION_NAMES

    assert statistics()["audio"]["names"] == list(AUDIO_NAMES)
    assert statistics()["vision"]["names"] == list(VISION_NAMES)


def test_same_seed_same_set_other_seed_other_set(small):
    again = make_sample(seed=3, train=150, valid=10, test=20)
    other = make_sample(seed=4, train=150, valid=10, test=20)
    for column in ("id", "text", "audio", "vision", "label", "words"):
        assert again["test"].data.column(column).to_pylist() == small["test"].data.column(column).to_pylist()
    assert other["test"]["text"][:] != small["test"]["text"][:]


def test_words_carry_times_in_order_within_the_sound(small):
    for row in small["train"]:
        assert " ".join(word["word"] for word in row["words"]) == row["text"]
        edges = [t for word in row["words"] for t in (word["start"], word["end"])]
        assert edges == sorted(edges) and edges[0] >= 0
        assert edges[-1] <= row["audio_times"][-1] + 0.1


def test_voice_is_heard_where_words_are():
    rng = np.random.default_rng(0)
    sentence = make_sentence(rng, 1)
    spoken = time_words(rng, sentence.words, sentence.strong, Expression(0, 0), 1.5, 6)
    audio, times = make_audio(rng, make_speaker(rng), spoken)
    inside = np.zeros(len(times), bool)
    for word in spoken.words:
        inside |= (times >= word["start"] - 0.02) & (times <= word["end"] + 0.02)
    pitch = audio[:, 10]
    assert not pitch[~inside].any()
    assert (pitch[inside] > 0).mean() > 0.4
    assert audio[inside, 0].mean() > 3 * audio[~inside, 0].mean()


def test_means_and_spreads_are_those_of_real_speech(small):
    real = statistics()["audio"]
    audio = np.concatenate(list(small["train"].with_format("numpy")["audio"]))
    voiced = audio[audio[:, 10] > 0]
    spread = np.hypot(real["voiced"]["std"], real["voiced"]["between"])
    assert (np.abs(voiced.mean(0) - real["voiced"]["mean"]) < 1.2 * spread).all()
    ratio = voiced.std(0) / spread
    assert (ratio > 0.3).all() and (ratio < 2.0).all()


def test_a_smile_and_lowered_brows_show_where_the_real_ones_do():
    rng = np.random.default_rng(1)
    sentence = make_sentence(rng, 0)
    spoken = time_words(rng, sentence.words, None, Expression(0, 0), 1.5, 6)
    column = {name: i for i, name in enumerate(statistics()["vision"]["names"])}

    def mean_of(face):
        meant = replace(spoken, expression=Expression(face, 0))
        clips = [make_vision(rng, make_speaker(rng), meant)[0] for _ in range(20)]
        return np.concatenate(clips).mean(0)

    smile, calm, frown = mean_of(1.0), mean_of(0.0), mean_of(-1.0)
    assert smile[column["mouthSmileLeft"]] > calm[column["mouthSmileLeft"]] + 0.3
    assert frown[column["browDownLeft"]] > calm[column["browDownLeft"]] + 0.25


def test_irony_turns_the_words_round_and_neutral_words_leave_it_to_the_face():
    praise = Sentence(("that", "was", "great"), 2.0, 2)
    plain = Sentence(("it", "starts", "at", "nine"), 0.0, None)
    assert label_of(praise, Expression(0.8, 0.8), False, True, True) > 2
    assert label_of(praise, Expression(0.8, -0.8), True, True, True) < -1
    assert label_of(plain, Expression(0.8, 0.7), False, True, True) > 1
    assert label_of(plain, Expression(-0.8, -0.7), False, True, True) < -1
    assert label_of(plain, Expression(0.8, -0.9), False, False, True) > 1  # nobody is heard: the face alone


def test_no_single_modality_tells_the_label():
    """Correlations over many utterances' true causes: an upper bound for any model of one modality."""
    rng = np.random.default_rng(0)
    speaker = make_speaker(rng)
    made = [make_utterance(rng, speaker) for _ in range(500)]
    label = np.array([u["label"] for u in made])
    said = np.array([u["sentence"].sentiment for u in made])
    shown = np.array([u["expression"].face + u["expression"].voice for u in made])
    sincere = np.array([not u["ironic"] for u in made])
    assert 0.2 < np.corrcoef(said, label)[0, 1] < 0.6
    assert 0.2 < np.corrcoef(shown, label)[0, 1] < 0.6
    assert np.corrcoef(np.where(sincere, said, -said), label)[0, 1] > 0.85


def test_grammar_composes_what_is_said():
    rng = np.random.default_rng(0)
    made = [make_sentence(rng, polarity) for polarity in (1, 0, -1) for _ in range(300)]
    assert all(sentence.sentiment > 0 for sentence in made[:300])
    assert all(sentence.sentiment == 0 and sentence.strong is None for sentence in made[300:600])
    assert all(sentence.sentiment < 0 for sentence in made[600:])
    assert len({word for sentence in made for word in sentence.words}) > 300
    negated = [s for s in made[:300] if "not" in s.words and "but" not in s.words and "and" not in s.words]
    assert negated and all(s.sentiment < 2.5 for s in negated)


def test_some_utterances_lack_a_voice_or_a_face(small):
    train = small["train"].with_format("numpy")
    assert any(not audio[:, 10].any() for audio in train["audio"])
    assert any(not vision.any() for vision in train["vision"])


def test_sizes_of_nothing_are_refused():
    with pytest.raises(DatasetError, match="above 0"):
        make_sample(train=0)


@pytest.mark.timeout(120)
def test_statistics_script_reproduces_the_asset(tmp_path):
    """On the clips it was fitted to, as nearly as decoders of different versions agree."""
    clips = Path(__file__).parents[1].parent / "shared" / "clips"
    model = clips.parent / "models" / "face_landmarker.task"
    if not clips.is_dir() or not model.is_file():
        pytest.skip("the real clips and the face model are not here")
    script = Path(__file__).parents[1] / "scripts" / "fit_sample_statistics.py"
    spec = importlib.util.spec_from_file_location("fit_sample_statistics", script)
    fit = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fit)
    from deepmlf_kit.features.audio_egemaps import egemaps
    from deepmlf_kit.features.media import read_audio

    voices = {}
    for clip in sorted(clips.glob("*.mp4")) + sorted(clips.glob("*.flac")):
        if clip.stem != "no_audio_face":
            sound = read_audio(clip)
            voices[clip.stem] = egemaps(sound.samples, sound.start)
    fitted = fit.fit_audio(voices)
    stored = statistics()["audio"]
    for kind in ("voiced", "unvoiced", "pause"):
        off = np.abs(fitted[kind]["mean"] - stored[kind]["mean"]) / np.maximum(stored[kind]["std"], 1e-6)
        assert (off < 0.2).all()
        np.testing.assert_allclose(fitted[kind]["std"], stored[kind]["std"], rtol=0.15, atol=1e-6)
