"""Callbacks of the trainer: gradient clipping by value, divergence check, progress bar, one log line per epoch."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState

from ..errors import DeepMLFError

if TYPE_CHECKING:
    from accelerate import Accelerator


class ClipByValue(TrainerCallback):
    """Clip every gradient by value, to [-value, value], just before the optimiser step."""

    def __init__(self, value: float, accelerator: Accelerator) -> None:
        self.value = value
        self.accelerator = accelerator

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.accelerator.unscale_gradients()
        trained = [p for p in kwargs["model"].parameters() if p.grad is not None]
        torch.nn.utils.clip_grad_value_(trained, self.value)


class StopWhenDiverged(TrainerCallback):
    """Stop with a clear message when the training loss is NaN or infinite.

    Raises:
        DeepMLFError: it is.
    """

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: dict[str, float], **_: Any) -> None:
        loss = logs.get("loss")
        if loss is not None and not math.isfinite(loss):
            raise DeepMLFError(
                f"The training loss is {loss} at step {state.global_step}: training has diverged. Lower "
                f"training.learning_rate (now {args.learning_rate:g}) or normalise the features (data.normalize=train)."
            )


class LogAtEpochEnd(TrainerCallback):
    """Also log at the end of every epoch, so that no log line averages over two epochs."""

    def on_epoch_end(self, args: Any, state: Any, control: TrainerControl, **_: Any) -> None:
        control.should_log = True


class ProgressBar(TrainerCallback):
    """One progress bar for the whole training, in terminal and notebook: epoch, loss, validation metric, best so far."""

    def __init__(self, title: str, metric: str) -> None:
        self.title = title
        self.metric = metric
        self.bar: Any = None
        self.shown: dict[str, str] = {}

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            self.bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                desc=self.title,
                unit="step",
                dynamic_ncols=True,
                mininterval=0.5,
            )

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: dict[str, float], **_: Any) -> None:
        if self.bar is None:
            return
        self.shown["epoch"] = f"{math.ceil(state.epoch or 0)}/{args.num_train_epochs:g}"
        if "loss" in logs:
            self.shown["loss"] = f"{logs['loss']:.3f}"
        if f"eval_{self.metric}" in logs:
            values = [
                entry[f"eval_{self.metric}"] for entry in state.log_history if f"eval_{self.metric}" in entry
            ]
            self.shown[f"valid {self.metric}"] = f"{values[-1]:.3f}"
            best = min((value for value in values if not math.isnan(value)), default=math.nan)
            self.shown["best"] = f"{best:.3f}"
        self.bar.set_postfix(self.shown, refresh=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class EpochLog(TrainerCallback):
    """Keep `metrics.jsonl`, one line per epoch, equal to the trainer's own history.

    The file is rewritten from the history each time, and the history is part of a checkpoint: a resumed run has one
    line per epoch, like an uninterrupted one.

    Args:
        path: the file.
        extra: further values to log per epoch, e.g. the gates of the model.
    """

    def __init__(self, path: Path, extra: Callable[[Any], dict[str, float]] | None = None) -> None:
        self.path = path
        self.extra = extra
        self.started = time.perf_counter()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.started = time.perf_counter()

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not state.log_history:
            return
        entry = state.log_history[-1]
        entry["eval_epoch_seconds"] = round(time.perf_counter() - self.started, 3)
        if self.extra is not None:
            entry.update({f"eval_{k}": v for k, v in self.extra(kwargs["model"]).items()})
        write_lines(self.path, epochs_of(state.log_history))


def epochs_of(log_history: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The trainer's history, one row per epoch: `train_*` averaged over the epoch's steps, `valid_*` at its end."""
    rows: list[dict[str, Any]] = []
    logs: list[dict[str, Any]] = []
    last_step = rows[-1]["step"] if rows else 0
    for entry in log_history:
        if "loss" in entry:
            logs.append(entry)
        elif "eval_loss" in entry:
            steps = [log["step"] for log in logs]
            weights = [b - a for a, b in zip([last_step, *steps[:-1]], steps, strict=True)]
            row: dict[str, Any] = {"epoch": round(entry["epoch"]), "step": entry["step"]}
            for name in logs[-1] if logs else ():
                if name == "learning_rate":
                    row[name] = logs[-1][name]
                elif name not in ("epoch", "step"):
                    row[f"train_{name}"] = sum(
                        w * log[name] for w, log in zip(weights, logs, strict=True)
                    ) / sum(weights)
            for name, value in entry.items():
                if name.startswith("eval_") and name not in _TIMINGS:
                    row[name.replace("eval_", "valid_", 1) if name != "eval_epoch_seconds" else "seconds"] = (
                        value
                    )
            rows.append(row)
            logs, last_step = [], entry["step"]
    return rows


_TIMINGS = (
    "eval_runtime",
    "eval_samples_per_second",
    "eval_steps_per_second",
    "eval_model_preparation_time",
)


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write JSON lines atomically: a kill leaves the old file or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    temporary.replace(path)
