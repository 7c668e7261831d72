"""The trainer against a reference: the published training rules in plain torch, on the same batches.

The reference shares the model's forward pass with the trainer and nothing else: loss, averaging, clipping, AdamW and
schedule are written out below. Nothing is random in the model (no dropout, no SeqAug), so both must agree batch by batch.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import TrainerCallback

sys.path.insert(0, str(Path(__file__).parent))
from training_fixtures import TINY, tiny_lm, tiny_sample

from deepmlf_kit import DeepMLFModel
from deepmlf_kit.data.collate import Collator
from deepmlf_kit.training.dataset import rows_of
from deepmlf_kit.training.presets import load_preset
from deepmlf_kit.training.recipe import Recipe
from deepmlf_kit.training.trainer import SentimentTrainer

WEIGHTS = {"fusion": 0.4, "av": 0.8, "text": 0.6, "lm": 0.7}  # of the loss terms beside the task's
MAX_TOKENS = 24
NOT_RANDOM = {
    "fusion.dropout": 0,
    "av_encoder.dropout": 0,
    "seqaug.text_p_apply": 0,
    "seqaug.av_p_feat": 0,
    **{f"loss.{name}": weight for name, weight in WEIGHTS.items()},
}
# 18 utterances in batches of 4: an epoch has steps of 2, 2 and 1 batches, and the last batch has 2 utterances.
UTTERANCES, EPOCHS = 18, 2
RECIPE = Recipe(
    epochs=EPOCHS,
    warmup_epochs=1,
    learning_rate=5e-3,
    min_learning_rate=1e-3,
    weight_decay=0.3,
    batch_size=4,
    accumulation=2,
    clip_value=0.02,
    keep_text=0,
)


# The reference -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rules:
    """The published training rules, at the sizes of this test."""

    accumulation: int = 2
    steps_per_epoch: int = 3
    epochs: int = EPOCHS
    warmup_steps: int = 3  # one epoch
    peak: float = 5e-3
    low: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    decay: float = 0.3
    is_decayed: Callable[[str, Tensor], bool] = lambda name, p: p.ndim == 2 and name != "fusion_tokens"
    clip: float = 0.02
    average: bool = True
    gamma: float = WEIGHTS["lm"]

    def learning_rate(self, step: int) -> float:
        """Of an optimiser step, from 0: linear warm-up, then a cosine down to `low`."""
        if step < self.warmup_steps:
            return self.peak * step / self.warmup_steps
        done = (step - self.warmup_steps) / (self.steps_per_epoch * self.epochs - self.warmup_steps)
        return self.low + (self.peak - self.low) * (1 + math.cos(math.pi * done)) / 2

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """L1 of the task and, weighted, of the other heads, and gamma times the loss of the next text token."""
        batch = dict(batch)
        labels = batch.pop("labels").to(next(model.parameters()).dtype)
        out = model(**batch, output_lm_logits=True)
        heads = {"fusion": out.fusion_prediction, "av": out.av_prediction, "text": out.text_prediction}
        loss = (out.prediction - labels).abs().mean()
        for name, prediction in heads.items():
            expected = (
                labels.unsqueeze(1) if name == "fusion" else labels
            )  # every fusion token predicts the label
            loss = loss + WEIGHTS[name] * (prediction - expected).abs().mean()
        ids, mask = batch["input_ids"], batch["attention_mask"].bool()
        row = F.pad(ids, (0, MAX_TOKENS - ids.shape[1]), value=0)  # 0 is <pad>
        targets = row.roll(-1, dims=1)
        targets[:, -1] = 0
        text_logits, targets = out.lm_logits[mask], targets[:, : ids.shape[1]][mask]
        return loss + self.gamma * F.cross_entropy(text_logits, targets)

    def train(
        self, model: nn.Module, batches: list[dict[str, Tensor]]
    ) -> Iterator[tuple[list[float], dict[str, Tensor]]]:
        """After each optimiser step: the loss of each of its batches, and the trained weights."""
        model.train()
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        first = {name: torch.zeros_like(p) for name, p in trained.items()}
        second = {name: torch.zeros_like(p) for name, p in trained.items()}
        per_epoch = len(batches) // self.epochs
        groups = [
            batches[epoch + i : min(epoch + i + self.accumulation, epoch + per_epoch)]
            for epoch in range(0, len(batches), per_epoch)
            for i in range(0, per_epoch, self.accumulation)
        ]
        for step, group in enumerate(groups):
            model.zero_grad()
            losses = [self.loss(model, batch) for batch in group]
            for loss in losses:
                (loss / len(group) if self.average else loss).backward()
            rate, (beta1, beta2) = self.learning_rate(step), self.betas
            with torch.no_grad():
                for name, p in trained.items():
                    if p.grad is None:
                        continue
                    gradient = p.grad.clamp(-self.clip, self.clip)
                    first[name] = beta1 * first[name] + (1 - beta1) * gradient
                    second[name] = beta2 * second[name] + (1 - beta2) * gradient**2
                    if self.is_decayed(name, p):
                        p -= rate * self.decay * p
                    mean = first[name] / (1 - beta1 ** (step + 1))
                    square = second[name] / (1 - beta2 ** (step + 1))
                    p -= rate * mean / (square.sqrt() + self.eps)
            yield [loss.item() for loss in losses], {n: p.detach().clone() for n, p in trained.items()}


# The kit's trainer -----------------------------------------------------------------------------------------------


class Recording(SentimentTrainer):
    """Keeps every training batch and its loss."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.batches: list[dict[str, Tensor]] = []
        self.losses: list[float] = []

    def compute_loss(self, model: Any, inputs: dict[str, Any], *arguments: Any, **named: Any) -> Any:
        self.batches.append({name: tensor.clone() for name, tensor in inputs.items()})
        loss = super().compute_loss(model, inputs, *arguments, **named)
        self.losses.append(loss.item())
        return loss


