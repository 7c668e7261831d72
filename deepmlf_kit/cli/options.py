"""Options that several subcommands share."""

from pathlib import Path
from typing import Annotated

import typer

CheckpointOption = Annotated[
    Path | None,
    typer.Option(
        help="Run folder of `deepmlf train`, or for `predict` a model's own (save_pretrained); without it, the best at hand."
    ),
]
FaceModelOption = Annotated[Path | None, typer.Option(help="Path of face_landmarker.task.")]
