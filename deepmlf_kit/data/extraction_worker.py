"""The process that extracts clips for `extraction_pool`; the protocol is that of `workers`.

A process of its own, because a damaged clip can crash or hang a decoder, and must take nothing else with it. The
features go into the cache; only what became of each clip goes back. Run as
`python -m deepmlf_kit.data.extraction_worker`; it ends when stdin does.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ..downloads.cache import CacheError
from ..errors import DeepMLFError
from ..features.cache import FeatureCache
from ..features.clip import extract_clip, load_models
from ..features.media import probe
from ..features.recipe import FeatureRecipe
from ..workers.child import Channel


def main() -> None:
    """Serve until stdin ends. The settings come first, then a message for each clip.

    The settings: `recipe`, `cache`, `face_model`, and whether `speech` is needed; where the recipe is None, nothing is
    loaded in advance. A message: `path` and `text`, and what differs from the settings; with `into` the features are also
    written to that file, and with `probe` the clip is only looked at.
    """
    channel = Channel()
    settings = channel.settings
    if settings["recipe"] is not None:
        recipe = FeatureRecipe(**settings["recipe"])
        try:
            load_models(recipe, face_model=settings["face_model"], speech=settings["speech"])
        except DeepMLFError as error:
            channel.report(fatal=str(error))
            return
    channel.report(ready=True)
    for job in channel.messages():
        channel.report(**_answered({**settings, **job}, channel))


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
    main()
