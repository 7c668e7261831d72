"""After which layer do a frozen language model's states tell sentiment best? Where MM Blocks should stand.

    python -m scripts.people_checkpoint.probe PEOPLE smollm2

Ridge regression from the states of rated sentences to their ratings, judged on CMU-MOSI's validation texts.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from deepmlf_kit.model.lm_loading import load_lm, load_tokenizer
from deepmlf_kit.rendering.tables import Table
from deepmlf_kit.training.presets import load_preset

from .make import HERE
from .sentences import rated_sentences
from .surface import variants

LENGTH = 60  # tokens of a sentence that are read
BATCH = 64


def main(
    people: Annotated[Path, typer.Argument(help="Folder of the labelled people.")],
    lm: Annotated[str, typer.Argument(help="embedded or smollm2.")] = "smollm2",
    count: Annotated[int, typer.Option(help="Rated sentences to fit on.")] = 4000,
    every: Annotated[int, typer.Option(help="Take every so many layers.")] = 3,
    seed: int = 0,
) -> None:
    """Print r of the last token's state and of the mean of all, layer by layer."""
    rng = np.random.default_rng(seed)
    rated = rated_sentences(people)["train"]
    chosen = [rated[i] for i in rng.permutation(len(rated))[:count]]
    with (people / "text" / "mosi_train_valid.csv").open(encoding="utf-8", newline="") as file:
        held_out = [row for row in csv.DictReader(file) if row["split"] == "valid"]
    config = load_preset(HERE / f"{lm}.yaml").model_config()
    model, tokenizer = load_lm(config).eval(), load_tokenizer(config)
    known = _states(model, tokenizer, [variants(rng, sentence.text) for sentence in chosen])
    asked = _states(model, tokenizer, [row["text"] for row in held_out])
    ratings = np.array([sentence.rating for sentence in chosen])
    labels = np.array([float(row["label"]) for row in held_out])
    rows = []
    for layer in range(0, known.shape[1], every):
        fitted = [_r(known[:, layer, kind], ratings, asked[:, layer, kind], labels) for kind in (0, 1)]
        rows.append([str(layer), *(f"{r:.2f}" for r in fitted)])
    header = ["after layer (0: embeddings)", "last token", "mean of all tokens"]
    Console().print(Table(header, rows).terminal())


@torch.inference_mode()
def _states(model: torch.nn.Module, tokenizer: object, texts: list[str]) -> np.ndarray:
    """The last token's state and the mean of all after each layer [N, layers + 1, 2, D]."""
    found: dict[int, np.ndarray] = {}
    ids = [tokenizer(text or " ")["input_ids"][-LENGTH:] for text in texts]  # type: ignore[operator]
    order = sorted(range(len(texts)), key=lambda i: len(ids[i]))
    for start in range(0, len(order), BATCH):
        some = order[start : start + BATCH]
        longest = max(len(ids[i]) for i in some)
        padded = torch.tensor([ids[i] + [0] * (longest - len(ids[i])) for i in some])
        mask = torch.tensor([[1] * len(ids[i]) + [0] * (longest - len(ids[i])) for i in some])
        output = model(input_ids=padded, attention_mask=mask, output_hidden_states=True)
        states = torch.stack(output.hidden_states, dim=1).float()  # [B, layers + 1, L, D]
        for row, i in enumerate(some):
            real = states[row, :, : len(ids[i])]
            found[i] = torch.stack([real[:, -1], real.mean(dim=1)], dim=1).numpy()
    return np.stack([found[i] for i in range(len(texts))])


def _r(known: np.ndarray, ratings: np.ndarray, asked: np.ndarray, labels: np.ndarray) -> float:
    fitted = make_pipeline(StandardScaler(), RidgeCV(np.logspace(1, 6, 11))).fit(known, ratings)
    return float(np.corrcoef(fitted.predict(asked), labels)[0, 1])


if __name__ == "__main__":
    typer.run(main)
