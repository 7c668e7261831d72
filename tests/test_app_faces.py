"""Real faces move the bundled checkpoint the right way, words being neutral."""

import pytest

from deepmlf_kit.predict.bundled import PEOPLE

NEUTRAL = "I will tell you about it now"


@pytest.mark.skipif(not (PEOPLE / "run.json").is_file(), reason="this checkout has no demo checkpoint")
def test_a_broad_smile_scores_above_lowered_brows(clips, face_model):
    from deepmlf_kit import Predictor

    predictor = Predictor(device="cpu")
    smile = predictor.clip(clips / "smile_short.mp4", NEUTRAL)
    frown = predictor.clip(clips / "frown_singing.mp4", NEUTRAL)
    assert smile.sentiment > frown.sentiment + 0.3
    assert smile.heads["av"] > frown.heads["av"]


@pytest.mark.skipif(not (PEOPLE / "run.json").is_file(), reason="this checkout has no demo checkpoint")
def test_the_demo_checkpoint_is_small_and_names_no_path_of_a_machine():
    from deepmlf_kit.model.lm_loading import EMBEDDED_LM

    files = [path for folder in (PEOPLE, EMBEDDED_LM) for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 10_000_000
    for path in PEOPLE.rglob("*.json"):
        assert "/home/" not in path.read_text() and '"/' not in path.read_text()
    card = (PEOPLE / "README.md").read_text()
    assert "synthetic" in card and "Not for judging people" in card
