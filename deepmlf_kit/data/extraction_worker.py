"""The process that extracts clips for `extraction_pool`; the protocol is that of `workers`.

A process of its own, because a damaged clip can crash or hang a decoder, and must take nothing else with it. The
features go into the cache; only what became of each clip goes back. Run as
`python -m deepmlf_kit.data.extraction_worker`; it ends when stdin does.
"""

from __future__ import annotations

from typing import Any

from ..errors import DeepMLFError
from ..features.cache import CacheError, FeatureCache
from ..features.clip import extract_clip, load_models
from ..features.recipe import FeatureRecipe
from ..workers.child import Channel


def main() -> None:
    """Serve until stdin ends. The settings come first, then a message for each clip."""
    channel = Channel()
    settings = channel.settings
    cache = FeatureCache(settings["cache"])
    recipe = FeatureRecipe(**settings["recipe"])
    try:
        load_models(recipe, face_model=settings["face_model"], speech=settings["speech"])
    except DeepMLFError as error:
        channel.report(fatal=str(error))
        return
    channel.report(ready=True)
    for job in channel.messages():
        channel.report(**_extract(job, recipe, settings["face_model"], cache, channel))


def _extract(job: dict[str, Any], recipe, face_model, cache, channel: Channel) -> dict[str, Any]:
    try:
        made = extract_clip(
            job["path"],
            recipe,
            text=job["text"],
            face_model=face_model,
            cache=cache,
            progress=lambda stage, share: channel.report(stage=stage, share=share),
        )
    except CacheError as error:
        return {"fatal": str(error)}
    except DeepMLFError as error:
        return {"failed": str(error)}
    # A damaged clip can raise anything in the libraries below; it is reported, and the next clip is taken.
    except Exception as error:
        return {
            "failed": f"{job['path']}: could not be processed ({type(error).__name__}: {str(error)[:200]})."
        }
    return {"done": made.found.seconds}


if __name__ == "__main__":
    main()
