"""How voice and face together are read, from CREMA-D's votes on voice alone, face alone and both.

Cao et al., "CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset", IEEE TAC 2014; votes under ODbL 1.0.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class MixedEvidence:
    """`both = voice * w_voice + face * w_face`, valences in [-1, 1].

    Attributes:
        voice, face: weights by least squares.
        r2: share of the variance that they explain.
        clips: how many clips they were fitted on.
    """

    voice: float
    face: float
    r2: float
    clips: int


def mixed_evidence(people: Path) -> MixedEvidence:
    """Fit the weights to the votes; valence is (happy - angry - disgusted - fearful - sad) / votes."""
    seen: dict[str, dict[str, float]] = {}
    with (people / "joint" / "tabulatedVotes.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            votes = {name: float(row[name]) for name in "ADFHNS"}
            valence = (2 * votes["H"] + votes["N"] - sum(votes.values())) / sum(votes.values())
            seen.setdefault(row["fileName"], {})[row[""][0]] = valence
    whole = np.array([[v["1"], v["2"], v["3"]] for v in seen.values() if len(v) == 3])
    weights, *_ = np.linalg.lstsq(whole[:, :2], whole[:, 2], rcond=None)
    left = whole[:, 2] - whole[:, :2] @ weights
    return MixedEvidence(
        float(weights[0]), float(weights[1]), float(1 - left.var() / whole[:, 2].var()), len(whole)
    )
