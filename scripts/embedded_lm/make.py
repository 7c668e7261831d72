"""The whole way from texts to the embedded LM's folder, step by step, with every figure of its card."""

import json
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.training.processes import processes

from . import card, packing, perplexity
from .corpora import Document, read_documents
from .pretrain import Schedule, Shape, build_model, pretrain
from .probe import probe
from .split import ProbeSentences, is_held_out, read_probe, without_probe
from .tokenizer import train_tokenizer


def split_texts(
    texts: list[Path], percent: int, sentences: ProbeSentences | None, skip: tuple[str, ...] = ()
) -> tuple[list[Document], list[Document]]:
    """Read the texts and split them: (training, held out), nothing of the probe in either.

    Raises:
        DeepMLFError: too little text for both.
    """
    documents = list(read_documents(texts, skip))
    if sentences is not None:
        documents = list(without_probe(documents, sentences))
    train = [d for d in documents if not is_held_out(d, percent)]
    held_out = [d for d in documents if is_held_out(d, percent)]
    if not train or not held_out:
        raise DeepMLFError(
            f"The texts hold {len(documents)} documents, too few to hold {percent} % out; give more text or a "
            "larger --held-out."
        )
    return train, held_out


def make(
    texts: list[Path],
    out: Path,
    run: Path,
    *,
    shape: Shape,
    schedule: Schedule,
    vocab_size: int = 4096,
    held_out_percent: int = 2,
    probe_archive: Path | None = None,
    skip: tuple[str, ...] = (),
    weights: dict[str, float] | None = None,
    command: str = "",
    versions: str = "",
    note: str = "",
) -> card.Measured | None:
    """Pretrain on `texts`, measure, and write model, tokenizer and card into `out`.

    A run folder with a tokenizer and checkpoints is gone on with. What is measured is the model as it is
    written, in bfloat16, read back in float32.

    Returns:
        The figures of the card, which are also printed; None in all but the first of several processes.
    """
    started = processes()
    sentences = read_probe(probe_archive) if probe_archive else None
    train, held_out = split_texts(texts, held_out_percent, sentences, skip)
    tokenizer_folder = run / "tokenizer"
    with started.main_process_first():
        _check_run(
            run,
            {**asdict(shape), "vocab": vocab_size, "block": schedule.block, "batch": schedule.batch,
             "seed": schedule.seed, "weights": weights or {}, "documents": len(train)},
        )  # fmt: skip
        if not tokenizer_folder.is_dir():
            print(f"Training the tokenizer on {len(train):,} documents ...", flush=True)
            fresh = train_tokenizer((d.text for d in train), vocab_size, shape.positions)
            fresh.save_pretrained(tokenizer_folder)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)

    encoded = packing.encode(train, tokenizer)
    held_out_stream = np.concatenate(packing.encode(held_out, tokenizer))
    if len(held_out_stream) < 2 * schedule.block:
        raise DeepMLFError(
            f"The held-out texts are {len(held_out_stream)} tokens, fewer than two blocks of {schedule.block}; "
            "give more text or a larger --held-out."
        )
    held_out_blocks = held_out_stream[: len(held_out_stream) // schedule.block * schedule.block]
    held_out_blocks = held_out_blocks.reshape(-1, schedule.block)
    by_document = np.array([packing.weight_of(d.source, weights or {}) for d in train])
    tokens = np.array([len(ids) for ids in encoded])
    print(f"{tokens.sum():,} tokens to train on, {len(held_out_stream):,} held out.", flush=True)

    needed = schedule.steps * schedule.batch
    blocks: list[np.ndarray] = []
    for one_pass in packing.passes(encoded, by_document, schedule.block, schedule.seed):
        if not len(one_pass):
            raise DeepMLFError(f"The training texts do not fill one block of {schedule.block} tokens.")
        blocks.append(one_pass)
        if sum(map(len, blocks)) >= needed:
            break
    model = build_model(shape, tokenizer, schedule.seed)
    model = pretrain(
        model,
        np.concatenate(blocks)[:needed],
        held_out_blocks,
        schedule,
        run,
    )

    if not started.is_main_process:
        return None
    out.mkdir(parents=True, exist_ok=True)
    model.config.use_cache = True  # training switched it off
    model.to("cpu", torch.bfloat16).save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(out)
    written = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)

    share = by_document * tokens / (by_document * tokens).sum()
    read = needed * schedule.block
    measured = card.Measured(
        parameters=written.num_parameters(),
        bytes=(out / "model.safetensors").stat().st_size,
        layers=shape.layers,
        hidden=shape.hidden,
        vocab=len(tokenizer),
        positions=shape.positions,
        block=schedule.block,
        steps=schedule.steps,
        tokens_read=read,
        tokens_in_texts=int(tokens.sum()),
        sources=_by_source(train, by_document, share * read),
        perplexity=perplexity.compare(written, np.concatenate(encoded), held_out_stream, schedule.block),
        probe=probe(written, tokenizer, sentences) if sentences else None,
        command=command,
        versions=f"{versions}, torch {torch.__version__}, transformers {transformers.__version__}".lstrip(
            ", "
        ),
        note=note,
    )
    card.write_card(out, measured)
    print(f"perplexity: {measured.perplexity}\nprobe: {measured.probe}\nwritten to {out}", flush=True)
    return measured


def _check_run(run: Path, settings: dict[str, object]) -> None:
    """Refuse to go on with a run of other settings; its length alone may change."""
    file = run / "settings.json"
    if not file.is_file():
        run.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings, indent=2) + "\n")
        return
    before = json.loads(file.read_text())
    changed = [f"{k} {before.get(k)} (now {v})" for k, v in settings.items() if before.get(k) != v]
    if changed:
        raise DeepMLFError(
            f"The run in {run} was started with {', '.join(changed)}; give the same again to go on with it, or "
            "another --checkpoints folder to start anew."
        )


def _by_source(
    documents: list[Document], weights: np.ndarray, read: np.ndarray
) -> dict[str, tuple[int, int, float, int]]:
    rows: dict[str, list[float]] = defaultdict(lambda: [0, 0, 0.0, 0.0])
    for document, weight, tokens in zip(documents, weights, read, strict=True):
        name = document.source
        archive, _, member = name.partition("/")
        # One row for an archive, but for one whose members are read with different weights.
        row = rows[f"{archive}/{member}" if archive == "webtext" else archive]
        row[0] += 1
        row[1] += len(document.text)
        row[2] = weight
        row[3] += tokens
    return {name: (int(r[0]), int(r[1]), r[2], round(r[3])) for name, r in rows.items()}
