"""Downloads of one answer: a page to hand on, everything as JSON, frames and effects as CSV."""

from __future__ import annotations

import base64
import csv
import mimetypes
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ..features import feature_names
from ..features.clip import ClipFeatures
from ..features.recipe import FeatureRecipe
from ..predict.prediction import Prediction
from ..storage.files import write_json
from . import views
from .reasons import Reasons


def write_files(
    folder: Path, prediction: Prediction, reasons: Reasons, features: ClipFeatures, recipe: FeatureRecipe
) -> list[Path]:
    """Write answer.json, effects.csv and frames.csv.

    `frames.csv` has one row per frame: stream, seconds, and one column per feature of either stream, empty where the
    row belongs to the other stream.
    """
    answer, effects, frames = (folder / name for name in ("answer.json", "effects.csv", "frames.csv"))
    write_json(answer, as_dict(prediction, reasons))
    with effects.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["kind", "name", "start_s", "end_s", "effect", "says"])
        for kind in ("words", "moments", "tokens", "modalities"):
            for entry in getattr(reasons, kind):
                row = [entry.get(key) for key in ("name", "start", "end", "effect", "says")]
                table.writerow([kind, *row])
    _write_frames(frames, features, recipe)
    return [answer, effects, frames]


def as_dict(prediction: Prediction, reasons: Reasons) -> dict[str, Any]:
    """The answer and its reasons as JSON values; attention is the mean over MM Blocks and heads [F, K]."""
    attention, reading = None, reasons.reading
    if reasons.has_av and reading is not None:
        weights = reading.get("cross_attention").mean(axis=(0, 1))  # [F, K]
        attention = {
            "times": np.round(reading.steps, 3).tolist() if reading.timed else None,
            "fusion_tokens": np.round(weights, 5).tolist(),
        }
    return {
        **prediction.to_dict(),
        "streams": asdict(reasons.streams),
        "effects": {kind: getattr(reasons, kind) for kind in ("words", "moments", "tokens", "modalities")},
        "replacement": reasons.replacement,
        "attention": attention,
    }


def write_page(path: Path, prediction: Prediction, reasons: Reasons, clip: Path | None = None) -> Path:
    """Write the answer as one HTML file that needs no network.

    Args:
        clip: put into the page, where it is given.
    """
    style = (files(__package__) / "style.css").read_text(encoding="utf-8")
    parts = [
        views.answer(prediction, reasons.streams),
        views.transcript(reasons.streams, editable=False),
        views.reasons(reasons),
    ]
    if clip is not None:
        kind = mimetypes.guess_type(clip.name)[0] or "video/mp4"
        tag = "audio" if kind.startswith("audio/") else "video"
        data = base64.b64encode(clip.read_bytes()).decode()
        parts.insert(0, f'<{tag} controls src="data:{kind};base64,{data}"></{tag}>')
    path.write_text(_PAGE.format(style=style, parts="\n".join(parts)), encoding="utf-8")
    return path


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>An answer of DeepMLF</title>
<style>
:root {{ color-scheme: light dark; --body-text-color: #1f2328; --border-color-primary: #d1d9e0; }}
@media (prefers-color-scheme: dark) {{ :root {{ --body-text-color: #e6e8eb; --border-color-primary: #333a44; }} }}
body {{ background: Canvas; color: var(--body-text-color); font: 16px/1.5 system-ui, sans-serif; margin: 0; }}
main {{ max-width: 860px; margin: 0 auto; padding: 8px 16px 24px; }} video {{ max-width: 100%; }} h1 {{ font-size: 1.5rem; }}
{style}
.mlf-answer, .mlf-transcript, .mlf-reasons {{ margin-top: 1.2rem; }}
@media (prefers-color-scheme: dark) {{ .gradio-container {{ --mlf-grey: #a9b1bc; }} }}
</style>
</head>
<body>
<main class="gradio-container">
<h1>An answer of DeepMLF</h1>
<p class="mlf-caution">A model's answer about one clip, made by the demo of the DeepMLF kit. Not for judging people.</p>
{parts}
</main>
</body>
</html>
"""


def _write_frames(path: Path, features: ClipFeatures, recipe: FeatureRecipe) -> None:
    names = feature_names(recipe)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        columns: list[list[str]] = []
        for stream, known in zip(("audio", "vision"), names, strict=True):
            width = getattr(features, stream).shape[1]
            columns.append(list(known) if known else [f"{stream}_{i}" for i in range(width)])
        table.writerow(["stream", "seconds", *columns[0], *columns[1]])
        empty = [[""] * len(part) for part in columns]
        for number, stream in enumerate(("audio", "vision")):
            for time, values in zip(
                getattr(features, f"{stream}_times"), getattr(features, stream), strict=True
            ):
                cells = list(empty)
                cells[number] = [f"{value:.6g}" for value in values]
                table.writerow([stream, f"{time:.3f}", *cells[0], *cells[1]])
