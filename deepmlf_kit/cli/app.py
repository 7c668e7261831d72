"""`deepmlf app`: the live demo in the browser."""

from typing import Annotated

import typer

from .options import CheckpointOption, FaceModelOption


def command(
    checkpoint: CheckpointOption = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; without it, the first free one from 7860.")
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            envvar="GRADIO_SERVER_NAME",
            help="Address to listen on. The default can be reached from this machine only.",
        ),
    ] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            envvar="DEEPMLF_ALLOW_HOST",
            metavar="NAME",
            help="Name under which the app is used besides its own, where a proxy or tunnel stands before it; may be repeated.",
        ),
    ] = None,
    face_model: FaceModelOption = None,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open a browser window.")] = True,
) -> None:
    """Open the live demo: webcam or clip in, sentiment and its reasons out."""
    from ..app import launch

    launch(
        checkpoint,
        host=host,
        allowed_hosts=allow_host or (),
        port=port,
        face_model=face_model,
        open_browser=open_browser,
    )
