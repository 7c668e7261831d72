"""Everything that answers about people are made with and that the kit does not bring along: fetched once, then offline.

smollm2   the language model SmolLM2-135M-Instruct, turned into safetensors (`model/lm_conversion.py`)
face      MediaPipe's Face Landmarker
speech    Whisper base, or tiny.en
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

from ..downloads.fetching import FetchedModel, FetchError, Progress
from ..errors import DeepMLFError, did_you_mean
from ..features.face_model import FACE_MODEL
from ..features.transcript import WHISPER_BASE, WHISPER_TINY_EN
from ..model.fetched_lms import FETCHED_LMS
from ..model.lm_conversion import fetch_lm
from ..storage.optional import MissingPackage

SPEECH = {"base": WHISPER_BASE, "tiny": WHISPER_TINY_EN}
WHAT = (*FETCHED_LMS, "face", "speech")


def fetch(what: Sequence[str] = WHAT, *, speech: str = "base", show_progress: bool = True) -> dict[str, Path]:
    """Fetch models into the cache folder (`DEEPMLF_CACHE`); what is there already costs no download.

    Args:
        what: some of `smollm2`, `face` and `speech`.
        speech: the speech model, `base` (148 MB, many languages) or `tiny` (78 MB, English).
        show_progress: draw a bar on stderr.

    Returns:
        The folder of each.

    Raises:
        DeepMLFError: an unknown name; or some could not be fetched (`FetchError`), after the others were.
    """
    what = list(what) or list(WHAT)
    for name in what:
        if name not in WHAT:
            raise DeepMLFError(f"There is nothing {name!r} to fetch: {did_you_mean(name, WHAT)}")
    if speech not in SPEECH:
        raise DeepMLFError(f"speech is {speech!r}, but must be one of {', '.join(SPEECH)}.")
    models: dict[str, FetchedModel] = {**FETCHED_LMS, "face": FACE_MODEL, "speech": SPEECH[speech]}
    folders, failed, missing = {}, [], []
    for name in dict.fromkeys(what):
        try:
            with _bar(models[name], show_progress) as progress:
                fetched = fetch_lm(name, progress) if name in FETCHED_LMS else models[name].fetch(progress)
            folders[name] = fetched
        except FetchError as error:
            failed.append(str(error))
        except MissingPackage as error:
            missing.append(error)
    if failed:
        raise FetchError(
            f"{' '.join(failed)} Connect this machine to the network once, or name a mirror (PIP_INDEX_URL or "
            "PIP_FIND_LINKS for the package index, HF_ENDPOINT for the hub), and run `deepmlf fetch` again. Without them "
            "everything goes on: the embedded language model answers, words can be typed, of single clips the face is left out."
        )
    if missing:
        raise missing[0]
    return folders


@contextmanager
def _bar(model: FetchedModel, show: bool) -> Iterator[Progress | None]:
    if not show:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, console=Console(file=sys.stderr)) as bars:
        task = bars.add_task(model.title, total=model.size, start=False)

        def tell(done: int, of: int) -> None:
            bars.start_task(task)
            bars.update(task, completed=done, total=of)
            if done == of and model in FETCHED_LMS.values():
                bars.update(task, description=f"{model.title}: converting, once")

        yield tell
        bars.update(task, description=model.title, completed=model.size)
