"""One clip -> features: the call that prediction, the app and dataset preparation share.

    sound   --> audio features    [La, da]
       `------> transcript (text, words)
    frames  --> vision features   [Lv, dv]

What a clip lacks is left out and noted in `found.notes`; a clip of which nothing can be used is refused.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import features as lazy_features  # `hf_encoders` needs torch: it is imported where an encoder is used
from ..downloads.cache import checksum
from ..storage.optional import optional
from .cache import FeatureCache, clip_hash, folder_hash
from .container import ClipError, Damage, UndecodableStream
from .extractors import extract_audio, extract_vision, load_extractors
from .face_model import find_face_model
from .media import Frame, MediaInfo, Sound, allowed_threads, check_length, probe, read_audio, read_frames
from .recipe import FACE_CHOICES, FeatureRecipe, Part, feature_names
from .transcript import Transcript, load_speech_model, speech_model_name, transcribe

av = optional("av")

_MEDIA = "media-2"  # cache entry of what `probe` found

Progress = Callable[[str, float], None]
"""Called with the stage (`open`, `voice`, `transcript`, `face`) and the fraction of it that is done, 0 to 1."""


@dataclass
class ClipFound:
    """What was found in a clip.

    `face_share`: share of the sampled frames with a face, None where none was looked for. `voiced_share`:
    share of the audio frames with a pitch, None without audio. `notes`: sentences on what was left out.
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

    def save(self, path: str | Path) -> None:
        """Write all of it to one file."""
        rest = {
            "text": self.text,
            "words": self.words,
            "text_source": self.text_source,
            "timings": self.timings,
        }
        text = json.dumps({**rest, "found": self.found.to_dict()})
        np.savez(
            path, rest=np.array(text), **{name: getattr(self, name) for name in _ARRAYS}, allow_pickle=False
        )

    @classmethod
    def load(cls, path: str | Path) -> ClipFeatures:
        """What `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            rest = json.loads(str(file["rest"]))
            return cls(
                **{name: file[name] for name in _ARRAYS}, **{**rest, "found": ClipFound(**rest["found"])}
            )


_ARRAYS = ("audio", "audio_times", "vision", "vision_times")


def extract_clip(
    path: str | Path,
    recipe: FeatureRecipe | None = None,
    *,
    text: str | None = None,
    face_model: str | Path | None = None,
    progress: Progress | None = None,
    cache: FeatureCache | None = None,
) -> ClipFeatures:
    """Extract audio, vision and text of one clip.

    Args:
        path: a video or audio file.
        recipe: what to extract; the defaults of `FeatureRecipe` where not given.
        text: the words, where they are known; speech is then not transcribed. An empty text counts as given.
        face_model: path of the face model file, see `face_model.find_face_model`.
        progress: see `Progress`.
        cache: of features; None: no cache.

    Raises:
        ClipError: the file is no clip, too long, or nothing in it could be decoded.
        FaceModelMissing, SpeechModelMissing: a model that this clip needs is missing. Raised before anything is
            computed.
    """
    return _Extraction(Path(path), recipe or FeatureRecipe(), text, face_model, progress, cache).run()


def is_cached(
    path: str | Path,
    recipe: FeatureRecipe,
    *,
    text: str | None = None,
    face_model: str | Path | None = None,
    cache: FeatureCache,
) -> bool:
    """Whether `extract_clip` with the same arguments computes nothing: all is cached, or was refused before."""
    return _Extraction(Path(path), recipe, text, face_model, None, cache).is_cached()


def load_models(
    recipe: FeatureRecipe,
    *,
    face_model: str | Path | None = None,
    speech: bool | None = None,
    pictures: bool = True,
) -> None:
    """Load or download the models that `extract_clip` will need.

    Args:
        speech: whether the speech model is needed; `recipe.transcribe` where not given.
        pictures: whether the face model may be needed: False where there is sound alone.

    Raises:
        FaceModelMissing, SpeechModelMissing, EncoderError: a model cannot be loaded.
    """
    if pictures and (recipe.vision == "blendshapes" or recipe.face_crop):
        find_face_model(face_model)
    if recipe.transcribe if speech is None else speech:
        load_speech_model(recipe.speech_model)
    load_extractors(recipe)


@dataclass(frozen=True)
class _Part:
    """Features of one stream, the frames' times, and the share of voiced frames or frames with a face (None: unknown)."""

    features: np.ndarray
    times: np.ndarray
    share: float | None = None
    notes: tuple[str, ...] = ()


