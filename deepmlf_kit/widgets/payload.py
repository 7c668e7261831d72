"""The data of one utterance that the explorer's front end receives: JSON values, and weights as bytes.

Between `explain.Reading` and `explorer.js`. Attention at 24 layers x 16 heads x 20 tokens x 70
positions is 537,600 numbers; they go as uint16 fractions of the largest, 1.1 MB, and every slice of them is then
drawn without asking again.
"""

from __future__ import annotations

import mimetypes
from pathlib import Path
from typing import Any

import numpy as np

from ..data.schema import frame_columns
from ..explain.ablations import Effects
from ..explain.compare import attention_vs_effect
from ..explain.reading import Reading
from ..plots.style import modality_label
from ..plots.tracks import tracks_of

LARGEST_CLIP = 40_000_000  # bytes that are sent to the browser


def pack(weights: np.ndarray) -> tuple[bytes, float]:
    """Non-negative weights as uint16 fractions of the largest, and the largest."""
    top = float(weights.max()) if weights.size else 0.0
    if top <= 0:
        return np.zeros(weights.shape, np.uint16).tobytes(), 1.0
    return np.round(weights * (65535 / top)).astype("<u2").tobytes(), top


def payload_of(reading: Reading, scale: float = 3.0) -> tuple[dict[str, Any], bytes, bytes]:
    """The front end's form of a reading: JSON values, cross-attention and self-attention to words as bytes.

    Args:
        reading: with all measures.
        scale: largest absolute label.
    """
    cross, to_words = reading.get("cross_attention"), reading.attention_to_words()
    cross_bytes, cross_top = pack(cross)
    self_bytes, self_top = pack(to_words)
    words, steps = reading.words, reading.steps
    half = float(np.diff(steps).mean()) / 2 if len(steps) > 1 else 0.5
    update = reading.get("cross_attention_norms") / np.maximum(reading.get("state_norms"), 1e-9)
    values = {
        "id": reading.id,
        "text": reading.text,
        "label": plain(reading.label),
        "sentiment": plain(reading.sentiment),
        "heads": {name: plain(value) for name, value in reading.heads.items()},
        "scale": scale,
        "shape": list(cross.shape),
        "cross_top": cross_top,
        "self_shape": list(to_words.shape),
        "self_top": self_top,
        "layers": list(reading.fusion_layers),
        "steps": plain(steps),
        "readable": reading.get("av_mask").astype(bool).tolist(),
        "half": half,
        "timed": reading.timed,
        "seconds": float(steps[-1] + half),
        "words": [
            {"word": word, "label": label, "start": plain(start), "end": plain(end)}
            for word, label, start, end in zip(words.words, words.labels, words.start, words.end, strict=True)
        ],
        "note": f"{words.cut} words are not read: the text is too long. " if words.cut else "",
        "tracks": {modality: _tracks(reading, modality) for modality in frame_columns(reading.row)},
        "depth": {
            "fusion": plain(reading.get("fusion_sentiment")),
            "text": plain(reading.get("text_sentiment")),
            "task": plain(reading.get("task_sentiment")),
        },
        "update": plain(update),
        "similarity": plain(reading.get("token_similarity")),
    }
    return values, cross_bytes, self_bytes


def effects_payload(found: Effects, reading: Reading) -> dict[str, Any]:
    """Effects for the front end, with attention and the rank correlation where there is one."""
    values: dict[str, Any] = {
        "of": found.of,
        "replacement": found.replacement,
        "names": [modality_label(name) for name in found.names],
        "effect": plain(found.effect),
    }
    if found.of in ("time", "words") and len(found.names):
        compared = attention_vs_effect(reading, found)
        values |= {"attention": plain(compared.attention), "rank": plain(compared.rank_correlation)}
    return values


def clip_of(row: Any, folder: str | Path | None, most: int = LARGEST_CLIP) -> tuple[bytes, str] | None:
    """The clip's bytes and media type; None where there is no file, or it is too large to send.

    A dataset may come from anywhere, and its column `clip` may name any file of this machine: only what lies in `folder`,
    symbolic links resolved, is read.

    Args:
        row: of the dataset.
        folder: where clips may lie; None: nowhere. Relative paths start there.
        most: bytes of the largest clip.
    """
    if folder is None or not row.get("clip"):
        return None
    root = Path(folder).resolve()
    path = (root / str(row["clip"])).resolve()
    if not path.is_relative_to(root) or not path.is_file() or path.stat().st_size > most:
        return None
    kind = mimetypes.guess_type(path.name)[0] or "video/mp4"
    return path.read_bytes(), kind


def plain(values: Any) -> Any:
    """JSON-ready numbers: four decimals, None for what is not finite."""
    array = np.asarray(values, np.float64)
    if array.ndim == 0:
        return round(float(array), 4) if np.isfinite(array) else None
    return [plain(value) for value in array] if array.ndim > 1 else _row(array)


def _row(values: np.ndarray) -> list[float | None]:
    finite = np.isfinite(values)
    rounded = np.round(np.where(finite, values, 0), 4).tolist()
    return rounded if finite.all() else [v if ok else None for v, ok in zip(rounded, finite, strict=True)]


def _tracks(reading: Reading, modality: str) -> list[dict[str, Any]]:
    found = []
    for track in tracks_of(reading.row, modality, reading.frame_times(modality)):
        step = max(1, len(track.values) // 1200)  # a curve needs no more points than pixels
        found.append(
            {
                "name": track.name,
                "unit": track.unit,
                "t": plain(track.times[::step]),
                "v": plain(track.values[::step]),
            }
        )
    return found