class EveryStep(TrainerCallback):
    """Keeps the trained weights after every optimiser step."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.weights.append({name: p.detach().clone() for name, p in trained})


#: Rounding of two orders of the same sums; AdamW's first steps make it larger than that of a gradient.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}


@dataclass
class Trained:
    """What the kit's trainer did, and the model as it was before."""

    start: nn.Module
    batches: list[dict[str, Tensor]]
    losses: list[float]
    weights: list[dict[str, Tensor]]

    def agrees_with(self, rules: Rules) -> None:
        """Every batch's loss and, after every step, all weights are those of the reference.

        Raises:
            AssertionError: they are not.
        """
        atol = TOLERANCE[self.start.fusion_tokens.dtype]
        steps = list(rules.train(copy.deepcopy(self.start), self.batches))
        assert len(steps) == len(self.weights)
        losses = [loss for of_step, _ in steps for loss in of_step]
        torch.testing.assert_close(torch.tensor(self.losses), torch.tensor(losses), rtol=0, atol=atol)
        for ours, (_, reference) in zip(self.weights, steps, strict=True):
            assert ours.keys() == reference.keys()
            for name, tensor in ours.items():
                pair = without_rounding(name, tensor), without_rounding(name, reference[name])
                torch.testing.assert_close(
                    *pair, rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
                )


def without_rounding(name: str, parameter: Tensor) -> Tensor:
    """What the loss depends on: the gradients of the rest are rounding error, which AdamW scales up.

    A bias of all keys does not change attention, and a bias before BatchNorm is taken out by it.
    """
    if name == "heads.task.0.bias":
        return parameter[:0]
    if not name.endswith("in_proj_bias"):
        return parameter
    query, _, value = parameter.chunk(3)
    return torch.cat([query, value])


@pytest.fixture(scope="module")
def train_rows() -> Any:
    return tiny_sample()["train"].select(range(UTTERANCES))


@pytest.fixture(scope="module", params=[torch.float32, torch.float64], ids=["float32", "float64"])
def trained(request: Any, train_rows: Any, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    lm, tokenizer = tiny_lm(train_rows["text"])
    config = load_preset("sample", {**TINY, **NOT_RANDOM}).model_config()
    torch.manual_seed(0)
    model = DeepMLFModel(config, lm=lm, tokenizer=tokenizer).to(request.param)
    start = copy.deepcopy(model)
    collator = Collator(tokenizer, MAX_TOKENS)
    steps = EveryStep()
    trainer = Recording(
        model, RECIPE, tmp_path_factory.mktemp("run"), collator, rows_of(train_rows), None, seed=3
    )
    trainer.add_callback(steps)
    trainer.train()
    return Trained(start, trainer.batches, trainer.losses, steps.weights)


def test_the_last_step_of_an_epoch_has_fewer_batches_and_gradients_are_really_clipped(
    trained: Trained,
) -> None:
    assert [len(batch["labels"]) for batch in trained.batches] == [4, 4, 4, 4, 2] * EPOCHS
    assert len(trained.weights) == 3 * EPOCHS
    model = copy.deepcopy(trained.start).train()
    Rules().loss(model, trained.batches[0]).backward()
    beyond = [(p.grad.abs() > RECIPE.clip_value).any() for p in model.parameters() if p.grad is not None]
    assert any(beyond)


def test_losses_and_weights_are_those_of_the_published_rules(trained: Trained) -> None:
    trained.agrees_with(Rules())


WRONG = {
    "beta 1": {"betas": (0.91, 0.95)},
    "beta 2": {"betas": (0.9, 0.96)},
    "clip": {"clip": 0.021},
    "decay": {"decay": 0.31},
    "decay on fusion tokens": {"is_decayed": lambda name, p: p.ndim == 2},
    "decay on vectors": {"is_decayed": lambda name, p: name != "fusion_tokens"},
    "warm-up one step longer": {"warmup_steps": 4},
    "warm-up one step shorter": {"warmup_steps": 2},
    "last learning rate": {"low": 0.9e-3},
    "gradients summed": {"average": False},
    "weight of the LM loss": {"gamma": 0.71},
}


@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG)
def test_the_reference_sees_every_changed_rule(trained: Trained, changes: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        trained.agrees_with(replace(Rules(), **changes))
