"""`deepmlf prepare`: an MMSA pickle, a folder of clips or a CSV of texts becomes a dataset."""

import dataclasses
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import DeepMLFError
from .next_steps import after_preparing
from .output import JsonOption, print_json, stdout_reserved_for_json

if TYPE_CHECKING:
    from ..data.folder import PreparedFolder
    from ..data.mmsa import Progress

# The preset for each dataset.
_PRESETS = {"mosi": "mosi", "mosei": "mosei-base", "sims": "sims", "simsv2": "sims"}
# An option that concerns only one kind of source, under that heading of the help.
_clip_option, _encoder_option, _pickle_option = (
    functools.partial(typer.Option, rich_help_panel=panel)
    for panel in ("A folder of clips", "A folder of clips: encoders (hf:MODEL)", "An MMSA pickle")
)


def command(
    source: Annotated[
        Path,
        typer.Argument(
            help="An MMSA pickle (.pkl), a folder of clips with a label.csv in it, or a CSV of texts and labels."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write the dataset to; without it, data/NAME, named after the source."),
    ] = None,
    audio: Annotated[
        str | None,
        _clip_option(
            help="egemaps (openSMILE: free for research and private use only), mfcc (free), none, or hf:MODEL for a "
            "frozen encoder such as hf:facebook/wav2vec2-large-960h; egemaps where not given."
        ),
    ] = None,
    vision: Annotated[
        str | None,
        _clip_option(
            help="blendshapes (MediaPipe, Apache-2.0), none, or hf:MODEL for a frozen encoder such as "
            "hf:openai/clip-vit-base-patch16; blendshapes where not given."
        ),
    ] = None,
    fps: Annotated[float | None, _clip_option(help="Frames per second; by default 10.")] = None,
    audio_layer: Annotated[
        int | None,
        _encoder_option(
            help="Layer whose output is taken from an hf: audio encoder: -1 the last, 0 the embeddings."
        ),
    ] = None,
    vision_layer: Annotated[int | None, _encoder_option(help="The same of an hf: vision encoder.")] = None,
    face_crop: Annotated[
        bool, _encoder_option("--face-crop", help="Crop frames to the face before an hf: vision encoder.")
    ] = False,
    face: Annotated[
        str | None,
        _clip_option(
            help="Which face is read where there are several: largest, central or speaking; by default the largest."
        ),
    ] = None,
    device: Annotated[
        str | None,
        _encoder_option(help="Where encoders run: cpu, cuda, cuda:1, ...; the GPU where there is one."),
    ] = None,
    half: Annotated[
        bool | None,
        _encoder_option("--half/--no-half", help="Half precision; where not given, on a GPU only."),
    ] = None,
    batch_size: Annotated[
        int | None,
        _encoder_option(
            help="Frames per batch (of 20 s windows of sound, an eighth as many); by default 16."
        ),
    ] = None,
    labels: Annotated[Path | None, _clip_option(help="Label file, where it is not SOURCE/label.csv.")] = None,
    label_scale: Annotated[
        float | None,
        _clip_option(help="Largest label there can be: 3 (MOSI, MOSEI) or 1 (SIMS); of a CSV of texts too."),
    ] = None,
    transcribe: Annotated[
        bool, _clip_option("--transcribe", help="Transcribe clips whose text is not given.")
    ] = False,
    language: Annotated[
        str | None, _clip_option(help="Spoken language, such as en or zh; by default it is detected.")
    ] = None,
    speech_model: Annotated[
        str | None, _clip_option(help="faster-whisper model: a size, a name or a folder.")
    ] = None,
    face_model: Annotated[Path | None, _clip_option(help="Path of face_landmarker.task.")] = None,
    max_seconds: Annotated[
        float | None, _clip_option(help="Longest clip that is accepted, in seconds; by default 600.")
    ] = None,
    workers: Annotated[int | None, _clip_option(help="Clips in parallel; by default one per core.")] = None,
    retry: Annotated[
        bool, _clip_option("--retry", help="Try clips again that crashed or hung in an earlier run.")
    ] = False,
    shard: Annotated[
        str | None,
        _clip_option(metavar="I/N", help="Take the I-th of N equal parts, for a cluster's job array."),
    ] = None,
    merge: Annotated[bool, _clip_option("--merge", help="Join the parts that --shard wrote.")] = False,
    name: Annotated[
        str | None, _pickle_option(help="mosi, mosei, sims or simsv2; else it is recognised.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Draws the splits where a CSV names none; 0.", rich_help_panel="A CSV of texts"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a dataset of an MMSA pickle (MOSI, MOSEI, CH-SIMS), of a folder of clips, or of a CSV of texts.

    A CSV has the columns `text` and `label`, perhaps `split`, and `id` or `video_id, clip_id`; voice and face are missing.

    Clips: a run that was stopped goes on where it stopped when the command is repeated; a clip that cannot be used
    is listed in OUT/failures.csv with its reason, and the rest goes on. Features are cached in the folder
    DEEPMLF_CACHE, by the clips' content, so that a second run or recipe computes only what is new; at most
    DEEPMLF_CACHE_GB gigabytes (20 where not set), of which the least recently used go first.
    """
    out = out or Path("data") / (source.resolve().name if source.is_dir() else source.stem)
    recipe = {
        "audio": audio,
        "vision": vision,
        "fps": fps,
        "audio_layer": audio_layer,
        "vision_layer": vision_layer,
        "face_crop": face_crop or None,
        "face": face,
        "device": device,
        "half": half,
        "batch_size": batch_size,
        "transcribe": transcribe or None,
        "language": language,
        "speech_model": speech_model,
        "max_seconds": max_seconds,
    }
    recipe = {key: value for key, value in recipe.items() if value is not None}
    for_clips = {
        **recipe,
        "labels": labels,
        "label_scale": label_scale,
        "face_model": face_model,
        "workers": workers,
        "retry": retry or None,
        "shard": shard,
        "merge": merge or None,
    }
    given = {key for key, value in for_clips.items() if value is not None}
    from ..data.texts import TEXT_SUFFIXES, prepare_texts

    is_text = source.suffix.lower() in TEXT_SUFFIXES and not source.is_dir()
    _refuse({"seed"} if seed is not None and not is_text else set(), "a CSV of texts", source)
    if is_text:
        _refuse(given - {"label_scale"}, "a folder of clips", source)
        _refuse({"name"} if name else set(), "an MMSA pickle", source)
        with stdout_reserved_for_json(as_json):
            prepared = prepare_texts(source, out, label_scale=label_scale, seed=seed or 0)
        _print_folder(prepared, as_json)
    elif source.is_file():
        _refuse(given, "a folder of clips", source)
        _pickle(source, out, name, as_json)
    elif source.is_dir():
        _refuse({"name"} if name else set(), "an MMSA pickle", source)
        if merge:
            from ..data.folder import merge_shards

            _print_folder(merge_shards(out), as_json)
            return
        _print_folder(
            _folder(
                source,
                out,
                recipe,
                as_json,
                labels=labels,
                transcribe=transcribe,
                workers=workers,
                retry=retry,
                shard=_shard(shard) if shard else None,
                face_model=face_model,
                label_scale=label_scale,
            ),
            as_json,
        )
    else:
        raise DeepMLFError(
            f"nothing at {source}: expected an MMSA pickle, a folder of clips with a label.csv in it, or a CSV of texts"
        )


def _refuse(given: set[str], kind: str, source: Path) -> None:
    """Refuse options that would have no effect."""
    if given:
        options = ", ".join(f"--{key.replace('_', '-')}" for key in sorted(given))
        raise DeepMLFError(f"{options} is for {kind}, which {source} is not: leave it out")


def _shard(text: str) -> tuple[int, int]:
    part, slash, of = text.partition("/")
    if not (slash and part.isdecimal() and of.isdecimal() and 1 <= int(part) <= int(of)):
        raise DeepMLFError(f"--shard is {text!r}, but must be I/N with I from 1 to N, for example 3/8")
    return int(part), int(of)


def _folder(
    source: Path, out: Path, recipe: dict[str, Any], as_json: bool, **options: Any
) -> "PreparedFolder":
    from ..data.folder import prepare_folder
    from ..features.recipe import FeatureRecipe

    with stdout_reserved_for_json(as_json):
        return prepare_folder(source, out, FeatureRecipe(**recipe), show_progress=True, **options)


def _print_folder(prepared: "PreparedFolder", as_json: bool) -> None:
    if not as_json:
        print(prepared.summary())
        if prepared.dataset is not None and not prepared.is_shard:
            print(after_preparing(prepared.path, prepared.dataset))
        return
    shown = {
        key: getattr(prepared, key) for key in ("path", "rows", "extracted", "cached", "seconds", "notes")
    }
    print_json({**shown, "failures": prepared.failures})


def _pickle(source: Path, out: Path, name: str | None, as_json: bool) -> None:
    from ..data.mmsa import convert_mmsa, read_report

    with stdout_reserved_for_json(as_json), _bars() as progress:
        dataset = convert_mmsa(source, out, name=name, progress=progress)
    report = read_report(out)
    if as_json:
        print_json({"path": out, **dataclasses.asdict(report)})
        return
    rows = ", ".join(f"{part.num_rows} {split}" for split, part in dataset.items())
    aligned = "aligned" if report.aligned else "unaligned"
    print(
        f"{out}: {rows} ({report.name}, {aligned}, audio {report.audio_dim}, vision {report.vision_dim} features)"
    )
    for split, found in report.splits.items():
        zeroed = {"NaN": found.nan, "infinite": found.infinite}
        counts = [f"{n} {kind} values in {m}" for kind, by in zeroed.items() for m, n in by.items() if n]
        counts += [f"{n} utterances without {m}" for m, n in found.empty.items() if n]
        counts += [
            f"{n} utterances shorter in {m} than announced" for m, n in found.clipped_lengths.items() if n
        ]
        counts += [
            f"{n} utterances with frames in {m} beyond their announced length (dropped)"
            for m, n in found.beyond_lengths.items()
            if n
        ]
        counts += [f"{n} utterances padded in front in {m}" for m, n in found.padded_in_front.items() if n]
        if counts:
            print(f"  {split}: {', '.join(counts)}")
    for remark in report.remarks:
        print(f"  note: {remark}")
    print(after_preparing(out, dataset, _PRESETS[report.name]))


@contextmanager
def _bars() -> "Iterator[Progress]":
    """One progress bar per split, on stderr."""
    from rich.console import Console
    from rich.progress import Progress as Bars

    with Bars(console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def tell(split: str, done: int, of: int) -> None:
            if split not in tasks:
                tasks[split] = bars.add_task(f"Converting {split}", total=of)
            bars.update(tasks[split], completed=done)

        yield tell
