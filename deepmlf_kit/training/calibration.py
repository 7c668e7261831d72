"""How sure a prediction is: an interval that held on validation data as often as it says, and a zone around 0 without a verdict.

Split conformal prediction (Vovk et al. 2005; Lei et al., "Distribution-free predictive inference for regression", JASA
2018): the half-width is the quantile of the absolute errors on data that trained nothing. Errors differ by what there was to
read, so utterances with the same streams (text, audio, vision) are measured together, all of them where a group is small.

The zone ends where the sign of a prediction is right as often as the interval holds: a logistic regression of "the label has the
prediction's sign" on the prediction's size. An utterance labelled 0 has no sign, so any is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import DeepMLFError
from ..model.modalities import registered_modalities
from ..storage.files import misshapen

COVERAGE = 0.8
SMALLEST_GROUP = 50  # utterances; an 80 % quantile of fewer is too uncertain to be promised
_ALL = "any"


@dataclass(frozen=True)
class Calibration:
    """Half-widths of intervals around a prediction, and the zone around 0 in which its sign is not to be trusted.

    Attributes:
        coverage: share of utterances whose label the interval holds.
        half_widths: on the dataset's scale, by streams (`text+vision`); `any` for every other combination.
        zones: likewise: the sign of a smaller prediction is right less often than `coverage`.
        utterances: on how many each was measured.
    """

    coverage: float
    half_widths: dict[str, float]
    zones: dict[str, float]
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
        predicted, true = np.asarray(predictions, float), np.asarray(labels, float)
        errors = np.abs(predicted - true)
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
            {name: _zone(predicted[chosen], true[chosen], coverage) for name, chosen in groups.items()},
            {name: int(chosen.sum()) for name, chosen in groups.items()},
        )

    def half_width(self, streams: str) -> float:
        """That of a prediction made from `streams`."""
        return self.half_widths.get(streams, self.half_widths[_ALL])

    def interval(self, prediction: float, streams: str, scale: float) -> tuple[float, float]:
        """Where the label of a prediction made from `streams` lies; cut at the scale's ends, unless the prediction is beyond."""
        width = self.half_width(streams)
        low, high = max(prediction - width, -scale), min(prediction + width, scale)
        return min(low, prediction), max(high, prediction)

    def zone(self, streams: str) -> float:
        """Below which size the sign of a prediction made from `streams` is not to be trusted."""
        return self.zones.get(streams, self.zones[_ALL])

    def covered(
        self, predictions: np.ndarray, labels: np.ndarray, streams: Sequence[str]
    ) -> dict[str, float]:
        """Share of held-out labels inside their interval, by streams and for `any`."""
        errors = np.abs(np.asarray(predictions, float) - np.asarray(labels, float))
        known, groups = np.isfinite(errors), np.asarray(streams)
        inside = errors <= np.array([self.half_width(name) for name in streams])
        chosen = {_ALL: known} | {name: known & (groups == name) for name in self.half_widths if name != _ALL}
        return {name: float(inside[rows].mean()) for name, rows in chosen.items() if rows.any()}

    def right_signs(
        self, predictions: np.ndarray, labels: np.ndarray, streams: Sequence[str]
    ) -> dict[str, float]:
        """`share`: of held-out predictions that are outside their zone; `right`: of those, how many have the label's sign."""
        predicted, true = np.asarray(predictions, float), np.asarray(labels, float)
        outside = np.abs(predicted) >= np.array([self.zone(name) for name in streams])
        outside &= np.isfinite(true)
        right = float((predicted[outside] * true[outside] > 0).mean()) if outside.any() else math.nan
        return {"share": float(outside.mean()), "right": right}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """The inverse of `to_dict`.

        Raises:
            DeepMLFError: the values are damaged or of another version.
        """
        shape = {"coverage": float, "half_widths": dict, "zones": dict, "utterances": dict}
        wrong = misshapen(values, shape)
        if not wrong and not all(_ALL in values[name] for name in ("half_widths", "zones")):
            wrong = f"no width for {_ALL!r}"
        if wrong:
            raise DeepMLFError(
                f"What the run notes of its calibration is damaged ({wrong}): train it again, or remove `calibration` "
                "from its run.json, and it answers without an interval."
            )
        return cls(*(values[name] for name in shape))


def streams_of(row: Mapping[str, Any]) -> str:
    """Which streams an utterance has anything of: `text`, `text+audio+vision`, ...; `nothing` for none."""
    there = ["text"] if str(row["text"]).strip() else []
    there += [name for name in registered_modalities() if name in row and np.any(np.asarray(row[name]))]
    return "+".join(there) or "nothing"


def _conformal_quantile(errors: np.ndarray, coverage: float) -> float:
    """The smallest width that holds `coverage` of further errors, too: rank ceil((n + 1) * coverage)."""
    rank = min(math.ceil((len(errors) + 1) * coverage), len(errors))
    return float(np.sort(errors)[rank - 1])


def _zone(predictions: np.ndarray, labels: np.ndarray, coverage: float) -> float:
    """The size from which on a prediction's sign is right with probability `coverage`; at most the largest one seen."""
    sizes, right = np.abs(predictions), predictions * labels > 0
    if right.all() or not right.any():
        return 0.0 if right.all() else float(sizes.max())
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=1e6).fit(sizes[:, None], right)
    slope, start = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    wanted = math.log(coverage / (1 - coverage))
    if slope <= 0:  # larger predictions are no more often right
        return 0.0 if start >= wanted else float(sizes.max())
    return float(np.clip((wanted - start) / slope, 0.0, sizes.max()))
