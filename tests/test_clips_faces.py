"""Faces: small ones are found, one of several is chosen and said, and what MediaPipe gets is whole."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from clips_made import voice
from test_clips_pictures import write

from deepmlf_kit.features import FeatureRecipe, extract_clip
from deepmlf_kit.features.faces import read_faces
from deepmlf_kit.features.media import Frame, read_frames
from deepmlf_kit.features.vision_blendshapes import VISION_NAMES, FaceFinder, FaceTracker

EXAMPLES = Path(__file__).parents[1] / "deepmlf_kit" / "assets" / "examples"
FACE = FeatureRecipe(audio="none", transcribe=False, fps=5)
SMILE, JAW = VISION_NAMES.index("mouthSmileLeft"), VISION_NAMES.index("jawOpen")


@pytest.fixture(scope="module")
def drawn() -> list[np.ndarray]:
    """Pictures [H, W, 3] of a drawn face."""
    path = sorted(EXAMPLES.glob("*.mp4"))[0]
    return [frame.image for frame in read_frames(path, fps=10)][:8]


def scaled(image: np.ndarray, height: int) -> np.ndarray:
    width = round(image.shape[1] * height / image.shape[0])
    return av.VideoFrame.from_ndarray(image, "rgb24").reformat(width, height).to_ndarray(format="rgb24")


def on_canvas(images: list[np.ndarray], *faces: tuple[int, int, int], size=(960, 540)) -> Iterator[Frame]:
    """Each picture at (left, top, height), on a grey canvas."""
    for number, image in enumerate(images):
        canvas = np.full((*size[::-1], 3), 90, np.uint8)
        for left, top, height in faces:
            part = scaled(image, height)
            canvas[top : top + part.shape[0], left : left + part.shape[1]] = part
        yield Frame(canvas, number / 10)


@pytest.mark.parametrize("width", [*range(352, 369), 426, 540, 854, 1001])
def test_the_face_is_found_at_every_width(drawn, face_model: Path, width: int):
    left = (width - 256) // 2
    frames = on_canvas([scaled(drawn[0], 256)] * 1, (max(0, left), 20, 256), size=(width, 300))
    with FaceTracker(face_model) as tracker:
        assert tracker.row(next(frames)).any()


def test_a_view_with_gaps_between_its_rows_is_read_like_a_copy(drawn, face_model: Path):
    image = next(on_canvas(drawn, (40, 20, 256), size=(360, 300))).image
    padded = np.zeros((300, 400, 3), np.uint8)
    padded[:, :360] = image
    rows = []
    for view in (image, padded[:, :360], np.asfortranarray(image)):
        with FaceTracker(face_model) as tracker:
            rows.append(tracker.row(Frame(view, 0.0)))
    assert rows[0].any()
    np.testing.assert_array_equal(rows[1], rows[0])
    np.testing.assert_array_equal(rows[2], rows[0])


@pytest.mark.parametrize(("left", "top", "height"), [(700, 40, 130), (80, 380, 90), (480, 220, 70)])
def test_small_and_distant_faces_are_found(drawn, face_model: Path, left: int, top: int, height: int):
    frames = list(on_canvas(drawn, (left, top, height)))
    with FaceTracker(face_model) as tracker:
        plain = np.mean([tracker.row(frame).any() for frame in frames])
    reading = read_faces(frames, face_model)
    assert reading.features.any(1).mean() >= 0.9 >= plain
    middle = np.mean([points.mean(0) for points in reading.landmarks if points is not None], 0)
    assert middle[0] * 960 == pytest.approx(left + height / 2, abs=height / 2)
    assert middle[1] * 540 == pytest.approx(top + height / 2, abs=height / 2)


def test_no_face_is_made_up(face_model: Path):
    noise = np.random.default_rng(0).integers(0, 255, (5, 540, 960, 3), np.uint8)
    reading = read_faces([Frame(image, n / 5) for n, image in enumerate(noise)], face_model)
    assert not reading.features.any() and reading.faces == 0


def test_a_part_of_a_picture_gives_the_place_in_the_whole(drawn, face_model: Path):
    image = next(on_canvas(drawn, (250, 60, 420))).image
    with FaceFinder(face_model) as finder:
        whole, part = finder.faces(image)[0], finder.faces(image, (180, 20, 760, 520))[0]
    assert part.x == pytest.approx(whole.x, abs=8) and part.y == pytest.approx(whole.y, abs=8)
    np.testing.assert_allclose(part.row[-3:], whole.row[-3:], rtol=0.15, atol=1.0)


def middle_of(frames: list[Frame], face_model: Path, choice: str, **more) -> tuple[float, int]:
    """Where the chosen face is, 0 (left) to 1, and how many there are."""
    reading = read_faces(frames, face_model, choice, **more)
    assert reading.features.any(1).mean() >= 0.9
    return float(
        np.mean([points[:, 0].mean() for points in reading.landmarks if points is not None])
    ), reading.faces


def test_of_several_faces_one_is_chosen(drawn, face_model: Path):
    frames = list(on_canvas(drawn, (20, 60, 420), (500, 150, 240)))
    place, faces = middle_of(frames, face_model, "largest")
    assert faces == 2 and place < 0.4
    place, faces = middle_of(frames, face_model, "central")
    assert faces == 2 and place > 0.5


def test_the_speaking_face_is_the_one_whose_mouth_moves(drawn, clips: Path, face_model: Path):
    talking = [scaled(frame.image, 300) for frame in read_frames(clips / "speech_address_1.mp4", fps=10)][:20]
    still = scaled(next(read_frames(clips / "speech_address_2.mp4")).image, 400)
    frames = []
    for number, image in enumerate(talking):
        canvas = np.full((420, 800, 3), 90, np.uint8)
        canvas[:400, :400] = still[:400, :400]
        canvas[60:360, 450:750] = image[:300, :300]
        frames.append(Frame(canvas, number / 10))
    loud = lambda times: np.ones(len(times))  # noqa: E731
    assert middle_of(frames, face_model, "largest")[0] < 0.5
    assert middle_of(frames, face_model, "speaking", loudness=loud)[0] > 0.5


def test_several_faces_are_said_and_the_choice_is_part_of_the_recipe(tmp_path: Path, drawn, face_model: Path):
    images = [frame.image for frame in on_canvas(drawn * 2, (20, 60, 420), (500, 150, 240))]
    path = write(tmp_path / "two.mp4", images)
    made = extract_clip(path, FACE, text="")
    assert any(
        note.startswith("2 faces are in the picture: the largest face is read") for note in made.found.notes
    )
    other = FeatureRecipe(audio="none", transcribe=False, fps=5, face="central")
    assert other.key("vision") != FACE.key("vision")
    assert not np.array_equal(extract_clip(path, other, text="").vision, made.vision)
    alone = write(tmp_path / "one.mp4", [frame.image for frame in on_canvas(drawn * 2, (20, 60, 420))])
    assert extract_clip(alone, FACE, text="").found.notes == ["no audio stream: the voice is left out"]


def test_loudness_is_that_of_the_moment():
    from deepmlf_kit.features.media import Sound

    samples = np.concatenate([np.zeros(8000, np.float32), voice(0.5)])
    quiet, loud, outside = Sound(samples, 16000, start=1.0).loudness(np.array([1.2, 1.8, 9.0]))
    assert quiet == 0 == outside and loud > 0.1
