"""Pretrain a small language model on English texts and write it, measured, into a folder.

The embedded language model of the kit was made with this; the command stands on its model card. Any text can
be given: plain files, tables with a text column, zip archives of them. With `--probe` (an archive of sentences
with polarity, one `.pos` and one `.neg` file) the model's knowledge of sentiment is measured on sentences that
are kept out of the training texts.
"""

import platform
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from deepmlf_kit.errors import DeepMLFError

WEIGHTS = (
    "movie_reviews=1.5",
    "sentence_polarity=3",
    "subjectivity=2",
    "product_reviews=2",
    "meld=2",
    "switchboard=2",
    "webtext/overheard=1.5",
    "webtext/firefox=0.2",
    "brown=0.4",
)
"""The mix leans towards talk and opinion; sources that are not named are read once a pass."""


def main(
    texts: Annotated[list[Path], typer.Argument(help="Text files, .csv tables and .zip archives.")],
    out: Annotated[Path, typer.Option(help="Folder for the finished model.")],
    checkpoints: Annotated[
        Path, typer.Option(help="Folder of checkpoints; a run is resumed from it.")
    ] = Path("runs/lm"),
    probe: Annotated[
        Path | None, typer.Option(help="Archive of .pos and .neg sentences to probe on.")
    ] = None,
    skip: Annotated[list[str] | None, typer.Option(help="Leave out sources that begin with this.")] = None,
    weight: Annotated[
        list[str] | None, typer.Option(help="SOURCE=TIMES read per pass; replaces the default mix.")
    ] = None,
    held_out: Annotated[
        int, typer.Option(help="Percent of documents kept for perplexity.", min=1, max=50)
    ] = 2,
    steps: int = 4000,
    batch: int = 32,
    block: int = 128,
    vocab: int = 4096,
    layers: int = 8,
    hidden: int = 192,
    heads: int = 6,
    intermediate: int = 384,
    positions: int = 512,
    save_every: int = 250,
    seed: int = 0,
    note: Annotated[str, typer.Option(help="A remark for the model card.")] = "",
) -> None:
    """Pretrain on TEXTS, measure, and write model, tokenizer and model card to --out."""
    from embedded_lm.make import make
    from embedded_lm.pretrain import Schedule, Shape

    try:
        make(
            texts,
            out,
            checkpoints,
            shape=Shape(layers, hidden, heads, intermediate, positions),
            schedule=Schedule(steps, batch, block, save_every, seed),
            vocab_size=vocab,
            held_out_percent=held_out,
            probe_archive=probe,
            skip=tuple(skip or ()),
            weights=dict(_weight(item) for item in weight or WEIGHTS),
            command=_command(note),
            versions=f"Python {platform.python_version()}",
            note=note,
        )
    except DeepMLFError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def _weight(item: str) -> tuple[str, float]:
    name, _, value = item.partition("=")
    try:
        times = float(value)
    except ValueError:
        times = -1.0
    if not name or times < 0:
        raise DeepMLFError(f"--weight {item!r} was given; SOURCE=TIMES was expected, such as brown=0.5.")
    return name, times


def _command(note: str) -> str:
    given = [word for word in sys.argv[1:] if word not in ("--note", note)]
    return "python scripts/pretrain_lm.py " + " ".join(map(shlex.quote, given))


if __name__ == "__main__":
    typer.run(main)
