"""What the frozen language model's precision costs and saves on a GPU: `python benchmarks/few_bits.py --setup mosi-1.7b`.

A language model with random weights (a set-up of `train_step.py`) is written to a folder once and loaded as users load theirs:
float32, bfloat16, 8 and 4 bit (bitsandbytes), and bfloat16 with its layers' activations computed again in the backward
pass. Prints the time of a training step (bf16 mixed precision) and the peak memory on the card, as they are and as a share of
bfloat16's.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from train_step import SETUPS, heads_for, make_batches, wait_for
from transformers import AutoModelForCausalLM

from deepmlf_kit import DeepMLFConfig, DeepMLFModel

PRECISIONS: dict[str, dict[str, Any]] = {
    "bfloat16": {"lm_dtype": "bfloat16"},
    "float32": {"lm_dtype": "float32"},
    "bfloat16, checkpointing": {"lm_dtype": "bfloat16"},
    "8 bit": {"lm_bits": 8},
    "4 bit": {"lm_bits": 4},
}


def main(
    setup: Annotated[str, typer.Option(help=f"Of {', '.join(SETUPS)}.")] = "mosi-1.7b",
    batch: Annotated[int, typer.Option(help="Utterances per step.")] = 32,
    steps: Annotated[int, typer.Option(help="Steps of which the median is taken.")] = 20,
) -> None:
    """Samples/s and peak memory of a training step by precision of the language model."""
    if not torch.cuda.is_available():
        raise typer.BadParameter("no CUDA device was found, expected one: few bits are for GPUs.")
    make_config, settings = SETUPS[setup]
    lm_config, settings = make_config(), {k: v for k, v in settings.items() if k != "lm_dtype"}
    batches = make_batches(setup, steps * batch, batch, grouped=True)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        with torch.device("cuda"):
            AutoModelForCausalLM.from_config(lm_config, dtype=torch.bfloat16).save_pretrained(folder)
        for name, precision in PRECISIONS.items():
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            torch.manual_seed(0)
            config = DeepMLFConfig(
                lm=folder, cross_attention_heads=heads_for(lm_config), pad_token_id=0, **settings | precision
            )
            model = DeepMLFModel(config).cuda().train()
            if "checkpointing" in name:
                model.gradient_checkpointing_enable()
            found[name] = measure(model, batches, batch)
            del model
    table = Table(title=f"{setup}, {torch.cuda.get_device_name()}, batches of {batch}, bf16 mixed precision")
    for heading in ("language model", "samples/s", "of bfloat16", "peak GB", "of bfloat16"):
        table.add_column(heading, justify="left" if heading == "language model" else "right")
    rate, memory = found["bfloat16"]
    for name, (one, peak) in found.items():
        table.add_row(name, f"{one:.1f}", f"{one / rate:.2f}", f"{peak:.2f}", f"{peak / memory:.2f}")
    Console(width=120).print(table)


def measure(model: DeepMLFModel, batches: list[dict[str, torch.Tensor]], batch: int) -> tuple[float, float]:
    """Samples/s (median step) and peak memory in GB."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    seconds = []
    for turn, cpu in enumerate([*batches[:3], *batches]):  # three steps to warm up
        wait_for("cuda")
        began = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(**{key: value.cuda() for key, value in cpu.items()}).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        wait_for("cuda")
        if turn >= 3:
            seconds.append(time.perf_counter() - began)
    assert torch.isfinite(loss)
    return batch / statistics.median(seconds), torch.cuda.max_memory_allocated() / 1e9


if __name__ == "__main__":
    typer.run(main)
