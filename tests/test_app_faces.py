"""Real faces move the bundled checkpoint the right way, words being neutral."""

import pytest

from deepmlf_kit.predict.bundled import DEMO, PEOPLE

NEUTRAL = "I will tell you about it now"


@pytest.mark.skipif(not (PEOPLE / "run.json").is_file(), reason="this checkout has no demo checkpoint")
def test_a_broad_smile_scores_above_lowered_brows(clips, face_model):
    from deepmlf_kit import Predictor

    predictor = Predictor(device="cpu")
    smile = predictor.clip(clips / "smile_short.mp4", NEUTRAL)
    frown = predictor.clip(clips / "frown_singing.mp4", NEUTRAL)
    assert smile.sentiment > frown.sentiment + 0.3
    assert smile.heads["av"] > frown.heads["av"]


def test_the_demo_checkpoint_is_small_and_names_no_path_of_a_machine():
    from deepmlf_kit.model.lm_loading import EMBEDDED_LM

    assert sum(path.stat().st_size for path in EMBEDDED_LM.rglob("*") if path.is_file()) <= 10_000_000
    for path in DEMO.rglob("*.json"):
        assert "/home/" not in path.read_text() and '"/' not in path.read_text()
    card = (DEMO / "README.md").read_text()
    assert "synthetic" in card and "Not for judging people" in card
