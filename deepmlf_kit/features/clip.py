"""One clip -> features: the call that prediction, the app and the preparation of data sets share.

    read sound --> voice features (audio)      [La, da]
           `-----> transcript (text, words)
    read frames   --> face features (vision)   [Lv, dv]

What a clip does not have is left out and said in `found.notes`; a clip of which nothing can be used is refused.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import av
import numpy as np

from .. import features as lazy_features  # `hf_encoders` needs torch: it is imported where an encoder is used
from .cache import FeatureCache, clip_hash, folder_hash
from .extractors import extract_face, extract_voice, load_extractors
from .face_model import checksum, find_face_model
from .media import (
    ClipError,
    Damage,
    Frame,
    MediaInfo,
    Sound,
    UndecodableStream,
    allowed_threads,
    check_length,
    probe,
    read_audio,
    read_frames,
)
from .recipe import FeatureRecipe, Part, feature_names
from .transcript import Transcript, load_speech_model, speech_model_name, transcribe

_MEDIA = "media-1"  # under which the cache keeps what `probe` found

Progress = Callable[[str, float], None]
"""Called with the stage (`open`, `voice`, `transcript`, `face`) and the share of it that is done, 0 to 1."""


@dataclass
class ClipFound:
    """What was found in a clip.

    `face_share`: share of the sampled frames with a face, None where none was looked for. `voiced_share`:
    share of the audio frames with a pitch, None without audio. `notes`: sentences about what was left out.
    """

    seconds: float
    has_audio: bool
    has_video: bool
    face_share: float | None = None
    voiced_share: float | None = None
    language: str = ""
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)


@dataclass
class ClipFeatures:
    """A clip's features.

    `audio` [La, da] and `vision` [Lv, dv] are float32 with the frames' times in seconds [La], [Lv]; an all-zero
    row is a missing frame, and what the clip does not have is of length 0. `words` are {word, start, end} in
    seconds, known only of a transcript. `text_source` is `given`, `transcribed` or `none`. `timings`: seconds
    that each stage took.
    """

    audio: np.ndarray
    audio_times: np.ndarray
    vision: np.ndarray
    vision_times: np.ndarray
    text: str
    words: list[dict[str, Any]]
    text_source: str
    found: ClipFound
    timings: dict[str, float]


def extract_clip(
    path: str | Path,
    recipe: FeatureRecipe | None = None,
    *,
    text: str | None = None,
    face_model: str | Path | None = None,
    progress: Progress | None = None,
    cache: FeatureCache | None = None,
) -> ClipFeatures:
    """Extract voice, face and words of one clip.

    Args:
        path: a video or audio file.
        recipe: what to extract; the defaults of `FeatureRecipe` where not given.
        text: the words, where they are known; speech is then not transcribed. An empty text counts as given.
        face_model: path of the face model file, see `face_model.find_face_model`.
        progress: see `Progress`.
        cache: where features are kept and looked up; nothing is kept where not given.

    Raises:
        ClipError: the file is no clip, too long, or nothing in it could be decoded.
        FaceModelMissing, SpeechModelMissing: a model that this clip needs is not at hand. Raised before
            anything is computed.
    """
    return _Extraction(Path(path), recipe or FeatureRecipe(), text, face_model, progress, cache).run()


def is_kept(
    path: str | Path,
    recipe: FeatureRecipe,
    *,
    text: str | None = None,
    face_model: str | Path | None = None,
    cache: FeatureCache,
) -> bool:
    """Whether `extract_clip` with the same arguments would compute nothing: all is kept, or was refused before."""
    return _Extraction(Path(path), recipe, text, face_model, None, cache).is_kept()


def load_models(
    recipe: FeatureRecipe, *, face_model: str | Path | None = None, speech: bool | None = None
) -> None:
    """Load or download what `extract_clip` will need, so that it neither waits nor fails for it later.

    Args:
        speech: whether the speech model is needed; `recipe.transcribe` where not given.

    Raises:
        FaceModelMissing, SpeechModelMissing, EncoderError: a model cannot be had.
    """
    if recipe.vision == "blendshapes" or recipe.face_crop:
        find_face_model(face_model)
    if recipe.transcribe if speech is None else speech:
        load_speech_model(recipe.speech_model)
    load_extractors(recipe)


@dataclass(frozen=True)
class _Part:
    """Features of one stream, the frames' times, and the share of frames that say something (None: unknown)."""

    features: np.ndarray
    times: np.ndarray
    share: float | None = None
    notes: tuple[str, ...] = ()


