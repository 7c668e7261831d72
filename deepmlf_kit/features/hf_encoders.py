"""Features by any frozen Hugging Face encoder: `hf:<model>` for voice or face.

Sound is encoded by wav2vec2, HuBERT, WavLM, data2vec and the like, in windows; sampled frames by ViT, DINOv2, CLIP,
SigLIP and the like, in batches. The encoder is loaded once per process, in eval mode and without gradients. A name on the hub and a local folder work the same way.

The dims of the preset `mosi`, 1024 for audio and 768 for vision, are those of:

======================================================  ==========================================================
audio, 1024                                             vision, 768
======================================================  ==========================================================
hf:facebook/wav2vec2-large-960h (Apache-2.0)            hf:openai/clip-vit-base-patch16 (MIT)
hf:facebook/hubert-large-ll60k (Apache-2.0)             hf:google/siglip-base-patch16-224 (Apache-2.0)
hf:microsoft/wavlm-large (see its page)                 hf:google/vit-base-patch16-224-in21k (Apache-2.0)
hf:facebook/data2vec-audio-large (Apache-2.0)           hf:facebook/dinov2-base (Apache-2.0)
======================================================  ==========================================================

Each has a licence of its own: read its model card.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from transformers import AutoConfig, AutoFeatureExtractor, AutoImageProcessor, AutoModel

from ..errors import DeepMLFError
from .cache import folder_hash
from .media import Frame

RATE = 16000
"""Sampling rate in Hz that audio encoders take."""

WINDOW_SECONDS = 20.0
"""Sound longer than this is encoded in windows, so that memory does not grow with the clip."""

CONTEXT_SECONDS = 1.0
"""Overlap: sound on either side of the frames that are taken from a window."""

_lock = threading.Lock()


class EncoderError(DeepMLFError):
    """An encoder that cannot be loaded, or is of another kind."""


def encode_audio(
    samples: np.ndarray,
    model: str,
    *,
    layer: int = -1,
    start: float = 0.0,
    device: str = "auto",
    half: bool | str = "auto",
    batch_size: int = 16,
    progress: Callable[[float], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Hidden states of a frozen audio encoder.

    Args:
        samples: [N] float32 in [-1, 1] at `RATE` Hz.
        model: name on the hub or local folder.
        layer: whose output: -1 the last, 0 the input of the first.
        start: time of the first sample in seconds.
        device, half, batch_size: see `FeatureRecipe`; a batch holds one 20 s window for each 8 of `batch_size`.
        progress: called with the fraction done, from 0 to 1.

    Returns:
        (features, times): [L, d] float32 and the frames' centres [L] float32 in seconds (wav2vec2 and the like: 20 ms
            apart).

    Raises:
        EncoderError: the model cannot be loaded, is no convolutional audio encoder, or has no such layer.
    """
    encoder = load_encoder("audio", model, device, half)
    _check_layer(model, encoder.config, layer)
    kernels, strides = list(encoder.config.conv_kernel), list(encoder.config.conv_stride)
    step = math.prod(strides)  # samples from one frame to the next
    field = 1  # samples that one frame sees
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        field = (field - 1) * stride + kernel
    if len(samples) == 0:
        return np.zeros((0, encoder.config.hidden_size), np.float32), np.zeros(0, np.float32)
    if encoder.normalize:
        samples = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
    samples = np.pad(samples, (0, max(0, field - len(samples)))).astype(np.float32)
    total = 1 + (len(samples) - field) // step
    longest = int(WINDOW_SECONDS * RATE) // step
    # Sound of one window goes in whole, to the last sample, as the encoder's own pipeline would have it.
    size = len(samples) if total <= longest else (longest - 1) * step + field
    windows = _windows(total, longest, int(CONTEXT_SECONDS * RATE) // step)
    pieces = []
    while group := list(islice(windows, max(1, batch_size // 8))):
        batch = np.stack([samples[first * step : first * step + size] for first, _, _ in group])
        with _lock, torch.inference_mode():
            states = encoder.states({"input_values": torch.from_numpy(batch)}, layer)  # [B, frames, d]
        for (_, skip, take), state in zip(group, states, strict=True):
            pieces.append(state[skip : skip + take].float().cpu().numpy())
        if progress is not None:
            progress(sum(map(len, pieces)) / total)
    features = np.concatenate(pieces)
    times = start + (np.arange(len(features), dtype=np.float32) * step + field / 2) / RATE
    return features, times.astype(np.float32)


def encode_frames(
    frames: Iterable[Frame],
    model: str,
    *,
    layer: int = -1,
    landmarks: Sequence[np.ndarray | None] | None = None,
    device: str = "auto",
    half: bool | str = "auto",
    batch_size: int = 16,
) -> tuple[np.ndarray, np.ndarray]:
    """Hidden states of a frozen vision encoder, one row per frame: the class token, or the mean over patches.

    Args:
        frames: of one clip; taken `batch_size` at a time.
        model, layer, device, half: as in `encode_audio`.
        landmarks: of the face in each frame (`faces.read_faces`): frames are then cropped to it, and one without a
            face (None) is an all-zero row.

    Returns:
        (features, times): [L, d] float32 and [L] float32 seconds.

    Raises:
        EncoderError: the model cannot be loaded, is no vision encoder, or has no such layer.
    """
    encoder = load_encoder("vision", model, device, half)
    _check_layer(model, encoder.config, layer)
    rows: list[np.ndarray] = []
    times: list[float] = []
    cropped = (
        ((frame.image, frame.time) for frame in frames) if landmarks is None else _faces(frames, landmarks)
    )
    while batch := list(islice(cropped, batch_size)):
        times += [time for _, time in batch]
        images = [image for image, _ in batch if image is not None]
        states = iter(())
        if images:
            pixels = encoder.processor(images=images, return_tensors="pt")["pixel_values"]  # [B, 3, H, W]
            with _lock, torch.inference_mode():
                states = iter(
                    _pooled(encoder.states({"pixel_values": pixels}, layer), pixels, encoder.config)
                )
        rows += [np.zeros(encoder.width, np.float32) if image is None else next(states) for image, _ in batch]
    features = np.stack(rows) if rows else np.zeros((0, encoder.width), np.float32)
    return features.astype(np.float32), np.asarray(times, np.float32)


class _Encoder:
    """A loaded encoder with its preprocessor."""

    def __init__(self, model: Any, processor: Any, device: str) -> None:
        self.model = model
        self.config = model.config
        self.processor = processor
        self.device = device
        self.normalize = bool(getattr(processor, "do_normalize", False))
        self.width = getattr(self.config, "hidden_size", None) or self.config.hidden_sizes[-1]

    def states(self, inputs: dict[str, torch.Tensor], layer: int) -> torch.Tensor:
        """Output of a layer, [B, tokens, d]."""
        inputs = {name: tensor.to(self.device, self.model.dtype) for name, tensor in inputs.items()}
        try:
            if layer == -1:
                return self.model(**inputs).last_hidden_state
            return self.model(**inputs, output_hidden_states=True).hidden_states[layer]
        except ValueError as error:
            raise EncoderError(
                f"encoder {self.config.name_or_path!r}: its preprocessor_config.json does not fit its model ({error})."
            ) from error


def load_encoder(kind: str, name: str, device: str, half: bool | str) -> _Encoder:
    """The loaded encoder, one per process and content; `kind` is `audio` or `vision`.

    Raises:
        EncoderError: the model cannot be loaded, or is no encoder of that kind.
    """
    return _load(kind, name, _content(name), _device(device), _half(device, half))


def encoder_identity(name: str, device: str, half: bool | str) -> str:
    """Cache key of an encoder beside its name: its commit on the hub or its folder's content, and its precision.

    Raises:
        EncoderError: the model cannot be loaded.
    """
    return f"{_content(name)} {'float16' if _half(device, half) else 'float32'}"


def _content(name: str) -> str:
    """Commit of a model on the hub, the same as long as this process lives, or `folder_hash` of a local folder."""
    return folder_hash(name) if Path(name).is_dir() else _commit(name)


@lru_cache(maxsize=16)
def _commit(name: str) -> str:
    try:
        return Path(hf_hub_download(name, "config.json")).parent.name
    # The hub client and the network raise many exception types here; the remedy is the same.
    except Exception as error:
        raise _not_loaded(name, "an encoder", error) from error


def _revision(name: str) -> str:
    return "main" if Path(name).is_dir() else _commit(name)  # of a folder it is not read


def _device(device: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def _half(device: str, half: bool | str) -> bool:
    return _device(device).startswith("cuda") if half == "auto" else bool(half)


def _not_loaded(name: str, expected: str, error: Exception) -> EncoderError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return EncoderError(
        f"encoder {name!r}: could not be loaded ({reason[:200]}); expected the name or the local folder of "
        f"{expected}, with its preprocessor_config.json. Without a network, download it elsewhere and give "
        f"the folder: hf:/path/to/folder."
    )


@lru_cache(maxsize=4)
def _load(kind: str, name: str, content: str, device: str, half: bool) -> _Encoder:
    revision = _revision(name)
    expected = {
        "audio": "an audio encoder with a convolutional front (wav2vec2, HuBERT, WavLM, data2vec, ...)",
        "vision": "a vision encoder (ViT, DINOv2, CLIP, SigLIP, ...)",
    }[kind]
    try:
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
        found = getattr(config, "vision_config", None) or config
        fits = (
            hasattr(config, "conv_stride")
            if kind == "audio"
            else hasattr(found, "patch_size") or hasattr(found, "image_size")
        )
        if not fits:
            raise EncoderError(
                f"encoder {name!r}: found a model of type {config.model_type!r}, expected {expected}."
            )
        dtype = torch.float16 if half else torch.float32
        model = AutoModel.from_pretrained(name, revision=revision, dtype=dtype, trust_remote_code=False)
        if kind == "audio":
            processor = AutoFeatureExtractor.from_pretrained(name, revision=revision, trust_remote_code=False)
        else:
            model = getattr(model, "vision_model", model)
            processor = AutoImageProcessor.from_pretrained(
                name, revision=revision, backend="pil", trust_remote_code=False
            )
    except EncoderError:
        raise
    # The hub client, the file system and transformers raise many exception types here; the remedy is the same.
    except Exception as error:
        raise _not_loaded(name, expected, error) from error
    try:
        model = model.to(device)
    except (
        RuntimeError,
        AssertionError,
    ) as error:  # what torch raises for a device that is not there, or full
        reason = str(error).strip().splitlines()[0][:200]
        raise EncoderError(
            f"encoder {name!r}: cannot be put on the device {device!r} ({reason}); expected cpu, cuda or the like: "
            "name another one, or leave it out."
        ) from error
    return _Encoder(model.eval().requires_grad_(False), processor, device)


def encoder_width(kind: str, model: str) -> int:
    """Number of dims that an encoder gives, from its config alone; `kind` is `audio` or `vision`."""
    try:
        config = AutoConfig.from_pretrained(model, revision=_revision(model), trust_remote_code=False)
    except Exception as error:
        raise EncoderError(
            f"encoder {model!r}: its config could not be loaded ({str(error)[:200]})."
        ) from error
    config = (getattr(config, "vision_config", None) or config) if kind == "vision" else config
    return getattr(config, "hidden_size", None) or config.hidden_sizes[-1]


def _check_layer(name: str, config: Any, layer: int) -> None:
    layers = getattr(config, "num_hidden_layers", None)
    if layers is not None and not -layers - 1 <= layer <= layers:
        raise EncoderError(
            f"encoder {name!r}: found layer {layer}, expected -1 (the last) or 0 to {layers}: it has {layers} layers."
        )


def _windows(frames: int, longest: int, context: int) -> Iterator[tuple[int, int, int]]:
    """(first frame, frames to skip, frames to take) of windows of equal length that take every frame once."""
    taken = 0
    while taken < frames:
        first = max(0, min(taken - context, frames - longest))
        last = first + longest >= frames
        take = frames - taken if last else first + longest - context - taken
        yield first, taken - first, take
        taken += take


def _pooled(states: torch.Tensor, pixels: torch.Tensor, config: Any) -> np.ndarray:
    """[B, tokens, d] or [B, d, h, w] -> [B, d] float32: the class token, or the mean over patches."""
    if states.ndim == 4:  # convolutional encoders
        return states.float().mean((2, 3)).cpu().numpy()
    patch = getattr(config, "patch_size", None)
    high, wide = (patch, patch) if isinstance(patch, int) else patch or pixels.shape[-2:]
    patches = (pixels.shape[-2] // high) * (pixels.shape[-1] // wide)
    pooled = states[:, 0] if states.shape[1] > patches else states.mean(1)
    return pooled.float().cpu().numpy()


def _faces(
    frames: Iterable[Frame], landmarks: Sequence[np.ndarray | None]
) -> Iterator[tuple[np.ndarray | None, float]]:
    """Each frame cropped to a square around the face (a quarter wider on every side), or None without a face."""
    for frame, points in zip(frames, landmarks, strict=False):
        yield None if points is None else crop_face(frame.image, points), frame.time


def crop_face(image: np.ndarray, landmarks: np.ndarray, margin: float = 0.25) -> np.ndarray:
    """Square around landmarks [n, 2] (fractions of width and height) in an image [H, W, 3]; black beyond its edge."""
    size = np.array([image.shape[1], image.shape[0]])
    low, high = landmarks.min(0) * size, landmarks.max(0) * size
    side = max(2, round(float((high - low).max()) * (1 + 2 * margin)))
    left, top = np.round((low + high) / 2 - side / 2).astype(int)
    square = np.zeros((side, side, 3), np.uint8)
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(image.shape[1], left + side), min(image.shape[0], top + side)
    if x1 > x0 and y1 > y0:
        square[y0 - top : y1 - top, x0 - left : x1 - left] = image[y0:y1, x0:x1]
    return square
