"""A notebook of the course: its settings, its trainings, texts that the run writes, and checked exercises.

Where it stands: what `notebooks/` import beside the kit's own calls, so that the same cells train on the sample set and on
data of a reader's own.

    course = Course("04", PRESET, DATASET, OVERRIDES)
    av = course.train("av", model="av")                  # runs/04-sample/av
    say(f"The error is {av.metrics['MAE']:.2f}.")        # Markdown with the run's own number
    check(answer, 0.5)                                   # "Right." or what is missing
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import DatasetDict, disable_progress_bars
from transformers.utils.logging import disable_progress_bar

from ..data import schema
from ..data.sample import make_sample
from ..storage.optional import optional
from ..sweep import SweepPlan, load_plan, run_sweep
from ..training import Run, train
from ..training.dataset import incompatibilities
from ..training.dry_run import duration, measured_rate, plan_model
from ..training.presets import Preset, load_preset

ipython = optional("IPython.display")


class Course:
    """The settings cell of a notebook, put to work.

    Args:
        number: of the notebook, the first part of its run folders' name.
        preset: name of a preset, or a YAML file.
        dataset: folder of a prepared dataset; None: the synthetic sample set.
        overrides: settings to change, `["training.epochs=2"]`.
        sizes: utterances by split of the sample set (`make_sample`).
        short: settings that keep a training on the sample set short; the reader's overrides come after them.
    """

    def __init__(
        self,
        number: str,
        preset: str = "sample",
        dataset: str | None = None,
        overrides: Sequence[str] = (),
        *,
        sizes: Mapping[str, int] | None = None,
        short: Sequence[str] = (),
    ) -> None:
        quiet()
        #: Whether the data are the sample set, whose rule is known.
        self.on_sample = dataset is None
        self.folder = f"runs/{number}-{preset}"
        self._name, self._dataset = preset, dataset
        self._overrides = [*(short if self.on_sample else ()), *overrides]
        self._sizes = dict(sizes or {})

    @cached_property
    def data(self) -> DatasetDict:
        """The dataset of the settings cell."""
        return make_sample(seed=0, **self._sizes) if self._dataset is None else schema.load(self._dataset)

    @cached_property
    def preset(self) -> Preset:
        """The preset with the reader's overrides, made to fit the data's feature dimensions and scale."""
        return load_preset(self._name, self._settings)

    @cached_property
    def _settings(self) -> list[str]:
        """The reader's overrides, then what the data need."""
        preset = load_preset(self._name, self._overrides)
        if fitted := [one.setting for one in incompatibilities(self.data, preset)]:
            print(f"Set to fit the data: {', '.join(fitted)}")
        return [*self._overrides, *fitted]

    def train(self, name: str, *, overrides: Sequence[str] = (), **options: Any) -> Run:
        """Train in a folder of this notebook, or take up the run that is there (`training.train`).

        Args:
            name: of the run's folder.
            overrides: settings beyond those of the settings cell.
            options: further arguments of `train`, such as `model`, `av_encoder` and `seed`.
        """
        preset = load_preset(self.preset, list(overrides)) if overrides else self.preset
        return train(preset, self.data, f"{self.folder}/{name}", **{"progress": False, **options})

    def sweep(self, plan: str | SweepPlan, name: str) -> pd.DataFrame:
        """Run a sweep in a folder of this notebook, or take up the trainings that are there (`sweep.run_sweep`).

        Args:
            plan: a ready-made sweep's name, or a plan. What it sets is for its sample set; on other data it trains the
                recipe of the settings cell.
            name: of the sweep's folder.

        Returns:
            One row per training: what was varied, the seed, the metrics of the test split.
        """
        plan = plan if isinstance(plan, SweepPlan) else load_plan(plan)
        if self.on_sample:
            plan = plan.with_settings(self._overrides)
        else:
            plan = plan.changed(preset=self._name, set={}).with_settings(self._settings)
        return run_sweep(plan, self._dataset, f"{self.folder}/{name}", tell=lambda line: None).table

    def cost(self, trainings: int) -> str:
        """What so many trainings of the fused model take here, in words, without training anything (`training.dry_run`)."""
        recipe, model = self.preset.training, plan_model(self.preset)
        seconds = model.seconds(trainings * recipe.epochs * len(self.data["train"]), measured_rate())
        return (
            f"{trainings} trainings of up to {recipe.epochs} epochs on {len(self.data['train']):,} utterances: "
            f"{duration(seconds)} or more on this machine, one after another"
        )

    def story(self) -> bool:
        """Whether to tell a story of the sample set; on other data it says that the cell is skipped."""
        if not self.on_sample:
            say("*Skipped: this cell tells a story of the synthetic sample set, whose rule is known.*")
        return self.on_sample


def quiet() -> None:
    """No progress bars and warnings of libraries between the cells of a notebook."""
    disable_progress_bars()
    disable_progress_bar()
    logging.getLogger("torch.utils.tensorboard").setLevel(logging.ERROR)


def say(text: str) -> None:
    """Show Markdown: the way in which numbers of a run get into a text."""
    ipython.display(ipython.Markdown(text))


def fold(title: str, text: str) -> None:
    """Show Markdown behind a title that opens at a click, without a kernel too."""
    say(f"<details><summary>{title}</summary>\n\n{text}\n\n</details>")


def check(answer: Any, expected: Any, *, within: float = 0.01, hint: str = "") -> None:
    """Judge an exercise's answer, in a sentence.

    Args:
        answer: the reader's; `...` (not yet answered) is met with an invitation.
        expected: a number, text or tensor, or a function that takes the answer and says whether it is right.
        within: the largest difference of numbers.
        hint: what to look at again where the answer is not right.
    """
    if answer is ...:
        print("Your turn: put your answer in place of the three dots, then run this cell again.")
    else:
        print("Right." if _agrees(answer, expected, within) else f"Not yet. {hint}".strip())


def _agrees(answer: Any, expected: Any | Callable[[Any], bool], within: float) -> bool:
    if callable(expected):
        return bool(expected(answer))
    if isinstance(expected, str):
        return str(answer).strip().lower() == expected.lower()
    try:
        found, wanted = (np.asarray(torch.as_tensor(value), float) for value in (answer, expected))
    except (TypeError, ValueError, RuntimeError):
        return False
    return found.shape == wanted.shape and bool(np.allclose(found, wanted, rtol=0, atol=within))