class _Extraction:
    """One run over one clip: decodes the sound once for voice and transcript, and times the stages."""

    def __init__(
        self,
        path: Path,
        recipe: FeatureRecipe,
        text: str | None,
        face_model: str | Path | None,
        progress: Progress | None,
        cache: FeatureCache | None,
    ) -> None:
        self.path, self.recipe, self.text, self.cache = path, recipe, text, cache
        self.told: Progress = progress or (lambda stage, share: None)
        self.untold: queue.SimpleQueue[tuple[str, float]] = queue.SimpleQueue()
        self.caller = threading.get_ident()
        self.timings: dict[str, float] = {}
        self.notes: list[str] = []
        self.hash = ""
        self._face_model_given = face_model
        self.face_model: Path | None = None
        self._sound: Sound | None = None

    def run(self) -> ClipFeatures:
        began = time.perf_counter()
        self.progress("open", 0.0)
        with self.timed("open"):
            self.info = info = self.open()
        wanted = self.wanted(info)
        wants_voice, wants_face, wants_words = (part in wanted for part in ("audio", "vision", "transcript"))
        self.need_models(wants_words, wants_face)

        def voice_and_words() -> tuple[_Part, Transcript]:
            voice = self.part("audio", self.voice) if wants_voice else self.nothing("audio")
            return voice, self.part_transcript() if wants_words else Transcript("")

        def face() -> _Part:
            return self.part("vision", self.face) if wants_face else self.nothing("vision")

        (audio, transcript), vision = self.at_once(voice_and_words, face)
        if not info.has_audio:
            self.notes.append("no audio stream: the voice is left out")
        if not info.has_video:
            self.notes.append("no video stream: the face is left out")
        self.notes += [*audio.notes, *vision.notes]
        if (wants_voice or wants_face) and not len(audio.times) and not len(vision.times):
            raise ClipError(
                f"{self.path}: found nothing that can be used, expected sound or pictures: {'; '.join(self.notes)}."
            )
        text, source = self.words(transcript, wants_words)
        self.say_what_is_missing(audio, vision)
        self.timings["total"] = time.perf_counter() - began
        found = ClipFound(
            seconds=round(info.seconds, 3),
            has_audio=info.has_audio,
            has_video=info.has_video,
            face_share=vision.share,
            voiced_share=audio.share,
            language=transcript.language,
            notes=self.notes,
        )
        timings = {stage: round(seconds, 4) for stage, seconds in self.timings.items()}
        return ClipFeatures(
            audio=audio.features,
            audio_times=audio.times,
            vision=vision.features,
            vision_times=vision.times,
            text=text,
            words=transcript.words,
            text_source=source,
            found=found,
            timings=timings,
        )

    def at_once(self, one: Callable[[], Any], other: Callable[[], Any]) -> tuple[Any, Any]:
        """Results of both: side by side where there are two cores for it, else one after the other.

        What they call spends its time in native code, so a thread is enough.
        """
        if allowed_threads() == 1:
            return one(), other()
        with ThreadPoolExecutor(1) as thread:
            running = thread.submit(one)
            result = other()
            while not running.done():
                wait([running], timeout=0.1)
                self.tell_what_was_done()
            return running.result(), result

    def progress(self, stage: str, share: float) -> None:
        """Tell the caller, always from the caller's own thread: interfaces ask for that."""
        self.untold.put((stage, share))
        if threading.get_ident() == self.caller:
            self.tell_what_was_done()

    def tell_what_was_done(self) -> None:
        while not self.untold.empty():
            self.told(*self.untold.get())

    def open(self) -> MediaInfo:
        if self.cache is None or not self.path.is_file():
            return probe(self.path, self.recipe.max_seconds)
        self.hash = clip_hash(self.path)
        refused = self.cache.load(self.hash, _refused())
        if refused is not None:
            raise ClipError(f"{self.path}: {refused[1]['reason']}")
        kept = self.cache.load(self.hash, _MEDIA)
        if kept is not None:
            info = MediaInfo(**kept[1])
            check_length(self.path, info.seconds, self.recipe.max_seconds)
            return info
        try:
            info = probe(self.path, None)
        except ClipError as error:  # what is no clip is none the next time either
            reason = str(error).removeprefix(f"{self.path}: ")
            self.cache.save(self.hash, _refused(), {}, {"reason": reason})
            raise
        self.cache.save(self.hash, _MEDIA, {}, asdict(info))
        check_length(self.path, info.seconds, self.recipe.max_seconds)
        return info

    def is_kept(self) -> bool:
        cache = self.cache
        if cache is None or not self.path.is_file():
            return False
        self.hash = clip_hash(self.path)
        if cache.holds(self.hash, _refused()):
            return True
        kept = cache.load(self.hash, _MEDIA)
        if kept is None:
            return False
        wanted = self.wanted(MediaInfo(**kept[1]))
        if "vision" in wanted:
            self.find_face_model()
        return all(cache.holds(self.hash, self.key(part)) for part in wanted)

    def wanted(self, info: MediaInfo) -> list[Part]:
        """Parts that the recipe asks for and the clip has."""
        wanted: list[Part] = []
        if info.has_audio and self.recipe.audio != "none":
            wanted.append("audio")
        if info.has_video and self.recipe.vision != "none":
            wanted.append("vision")
        if info.has_audio and self.recipe.transcribe and self.text is None:
            wanted.append("transcript")
        return wanted

    def find_face_model(self) -> None:
        if self.recipe.vision == "blendshapes" or self.recipe.face_crop:
            self.face_model = find_face_model(self._face_model_given)

    def need_models(self, wants_words: bool, wants_face: bool) -> None:
        """Say what is missing before any work is done, and load what takes time to load."""
        if wants_face:
            self.find_face_model()
        if wants_words and self.kept("transcript") is None:
            with self.timed("load_speech_model"):
                load_speech_model(self.recipe.speech_model)

    # What is kept ------------------------------------------------------------------------------------------

    def key(self, part: Part) -> str:
        more = {}
        if part == "transcript":
            more["speech_model"] = model = speech_model_name(self.recipe.speech_model)
            if Path(model).is_dir():
                more["speech_model_content"] = folder_hash(model)
        else:
            choice = self.recipe.audio if part == "audio" else self.recipe.vision
            if choice.startswith("hf:"):
                name = choice.removeprefix("hf:").strip()
                more["encoder"] = lazy_features.encoder_identity(name, self.recipe.device, self.recipe.half)
            if part == "vision" and self.face_model is not None:
                more["face_model"] = checksum(self.face_model)
        return f"{part}-{self.recipe.key(part, **more)}"

    def kept(self, part: Part) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        return self.cache.load(self.hash, self.key(part)) if self.cache is not None else None

    def keep(self, part: Part, arrays: dict[str, np.ndarray], notes: dict[str, Any]) -> None:
        if self.cache is not None:
            self.cache.save(self.hash, self.key(part), arrays, notes)

    # The three parts ---------------------------------------------------------------------------------------

    def part(self, part: Part, compute: Callable[[], _Part]) -> _Part:
        """A stream's features: kept ones, or computed now and kept; nothing where it cannot be decoded."""
        kept = self.kept(part)
        if kept is not None and {"features", "times"} <= kept[0].keys():
            arrays, notes = kept
            return _Part(arrays["features"], arrays["times"], notes["share"], tuple(notes["notes"]))
        try:
            made = compute()
        except UndecodableStream:
            stream, what = {"audio": ("audio", "voice"), "vision": ("video", "face")}[part]
            note = f"the {stream} stream is damaged, nothing of it could be decoded: the {what} is left out"
            made = replace(self.nothing(part), notes=(note,))
        notes = {"notes": made.notes, "share": made.share}
        self.keep(part, {"features": made.features, "times": made.times}, notes)
        return made

    def nothing(self, part: Part) -> _Part:
        names = feature_names(self.recipe)[0 if part == "audio" else 1]
        return _Part(np.zeros((0, len(names or ())), np.float32), np.zeros(0, np.float32))

    def part_transcript(self) -> Transcript:
        kept = self.kept("transcript")
        if kept is not None:
            return Transcript(**kept[1])
        try:
            sound = self.sound()
        except UndecodableStream:
            self.keep("transcript", {}, asdict(Transcript("")))
            return Transcript("")
        self.progress("transcript", 0.0)
        with self.timed("transcript"):
            transcript = transcribe(
                sound.samples,
                self.recipe.speech_model,
                self.recipe.language,
                sound.start,
                lambda share: self.progress("transcript", share),
            )
        self.progress("transcript", 1.0)
        self.keep("transcript", {}, asdict(transcript))
        return transcript

    def sound(self) -> Sound:
        """The clip's sound at 16 kHz, decoded once."""
        if self._sound is None:
            with self.timed("decode_audio"):
                self._sound = read_audio(self.path, 16000, self.recipe.max_seconds)
        return self._sound

    def voice(self) -> _Part:
        self.progress("voice", 0.0)
        sound = self.sound()
        with self.timed("voice"):
            features, times, voiced = extract_voice(
                sound, self.recipe, lambda share: self.progress("voice", share)
            )
        self.progress("voice", 1.0)
        return _Part(features, times, voiced, _said_of("audio", sound.damage))

    def face(self) -> _Part:
        self.progress("face", 0.0)
        damage = Damage()
        began = time.perf_counter()
        features, times, seen = extract_face(self.frames(damage), self.recipe, self.face_model)
        self.timings["face"] = time.perf_counter() - began - self.timings.get("decode_video", 0.0)
        self.progress("face", 1.0)
        return _Part(features, times, seen, _said_of("video", damage))

    def frames(self, damage: Damage) -> Iterator[Frame]:
        """Sampled frames; the time to decode them is counted apart from the time to extract features."""
        recipe = self.recipe
        frames = read_frames(
            self.path, recipe.fps, recipe.max_side, recipe.max_seconds, damage, allowed_threads()
        )
        while True:
            with self.timed("decode_video"):
                frame = next(frames, None)
            if frame is None:
                return
            yield frame
            self.progress("face", min(1.0, frame.time / max(self.info.seconds, 0.01)))

    # What is said about it ---------------------------------------------------------------------------------

    def words(self, transcript: Transcript, transcribed: bool) -> tuple[str, str]:
        """The text and where it is from; says so where there is none."""
        if self.text is not None:
            return self.text.strip(), "given"
        if not transcribed:
            why = "none were asked for" if self.info.has_audio else "there is no sound to transcribe"
            self.notes.append(f"no words: none were given, and {why}")
            return "", "none"
        if not transcript.text:
            self.notes.append("no words were heard; give them where there are any")
        elif transcript.log_probability < -1:
            self.notes.append("the transcript is doubtful; check the words")
        return transcript.text, "transcribed"

    def say_what_is_missing(self, audio: _Part, vision: _Part) -> None:
        if vision.share == 0:
            self.notes.append("no face was found in any picture: the face says nothing")
        if audio.share == 0:
            self.notes.append("no voiced sound was found: the voice says little")

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - began


def _said_of(stream: str, damage: Damage) -> tuple[str, ...]:
    if not damage.ended_early and not damage.packets:
        return ()
    what = "ends early" if damage.ended_early else f"has {damage.packets} damaged packets"
    return (f"the {stream} stream {what}: what could be decoded is used",)


def _refused() -> str:
    """Name under which it is kept that a file is no clip; a newer decoder may think otherwise."""
    return f"refused-{av.__version__}"
