"""Recipe: how a model is trained. Every preset has one for the fused model and one for AV pretraining."""

from dataclasses import dataclass

from ..errors import DeepMLFError

#: Validation metrics that can select the best checkpoint; lower is better.
SELECTIONS = ("mae", "loss")


@dataclass(frozen=True)
class Recipe:
    """Settings of one training (paper, section 4; docs, "Published recipes").

    AdamW decays matrices only. The learning rate warms up linearly over `warmup_epochs` and follows a cosine down to
    `min_learning_rate` at `epochs`. Gradients are averaged over `accumulation` batches and then clipped by value
    (the authors sum them, so their threshold of 5 takes effect `accumulation` times earlier).

    Raises:
        DeepMLFError: a value is out of bounds.
    """

    epochs: int = 20
    early_stop: int = 10  # patience: epochs without improvement on the validation split
    select_on: str = "loss"  # validation metric to minimise: mae or loss
    learning_rate: float = 1e-4
    min_learning_rate: float = 1e-7
    warmup_epochs: float = 1.0
    weight_decay: float = 0.01
    betas: tuple[float, ...] = (0.9, 0.95)
    batch_size: int = 32  # utterances per device and batch
    accumulation: int = 8  # gradient accumulation steps
    clip_value: float = 5.0  # clip gradients by value; 0: no clipping
    eval_batch_size: int = 64
    group_by_length: bool = (
        True  # within an optimiser step, texts of similar length share a batch: less padding
    )
    keep_text: float = 20.0  # GB of disk for the cached hidden states and keys/values of frozen LMs; 0: off
    bf16: bool = False  # mixed precision; trained weights stay fp32
    gradient_checkpointing: bool = False  # less memory, more time
    compile: bool = False  # torch.compile
    workers: int = 0  # data loader processes

    def __post_init__(self) -> None:
        for name in ("epochs", "early_stop", "batch_size", "accumulation", "eval_batch_size"):
            if getattr(self, name) < 1:
                raise DeepMLFError(f"{name} is {getattr(self, name)}, but must be at least 1: set it higher.")
        for name in (
            "learning_rate",
            "min_learning_rate",
            "warmup_epochs",
            "weight_decay",
            "clip_value",
            "keep_text",
            "workers",
        ):
            if getattr(self, name) < 0:
                raise DeepMLFError(f"{name} is {getattr(self, name)}, but must not be negative.")
        if self.learning_rate == 0:
            raise DeepMLFError("learning_rate is 0, with which nothing is learned: set it higher.")
        if self.min_learning_rate > self.learning_rate:
            raise DeepMLFError(
                f"min_learning_rate {self.min_learning_rate:g} is above learning_rate {self.learning_rate:g}: "
                "the cosine falls from the one to the other, so lower it."
            )
        if self.select_on not in SELECTIONS:
            raise DeepMLFError(
                f"select_on is {self.select_on!r}, but must be one of {', '.join(SELECTIONS)}."
            )
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise DeepMLFError(f"betas is {list(self.betas)}, but must be two numbers from 0 to below 1.")
