"""Recipe: how something is trained. One for the fused model and one for the AV encoder stand in every preset."""

from dataclasses import dataclass

from ..errors import DeepMLFError

#: What the best checkpoint can be chosen by, on the validation split; smaller is better.
SELECTIONS = ("mae", "loss")


@dataclass(frozen=True)
class Recipe:
    """Settings of one training (paper, section 4; docs, "Published recipes").

    AdamW decays matrices only. The learning rate rises over `warmup_epochs` and falls along a cosine to
    `min_learning_rate` at `epochs`. Gradients are averaged over `accumulation` batches and then clipped by value
    (the authors sum them, so that their threshold of 5 bites `accumulation` times earlier).
    """

    epochs: int = 20
    early_stop: int = 10  # epochs without a better validation value after which training ends
    select_on: str = "loss"  # validation value that the best checkpoint has least of
    learning_rate: float = 1e-4
    min_learning_rate: float = 1e-7
    warmup_epochs: float = 1.0
    weight_decay: float = 0.01
    betas: tuple[float, ...] = (0.9, 0.95)
    batch_size: int = 32  # utterances a device takes at once
    accumulation: int = 8  # batches a step of the optimiser takes
    clip_value: float = 5.0  # largest absolute value of a gradient's entry; 0: no clipping
    eval_batch_size: int = 64
    group_by_length: bool = True  # within an optimiser step, texts of like length share a batch: less padding
    keep_text: float = (
        20.0  # gigabytes of disk for all kept text states of the frozen LMs, read in every epoch; 0: off
    )
    bf16: bool = False  # mixed precision; the weights that are trained stay fp32
    gradient_checkpointing: bool = False  # less memory for more time
    compile: bool = False  # torch.compile
    workers: int = 0  # processes that load data

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
