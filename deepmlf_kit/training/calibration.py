"""How sure a prediction is: an interval that held on validation data as often as it says.

Split conformal prediction (Vovk et al. 2005; Lei et al., "Distribution-free predictive inference for regression", JASA
2018): the half-width is the quantile of the absolute errors on data that trained nothing. Errors differ by what there was to
read, so utterances with the same streams (text, audio, vision) are measured together, all of them where a group is small.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..model.modalities import registered_modalities

COVERAGE = 0.8
SMALLEST_GROUP = 50  # utterances; an 80 % quantile of fewer is too uncertain to be promised
_ALL = "any"


@dataclass(frozen=True)
class Calibration:
    """Half-widths of intervals around a prediction.

    Attributes:
        coverage: share of utterances whose label the interval holds.
        half_widths: on the dataset's scale, by streams (`text+vision`); `any` for every other combination.
        utterances: on how many each was measured.
    """

    coverage: float
    half_widths: dict[str, float]
    utterances: dict[str, int]

    @classmethod
    def fit(
        cls,
        predictions: np.ndarray,
        labels: np.ndarray,
        streams: Sequence[str],
        coverage: float = COVERAGE,
    ) -> Calibration | None:
        """Measure the half-widths.

        Args:
            predictions, labels: [N] of a split that the weights were not trained on; unknown labels (NaN) are left out.
            streams: [N] of `streams_of`.
            coverage: share that an interval shall hold.

        Returns:
            None where fewer than `SMALLEST_GROUP` utterances have a label.
        """
        errors = np.abs(np.asarray(predictions, float) - np.asarray(labels, float))
        known = np.isfinite(errors)
        if known.sum() < SMALLEST_GROUP:
            return None
        groups = {_ALL: known} | {
            name: known & (np.asarray(streams) == name) for name in sorted(set(streams))
        }
        groups = {name: chosen for name, chosen in groups.items() if chosen.sum() >= SMALLEST_GROUP}
        return cls(
            coverage,
            {name: _conformal_quantile(errors[chosen], coverage) for name, chosen in groups.items()},
            {name: int(chosen.sum()) for name, chosen in groups.items()},
        )

    def half_width(self, streams: str) -> float:
        """That of a prediction made from `streams`."""
        return self.half_widths.get(streams, self.half_widths[_ALL])

    def covered(
        self, predictions: np.ndarray, labels: np.ndarray, streams: Sequence[str]
    ) -> dict[str, float]:
        """Share of held-out labels inside their interval, by streams and for `any`."""
        errors = np.abs(np.asarray(predictions, float) - np.asarray(labels, float))
        known, groups = np.isfinite(errors), np.asarray(streams)
        inside = errors <= np.array([self.half_width(name) for name in streams])
        chosen = {_ALL: known} | {name: known & (groups == name) for name in self.half_widths if name != _ALL}
        return {name: float(inside[rows].mean()) for name, rows in chosen.items() if rows.any()}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """The inverse of `to_dict`."""
        return cls(float(values["coverage"]), dict(values["half_widths"]), dict(values["utterances"]))


def streams_of(row: Mapping[str, Any]) -> str:
    """Which streams an utterance has anything of: `text`, `text+audio+vision`, ...; `nothing` for none."""
    there = ["text"] if str(row["text"]).strip() else []
    there += [name for name in registered_modalities() if name in row and np.any(np.asarray(row[name]))]
    return "+".join(there) or "nothing"


def _conformal_quantile(errors: np.ndarray, coverage: float) -> float:
    """The smallest width that holds `coverage` of further errors, too: rank ceil((n + 1) * coverage)."""
    rank = min(math.ceil((len(errors) + 1) * coverage), len(errors))
    return float(np.sort(errors)[rank - 1])
