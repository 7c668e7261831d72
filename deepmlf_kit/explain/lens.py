"""Lens: a trained model on a dataset, one call per question.

Where it stands: what notebooks, the explorer and reports call; the measures themselves take a model and a batch and
stand in their own modules.

    lens = Lens("runs/demo", dataset)
    reading = lens.read(3)                       # attention, gates, depth of test utterance 3
    plots.clip_timeline(reading)
    plots.effect_bars(lens.effects(3, "words"))
    plots.specialisation(lens.survey())
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict

from ..data import schema
from ..data.collate import Collator
from ..data.donors import video_of
from ..data.schema import frame_columns
from ..errors import DeepMLFError
from ..model.deepmlf import DeepMLFModel
from ..training.run_folder import Run
from . import ablations, gradients
from .capturing import MEASURES, capture
from .compare import AttentionVsEffect, attention_vs_effect
from .cumulative import CumulativeAblation, cumulative_ablation
from .deletion import RANKINGS, DeletionCurve, deletion
from .patching import Patching, patch
from .reading import Reading, av_step_times
from .surveying import Survey, survey
from .words import Words, words_of

Row = int | str | Mapping[str, Any]
"""An utterance: its number in the split, its id, or a row of one's own with `text`, `audio` and `vision`."""


class Lens:
    """A model and the utterances it is examined on.

    Args:
        model_or_run: a `DeepMLFModel`, a `Run`, or the path of a run's folder.
        dataset: a `DatasetDict`, or its path; by default the one that the run was trained on, where that is on
            disk.
        split: the split that numbers and ids refer to.
        collator: rows -> batch; by default the run's own, or for a bare model one without normalisation.

    Raises:
        DeepMLFError: the run is not a fused model, or there is no dataset or split.
    """

    def __init__(
        self,
        model_or_run: DeepMLFModel | Run | str | Path,
        dataset: DatasetDict | str | Path | None = None,
        split: str = "test",
        collator: Collator | Callable[[Sequence[Any]], dict[str, Any]] | None = None,
    ) -> None:
        self.name = "model"
        self.model: Any
        if isinstance(model_or_run, DeepMLFModel):
            self.model = model_or_run
        else:
            run = _open(model_or_run)
            self.name = run.path.name
            self.model = run.load_model()
            collator = collator or run.collator(self.model.tokenizer)
            dataset = dataset if dataset is not None else run.info["dataset"].get("path")
        self.model.eval()
        self.collator = collator or Collator.for_model(self.model)
        #: Where the dataset lies; None: in memory.
        self.folder = Path(dataset) if isinstance(dataset, str | Path) else None
        self.dataset = _open_dataset(dataset)
        if split not in self.dataset:
            raise DeepMLFError(f"The dataset has no split {split!r}: choose from {', '.join(self.dataset)}.")
        self.split = split
        self.rows: Dataset = self.dataset[split]
        self._ids: dict[str, int] | None = None
        self._survey: Survey | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ids(self) -> list[str]:
        """Ids of the split's utterances, in order."""
        if self._ids is None:
            self._ids = {name: i for i, name in enumerate(self.rows.with_format(None)["id"])}
        return list(self._ids)

    def row(self, which: Row) -> dict[str, Any]:
        """One utterance: frames and times as arrays, the rest as plain values.

        Raises:
            DeepMLFError: there is no such utterance.
        """
        if isinstance(which, Mapping):
            return dict(which)
        if isinstance(which, str):
            _ = self.ids
            assert self._ids is not None
            if which not in self._ids:
                raise DeepMLFError(
                    f"No utterance {which!r} in the split {self.split!r} ({len(self)} utterances)."
                )
            which = self._ids[which]
        if not -len(self) <= which < len(self):
            raise DeepMLFError(f"No utterance {which} in the split {self.split!r}, which has {len(self)}.")
        which = int(which) % len(self)
        frames = [c for name in frame_columns(self.rows.features) for c in (name, f"{name}_times")]
        arrays = [c for c in frames if c in self.rows.features]
        plain = [c for c in self.rows.column_names if c not in arrays]
        row = dict(self.rows.with_format(None).select_columns(plain)[which])
        row |= self.rows.with_format("numpy").select_columns(arrays)[which]
        return row

    def batch(self, which: Row) -> dict[str, Any]:
        """One utterance as the model takes it."""
        return self.collator([self.row(which)])

    def donors(self, which: Row, count: int = 16, seed: int = 0) -> dict[str, Any]:
        """A batch of utterances to resample from: of other videos of the split, or else others of the same."""
        mine = str(self.row(which).get("id")) if len(self) else ""
        ids = list(self.rows.with_format(None)["id"])
        order = np.random.default_rng(seed).permutation(len(self)).tolist()
        others = [i for i in order if video_of(ids[i]) != video_of(mine)]
        others = others or [i for i in order if ids[i] != mine]
        return self.collator([self.row(i) for i in others[:count]])

    # Measures ------------------------------------------------------------------------------------------------

    def read(self, which: Row, what: str | Iterable[str] = MEASURES) -> Reading:
        """Capture what happens inside the model for one utterance (`capture`), with words and seconds."""
        row = self.row(which)
        seen = capture(self.model, self.collator([row]), what)
        steps, timed = av_step_times(row, self.model.config.av_steps)
        return Reading(row, self._words(row), seen, steps, timed, self.model.config.num_classes)

    def effects(self, which: Row, of: str, ablation: str | None = None, **options: Any) -> ablations.Effects:
        """How far the prediction moves when parts are ablated (`explain.effects`); donors are other utterances."""
        row = self.row(which)
        if ablation == "resampled":
            options.setdefault("donors", self.donors(which))
        if of == "words":
            options.setdefault("words", self._words(row))
        found = ablations.effects(self.model, self.collator([row]), of, ablation, **options)
        found.names = self._in_seconds(row, found.start, found.end) or found.names
        return found

    def patch(self, clean: Row, corrupted: Row, of: str = "tokens", **options: Any) -> Patching:
        """Where the difference between two utterances is carried (`explain.patch`): a clean run's activations put into a
        corrupted run."""
        row = self.row(corrupted)
        if of == "words":
            options.setdefault("words", self._words(row))
        found = patch(self.model, self.batch(clean), self.collator([row]), of, **options)
        if seconds := self._in_seconds(row, found.start, found.end):
            found.columns[: len(seconds)] = seconds
        return found

    def deletion(self, which: Row, of: str = "time", by: str = "effect", **options: Any) -> DeletionCurve:
        """Delete words or stretches of time in the order of a ranking (`explain.deletion`).

        Args:
            of: `time` or `words`.
            by: one of `RANKINGS`: `effect` (each part ablated alone), `attention` (its share), `gradients` (integrated).
            options: of `deletion`.

        Raises:
            DeepMLFError: a ranking that does not exist, or as of `deletion`.
        """
        if by not in RANKINGS:
            raise DeepMLFError(f"by={by!r} is not known: choose from {', '.join(RANKINGS)}.")
        row, width = self.row(which), options.get("width", 5)
        words = options.setdefault("words", self._words(row)) if of == "words" else None
        if by == "gradients":
            importance = self._gradients_of_parts(row, words, width)
        else:
            both = self.compare(row, of, width=width)
            importance = both.effect if by == "effect" else both.attention
        found = deletion(self.model, self.collator([row]), importance, of, **options)
        found.ranking = by
        return found

    def _gradients_of_parts(self, row: Mapping[str, Any], words: Words | None, width: int) -> np.ndarray:
        """Summed attributions of each word, or of each stretch's frames of voice and face."""
        shares = self.gradients(row)
        if words is not None:
            return words.sum_over_words(shares.text[: len(words.tokens)])
        reading = self.read(row, "gates")
        total = np.zeros(self.model.config.av_steps)
        for stream in ("audio", "vision"):
            of_step = reading.frames_of_steps(stream).astype(float)  # [K, T]
            values = getattr(shares, stream).sum(axis=1)[: of_step.shape[1]]
            total += (of_step / np.maximum(of_step.sum(axis=0), 1)) @ values
        return np.array([total[a:b].sum() for a, b in ablations.stretches_of(len(total), width)])

    def gradients(self, which: Row, **options: Any) -> gradients.Attributions:
        """Integrated gradients of one utterance (`integrated_gradients`)."""
        return gradients.integrated_gradients(self.model, self.batch(which), **options)

    def compare(
        self, which: Row, of: str = "time", ablation: str | None = None, **options: Any
    ) -> AttentionVsEffect:
        """Attention against effect (`attention_vs_effect`), over `time` or `words`."""
        measure = "cross_attention" if of == "time" else "self_attention"
        return attention_vs_effect(self.read(which, measure), self.effects(which, of, ablation, **options))

    def survey(self, limit: int | None = None, specialise: bool = True, progress: bool = False) -> Survey:
        """The whole split (`survey`), or its first `limit` utterances. The whole split's is cached."""
        cached = self._survey
        if limit is None and cached is not None and (cached.specialisation is not None or not specialise):
            return cached
        rows, ids = self._split_rows(limit)
        made = survey(
            self.model,
            rows,
            self.collator,
            scale=schema.scale_of(self.rows),
            specialise=specialise,
            ids=ids,
            progress=progress,
        )
        if limit is None:
            self._survey = made
        return made

    def cumulative_ablation(
        self, branch: str = "cross_attention", limit: int | None = None, **options: Any
    ) -> CumulativeAblation:
        """The split, or its first `limit` utterances, with MM Blocks silenced alone and together (`cumulative_ablation`)."""
        rows, ids = self._split_rows(limit)
        return cumulative_ablation(self.model, rows, self.collator, branch=branch, ids=ids, **options)

    def predict(self, which: Row, text: str | None = None, without: Iterable[str] = ()) -> Reading:
        """Read an utterance with other words, or without some modalities (`text`, `audio`, ...); cheap measures only."""
        return self.read(self.changed(which, text, without), what=("cross_attention", "depth"))

    def changed(self, which: Row, text: str | None = None, without: Iterable[str] = ()) -> dict[str, Any]:
        """A row with other words, or with a modality missing."""
        row = self.row(which)
        if text is not None:
            row["text"] = text
        without = set(without)
        modalities = ("text", *self.model.config.modalities)
        if unknown := sorted(without - set(modalities)):
            raise DeepMLFError(f"without={unknown} is not known: choose from {', '.join(modalities)}.")
        if "text" in without:
            row["text"] = ""
        for stream in without - {"text"}:
            row[stream] = np.zeros_like(np.asarray(row[stream]))  # all-zero frames are missing frames
        return row

    def _split_rows(self, limit: int | None) -> tuple[Dataset, list[str] | None]:
        """The split, or its first `limit` rows, as arrays; and their ids where it has any."""
        chosen = self.rows if limit is None else self.rows.select(range(min(limit, len(self))))
        frames = [c for name in frame_columns(chosen.features) for c in (name, f"{name}_times")]
        columns = [c for c in ("id", "text", *frames, "label") if c in chosen.column_names]
        ids = list(chosen.with_format(None)["id"]) if "id" in columns else None
        return chosen.with_format("numpy", columns=columns), ids

    def _in_seconds(self, row: Mapping[str, Any], start: Any, end: Any) -> list[str]:
        """Stretches of AV steps in seconds; none where there are none, or times are unknown."""
        steps, timed = av_step_times(row, self.model.config.av_steps)
        if not timed or start is None or end is None:
            return []
        half = float(np.diff(steps).mean()) / 2
        return [
            f"{max(steps[a] - half, 0):.2f}–{steps[b - 1] + half:.2f} s"
            for a, b in zip(start, end, strict=True)
        ]

    def _words(self, row: Mapping[str, Any]) -> Any:
        limit = getattr(self.collator, "max_text_tokens", self.model.config.max_text_tokens)
        return words_of(
            str(row["text"]),
            self.model.tokenizer,
            limit,
            row.get("words") or (),
            long_texts=getattr(self.collator, "long_texts", "end"),
            full_stop=getattr(self.collator, "full_stop", False),
        )


def _open(model_or_run: Any) -> Run:
    run = Run.open(model_or_run) if isinstance(model_or_run, str | Path) else model_or_run
    if run.kind != "fused":
        raise DeepMLFError(
            f"{run.path} is a run of kind {run.kind!r}, which has no fusion tokens: open a fused run (deepmlf train)."
        )
    return run


def _open_dataset(dataset: Any) -> DatasetDict:
    if dataset is None:
        raise DeepMLFError(
            "The run does not say where its dataset lies (it was made in memory): pass dataset=."
        )
    if isinstance(dataset, str | Path):
        return schema.load(dataset)
    return dataset
