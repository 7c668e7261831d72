"""Survey: every utterance of a split at once; which fusion token lives on which modality.

Where it stands: `Lens.survey` and the plots of a whole split. One forward pass a batch for what the heads say,
and one more for each modality, with that modality taken from an utterance of another video.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..data.strangers import strangers
from ..errors import DeepMLFError
from ..model.deepmlf import DeepMLFModel
from ..model.modalities import input_names, modality
from .capturing import score_of, to_device


@dataclass
class Survey:
    """A split, as the model sees it.

    Attributes:
        table: pandas DataFrame, one utterance a row: `index` in the split, `id`, `text`, `label`, what the
            heads say (`prediction`, `text_head`, `fusion_head`, `av_head`), `error` (prediction minus label)
            and `disagreement` (the largest difference between text, fusion and AV head).
        specialisation: mean absolute change of each fusion token's own sentiment when words, voice or face
            are replaced by another utterance's [F, 3], in the label's units. A token with a large value for
            voice depends on the voice; equal rows mean that tokens do not specialise. None where it was left out.
        replaced_by: row in the split whose words, voice and face stood in for an utterance's own [N] int64. None
            where specialisation was left out.
        replacement: whose they were, in words: utterances of other videos (and so mostly of other speakers), or,
            in a split of one video, others of the same.
        modalities: names of the columns.
        scale: largest absolute label.
    """

    table: Any
    specialisation: np.ndarray | None
    modalities: tuple[str, ...]
    scale: float
    replaced_by: np.ndarray | None = None
    replacement: str = ""

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
    ids: Sequence[str] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Survey:
    """Survey a split.

    Args:
        model: in eval mode.
        rows: mappings of the dataset's schema.
        collate: rows -> batch (`Collator`).
        scale: largest absolute label.
        batch_size: utterances a pass.
        specialise: False leaves the specialisation out, which takes three of the four passes.
        ids: of the rows, by which videos are told apart; by default read from the rows.
        seed: of the utterances that stand in for others.
        progress: show a bar.

    Raises:
        DeepMLFError: the model is in training mode, or there is no other utterance to take a modality from.
    """
    import pandas as pd
    from tqdm.auto import tqdm

    if specialise and len(rows) < 2:
        raise DeepMLFError(
            f"The split has {len(rows)} utterances; a survey replaces one's words, voice and face by another's and "
            "needs at least two: survey a larger split, or leave that out with specialise=False."
        )
    if model.training:
        raise DeepMLFError(
            "The model is in training mode, where dropout changes every pass: call model.eval()."
        )
    classes = model.config.num_classes
    keys = {"words": ["input_ids", "attention_mask"]}
    keys |= {modality(name).label: input_names([name]) for name in model.config.modalities}
    said: dict[str, list[np.ndarray]] = {name: [] for name in ("prediction", "text", "fusion", "av")}
    changes: list[np.ndarray] = []
    facts: list[tuple[int, str, str, float]] = []
    replaced_by, replacement = None, ""
    if specialise:
        ids = ids if ids is not None else [str(row.get("id", i)) for i, row in enumerate(rows)]
        replaced_by, of_other_videos = strangers(ids, np.random.default_rng(seed))
        same = "other utterances of the same video, the only one there is"
        replacement = "utterances of other videos" if of_other_videos else same
    for start in tqdm(range(0, len(rows), batch_size), disable=not progress):
        some = [rows[i] for i in range(start, min(start + batch_size, len(rows)))]
        facts += [
            (start + i, str(row.get("id", start + i)), str(row["text"]), float(row.get("label", np.nan)))
            for i, row in enumerate(some)
        ]
        batch = to_device(collate(some), model)
        with torch.no_grad():
            output = model(**batch)
            tokens = score_of(output.fusion_prediction, classes)  # [B, F]
            moved = []
            if replaced_by is not None:
                donors = [rows[int(i)] for i in replaced_by[start : start + len(some)]]
                given = to_device(collate(donors), model)
            for inputs in keys.values() if specialise else ():
                other = {**batch, **{key: given[key] for key in inputs if key in given}}
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
        modalities=tuple(keys),
        scale=scale,
        replaced_by=replaced_by,
        replacement=replacement,
    )
