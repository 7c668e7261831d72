"""Donor utterances: whose text, audio or vision replaces that of a given utterance.

Clips of one video are mostly of one speaker, whose voice and face are no replacement for themselves: a donor comes from
another video wherever there is one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def video_of(id: str) -> str:
    """The video that an utterance is cut from: ids are `video$_$clip`; any other id is a video of its own."""
    return id.split("$_$")[0]


def draw_donors(ids: Sequence[str], random: np.random.Generator) -> tuple[np.ndarray, bool]:
    """Draw a donor for each utterance of a split, uniformly from the utterances of other videos.

    Args:
        ids: of the utterances [N], at least 2.
        random: the generator to draw with.

    Returns:
        The donors' row numbers [N] int64, and whether they come from other videos: in a split of one video, they are
        its other utterances.
    """
    videos = np.unique([video_of(id) for id in ids], return_inverse=True)[1]
    several = videos.max() > 0
    if not several:
        videos = np.arange(len(ids))
    # In this order a video's utterances stand together, and the others follow them in a circle.
    order = np.argsort(videos, kind="stable")
    counts = np.bincount(videos)
    ends = np.cumsum(counts)
    steps = random.integers(len(ids) - counts[videos])
    return order[(ends[videos] + steps) % len(ids)], bool(several)
