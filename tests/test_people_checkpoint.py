"""The checkpoints that the kit brings along answer people: plain words, faces, nothing at all."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepmlf_kit import Predictor
from deepmlf_kit.app.examples import shown_examples
from deepmlf_kit.app.kept import kept_answers
from deepmlf_kit.app.streams import answer_and_sum, with_word_effects
from deepmlf_kit.downloads.cache import cache_folder
from deepmlf_kit.features.vision_blendshapes import VISION_NAMES
from deepmlf_kit.model.fetched_lms import lm_is_at_hand
from deepmlf_kit.predict.bundled import PEOPLE

CACHE = cache_folder()  # where fetched models are; tests have a cache of their own
BETTER = PEOPLE.with_name("people-smollm2")
KIND = [
    "we had such a nice evening together", "this soup is really delicious", "I am so proud of you", "what a beautiful garden",
    "thank you so much for your help", "I love the way she sings", "that was a great idea", "the children were happy all day",
    "this is the best holiday we ever had", "he is a very good friend",
]  # fmt: skip
HARSH = [
    "I hate waiting in this awful queue", "the food was disgusting", "he is a terrible driver", "this phone is a piece of junk",
    "I am so angry about it", "that was the worst show I ever saw", "she was rude and unfair to us", "it is a sad and ugly place",
    "the whole trip was a disaster", "I am tired of these stupid lies",
]  # fmt: skip
NEUTRAL = [
    "the meeting starts at ten", "I put the keys on the table", "he walked to the station", "there are four chairs in the room",
    "the bus stops near the library", "she is reading the timetable",
]  # fmt: skip
SMILE = {"mouthSmileLeft": 0.85, "mouthSmileRight": 0.85, "cheekSquintLeft": 0.3, "cheekSquintRight": 0.3}
SCOWL = {
    "browDownLeft": 0.8,
    "browDownRight": 0.8,
    "mouthFrownLeft": 0.5,
    "mouthFrownRight": 0.5,
    "noseSneerLeft": 0.4,
    "noseSneerRight": 0.4,
}


def row(text: str = "", face: dict[str, float] | None = None) -> dict:
    """An utterance without a voice; a face is held for two seconds, at ten frames a second."""
    frames = np.zeros((0 if face is None else 20, len(VISION_NAMES)), np.float32)
    for name, value in (face or {}).items():
        frames[:, VISION_NAMES.index(name)] = value
    if face is not None:
        frames[:, VISION_NAMES.index("headZ")] = -40.0
    none = np.zeros(0, np.float32)
    times = (np.arange(len(frames)) * 0.1).astype(np.float32)
    return {
        "text": text,
        "words": [],
        "audio": np.zeros((0, 25), np.float32),
        "audio_times": none,
        "vision": frames,
        "vision_times": times,
    }


def checkpoint(name: str):
    """A parameter: the checkpoint on that language model."""
    if name == "embedded":
        return pytest.param(PEOPLE, id=name)
    absent = pytest.mark.skipif(not lm_is_at_hand(name), reason=f"needs `deepmlf fetch {name}`")
    return pytest.param(BETTER, id=name, marks=absent)


@pytest.fixture(scope="module", params=[checkpoint("embedded"), checkpoint("smollm2")])
def predictor(request: pytest.FixtureRequest) -> Predictor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPMLF_CACHE", str(CACHE))
        return Predictor(request.param, device="cpu")


def said(predictor: Predictor, *rows: dict, head: str = "task") -> np.ndarray:
    return predictor.rows(rows)[head]


def test_plain_words_get_the_right_sign(predictor):
    answers = said(predictor, *map(row, KIND + HARSH))
    right = (answers > 0) == (np.arange(20) < 10)
    assert right.sum() >= 17, [text for text, ok in zip(KIND + HARSH, right, strict=True) if not ok]


def test_case_and_final_stops_do_not_turn_an_answer_round(predictor):
    plain = said(predictor, *map(row, KIND + HARSH))
    stopped = said(predictor, *(row(f"{text[0].upper()}{text[1:]}.") for text in KIND + HARSH))
    assert np.abs(stopped - plain).mean() < 0.3
    for changed in (stopped, said(predictor, *(row(text.upper()) for text in KIND + HARSH))):
        sure = np.abs(plain) > 1.0
        assert (np.sign(changed) == np.sign(plain))[sure].mean() > 0.85
    alone = said(predictor, *(row(f"{text}.") for text in KIND + HARSH))
    assert np.abs(alone - plain).mean() < 0.15


def test_neutral_words_and_nothing_at_all_are_near_zero(predictor):
    assert np.abs(said(predictor, *map(row, NEUTRAL))).mean() < 0.4
    nothing = predictor.rows([row()])
    assert abs(nothing["task"][0]) < 0.4
    assert np.isnan(nothing["text"][0]) and np.isnan(nothing["av"][0])


def test_a_smile_is_kinder_than_a_scowl_whatever_is_said(predictor):
    for text in (NEUTRAL[0], KIND[1], HARSH[1]):
        smile, scowl = said(predictor, row(text, SMILE), row(text, SCOWL))
        assert smile > scowl + 0.3
    smile, scowl = said(predictor, row(NEUTRAL[0], SMILE), row(NEUTRAL[0], SCOWL), head="av")
    assert smile > 0 > scowl


def test_words_lead_where_they_are_strong(predictor):
    kind, harsh = said(predictor, row(KIND[3], SCOWL), row(HARSH[1], SMILE))
    assert kind > harsh


def test_intervals_hold_four_labels_of_five_on_held_out_data(predictor):
    assert 0.75 <= predictor.run.info["calibration"]["held_out"]["any"] <= 0.85
    assert predictor.run.info["calibration"]["held_out_signs"]["right"] > 0.75


@pytest.mark.parametrize("folder", [PEOPLE, BETTER])
def test_a_checkpoint_is_small_and_knows_no_place(folder: Path):
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert 0 < sum(path.stat().st_size for path in files) <= 6_000_000
    for path in (folder / "run.json", folder / "best" / "config.json", folder / "README.md"):
        assert (
            "/home/" not in path.read_text()
            and "/work" not in path.read_text()
            and "/tmp" not in path.read_text()
        )
    card = (folder / "README.md").read_text()
    assert "Not for judging people" in card and "CREMA-D" in card


def test_the_answers_kept_for_the_apps_page_are_what_the_checkpoint_says(predictor):
    """After a training: `python scripts/make_examples.py --answers`."""
    kept = kept_answers(predictor.run.path)
    assert list(kept) == [example.name for example in shown_examples()]
    for example in shown_examples():
        features = example.features(predictor.recipe)
        prediction, streams = answer_and_sum(predictor, features, None)
        streams = with_word_effects(predictor, features, streams)
        asked = predictor.features(
            features
        ).sentiment  # in a pass of its own, where bfloat16 rounds otherwise
        assert asked == pytest.approx(prediction.sentiment, abs=0.05)
        made = dict(leaves([{**asdict(prediction), "timings": {}}, asdict(streams)]))
        there = dict(leaves([asdict(kept[example.name].prediction), asdict(kept[example.name].streams)]))
        assert there.keys() == made.keys()
        one = kept[example.name]
        assert one.streams.together.sentiment == one.prediction.sentiment  # the page shows one number
        for place, value in made.items():
            near = pytest.approx(value, abs=0.02) if isinstance(value, float) else value
            assert there[place] == near, (example.name, place)


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every number, string, ... inside lists and dicts, with its place."""
    parts = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list | tuple)
        else None
    )
    if parts is None:
        yield place, value
        return
    for name, part in parts:
        yield from leaves(part, f"{place}.{name}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "least"),
    [
        (
            checkpoint("embedded").values[0],
            {"mosi_valid.task": (0.60, 0.72), "mosei_test.task": (0.50, 0), "everyday.task": (0, 0.83)},
        ),
        pytest.param(
            BETTER,
            {"mosi_valid.task": (0.72, 0.82), "mosei_test.task": (0.65, 0), "everyday.task": (0, 0.93)},
            marks=checkpoint("smollm2").marks,
        ),
    ],
    ids=["embedded", "smollm2"],
)
def test_people_agree_as_the_card_says(shared: Path, folder: Path, least: dict[str, tuple[float, float]]):
    import json

    score = shared / "people" / "score.py"
    if not score.is_file():
        pytest.skip("needs ../shared/people")
    done = subprocess.run(
        [sys.executable, str(score), str(folder), "--json"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "DEEPMLF_CACHE": str(CACHE)},
    )
    figures = json.loads(done.stdout)
    for name, (r, sign) in least.items():
        assert figures[name]["r"] >= r and figures[name]["sign"] >= sign, (name, figures[name])
        assert figures[name]["moved_by_final_stop"] < 0.15
    assert figures["faces.av"]["r"] >= 0.70
    assert figures["voices.av"]["r"] > 0.10
