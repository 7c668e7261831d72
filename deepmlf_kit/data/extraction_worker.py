"""The process that extracts clips for `extraction_pool`; the protocol is that of `workers`.

A process of its own, because a damaged clip can crash or hang a decoder, and must take nothing else with it. The
features go into the cache; only what became of each clip goes back. It has no network: neither a library that tells its
maker of its use nor a clip made to take the decoder over gets a word out. Run as
`python -m deepmlf_kit.data.extraction_worker`; it ends when stdin does.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

from ..downloads.cache import CacheError
from ..errors import DeepMLFError
from ..features.cache import FeatureCache
from ..features.clip import extract_clip, load_models
from ..features.extractors import load_extractors
from ..features.face_model import find_face_model
from ..features.media import probe
from ..features.recipe import FeatureRecipe
from ..features.transcript import load_speech_model
from ..workers.child import Channel
from ..workers.imports import left_out, without_collection
from ..workers.network import refuse_network


def main() -> None:
    """Serve until stdin ends. The settings come first, then a message for each clip.

    The settings: `recipe`, `cache`, `face_model`, whether `speech` is needed, and whether there may be `pictures`; where the
    recipe is None, nothing is loaded in advance. A message: `path` and `text`, and what differs from the settings; with
    `into` the features are also written to that file, and with `probe` the clip is only looked at. With `download`, the
    error of a model that was missing, that model is loaded with a network, and no clip is read.
    """
    channel = Channel()
    settings = channel.settings
    try:
        if settings.get("download"):
            _download(settings["download"], FeatureRecipe(**settings["recipe"]), settings["face_model"])
        else:
            refuse_network(whole_process=True)
            if settings["recipe"] is not None:
                recipe = FeatureRecipe(**settings["recipe"])
                needed = {name: settings[name] for name in ("face_model", "speech", "pictures")}
                load_models(recipe, **needed)
    except DeepMLFError as error:
        channel.report(fatal=str(error), kind=type(error).__name__)
        return
    channel.report(ready=True)
    if not settings.get("download"):
        for number, job in enumerate(channel.messages()):
            with nullcontext() if number else without_collection():  # the first clip imports what it needs
                channel.report(**_answered({**settings, **job}, channel))


def _download(missing: str, recipe: FeatureRecipe, face_model: str | None) -> None:
    if missing == "FaceModelMissing":
        find_face_model(face_model)
    elif missing == "SpeechModelMissing":
        load_speech_model(recipe.speech_model)
    else:
        load_extractors(recipe)


def _answered(job: dict[str, Any], channel: Channel) -> dict[str, Any]:
    try:
        if job.get("probe"):
            return {"done": asdict(probe(job["path"], None))}
        made = extract_clip(
            job["path"],
            FeatureRecipe(**job["recipe"]),
            text=job["text"],
            face_model=job["face_model"],
            cache=None if job["cache"] is None else FeatureCache(job["cache"]),
            progress=lambda stage, share: channel.report(stage=stage, share=share),
        )
        if job.get("into"):
            made.save(job["into"])
        return {"done": made.found.seconds}
    except CacheError as error:
        return {"fatal": str(error)}
    except DeepMLFError as error:
        return {"failed": str(error), "kind": type(error).__name__}
    # A damaged clip can raise anything in the libraries below; it is reported, and the next clip is taken.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        return {
            "failed": f"{job['path']}: could not be processed ({type(error).__name__}: {reason}).",
            "kind": "ClipError",
        }


if __name__ == "__main__":
    with left_out("matplotlib"):  # half a second: MediaPipe imports it to draw, and nothing is drawn here
        main()
