"""A fetched language model is converted once.

A GGUF file is small to download but slow to open (its blocks are unpacked, its tokenizer is built anew: the better part of a
minute), so it is turned into what `from_pretrained` opens in a second:

    models/smollm2/   config.json, model.safetensors (bfloat16), tokenizer.json, ..., and source.json, written last
"""

from __future__ import annotations

import io
import shutil
from contextlib import redirect_stderr
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from ..downloads.cache import cache_folder
from ..downloads.fetching import FetchError, Progress
from ..storage.files import write_json
from ..storage.locks import held
from ..storage.optional import require
from .fetched_lms import FETCHED_LMS, SOURCE, lm_folder, lm_is_at_hand, lm_revision


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
    write_json(writing / SOURCE, source)
    shutil.rmtree(folder, ignore_errors=True)
    writing.replace(folder)
