"""The clock of an utterance: when each voice and face frame was, as shares of the utterance's length.

Where it stands: the collator turns a row's frame times into spans with it, the AV encoder pools by those spans
(`av_encoder.frames_of_steps`), and whatever draws AV steps in seconds asks `step_times` of the same clock.

All streams whose frame times are known share one clock: the utterance begins with the earliest frame and ends with the
latest, whichever stream it belongs to, and missing (all-zero) frames keep their time. A stream without frame times is
spread evenly over the utterance: its own number of frames is its length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .schema import DatasetError, frame_columns

#: Begin and end of a padding frame: outside the utterance.
PADDING_SPAN = 2.0


def frame_spans(counts: Mapping[str, int], times: Mapping[str, np.ndarray | None]) -> dict[str, np.ndarray]:
    """Where each frame begins and ends, as shares of the utterance's length.

    Args:
        counts: number of frames n by stream.
        times: by stream, seconds of the centre of each frame [n]; None or empty where unknown. The times of a stream
            that was left out (no frames) still count towards the utterance's length.

    Returns:
        By stream [n, 2] float32 in [0, 1], ascending.

    Raises:
        DatasetError: as many times as there are not frames, or times that are not finite or run backwards.
    """
    seconds = {name: _seconds(name, counts[name], times.get(name)) for name in counts}
    whole = _whole(seconds.values())
    spans = {}
    for name, count in counts.items():
        known = seconds[name]
        if known is None or whole is None:
            edges = np.arange(count + 1) / max(count, 1)
            spans[name] = np.stack([edges[:-1], edges[1:]], axis=1).astype(np.float32)
        else:
            begin, end = whole
            spans[name] = ((known[:count] - begin) / (end - begin)).astype(np.float32)
    return spans


def spans_of(row: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """`frame_spans` of a row of the dataset's schema."""
    counts = {name: len(row[name]) for name in frame_columns(row)}
    return frame_spans(counts, {name: row.get(f"{name}_times") for name in counts})


def utterance_seconds(row: Mapping[str, Any]) -> tuple[float, float] | None:
    """When the utterance of a row begins and ends, in seconds; None where no frame times are known."""
    return _whole(_seconds(name, len(row[name]), row.get(f"{name}_times")) for name in frame_columns(row))


def step_times(row: Mapping[str, Any], steps: int) -> np.ndarray | None:
    """Seconds of the middle of each of K equal parts of the utterance [K]; None where no frame times are known.

    Args:
        row: of the dataset's schema.
        steps: K.
    """
    whole = utterance_seconds(row)
    if whole is None:
        return None
    begin, end = whole
    return begin + (np.arange(steps) + 0.5) / steps * (end - begin)


def _seconds(name: str, count: int, times: Any) -> np.ndarray | None:
    """Begin and end of each frame in seconds [n, 2] float64; None where its times say nothing.

    A frame reaches half-way to its neighbours, and no further than one frame period (the median distance): where frames
    are absent, nothing stands for them. Frames at 0 s or later do not begin before 0 s.
    """
    centres = np.asarray([] if times is None else times, np.float64).reshape(-1)
    if len(centres) != count and count and len(centres):
        raise DatasetError(
            f"{name}_times has {len(centres)} entries for {count} frames; expected one a frame, or none"
        )
    if not np.isfinite(centres).all() or (np.diff(centres) < 0).any():
        raise DatasetError(
            f"found {name}_times that are not finite or run backwards; expected rising seconds"
        )
    distances = np.diff(centres)
    if not distances.any():  # no frame, one frame, or all at once: nothing tells how long a frame is
        return None
    period = float(np.median(distances[distances > 0]))
    middles = (centres[:-1] + centres[1:]) / 2
    begins = np.concatenate([[centres[0] - period / 2], np.maximum(middles, centres[1:] - period)])
    ends = np.concatenate([np.minimum(middles, centres[:-1] + period), [centres[-1] + period / 2]])
    if centres[0] >= 0:
        begins[0] = max(begins[0], 0.0)
    return np.stack([begins, ends], axis=1)


def _whole(seconds: Any) -> tuple[float, float] | None:
    known = [frames for frames in seconds if frames is not None]
    if not known:
        return None
    return min(float(frames[0, 0]) for frames in known), max(float(frames[-1, 1]) for frames in known)
