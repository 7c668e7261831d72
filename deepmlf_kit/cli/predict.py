"""`deepmlf predict`: the sentiment of one clip, each head's prediction, and what was found in the clip."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import printable
from .options import CheckpointOption, FaceModelOption
from .output import JsonOption, print_json, stdout_reserved_for_json


def command(
    clip: Annotated[Path, typer.Argument(help="A video or audio file.")],
    text: Annotated[
        str | None, typer.Option(help="The words of the clip; without it they are transcribed.")
    ] = None,
    checkpoint: CheckpointOption = None,
    face: Annotated[
        str | None,
        typer.Option(help="Which face is read where there are several: largest, central or speaking."),
    ] = None,
    face_model: FaceModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict the sentiment of a clip from its words, voice and face."""
    from ..predict.predictor import Predictor

    with stdout_reserved_for_json(as_json):
        prediction = Predictor(checkpoint).clip(clip, text, face=face, face_model=face_model)
    if as_json:
        print_json(prediction)
    else:
        _show(prediction)


def _show(prediction) -> None:
    from rich.console import Console

    from ..predict.predictor import sentence
    from ..rendering.tables import Table

    console = Console(highlight=False)
    clip = prediction.clip
    verdict = prediction.polarity if prediction.certain is not False else "I cannot tell"
    sure = ""
    if prediction.interval is not None:
        low, high = prediction.interval
        sure = f"  ({prediction.coverage:.0%} interval {low:+.2f} to {high:+.2f})"
    console.print(f"\n[bold]{prediction.sentiment:+.2f}[/bold]  {verdict}{sure}")
    console.print(_bar(prediction.sentiment, prediction.scale), markup=False)
    heads = {"text": "the words", "av": "voice and face", "fusion": "the fusion tokens"}
    rows = [
        (f"  {about}", "–", "")
        if value is None
        else (f"  {about}", f"{value:+.2f}", _bar(value, prediction.scale, width=21))
        for about, value in ((about, prediction.heads[name]) for name, about in heads.items())
    ]
    console.print(Table(["each head alone", "", ""], rows, left=(0, 2)).terminal(frame=False))
    source = {"transcribed": " (transcribed)", "given": " (given)"}.get(clip["text_source"], "")
    found = [
        ("  length", f"{clip['seconds']:.1f} s"),
        ("  face", _share(clip["face_share"], "of the frames")),
        ("  voiced", _share(clip["voiced_share"], "of the sound")),
        ("  words", f"{prediction.text!r}{source}" if prediction.text else "none"),
        ("  model", "{checkpoint}, on the language model {lm}".format(**prediction.answered_by)),
        ("  took", ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in prediction.timings.items())),
    ]
    console.print(Table(["what was found", ""], found, left=(0, 1)).terminal(frame=False))
    for note in prediction.notes:
        console.print(f"Note: {sentence(printable(note))}", markup=False)


def _bar(value: float, scale: float, width: int = 31) -> str:
    """A line from -scale to +scale with a mark at the value."""
    middle = width // 2
    place = middle + round(max(-1.0, min(1.0, value / scale)) * middle)
    line = ["·"] * width
    line[middle] = "|"
    line[place] = "●"
    return f"-{scale:g} {''.join(line)} +{scale:g}"


def _share(share: float | None, of: str) -> str:
    return "none looked for" if share is None else f"{share:.0%} {of}"
