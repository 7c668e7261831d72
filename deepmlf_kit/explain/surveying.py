"""Survey: the predictions for a whole split, and which fusion token depends on which modality.

Where it stands: `Lens.survey` and the plots of a whole split. One forward pass per batch for the heads' predictions, and
one more for each modality, with that modality replaced by a donor's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from ..data.donors import draw_donors
from ..errors import DeepMLFError
from ..model.deepmlf import DeepMLFModel
from ..model.modalities import input_names
from .capturing import check_eval_mode, head_scores, score_of, to_array, to_device


@dataclass
class Survey:
    """Predictions and specialisation over a split.

    Attributes:
        table: one utterance a row: `index` in the split, `id`, `text`, `label`, the
            heads' predictions (`prediction`, `text_head`, `fusion_head`, `av_head`), `error` (prediction minus label)
            and `disagreement` (the largest difference between text, fusion and AV head).
        specialisation: mean absolute change of each fusion token's own sentiment when text, audio or vision is
            replaced by a donor's [F, 3], in the label's units. A token with a large value for audio depends on the
            audio; equal rows mean that tokens do not specialise. None where it was left out.
        modalities: names of its columns.
        donors: row in the split of each utterance's donor [N] int64. None where specialisation was left out.
        replacement: the donors in words: utterances of other videos (and so mostly of other speakers), or, in a
            split of one video, others of the same.
        scale: largest absolute label.
    """

    table: pd.DataFrame
    specialisation: np.ndarray | None
    modalities: tuple[str, ...]
    scale: float
    donors: np.ndarray | None = None
    replacement: str = ""

    def worst(self, count: int = 10) -> pd.DataFrame:
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
        batch_size: utterances per pass.
        specialise: False leaves the specialisation out, which takes three of the four passes.
        ids: of the rows, by which videos are told apart; by default read from the rows.
        seed: of the donors.
        progress: show a progress bar.

    Raises:
        DeepMLFError: the model is in training mode, or there is no other utterance to be a donor.
    """
    if specialise and len(rows) < 2:
        raise DeepMLFError(
            f"The split has {len(rows)} utterances; the specialisation replaces an utterance's text, audio and "
            "vision by another's and needs at least two: survey a larger split, or pass specialise=False."
        )
    check_eval_mode(model)
    classes = model.config.num_classes
    keys = {"text": ["input_ids", "attention_mask"]}
    keys |= {name: input_names([name]) for name in model.config.modalities}
    scores: dict[str, list[np.ndarray]] = {name: [] for name in ("task", "text", "fusion", "av")}
    changes: list[np.ndarray] = []
    facts: list[tuple[int, str, str, float]] = []
    donors, replacement = None, ""
    if specialise:
        ids = ids if ids is not None else [str(row.get("id", i)) for i, row in enumerate(rows)]
        donors, of_other_videos = draw_donors(ids, np.random.default_rng(seed))
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
            if donors is not None:
                donor_rows = [rows[int(i)] for i in donors[start : start + len(some)]]
                given = to_device(collate(donor_rows), model)
            for inputs in keys.values() if specialise else ():
                other = {**batch, **{key: given[key] for key in inputs if key in given}}
                moved.append((score_of(model(**other).fusion_prediction, classes) - tokens).abs())
        if moved:
            changes.append(to_array(torch.stack(moved, dim=-1)))  # [B, F, 3]
        for name, score in head_scores(output, classes).items():
            scores[name].append(to_array(score.mean(dim=1) if name == "fusion" else score))
    table = pd.DataFrame(facts, columns=["index", "id", "text", "label"])
    columns = {"task": "prediction", "text": "text_head", "fusion": "fusion_head", "av": "av_head"}
    for name, column in columns.items():
        table[column] = np.concatenate(scores[name])
    table["error"] = table["prediction"] - table["label"]
    heads = table[["text_head", "fusion_head", "av_head"]]
    table["disagreement"] = heads.max(axis=1) - heads.min(axis=1)
    return Survey(
        table=table,
        specialisation=np.concatenate(changes).mean(axis=0) if changes else None,
        modalities=tuple(keys),
        scale=scale,
        donors=donors,
        replacement=replacement,
    )