class _Extraction:
    """One run over one clip: decodes the sound once for audio and transcript, and times the stages."""

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
        self.report: Progress = progress or (lambda stage, share: None)
        self.pending: queue.SimpleQueue[tuple[str, float]] = queue.SimpleQueue()
        self.caller = threading.get_ident()
        self.timings: dict[str, float] = {}
        self.notes: list[str] = []
        self.hash = ""
        self._face_model_given = face_model
        self.face_model: Path | None = None
        self._sound: Sound | None = None
        self._decoding = threading.Lock()

    def run(self) -> ClipFeatures:
        began = time.perf_counter()
        self.progress("open", 0.0)
        with self.timed("open"):
            self.info = info = self.open()
        parts = self.requested(info)
        with_audio, with_vision, with_transcript = (
            part in parts for part in ("audio", "vision", "transcript")
        )
        self.check_models(with_transcript, with_vision)

        def audio_and_transcript() -> tuple[_Part, Transcript]:
            made = self.part("audio", self.audio) if with_audio else self.empty("audio")
            return made, self.transcript() if with_transcript else Transcript("")

        def vision_alone() -> _Part:
            return self.part("vision", self.vision) if with_vision else self.empty("vision")

        (audio, transcript), vision = self.run_both(audio_and_transcript, vision_alone)
        if info.announced:
            self.notes.append(
                f"the clip ends early, as after a download that stopped: {info.complete:.1f} of {info.announced:.1f} s "
                "could be read"
            )
        if info.stray:
            self.notes.append("the file is damaged, as by a bad reception: what could be decoded is used")
        if not info.has_audio:
            self.notes.append("no audio stream: the voice is left out")
        if not info.has_video:
            self.notes.append("no video stream: the face is left out")
        self.notes += [*audio.notes, *vision.notes]
        if (with_audio or with_vision) and not len(audio.times) and not len(vision.times):
            raise ClipError(
                f"{self.path}: found nothing that can be used, expected sound or pictures: {'; '.join(self.notes)}."
            )
        text, source = self.text_of(transcript, with_transcript)
        self.note_missing(audio, vision)
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

    def run_both(self, one: Callable[[], Any], other: Callable[[], Any]) -> tuple[Any, Any]:
        """Results of both: in parallel where several threads are allowed, else one after the other.

        Both spend their time in native code, so a thread is enough.
        """
        if allowed_threads() == 1:
            return one(), other()
        with ThreadPoolExecutor(1) as thread:
            running = thread.submit(one)
            result = other()
            while not running.done():
                wait([running], timeout=0.1)
                self.flush_progress()
            return running.result(), result

    def progress(self, stage: str, share: float) -> None:
        """Report progress, always from the caller's own thread, as user interfaces need."""
        self.pending.put((stage, share))
        if threading.get_ident() == self.caller:
            self.flush_progress()

    def flush_progress(self) -> None:
        while not self.pending.empty():
            self.report(*self.pending.get())

    def open(self) -> MediaInfo:
        if self.cache is None or not self.path.is_file():
            return probe(self.path, self.recipe.max_seconds)
        self.hash = self.content_hash()
        if (reason := self.refused()) is not None:
            raise ClipError(f"{self.path}: {reason}")
        if (info := self.cached_info()) is not None:
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

    def is_cached(self) -> bool:
        cache = self.cache
        if cache is None or not self.path.is_file():
            return False
        try:
            self.hash = self.content_hash()
        except ClipError:
            return False  # the extraction says why
        if self.refused() is not None:
            return True
        if (info := self.cached_info()) is None:
            return False
        parts = self.requested(info)
        if "vision" in parts:
            self.find_face_model()
        return all(cache.holds(self.hash, self.key(part)) for part in parts)

    def content_hash(self) -> str:
        try:
            return clip_hash(self.path)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ClipError(
                f"{self.path}: found a file that cannot be read ({reason}), expected a video or audio file; check its "
                f"permissions and its disk."
            ) from error

    def refused(self) -> str | None:
        """Why the clip was refused before, or lost its process; None where it was not."""
        assert self.cache is not None
        for name in (_refused(), _lost(self.recipe)):
            entry = self.cache.load(self.hash, name)
            if entry is not None and isinstance(entry[1].get("reason"), str):
                return entry[1]["reason"]
        return None

    def cached_info(self) -> MediaInfo | None:
        assert self.cache is not None
        entry = self.cache.load(self.hash, _MEDIA)
        names = {field.name for field in fields(MediaInfo)}
        return MediaInfo(**entry[1]) if entry is not None and entry[1].keys() == names else None

    def requested(self, info: MediaInfo) -> list[Part]:
        """Parts that the recipe asks for and the clip has."""
        parts: list[Part] = []
        if info.has_audio and self.recipe.audio != "none":
            parts.append("audio")
        if info.has_video and self.recipe.vision != "none":
            parts.append("vision")
        if info.has_audio and self.recipe.transcribe and self.text is None:
            parts.append("transcript")
        return parts

    def find_face_model(self) -> None:
        if self.recipe.vision == "blendshapes" or self.recipe.face_crop:
            self.face_model = find_face_model(self._face_model_given)

    def check_models(self, with_transcript: bool, with_vision: bool) -> None:
        """Fail for a missing model before any work is done, and load the speech model."""
        if with_vision:
            self.find_face_model()
        if with_transcript and self.cached("transcript") is None:
            with self.timed("load_speech_model"):
                load_speech_model(self.recipe.speech_model)

    # The cache ---------------------------------------------------------------------------------------------

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

    def cached(self, part: Part) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Arrays and metadata of a part that is in the cache, whole; else None."""
        entry = self.cache.load(self.hash, self.key(part)) if self.cache is not None else None
        if entry is None:
            return None
        arrays, metadata = entry
        if part == "transcript":
            return entry if metadata.keys() == {field.name for field in fields(Transcript)} else None
        features, times = arrays.get("features"), arrays.get("times")
        whole = (
            features is not None
            and times is not None
            and features.ndim == 2
            and times.shape == features.shape[:1]
        )
        return entry if whole and {"share", "notes"} <= metadata.keys() else None

    def store(self, part: Part, arrays: dict[str, np.ndarray], notes: dict[str, Any]) -> None:
        if self.cache is not None:
            self.cache.save(self.hash, self.key(part), arrays, notes)

    # The three parts ---------------------------------------------------------------------------------------

    def part(self, part: Part, compute: Callable[[], _Part]) -> _Part:
        """A stream's features, from the cache or computed now; empty where it cannot be decoded."""
        cached = self.cached(part)
        if cached is not None:
            arrays, notes = cached
            return _Part(arrays["features"], arrays["times"], notes["share"], tuple(notes["notes"]))
        try:
            made = compute()
        except UndecodableStream as error:
            stream, what = {"audio": ("audio", "voice"), "vision": ("video", "face")}[part]
            note = f"the {stream} stream is damaged, {error.reason}: the {what} is left out"
            made = replace(self.empty(part), notes=(note,))
        notes = {"notes": made.notes, "share": made.share}
        self.store(part, {"features": made.features, "times": made.times}, notes)
        return made

    def empty(self, part: Part) -> _Part:
        names = feature_names(self.recipe)[0 if part == "audio" else 1]
        return _Part(np.zeros((0, len(names or ())), np.float32), np.zeros(0, np.float32))

    def transcript(self) -> Transcript:
        cached = self.cached("transcript")
        if cached is not None:
            return Transcript(**cached[1])
        try:
            sound = self.sound()
        except UndecodableStream:
            self.store("transcript", {}, asdict(Transcript("")))
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
        self.store("transcript", {}, asdict(transcript))
        return transcript

    def sound(self) -> Sound:
        """The clip's sound at 16 kHz, decoded once."""
        with self._decoding:
            if self._sound is not None:
                return self._sound
            with self.timed("decode_audio"):
                self._sound = read_audio(self.path, 16000, self.recipe.max_seconds, self.info)
        return self._sound

    def audio(self) -> _Part:
        self.progress("voice", 0.0)
        sound = self.sound()
        with self.timed("voice"):
            features, times, voiced = extract_audio(
                sound, self.recipe, lambda share: self.progress("voice", share)
            )
        self.progress("voice", 1.0)
        notes = sound.damage.notes("audio")
        if sound.cancelled:
            notes = (*notes, "left and right of the sound cancel each other out: one of them is read alone")
        return _Part(features, times, voiced, notes)

    def vision(self) -> _Part:
        self.progress("face", 0.0)
        damage = Damage()
        began = time.perf_counter()

        def frames() -> Iterator[Frame]:
            nonlocal damage
            damage = Damage()  # counted anew in each pass over the clip
            return self.frames(damage)

        loudness = None
        if self.recipe.face == "speaking" and self.info.has_audio:
            with suppress(UndecodableStream):
                loudness = self.sound().loudness
        (features, times, seen), faces = extract_vision(frames, self.recipe, self.face_model, loudness)
        self.timings["face"] = time.perf_counter() - began - self.timings.get("decode_video", 0.0)
        self.progress("face", 1.0)
        notes = damage.notes("video")
        if faces > 1:
            others = " or ".join(choice for choice in FACE_CHOICES if choice != self.recipe.face)
            notes = (
                *notes,
                f"{faces} faces are in the picture: {FACE_CHOICES[self.recipe.face]} is read (face: {others})",
            )
        return _Part(features, times, seen, notes)

    def frames(self, damage: Damage) -> Iterator[Frame]:
        """Sampled frames; the time to decode them is counted apart from the time to extract features."""
        recipe = self.recipe
        frames = read_frames(
            self.path, recipe.fps, recipe.max_side, recipe.max_seconds, damage, allowed_threads(), self.info
        )
        while True:
            with self.timed("decode_video"):
                frame = next(frames, None)
            if frame is None:
                return
            yield frame
            self.progress("face", min(1.0, frame.time / max(self.info.seconds, 0.01)))

    # Notes -------------------------------------------------------------------------------------------------

    def text_of(self, transcript: Transcript, transcribed: bool) -> tuple[str, str]:
        """The text and its source; notes where there is none."""
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

    def note_missing(self, audio: _Part, vision: _Part) -> None:
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


def remember_lost(cache: FeatureCache, path: str | Path, recipe: FeatureRecipe, problem: str) -> None:
    """Keep in the cache that a clip crashed or hung the process that extracted it: it is not tried anew each time."""
    reason = problem.removeprefix(f"{path}: ").rstrip(".")
    reason = (
        f"{reason}. That was in an earlier run, and it was not tried again (--retry, or retry=True, does so)."
    )
    cache.save(clip_hash(path), _lost(recipe), {}, {"reason": reason})


def forget_lost(cache: FeatureCache, path: str | Path, recipe: FeatureRecipe) -> None:
    """Have a clip tried again that `remember_lost` keeps."""
    with suppress(OSError):
        cache.remove(clip_hash(path), _lost(recipe))


def _refused() -> str:
    """Cache entry of a file that is no clip, by decoder version: a newer one may read it."""
    return f"refused-{av.__version__}"


def _lost(recipe: FeatureRecipe) -> str:
    """Cache entry of a clip that took its process with it, by decoder version and recipe."""
    return f"lost-{av.__version__}-{recipe.key('audio')}-{recipe.key('vision')}"
