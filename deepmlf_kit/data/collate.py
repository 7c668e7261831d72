"""Rows of a dataset -> one padded batch, as `DeepMLFModel.forward` takes it.

Where it stands: between `schema` and the model; the `data_collator` of the trainer and, with one row, what
prediction uses. The contract (names, shapes, types) is in `docs/layout.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..model.checkpoints import CONFIG_FILE, find_file, read_config
from ..model.lm_loading import load_tokenizer
from ..model.special_tokens import empty_text_ids, kept_tokens, pad_token_id, with_full_stop
from ..storage.files import misshapen, read_json, write_json
from .clock import PADDING_SPAN, spans_of
from .labels import class_labels
from .normalize import FrameStatistics, Normalizer
from .schema import PREPROCESSOR_FILE, DatasetError, modality_dims, recipe_of

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_LIMIT = (int, type(None))
_SHAPE = {
    "max_text_tokens": int,
    "max_audio_frames": _LIMIT,
    "max_vision_frames": _LIMIT,
    "long_texts": str,
    "full_stop": bool,
    "audio_dim": int,
    "vision_dim": int,
    "extra_dims": dict,
    "classes": int,
    "normalizer": (dict, type(None)),
    "recipe": (dict, type(None)),
}


class Collator:
    """Pads text, audio, vision and further modalities of a list of rows to the longest of the batch.

    Args:
        tokenizer: of the language model; its own special tokens are kept, padding goes to the right.
        max_text_tokens: of longer texts only a part is read. Shorter batches are trimmed to their longest text.
        long_texts: which part, their `end` or their `start`.
        full_stop: a text that ends without a mark is read with a full stop (`with_full_stop`).
        max_audio_frames, max_vision_frames: a longer sequence is averaged over groups of adjacent frames
            (valid ones only) until it fits, so that a long clip keeps its whole course; None: no bound.
        normalizer: training-split statistics applied to valid frames; None: frames as they are.
        audio_dim, vision_dim: needed only where a batch may have no frame at all given as plain lists.
        extra_dims: values per frame of the further modalities that the batch shall have, by name.
        classes: for a model of classes, how many: labels become class indices (`labels.py`).
        recipe: what made the features (`schema.recipe_of`); only stored, so that clips can be read in the same way.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_text_tokens: int,
        max_audio_frames: int | None = None,
        max_vision_frames: int | None = None,
        *,
        long_texts: str = "end",
        full_stop: bool = False,
        normalizer: Normalizer | None = None,
        audio_dim: int | None = None,
        vision_dim: int | None = None,
        extra_dims: Mapping[str, int] | None = None,
        classes: int = 0,
        recipe: Mapping[str, Any] | None = None,
    ) -> None:
        if max_text_tokens < 1:
            raise DatasetError(f"max_text_tokens is {max_text_tokens}; it must be at least 1")
        self.tokenizer = tokenizer
        self.max_text_tokens, self.long_texts, self.full_stop = max_text_tokens, long_texts, full_stop
        self.max_frames = {"audio": max_audio_frames, "vision": max_vision_frames}
        self.dims = {"audio": audio_dim, "vision": vision_dim, **(extra_dims or {})}
        self.normalizer = normalizer
        self.classes = classes
        self.recipe = dict(recipe) if recipe else None

    @classmethod
    def for_model(cls, model: Any, split: Dataset | None = None, *, normalize: str = "none") -> Collator:
        """The collator that a model needs.

        Args:
            model: has `tokenizer` and `config`, such as `DeepMLFModel`.
            split: the training split; its recipe is stored with the collator.
            normalize: `none`, or `train` or `clip`, which fit statistics to `split` (`data/normalize.py`).

        Raises:
            DatasetError: the model was made for frames of other widths, or an argument does not fit.
        """
        config = model.config
        if normalize not in ("none", "train", "clip"):
            raise DatasetError(f"normalize is {normalize!r}, but must be none, train or clip")
        if split is None and normalize != "none":
            raise DatasetError(f"normalize={normalize!r} needs the training split: pass it, too")
        if split is not None and (dims := modality_dims(split)) != dict(config.modalities):
            raise DatasetError(
                f"the data has {dims} features a frame, the model expects {dict(config.modalities)}: make it with "
                + ", ".join(f"{name}_dim={dim}" for name, dim in dims.items())
            )
        fitted = normalize != "none" and split is not None
        return cls(
            model.tokenizer,
            config.max_text_tokens,
            normalizer=Normalizer.fit(split, relative_audio=normalize == "clip") if fitted else None,
            audio_dim=config.audio_dim,
            vision_dim=config.vision_dim,
            extra_dims=config.extra_modalities,
            classes=config.num_classes,
            recipe=None if split is None else recipe_of(split),
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write it beside a model, all but the tokenizer, which comes from the language model.

        `Trainer(..., processing_class=collator)` does so by itself. A folder with it predicts for clips
        (`deepmlf predict --checkpoint FOLDER`, `Predictor(FOLDER)`).
        """
        values = {
            "max_text_tokens": self.max_text_tokens,
            "max_audio_frames": self.max_frames["audio"],
            "max_vision_frames": self.max_frames["vision"],
            "long_texts": self.long_texts,
            "full_stop": self.full_stop,
            "audio_dim": self.dims["audio"],
            "vision_dim": self.dims["vision"],
            "extra_dims": {n: dim for n, dim in self.dims.items() if n not in ("audio", "vision")},
            "classes": self.classes,
            "normalizer": self.normalizer.to_dict() if self.normalizer else None,
            "recipe": self.recipe,
        }
        if wrong := misshapen(values, _SHAPE):
            raise DatasetError(f"a collator without its sizes cannot be stored ({wrong}): make it with them")
        write_json(Path(folder) / PREPROCESSOR_FILE, values)

    @classmethod
    def from_pretrained(
        cls, place: str | Path, tokenizer: PreTrainedTokenizerBase | None = None, **hub: Any
    ) -> Collator:
        """What `save_pretrained` wrote.

        Args:
            place: a folder, or a repository's name on the hub.
            tokenizer: the language model's; None: that of the model beside it.
            hub: where to look, as of any of transformers' models (`token`, `revision`, ...).

        Raises:
            DatasetError: there is none, or it is damaged.
        """
        repair = "save the collator again beside the model (Collator.save_pretrained)"
        try:
            file = find_file(str(place), PREPROCESSOR_FILE, hub)
            values = read_json(file, repair)
            if tokenizer is None:
                tokenizer = load_tokenizer(read_config(find_file(str(place), CONFIG_FILE, hub)))
        except OSError as error:
            raise DatasetError(f"no collator at {str(place)!r}: {repair}") from error
        wrong = misshapen(values, _SHAPE) or misshapen(
            values["extra_dims"], dict.fromkeys(values["extra_dims"], int)
        )
        if not wrong and values["long_texts"] not in ("end", "start"):
            wrong = f"long_texts is {values['long_texts']!r:.80}, expected end or start"
        try:
            if wrong:
                raise DatasetError(wrong)
            values = {name: values[name] for name in _SHAPE}
            dims = {"audio": values["audio_dim"], "vision": values["vision_dim"], **values["extra_dims"]}
            if values["normalizer"] is not None:
                values["normalizer"] = Normalizer.from_dict(values["normalizer"], dims)
            return cls(tokenizer, **values)
        except DatasetError as error:
            raise DatasetError(f"{file}: {error}; {repair}") from error

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate B rows (mappings with `text`, `audio`, `vision` and, if known, `label`, `label_class` and frame times).

        Returns:
            `input_ids`, `attention_mask` [B, L] int64; `audio` [B, La, da] float32, `audio_mask` [B, La] bool (False:
            padding or a missing frame) and `audio_spans` [B, La, 2] float32 (begin and end of each frame as shares of
            the utterance's length, on one clock for voice and face, see `clock`; above 1 for padding);
            `vision`, `vision_mask`, `vision_spans` and those of further modalities likewise; `labels` [B] float32 (NaN where a row has none). La and Lv
            are at least 1, all masked where there is no frame.

        Raises:
            DatasetError: frames of another width than expected, or frame times that do not fit the frames.
        """
        batch = self.text([str(row["text"]) for row in rows])
        spans = [spans_of(row) for row in rows]
        for name, dim in self.dims.items():
            statistics = self.normalizer.statistics.get(name) if self.normalizer else None
            padded, mask, when = _pad(
                name,
                [row[name] if name in row else np.zeros((0, dim or 0), np.float32) for row in rows],
                [span.get(name, np.zeros((0, 2), np.float32)) for span in spans],
                dim,
                self.max_frames.get(name),
                statistics,
            )
            batch[name], batch[f"{name}_mask"] = torch.from_numpy(padded), torch.from_numpy(mask)
            batch[f"{name}_spans"] = torch.from_numpy(when)
        labels = np.asarray([row.get("label", np.nan) for row in rows], np.float32)
        if self.classes:
            annotated = np.asarray([row.get("label_class", np.nan) for row in rows], np.float32)
            labels = class_labels(labels, self.classes, annotated)
        batch["labels"] = torch.from_numpy(labels)
        return batch

    def text(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """B texts -> `input_ids` and `attention_mask` [B, L]; an empty text becomes one neutral token."""
        whole = self._tokens(texts)
        encoded = [
            [ids[i] for i in kept_tokens(special, self.max_text_tokens, self.long_texts)]
            for ids, special in zip(whole["input_ids"], whole["special_tokens_mask"], strict=True)
        ]
        if not all(encoded):
            encoded = [ids or empty_text_ids(self.tokenizer) for ids in encoded]
        shape = (len(encoded), max(map(len, encoded)))
        input_ids = np.full(shape, pad_token_id(self.tokenizer), np.int64)
        attention_mask = np.zeros(shape, np.int64)
        for i, ids in enumerate(encoded):
            input_ids[i, : len(ids)] = ids
            attention_mask[i, : len(ids)] = 1
        return {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(attention_mask)}

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, of which `max_text_tokens` are read."""
        return [len(ids) for ids in self._tokens(texts)["input_ids"]]

    def _tokens(self, texts: Sequence[str]) -> Any:
        read = [with_full_stop(text) for text in texts] if self.full_stop else list(texts)
        return self.tokenizer(read, return_special_tokens_mask=True, verbose=False)


def _pad(
    name: str,
    arrays: Sequence[Any],
    spans: Sequence[np.ndarray],
    dim: int | None,
    longest: int | None,
    statistics: FrameStatistics | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Arrays [n_i, d] -> padded [B, n, d] float32, validity [B, n] bool and spans [B, n, 2] float32."""
    arrays = [np.asarray(a, np.float32) for a in arrays]
    dims = {a.shape[1] for a in arrays if a.ndim == 2} | ({dim} if dim is not None else set())
    if len(dims) != 1 or any(a.ndim != 2 and a.size for a in arrays):
        raise DatasetError(
            f"{name}: found shapes {sorted({a.shape for a in arrays})}, expected [frames, d] with one d"
            + (f" = {dim}" if dim is not None else "")
        )
    (width,) = dims
    cleaned = [clean_frames(a.reshape(-1, width)) for a in arrays]
    if statistics is not None:
        cleaned = [(statistics.prepare(frames, valid), valid) for frames, valid in cleaned]
    if longest is not None:
        spans = [_joined(span, longest) for span in spans]
        cleaned = [average_adjacent(*pair, longest) for pair in cleaned]
    length = max(1, *(len(frames) for frames, _ in cleaned))
    padded = np.zeros((len(cleaned), length, width), np.float32)
    mask = np.zeros((len(cleaned), length), bool)
    when = np.full((len(cleaned), length, 2), PADDING_SPAN, np.float32)
    for i, (frames, valid) in enumerate(cleaned):
        padded[i, : len(frames)] = frames
        mask[i, : len(frames)] = valid
        when[i, : len(frames)] = spans[i]
    if statistics is not None:
        padded = statistics.apply(padded) * mask[:, :, None]
    return padded, mask, when


def clean_frames(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[n, d] -> the frames with NaN and infinities set to 0, and which rows hold anything at all [n] bool."""
    if not np.isfinite(frames).all():
        frames = np.nan_to_num(frames, nan=0.0, posinf=0.0, neginf=0.0)
    return frames, np.asarray(frames.any(axis=1))


def average_adjacent(frames: np.ndarray, valid: np.ndarray, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """[n, d], [n] -> at most `longest` rows: the means of the valid ones among g adjacent rows.

    g = ceil(n / longest) is the same for the whole sequence, so that row j stands for frames j*g .. j*g+g-1.
    """
    group = -(-len(frames) // longest)
    if group <= 1:
        return frames, valid
    steps = -(-len(frames) // group)
    missing = steps * group - len(frames)
    frames = np.pad(frames, ((0, missing), (0, 0))).reshape(steps, group, -1)
    valid = np.pad(valid, (0, missing)).reshape(steps, group)
    count = valid.sum(1)
    means = (frames * valid[:, :, None]).sum(1) / np.maximum(count, 1)[:, None]
    return means.astype(np.float32), count > 0


def _joined(spans: np.ndarray, longest: int) -> np.ndarray:
    """Spans [n, 2] of what `average_adjacent` makes of n frames: from the first of a group to the last."""
    group = max(1, -(-len(spans) // longest))
    last = np.minimum(np.arange(group - 1, len(spans) + group - 1, group), len(spans) - 1)
    return np.stack([spans[::group, 0], spans[last, 1]], axis=1)
