"""SentimentTrainer: a thin `transformers.Trainer` for everything the kit trains.

Every registered model is trained here: optimiser, schedule, clipping, selection of the best checkpoint, resuming. Mixed
precision, gradient accumulation, loggers and `accelerate launch` are the Trainer's own.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, EvalPrediction, PreTrainedModel, Trainer, TrainingArguments
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback, TrainerState

from ..errors import DeepMLFError
from ..storage.files import write_text
from ..storage.optional import installed, optional
from .callbacks import ClipByValue, EpochLog, LogAtEpochEnd, ProgressBar, StopWhenDiverged
from .processes import on_cpu
from .quiet import quiet_bars
from .recipe import Recipe
from .scoring import LOSS_TERMS, head_values, loss_terms, mean_terms, metrics_of

torch_tensorboard = optional("torch.utils.tensorboard")

METRIC_NAMES = {"mae": "MAE", "loss": "loss"}


class SentimentTrainer(Trainer):
    """A Trainer that knows the kit's recipes, batches and outputs.

    Args:
        model: takes a batch of the collator as keyword arguments and returns an output with `loss` and
            `prediction` [B], and perhaps loss terms and other heads by the names of `DeepMLFOutput`.
        recipe: hyperparameters of the training.
        folder: of checkpoints and logs.
        collator: rows -> batch.
        train, valid: splits, sequences of rows.
        lengths: of the training texts in tokens, to group by within an optimiser step.
        scale: rules of the metrics (`mosi`, `mosei`, `sims`).
        seed: of dropout, SeqAug and the order of batches.
        title: of the progress bar; None: no bar.
        tensorboard: folder for TensorBoard logs, or None.
    """

    loss_is_scaled_for_ga = (
        False  # losses are means over a batch: the Trainer averages over accumulated batches
    )

    def __init__(
        self,
        model: PreTrainedModel,
        recipe: Recipe,
        folder: Path,
        collator: Any,
        train: Sequence[Any] | None,
        valid: Sequence[Any] | None,
        *,
        lengths: Sequence[int] | None = None,
        scale: str = "mosi",
        seed: int = 0,
        title: str | None = None,
        tensorboard: Path | None = None,
    ) -> None:
        self.recipe = recipe
        self.scale = scale
        self.classes = getattr(model.config, "num_classes", 0)
        self.lengths = list(lengths) if lengths is not None else None
        self._terms: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}  # batches with that term
        metric = METRIC_NAMES[recipe.select_on]
        training = train is not None and valid is not None
        steps_an_epoch = (
            math.ceil(len(train) / (recipe.batch_size * recipe.accumulation)) if train is not None else 1
        )
        args = TrainingArguments(
            output_dir=str(folder / "checkpoints"),
            num_train_epochs=recipe.epochs,
            per_device_train_batch_size=recipe.batch_size,
            per_device_eval_batch_size=recipe.eval_batch_size,
            gradient_accumulation_steps=recipe.accumulation,
            learning_rate=recipe.learning_rate,
            lr_scheduler_type="cosine_with_min_lr",
            lr_scheduler_kwargs={"min_lr": recipe.min_learning_rate},
            weight_decay=recipe.weight_decay,
            adam_beta1=recipe.betas[0],
            adam_beta2=recipe.betas[1],
            max_grad_norm=0.0,  # clipped by value instead, by a callback
            bf16=recipe.bf16,
            use_cpu=on_cpu(),  # lets several processes find each other there
            eval_strategy="epoch" if training else "no",
            save_strategy="epoch" if training else "no",
            save_total_limit=1,  # besides the best one
            load_best_model_at_end=training,
            metric_for_best_model=metric,
            greater_is_better=False,
            restore_callback_states_from_checkpoint=True,
            logging_steps=max(1, steps_an_epoch // 5),
            logging_nan_inf_filter=False,
            disable_tqdm=True,  # one bar of ours instead
            report_to="none",
            remove_unused_columns=False,
            label_names=["labels"],
            dataloader_num_workers=recipe.workers,
            dataloader_persistent_workers=recipe.workers > 0,
            dataloader_pin_memory=torch.cuda.is_available(),
            ddp_find_unused_parameters=True,
            seed=seed,
        )
        super().__init__(
            model=model,
            args=args,
            data_collator=_Collate(collator),
            train_dataset=train,
            eval_dataset=valid,
            compute_metrics=self._metrics,
        )
        self.model_accepts_loss_kwargs = False
        self.remove_callback(PrinterCallback)
        self.add_callback(StopWhenDiverged())
        self.add_callback(LogAtEpochEnd())
        if recipe.clip_value > 0:
            self.add_callback(ClipByValue(recipe.clip_value, self.accelerator))
        if training:
            self.add_callback(EarlyStoppingCallback(recipe.early_stop))
            self.add_callback(EpochLog(folder / "metrics.jsonl", gates_of))
        self._bar = ProgressBar(title, metric) if title is not None else None
        if self._bar is not None:
            self.add_callback(self._bar)
        if tensorboard is not None and installed("tensorboard") and self.is_world_process_zero():
            self.add_callback(TensorBoardCallback(torch_tensorboard.SummaryWriter(str(tensorboard))))

    # Optimiser and order -------------------------------------------------------------------------------------

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Matrices only: no biases, norms, gates, fusion tokens or missing-modality vectors."""
        return decayed_parameters(model)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Linear warm-up over `warmup_epochs`, then a cosine to `min_learning_rate`."""
        steps = round(self.recipe.warmup_epochs * num_training_steps / self.args.num_train_epochs)
        self.args.warmup_steps = min(steps, num_training_steps - 1)
        return super().create_scheduler(num_training_steps, optimizer)

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler | None:
        # Not transformers' own: its `group_by_length` sorts across optimiser steps, from long texts to short ones.
        return StepOrder(
            len(train_dataset if train_dataset is not None else self.train_dataset),
            self._train_batch_size * self.args.world_size,
            self.recipe.accumulation,
            self.args.seed,
            self.lengths if self.recipe.group_by_length else None,
        )

    # Loss and predictions ------------------------------------------------------------------------------------

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The model's own loss; its terms are collected for the log."""
        outputs = model(**inputs)
        if model.training:
            for name in LOSS_TERMS:
                if outputs.get(name) is not None:
                    self._terms[name] = self._terms.get(name, 0.0) + outputs[name].detach()
                    self._counts[name] = self._counts.get(name, 0) + 1
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Any, Tensor | None]:
        """Loss, (predictions of the heads [B, heads], loss terms [B, terms]), labels [B].

        A model of classes predicts the index of the likeliest class; the task head's probability of each class follows
        the heads [B, heads + classes].
        """
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            outputs = model(**inputs)
        heads = head_values(outputs, self.classes)
        terms = loss_terms(outputs).expand(len(heads), -1).contiguous()
        return outputs["loss"].detach(), (heads, terms), inputs["labels"]

    def _metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        heads, terms = prediction.predictions  # type: ignore[misc]  # a tuple, as prediction_step gives
        return metrics_of(heads, mean_terms(terms), prediction.label_ids, self.scale, self.classes)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the averages of the loss terms since the last log (on this process)."""
        if "loss" in logs:
            logs.update({name: float(value) / self._counts[name] for name, value in self._terms.items()})
            self._terms, self._counts = {}, {}
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: the Trainer's rule of thumb does not hold for a frozen LM."""
        return 0

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        with quiet_bars():
            super()._save(output_dir, state_dict)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Checkpoints hold no tensors of the LM on purpose: warn of other missing keys only."""
        missing = set(load_result.missing_keys) - set(self.model._keys_to_ignore_on_save or ())
        if missing or load_result.unexpected_keys:
            super()._issue_warnings_after_load(load_result)

    # Resume --------------------------------------------------------------------------------------------------

    def train_or_resume(self) -> None:
        """Train, resuming from the last complete checkpoint if there is one; ends with the best weights in the model.

        Raises:
            DeepMLFError: the validation metric was NaN after every epoch, so there is no best checkpoint.
        """
        try:
            self._train_or_resume()
        finally:
            if self._bar is not None:
                self._bar.close()  # so that a message begins a line of its own
        if self.state.best_model_checkpoint is None:
            raise DeepMLFError(
                f"valid_{self.args.metric_for_best_model} was not a number after any epoch, so no checkpoint is the best: "
                "look at metrics.jsonl for the loss term that is NaN, lower training.learning_rate (now "
                f"{self.recipe.learning_rate:g}), or normalise the features (data.normalize=train)."
            )

    def _train_or_resume(self) -> None:
        checkpoint = last_checkpoint(Path(self.args.output_dir))
        if checkpoint is None:
            self.train()
            return
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        if _has_ended(state, self.recipe):  # killed between its last epoch and the final table
            self.state = state
            self._load_best_model()
            return
        self.train(resume_from_checkpoint=str(checkpoint))


class _Collate:
    """The collator alone: the Trainer would save a collator's tokenizer into every checkpoint."""

    def __init__(self, collator: Any) -> None:
        self._collator = collator

    def __call__(self, rows: list[Any]) -> dict[str, Tensor]:
        return self._collator(rows)


