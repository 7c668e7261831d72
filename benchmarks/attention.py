"""How long attention takes as two products and a softmax, against PyTorch's fused kernel: `python benchmarks/attention.py`.

Forward and back on CPU, side by side in one run, for the shapes of an utterance (a text with its fusion tokens, the
fusion tokens alone against the text's keys and values) and for longer ones: where the ratio falls below 1 the fused
kernel is the faster one, and the kit uses it there (`deepmlf_kit.model.attention.LONGEST`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from deepmlf_kit.model.attention import attend

#: name -> query heads, key heads, width of a head.
HEADS = {"GPT-2": (12, 12, 64), "SmolLM2-135M": (9, 3, 64)}
#: queries, keys.
LENGTHS = ((8, 26), (26, 26), (62, 62), (128, 128), (256, 256), (512, 512))


def seconds(run: Callable[..., Tensor], tensors: list[Tensor], repeats: int) -> float:
    """Seconds of one forward and backward pass."""
    began = time.perf_counter()
    for _ in range(repeats):
        output = run(*tensors)
        torch.autograd.grad(output, tensors, output)
    return (time.perf_counter() - began) / repeats


def main(
    batch: Annotated[int, typer.Option(help="Utterances.")] = 32,
    rounds: Annotated[int, typer.Option(help="Interleaved rounds.")] = 9,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    """Milliseconds of both ways and their ratio."""
    torch.set_num_threads(threads)
    table = Table(
        title=f"Attention forward and back, batch {batch}, {threads} threads, torch {torch.__version__}"
    )
    for heading in ("heads", "queries", "keys", "fused ms", "products ms", "times faster", "spread"):
        table.add_column(heading, justify="left" if heading == "heads" else "right")
    for name, (heads, groups, width) in HEADS.items():
        for queries, keys in LENGTHS:
            query = torch.randn(batch, heads, queries, width, requires_grad=True)
            key, value = (torch.randn(batch, groups, keys, width, requires_grad=True) for _ in range(2))
            causal = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries).expand(batch, 1, -1, -1)
            added = torch.zeros(causal.shape).masked_fill(~causal, torch.finfo(torch.float32).min)

            def fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor = causal) -> Tensor:
                return F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)

            def products(q: Tensor, k: Tensor, v: Tensor, mask: Tensor = added) -> Tensor:
                return attend(q, k, v, mask, scale=q.shape[-1] ** -0.5)[0]

            tensors = [query, key, value]
            torch.testing.assert_close(fused(*tensors), products(*tensors), atol=1e-5, rtol=0)
            repeats = max(2, int(0.05 / seconds(fused, tensors, 2)))
            turns = [
                (seconds(fused, tensors, repeats), seconds(products, tensors, repeats)) for _ in range(rounds)
            ]
            ratios = sorted(slow / fast for slow, fast in turns)
            table.add_row(
                name,
                str(queries),
                str(keys),
                *(f"{1e3 * statistics.median(column):.2f}" for column in zip(*turns, strict=True)),
                f"{statistics.median(ratios):.2f}",
                f"{ratios[0]:.2f} to {ratios[-1]:.2f}",
            )
    Console(width=110).print(table)


if __name__ == "__main__":
    typer.run(main)
