"""What the bundled checkpoints answer to the examples, kept beside the clips: the page shows it before a model is there.

Answers are kept by a fingerprint of what they were made of, checkpoint and examples, so that no others are ever shown.
`scripts/make_examples.py` makes them anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..downloads.cache import checksum
from ..errors import DeepMLFError
from ..predict.bundled import best_at_hand
from ..predict.prediction import Prediction
from ..storage.files import write_json
from .examples import FOLDER, shown_examples
from .streams import Said, Streams, answer_and_sum, with_word_effects

if TYPE_CHECKING:
    from ..predict import Predictor

_FILE = FOLDER / "answers.json"


@dataclass(frozen=True)
class KeptAnswer:
    """The answer to an example, and what makes it up."""

    prediction: Prediction
    streams: Streams


def kept_answers(checkpoint: str | Path | None) -> dict[str, KeptAnswer]:
    """The answers of a checkpoint to the examples, by their names; none where it is no bundled one.

    Args:
        checkpoint: a run's folder; None: the best one at hand.
    """
    try:
        kept = json.loads(_FILE.read_text(encoding="utf-8"))[fingerprint(Path(checkpoint or best_at_hand()))]
    except (DeepMLFError, OSError, ValueError, KeyError):
        return {}
    return {
        name: KeptAnswer(Prediction.from_dict(values["prediction"]), _streams(values["streams"]))
        for name, values in kept.items()
    }


def keep_answers(predictors: Iterable[Predictor]) -> Path:
    """Answer the examples with some checkpoints and keep that, in place of what was kept before."""
    kept = {fingerprint(predictor.run.path): _answers(predictor) for predictor in predictors}
    write_json(_FILE, kept)
    return _FILE


def fingerprint(run: Path) -> str:
    """A hash of what the answers come from: the checkpoint, which names its language model's weights, and the examples."""
    files = [run / "run.json", run / "best" / "config.json", run / "best" / "model.safetensors"]
    files += [FOLDER / "examples.json", *sorted(FOLDER.glob("*.npz"))]
    digest = hashlib.sha256()
    for file in files:
        digest.update(checksum(file).encode())
    return digest.hexdigest()[:16]


def _answers(predictor: Predictor) -> dict[str, Any]:
    made = {}
    for example in shown_examples():
        features = example.features(predictor.recipe)
        if features is not None:
            prediction, streams = answer_and_sum(predictor, features, None)
            streams = with_word_effects(predictor, features, streams)
            made[example.name] = {
                "prediction": replace(prediction, timings={}).to_dict(),
                "streams": asdict(streams),
            }
    return made


def _streams(values: Mapping[str, Any]) -> Streams:
    """The inverse of `asdict`."""
    alone = {name: None if said is None else Said(**said) for name, said in values["alone"].items()}
    return Streams(**{**values, "together": Said(**values["together"]), "alone": alone})
