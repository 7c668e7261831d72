"""Speech to text with word times, by faster-whisper.

Runs on the sound that `media.read_audio` gives. The model is a size or a Hugging Face name (downloaded once by
huggingface_hub) or a local folder; it is loaded once per process and used by one caller at a time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DeepMLFError
from .media import allowed_threads

RATE = 16000
"""Sampling rate in Hz that Whisper models take."""

DEFAULT_MODEL = "base"
"""Multilingual Whisper model of 145 MB; `base.en` and `tiny.en` are for English alone."""

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
    likeliest words (temperature 0), so that noise stays empty and the same sound gives the same words.

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
        )
        for segment in segments:
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
    import ctranslate2
    from faster_whisper import WhisperModel

    on_gpu = ctranslate2.get_cuda_device_count() > 0
    settings = {
        "device": "cuda" if on_gpu else "cpu",
        "compute_type": "float16" if on_gpu else "int8",
        "cpu_threads": threads,
    }
    folder = Path(name).expanduser()
    try:
        if folder.is_dir():
            return WhisperModel(str(folder), **settings)
        try:
            return WhisperModel(name, local_files_only=True, **settings)
        except Exception as not_cached:
            if os.environ.get("HF_HUB_OFFLINE") == "1":
                raise not_cached
            return WhisperModel(name, **settings)
    # Whatever hub, file system and CTranslate2 raise here, the remedy is the same.
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SpeechModelMissing(
            f"speech model {name!r}: found neither a folder of a faster-whisper (CTranslate2) model nor one that "
            f"could be downloaded ({reason[:160]}). Give the words yourself (text=..., --text), name the folder of "
            f"a model with speech_model=... or the environment variable DEEPMLF_SPEECH_MODEL, or connect to the "
            f"network once."
        ) from error
