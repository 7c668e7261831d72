"""The app's example clips: their scripts, and the way from a script to a video file, its thumbnail and its features."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from deepmlf_kit.app.examples import FOLDER, Example, recipe_key
from deepmlf_kit.data import sample_signals as signals
from deepmlf_kit.features import FeatureRecipe, extract_clip

from .drawn_face import draw_face
from .synthetic_voice import synthesize

FPS = 15  # frames per second
SIDE = 256  # pixels
THUMBNAIL = 160  # pixels


@dataclass(frozen=True)
class _Script:
    name: str
    title: str
    about: str
    words: tuple[str, ...]
    strong: int
    expression: signals.Expression
    seed: int
    face_of: signals.Expression | None = None  # the face's, where it is another than the voice's
    varies: str = ""
    clip: str = ""
    meant: int = 0


_PRAISE = _Script(
    "praise",
    "Praise, and meant so",
    "Kind words, a smile, a bright voice",
    ("I", "really", "loved", "this", "film"),
    2,
    signals.Expression(face=0.9, voice=0.8),
    seed=11,
    meant=1,
)
SCRIPTS = (
    _PRAISE,
    replace(
        _PRAISE,
        name="praise-words",
        title="The words turned round",
        about="Harsh words on the same smile and voice",
        words=("I", "really", "hated", "this", "film"),
        varies="praise",
        clip="praise",
        meant=0,
    ),
    replace(
        _PRAISE,
        name="praise-face",
        title="The face turned round",
        about="The same words and voice, brows down and no smile",
        face_of=signals.Expression(face=-0.9, voice=0.8),
        varies="praise",
        meant=0,
    ),
    _Script(
        "complaint",
        "A complaint",
        "Harsh words, lowered brows, a rough voice",
        ("the", "ending", "was", "terrible"),
        3,
        signals.Expression(face=-0.9, voice=-0.8),
        seed=12,
        meant=-1,
    ),
    _Script(
        "irony",
        "Irony",
        "Kind words, but a smile on a flat, rough voice, and the eyes roll",
        ("oh", "what", "a", "wonderful", "idea"),
        3,
        signals.Expression(face=0.8, voice=-0.9, smirk=0.9, drawl=0.9),
        seed=13,
        meant=-1,
    ),
)


def make_examples(folder: Path = FOLDER) -> list[Path]:
    """Draw, synthesize and encode the clips into `folder`, with their features and `examples.json` beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    made = [_make(script, folder) for script in SCRIPTS]
    listed = json.dumps([asdict(example) for example in made], indent=1) + "\n"
    (folder / "examples.json").write_text(listed)
    return sorted(folder.glob("*.mp4"))


def _make(script: _Script, folder: Path) -> Example:
    rng = np.random.default_rng(script.seed)
    speaker = signals.make_speaker(rng)
    spoken = signals.time_words(rng, script.words, script.strong, script.expression, 2.5, 4.0)
    recipe = FeatureRecipe(transcribe=False)
    path = folder / f"{script.clip or script.name}.mp4"
    if not script.clip:
        audio, _ = signals.make_audio(rng, speaker, spoken)
        seen_as = replace(spoken, expression=script.face_of or script.expression)
        vision, _ = signals.make_vision(rng, speaker, seen_as, FPS)
        seen = vision.any(axis=1)  # a tracker loses a face for a moment, a drawing does not
        vision = vision[np.maximum.accumulate(np.where(seen, np.arange(len(vision)), 0))]
        sound = synthesize(audio, script.seed)
        write_mp4(path, (draw_face(row, SIDE) for row in vision), FPS, sound)
        still = draw_face(vision[len(vision) // 2], SIDE)
        Image.fromarray(still).resize((THUMBNAIL, THUMBNAIL)).save(path.with_suffix(".jpg"), quality=80)
        extract_clip(path, recipe, text="").save(path.with_suffix(".npz"))
    text = " ".join(script.words)
    text = text[0].upper() + text[1:] + "."
    return Example(
        name=script.name,
        title=script.title,
        about=script.about,
        text=text,
        words=spoken.words,
        recipe=recipe_key(recipe),
        varies=script.varies,
        clip=script.clip,
        meant=script.meant,
    )


def write_mp4(
    path: Path, frames: Iterable[np.ndarray], fps: int, sound: np.ndarray, rate: int = 16000
) -> None:
    """Encode frames [H, W, 3] uint8 and mono sound [N] float32 in [-1, 1] as H.264 and AAC."""
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        video = container.add_stream("libx264", rate=fps, options={"crf": "27", "preset": "slow"})
        video.pix_fmt = "yuv420p"
        voice = container.add_stream("aac", rate=rate, layout="mono", bit_rate=48000)
        for number, image in enumerate(frames):
            if number == 0:
                video.height, video.width = image.shape[:2]
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image))))
        container.mux(video.encode(None))
        for start in range(0, len(sound), 1024):
            part = np.ascontiguousarray(sound[None, start : start + 1024], np.float32)
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            container.mux(voice.encode(frame))
        container.mux(voice.encode(None))
