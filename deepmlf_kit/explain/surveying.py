"""Survey: every utterance of a split at once; which fusion token lives on which modality.

Where it stands: `Lens.survey` and the plots of a whole split. One forward pass a batch for what the heads say,
and one more for each modality, with that modality exchanged between the utterances of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import DeepMLFError
from ..model.deepmlf import DeepMLFModel
from .capturing import score_of, to_device

MODALITIES = ("words", "voice", "face")
_KEYS = {
    "words": ("input_ids", "attention_mask"),
    "voice": ("audio", "audio_mask", "audio_spans"),
    "face": ("vision", "vision_mask", "vision_spans"),
}


@dataclass
class Survey:
    """A split, as the model sees it.

    Attributes:
        table: pandas DataFrame, one utterance a row: `index` in the split, `id`, `text`, `label`, what the
            heads say (`prediction`, `text_head`, `fusion_head`, `av_head`), `error` (prediction minus label)
            and `disagreement` (the largest difference between text, fusion and AV head).
        specialisation: mean absolute change of each fusion token's own sentiment when words, voice or face
            are exchanged for another utterance's [F, 3], in the label's units. A token with a large value for
            voice depends on the voice; equal rows mean that tokens do not specialise. None where it was left out.
        modalities: names of the columns.
        scale: largest absolute label.
    """

    table: Any
    specialisation: np.ndarray | None
    modalities: tuple[str, ...]
    scale: float

    def worst(self, count: int = 10) -> Any:
        """The utterances with the largest errors."""
        return self.table.sort_values("error", key=abs, ascending=False).head(count)


def survey(
    model: DeepMLFModel,
    rows: Sequence[Any],
    collate: Callable[[Sequence[Any]], dict[str, Any]],
    *,
    scale: float = 3.0,
    batch_size: int = 32,
    specialise: bool = True,
    progress: bool = False,
) -> Survey:
    """Survey a split.

    Args:
        model: in eval mode.
        rows: mappings of the dataset's schema.
        collate: rows -> batch (`Collator`).
        scale: largest absolute label.
        batch_size: at least 2: modalities are exchanged inside a batch.
        specialise: False leaves the specialisation out, which takes three of the four passes.
        progress: show a bar.
    """
    import pandas as pd
    from tqdm.auto import tqdm

    if batch_size < 2 or len(rows) < 2:
        raise DeepMLFError(
            "A survey exchanges modalities between utterances: it needs at least two in a batch."
        )
    if model.training:
        raise DeepMLFError(
            "The model is in training mode, where dropout changes every pass: call model.eval()."
        )
    starts = list(range(0, len(rows), batch_size))
    if len(rows) - starts[-1] < 2:
        starts.pop()  # the last utterance joins the batch before it
    classes = model.config.num_classes
    said: dict[str, list[np.ndarray]] = {name: [] for name in ("prediction", "text", "fusion", "av")}
    changes: list[np.ndarray] = []
    facts: list[tuple[int, str, str, float]] = []
    for start, end in tqdm(list(zip(starts, [*starts[1:], len(rows)], strict=True)), disable=not progress):
        some = [rows[i] for i in range(start, end)]
        facts += [
            (start + i, str(row.get("id", start + i)), str(row["text"]), float(row.get("label", np.nan)))
            for i, row in enumerate(some)
        ]
        batch = to_device(collate(some), model)
        with torch.no_grad():
            output = model(**batch)
            tokens = score_of(output.fusion_prediction, classes)  # [B, F]
            moved = []
            for modality in MODALITIES if specialise else ():
                other = {
                    **batch,
                    **{key: batch[key].roll(1, dims=0) for key in _KEYS[modality] if key in batch},
                }
                moved.append((score_of(model(**other).fusion_prediction, classes) - tokens).abs())
        if moved:
            changes.append(torch.stack(moved, dim=-1).float().cpu().numpy())  # [B, F, 3]
        for name in said:
            value = score_of(
                output.prediction if name == "prediction" else output[f"{name}_prediction"], classes
            )
            said[name].append((value.mean(dim=1) if name == "fusion" else value).float().cpu().numpy())
    table = pd.DataFrame(facts, columns=["index", "id", "text", "label"])
    columns = {"prediction": "prediction", "text": "text_head", "fusion": "fusion_head", "av": "av_head"}
    for name, column in columns.items():
        table[column] = np.concatenate(said[name])
    table["error"] = table["prediction"] - table["label"]
    heads = table[["text_head", "fusion_head", "av_head"]]
    table["disagreement"] = heads.max(axis=1) - heads.min(axis=1)
    return Survey(
        table=table,
        specialisation=np.concatenate(changes).mean(axis=0) if changes else None,
        modalities=MODALITIES,
        scale=scale,
    )
