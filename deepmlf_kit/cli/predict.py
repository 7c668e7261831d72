"""`deepmlf predict`: the sentiment of one clip or text with its reasons, or of many as a CSV."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import DeepMLFError, printable
from .options import CheckpointOption, FaceModelOption
from .output import JsonOption, print_json, stdout_reserved_for_json


def command(
    clips: Annotated[
        list[Path] | None,
        typer.Argument(help="A video or audio file; with --csv also several, and folders of them."),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(
            help="The words of the one clip, which are else transcribed; without a clip, the words alone."
        ),
    ] = None,
    checkpoint: CheckpointOption = None,
    face: Annotated[
        str | None,
        typer.Option(help="Which face is read where there are several: largest, central or speaking."),
    ] = None,
    face_model: FaceModelOption = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            help="Write the predictions for all clips to this CSV file; what failed to NAME.failures.csv beside it.",
            rich_help_panel="Many clips or texts",
        ),
    ] = None,
    text_only: Annotated[
        bool,
        typer.Option(
            "--text-only",
            help="Instead of clips, one CSV file of texts (column `text`); predict for the words alone.",
            rich_help_panel="Many clips or texts",
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Clips read in parallel; by default one per core.", rich_help_panel="Many clips or texts"
        ),
    ] = None,
    retry: Annotated[
        bool,
        typer.Option(
            "--retry",
            help="Try clips again that crashed or hung in an earlier run.",
            rich_help_panel="Many clips or texts",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Predict the sentiment of a clip from its words, voice and face; with --csv, of many.

    Many: `deepmlf predict clips/ more.mp4 --csv out.csv`. The words of a folder's clips are taken from its label.csv (`path,
    text`, or as for `deepmlf prepare`) where there is one, and else transcribed. A run that was stopped goes on where it
    stopped when the command is repeated. Texts: `deepmlf predict --text-only TEXTS.csv --csv out.csv`.
    """
    sources = clips or []
    if csv is None:
        if text_only or retry or workers is not None or len(sources) > 1 or any(map(Path.is_dir, sources)):
            raise DeepMLFError(
                "the predictions for many clips or texts go to a file: name it with --csv OUT.csv"
            )
        if not sources and text is None:
            raise DeepMLFError('name a clip, a folder of clips with --csv OUT.csv, or words: --text "..."')
        from ..predict.fresh import predict_clip, predict_text

        with stdout_reserved_for_json(as_json):
            if sources:
                prediction = predict_clip(checkpoint, sources[0], text, face=face, face_model=face_model)
            else:
                prediction = predict_text(checkpoint, text or "")
        if as_json:
            print_json(prediction)
        else:
            _show(prediction)
        return
    if text is not None:
        raise DeepMLFError(
            "--text is for one clip: give the words of many in their folder's label.csv, column text"
        )
    if not sources or (text_only and len(sources) > 1):
        raise DeepMLFError(f"name {'one CSV file of texts' if text_only else 'clips or folders of clips'}")
    from ..predict.many import predict_clips, predict_texts
    from ..predict.predictor import Predictor

    with stdout_reserved_for_json(as_json):
        if text_only:
            many = predict_texts(Predictor(checkpoint), sources[0], csv, show_progress=True)
        else:
            options = {"face": face, "face_model": face_model, "workers": workers, "retry": retry}
            many = predict_clips(Predictor(checkpoint), sources, csv, show_progress=True, **options)
    if as_json:
        shown = {key: getattr(many, key) for key in ("path", "predicted", "extracted", "seconds", "notes")}
        print_json({**shown, "failures": many.failures})
    else:
        print(many.summary())


def _show(prediction) -> None:
    from rich.console import Console

    from ..predict.prediction import sentence
    from ..rendering.tables import Table

    console = Console(highlight=False)
    clip = prediction.clip
    sure = ""
    if prediction.interval is not None:
        low, high = prediction.interval
        sure = f"  ({prediction.coverage:.0%} interval {low:+.2f} to {high:+.2f})"
    console.print(f"\n[bold]{prediction.sentiment:+.2f}[/bold]  {prediction.verdict}{sure}")
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
