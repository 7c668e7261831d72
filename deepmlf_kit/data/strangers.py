"""Another utterance for each: whose words, voice or face stand in for its own.

Clips of one video are mostly of one speaker, whose voice and face are no replacement for themselves: another
utterance is one of another video wherever there is one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def video_of(id: str) -> str:
    """The video that an utterance is cut from: ids are `video$_$clip`; any other id is a video of its own."""
    return id.split("$_$")[0]


def strangers(ids: Sequence[str], random: np.random.Generator) -> tuple[np.ndarray, bool]:
    """For each utterance of a split another one, drawn from all those of other videos alike.

    Args:
        ids: of the utterances [N], at least 2.
        random: what they are drawn with.

    Returns:
        Row numbers [N] int64, and whether all are of other videos: where the split has one video only, they are
        its other utterances.
    """
    videos = np.unique([video_of(id) for id in ids], return_inverse=True)[1]
    others = videos.max() > 0
    if not others:
        videos = np.arange(len(ids))
    # In this order a video's utterances stand together, and the others follow them in a circle.
    order = np.argsort(videos, kind="stable")
    counts = np.bincount(videos)
    ends = np.cumsum(counts)
    steps = random.integers(len(ids) - counts[videos])
    return order[(ends[videos] + steps) % len(ids)], bool(others)
