"""A finished run -> the small folder that is shipped: weights in half precision, and what prediction needs beside them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from deepmlf_kit import Predictor
from deepmlf_kit.data.schema import for_batches
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.storage.files import write_json
from deepmlf_kit.training import Run

LIMIT = 6_000_000  # bytes of a checkpoint, without its language model
LARGEST_MOVE = {
    "auto": 0.05,
    "float32": 0.05,
    "bfloat16": 0.2,
}  # that half precision may move a prediction, by lm.dtype


def export(run: Run, out: Path) -> None:
    """Copy what prediction needs of a run.

    Raises:
        DeepMLFError: the run is not finished, a weight does not fit half precision, or the folder is too large.
    """
    if run.kind != "fused" or not run.finished:
        raise DeepMLFError(f"{run.path} is no finished fused run, expected one: let its training end.")
    fresh = out.with_name(out.name + ".writing")
    shutil.rmtree(fresh, ignore_errors=True)
    (fresh / "best").mkdir(parents=True)
    weights = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in load_file(run.best / "model.safetensors").items()
    }
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise DeepMLFError("A weight is too large for half precision.")
    save_file(weights, fresh / "best" / "model.safetensors", metadata={"format": "pt"})
    (fresh / "best" / "model.safetensors").chmod(0o644)
    config = json.loads((run.best / "config.json").read_text())
    (fresh / "best" / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    info = json.loads(json.dumps(run.info))
    info["dataset"]["path"] = None  # paths of the machine that trained it mean nothing elsewhere
    info["av_encoder"] = None
    write_info(fresh, info)
    size = sum(path.stat().st_size for path in fresh.rglob("*") if path.is_file())
    if size > LIMIT:
        raise DeepMLFError(
            f"The checkpoint takes {size / 1e6:.1f} MB, at most {LIMIT / 1e6:.0f} MB may be: train with fewer "
            "fusion.layers or a smaller fusion.lora_r."
        )
    shutil.rmtree(out, ignore_errors=True)
    fresh.rename(out)


def write_info(folder: Path, info: dict[str, Any]) -> None:
    """Write `run.json`."""
    write_json(folder / "run.json", info)


def predictions(place: Run | Path, split: Any) -> dict[str, np.ndarray]:
    """Each head's prediction for a split, [N] or [N, F]."""
    predictor, rows = Predictor(place, device="cpu"), list(for_batches(split))
    parts = [predictor.rows(rows[i : i + 64]) for i in range(0, len(rows), 64)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def check_half_precision(run: Run, out: Path, split: Any) -> float:
    """How far half precision moves a prediction at most.

    Raises:
        DeepMLFError: by more than `LARGEST_MOVE` of its LM's precision.
    """
    moved = float(np.abs(predictions(run, split)["task"] - predictions(out, split)["task"]).max())
    allowed = LARGEST_MOVE[run.preset.lm.dtype]
    if moved > allowed:
        raise DeepMLFError(f"Half precision moves a prediction by {moved:.3f}, at most {allowed} may be.")
    return moved
