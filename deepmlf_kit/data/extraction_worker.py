"""The process that extracts clips for `extraction_pool`: reads jobs from stdin, answers on stdout, a JSON a line.

A process of its own, because a damaged clip can crash or hang a decoder, and must take nothing else with it. The
features go into the cache; only what became of each clip goes back. Run as
`python -m deepmlf_kit.data.extraction_worker`; it ends when stdin does.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO

from ..errors import DeepMLFError
from ..features.cache import CacheError, FeatureCache
from ..features.clip import extract_clip, load_models
from ..features.recipe import FeatureRecipe


def main() -> None:
    """Serve until stdin ends. The first line holds the settings, each further one a clip."""
    # Libraries print where they like; the answers keep the real stdout to themselves.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    settings = json.loads(sys.stdin.readline())

    cache = FeatureCache(settings["cache"])
    recipe = FeatureRecipe(**settings["recipe"])
    try:
        load_models(recipe, face_model=settings["face_model"], speech=settings["speech"])
    except DeepMLFError as error:
        _say(answers, fatal=str(error))
        return
    _say(answers, ready=True)
    for line in sys.stdin:
        _say(answers, **_extract(json.loads(line), recipe, settings["face_model"], cache, answers))


def _extract(job: dict[str, Any], recipe, face_model, cache, answers: TextIO) -> dict[str, Any]:
    try:
        made = extract_clip(
            job["path"],
            recipe,
            text=job["text"],
            face_model=face_model,
            cache=cache,
            progress=lambda stage, share: _say(answers, stage=stage, share=share),
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


def _say(answers: TextIO, **message: Any) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
