"""Options that several subcommands share."""

from pathlib import Path
from typing import Annotated

import typer

CheckpointOption = Annotated[
    Path | None,
    typer.Option(help="Run folder of `deepmlf train`; without it, the kit's own demo checkpoint."),
]
FaceModelOption = Annotated[Path | None, typer.Option(help="Path of face_landmarker.task.")]