class StepOrder(torch.utils.data.Sampler[int]):
    """Random order of an epoch; within an optimiser step, utterances of similar length share a batch.

        random order     | 9 2 7 3 | 4 8 1 6 |     step 1, step 2: 4 utterances each, in 2 batches of 2
        with lengths     | 7 9.2 3 | 1 4.8 6 |     the same utterances in each step, sorted into its batches

    Which utterances an optimiser step sees does not depend on their lengths: sorting happens within the step only, so
    without accumulation nothing is sorted. The batches of a step are shuffled, so that running statistics do not always
    end on the longest. The order is a function of seed and epoch alone: a resumed epoch sees the same batches, and every
    process computes the same order.

    Args:
        size: utterances per epoch.
        batch_size: global batch size: that of all processes together, one after another in the order.
        accumulation: gradient accumulation steps.
        seed: of the order.
        lengths: of the texts in tokens, [size]; None: nothing is sorted.
    """

    def __init__(
        self, size: int, batch_size: int, accumulation: int, seed: int, lengths: Sequence[int] | None = None
    ) -> None:
        self.size, self.batch_size, self.accumulation, self.seed = size, batch_size, accumulation, seed
        self.lengths = lengths
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        order = torch.randperm(self.size, generator=generator)
        for step in order.split(self.batch_size * self.accumulation):
            if self.lengths is None or self.accumulation == 1:
                yield from step.tolist()
                continue
            by_length = torch.tensor(sorted(step.tolist(), key=self.lengths.__getitem__))
            whole = len(step) // self.batch_size * self.batch_size
            # The last step of an epoch may end in a smaller batch, which stays the last: taken from anywhere.
            cut = int(torch.randint(whole // self.batch_size + 1, (), generator=generator)) * self.batch_size
            rest = by_length[cut : cut + len(step) - whole]
            batches = torch.cat([by_length[:cut], by_length[cut + len(rest) :]]).view(-1, self.batch_size)
            batches = batches[torch.randperm(len(batches), generator=generator)]
            yield from [*batches.flatten().tolist(), *rest.tolist()]


def decayed_parameters(model: nn.Module) -> list[str]:
    """Names of the trained parameters with weight decay: matrices, but not fusion tokens.

    Norms, biases, gates and missing-modality vectors have fewer than two dimensions, which excludes them.
    """
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.ndim >= 2 and "fusion_tokens" not in name
    ]


def gates_of(model: nn.Module) -> dict[str, float]:
    """Gate values of every MM Block by layer, for the epoch log; empty without MM Blocks."""
    gates = {}
    for layer, block in getattr(model, "mm_blocks", {}).items():
        for number in (1, 2):
            gate = getattr(block, f"gate_{number}", None)
            if gate is not None and gate.constant is not None:
                gates[f"gate_{number}_layer_{layer}"] = gate.constant
    return gates


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint in a folder; None if there is none.

    A kill may leave an incomplete one: `trainer_state.json` is written last, so a readable one means that the rest was
    written; one whose files were damaged later is passed over. From an older one, or from the start, a training takes the
    same steps. Where the run folder was moved, the path of the best checkpoint is updated.
    """
    found = []
    for path in folder.glob("checkpoint-*"):
        try:
            state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
            TrainerState.load_from_json(str(path / "trainer_state.json"))
            best = path.with_name(Path(state.get("best_model_checkpoint") or path).name)
            if _is_whole(path) and any(best.glob("*model*")) and _is_whole(best):
                found.append((int(state["global_step"]), path, state))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    if not found:
        return None
    _, path, state = max(found, key=lambda item: item[0])
    best = state.get("best_model_checkpoint")
    if best and Path(best) != folder / Path(best).name:
        state["best_model_checkpoint"] = str(folder / Path(best).name)
        write_text(path / "trainer_state.json", json.dumps(state, indent=2, sort_keys=True) + "\n")
    return path


def _is_whole(checkpoint: Path) -> bool:
    """Whether the tensors of a checkpoint can be read: weights, and the optimiser's state in archives with checksums."""
    for path in checkpoint.iterdir():
        try:
            if path.suffix == ".safetensors":
                with safe_open(path, "pt"):
                    continue
            if path.suffix in (".pt", ".pth"):
                with zipfile.ZipFile(path) as archive:
                    if archive.testzip() is not None:
                        return False
        except (SafetensorError, zipfile.BadZipFile, OSError):
            return False
    return True


def _has_ended(state: TrainerState, recipe: Recipe) -> bool:
    if state.global_step >= state.max_steps:
        return True
    stopper = state.stateful_callbacks.get("EarlyStoppingCallback", {})
    stopper = stopper[0] if isinstance(stopper, list) else stopper
    counter = stopper.get("attributes", {}).get("early_stopping_patience_counter", 0)
    return counter >= recipe.early_stop
