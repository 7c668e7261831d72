"""What an answer does as voice and face count more or less beside strong words: the assumption of `rows.meaning`.

    python -m scripts.people_checkpoint.weighing PEOPLE CHECKPOINT

Rows are drawn as for the training, then labelled with every weight, and the task head is fitted anew on what the checkpoint
makes of them (everything below it stays). The table is of held-out sentences and faces.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from torch import Tensor

from deepmlf_kit import Predictor
from deepmlf_kit.model.heads import task_head
from deepmlf_kit.rendering.tables import Table

from .rows import Sources, make_row, meaning
from .surface import variants

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of voice and face beside words of strength 2 or more
WORDS = {"kind words": (1.2, 3.0), "neutral words": (-0.15, 0.15), "harsh words": (-3.0, -1.2)}
FACES = {"a smile": 1.0, "no face": None, "a scowl": -1.0}


def main(
    people: Annotated[Path, typer.Argument(help="Folder of the labelled people.")],
    checkpoint: Annotated[Path, typer.Argument(help="A shipped checkpoint.")],
    count: Annotated[int, typer.Option(help="Rows to fit the task head on.")] = 6000,
    each: Annotated[int, typer.Option(help="Held-out rows of every situation.")] = 60,
    seed: int = 0,
) -> None:
    """Print a table: a row a situation, a column a weight."""
    sources, rng = Sources.open(people), np.random.default_rng(seed)
    predictor = Predictor(checkpoint, device="cpu")
    drawn, parts = _draw(rng, sources, count)
    states = _states(predictor, drawn)
    situations = {
        f"{words}, {face}": [_situation(rng, sources, WORDS[words], FACES[face]) for _ in range(each)]
        for words in WORDS
        for face in FACES
    }
    seen = {name: _states(predictor, rows) for name, rows in situations.items()}
    columns = {}
    for weight in WEIGHTS:
        labels = [meaning(words, both, ironic, weight) for words, both, ironic in parts]
        head = _fit(predictor.model.config, states, torch.tensor(labels), seed)
        with torch.no_grad():
            columns[weight] = {name: float(head(state).mean()) for name, state in seen.items()}
    rows = [[name, *(f"{columns[weight][name]:+.2f}" for weight in WEIGHTS)] for name in situations]
    Console().print(Table(["voice and face count", *map(str, WEIGHTS)], rows).terminal())


def _draw(rng: np.random.Generator, sources: Sources, count: int) -> tuple[list[dict[str, Any]], list[tuple]]:
    """Rows of words with or without voice and face, and what their labels are made of."""
    rows, parts = [], []
    rated = sources.rated["train"]
    for _ in range(count):
        sentence = rated[int(rng.integers(len(rated)))]
        face, voice = rng.random(2) < 0.6
        text = variants(rng, sentence.text)
        row = make_row(rng, sources, "train", text, sentence.rating, bool(face), bool(voice))
        parts.append((sentence.rating, row.pop("shown"), row.pop("ironic")))
        rows.append(row)
    return rows, parts


def _situation(
    rng: np.random.Generator, sources: Sources, strength: tuple[float, float], valence: float | None
) -> dict[str, Any]:
    """A held-out sentence of that strength with a held-out face of that valence, without a voice."""
    sentences = [rated for rated in sources.rated["test"] if strength[0] <= rated.rating <= strength[1]]
    sentence = sentences[int(rng.integers(len(sentences)))]
    while True:
        row = make_row(rng, sources, "test", sentence.text, sentence.rating, valence is not None, False)
        if valence is None or row["shown"] * valence > 0.3:
            return row


def _states(predictor: Predictor, rows: list[dict[str, Any]]) -> Tensor:
    """What the task head reads of each row: mean fusion token, last text token, mean AV state [N, 2D + d]."""
    read: list[Tensor] = []
    hook = predictor.model.heads.task.register_forward_pre_hook(
        lambda _, inputs: read.append(inputs[0].float())
    )
    try:
        for start in range(0, len(rows), 64):
            predictor.rows(rows[start : start + 64])
    finally:
        hook.remove()
    return torch.cat(read).clone()


def _fit(config: Any, states: Tensor, labels: Tensor, seed: int, epochs: int = 12) -> torch.nn.Module:
    torch.manual_seed(seed)
    head = task_head(config, states.shape[1])
    optimizer = torch.optim.AdamW(head.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for chosen in torch.randperm(len(states)).split(64):
            loss = (head(states[chosen]).squeeze(1) - labels[chosen].float()).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return head.eval()


if __name__ == "__main__":
    typer.run(main)
