"""How long a training step takes and what it needs, against the published way: `python benchmarks/train_step.py`.

Four ways to do the same work, interleaved in one run:

    published   texts padded to max_text_tokens, gradients through every layer, LM logits at every position, eager
                attention, keys and values of AV states for every head: how the authors' program computes a step,
                otherwise on this kit's modules
    plain       padding trimmed, texts sorted by length within an optimiser step, LM logits at targets only, the kit's attention
    fast        besides: the text first and without a gradient below the first MM Block (`text_first`)
    kept        besides: the text's states read from the store instead of computed (`cache_text_states`)

Weights are random; text lengths are drawn like MOSEI's (mean about 18 tokens, up to 50). First the operations
of each way are counted (matrix products and attention, forward and backward), then times are measured: where
the ratio of times falls short of the ratio of operations, something else is slow. "of matmul" sets the operations a
second against what one large matrix product reaches on this device in this run. Peak memory is that of a whole
process that does only this way; its share of the published way's is given whole and without what the imports alone
take. Dropout is off, so that all ways must give the same loss; the difference is printed.
"""

from __future__ import annotations

import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, LlamaConfig

from deepmlf_kit import DeepMLFConfig, DeepMLFModel
from deepmlf_kit.model.cross_attention import CrossAttention
from deepmlf_kit.model.known_lms import lm_shape
from deepmlf_kit.model.lm_loading import EMBEDDED_LM, fuse_gelu
from deepmlf_kit.model.losses import next_token_targets
from deepmlf_kit.training.compiling import compile_layers
from deepmlf_kit.training.dry_run import measured_rate

WAYS = ("published", "plain", "fast", "kept")
RANDOM_ORDER = "fast, random order"
SMOLLM2_135M = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
MOSEI = {"audio_dim": 74, "vision_dim": 35}
ACCUMULATION = 8  # batches of an optimiser step, within which the Trainer sorts by length (the presets')
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


def _gpt2(**sizes: int) -> GPT2Config:
    return GPT2Config(**sizes, **NO_DROPOUT)


#: name -> config of the language model, settings of DeepMLF.
SETUPS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "embedded": (
        lambda: AutoConfig.from_pretrained(EMBEDDED_LM),
        {"fusion_layers": [3, 4, 5, 6, 7], "fusion_tokens": 8, "loss_lm": 0.0},
    ),
    "mosei-base": (
        _gpt2,
        {"fusion_layers": [3, 5, 7, 8, 9, 10, 11], "fusion_tokens": 12, "loss_lm": 1.1, **MOSEI},
    ),
    "mosei-base-text-kept": (
        _gpt2,
        {
            "fusion_layers": [3, 5, 7, 8, 9, 10, 11],
            "fusion_tokens": 12,
            "loss_lm": 0.0,
            "ffw_on_text": False,
            **MOSEI,
        },
    ),
    "mosi-135m": (
        lambda: LlamaConfig(**SMOLLM2_135M),
        {
            "fusion_layers": [15, 18, 22, 25, 29],
            "fusion_tokens": 8,
            "ffw": "lora",
            "lora_r": 64,
            "lora_alpha": 1024,
            "lora_dropout": 0.0,
            "loss_lm": 0.0,
            "audio_dim": 1024,
            "vision_dim": 768,
        },
    ),
    "mosi-1.7b": (
        lambda: lm_shape(DeepMLFConfig(lm="HuggingFaceTB/SmolLM2-1.7B")),
        {
            "fusion_layers": [11, 14, 17, 20, 23],
            "fusion_tokens": 8,
            "ffw": "lora",
            "lora_r": 512,
            "lora_alpha": 8192,
            "lora_dropout": 0.0,
            "loss_lm": 0.0,
            "audio_dim": 1024,
            "vision_dim": 768,
            "lm_dtype": "bfloat16",
        },
    ),
    "mosei-large": (
        lambda: _gpt2(n_embd=1280, n_layer=36, n_head=20),
        {"fusion_layers": [7, 14, 21, 28, 35], "fusion_tokens": 12, "loss_lm": 1.0, **MOSEI},
    ),
}

#: A set-up that changes the model is also set against the published way of the preset it departs from.
DEPARTS_FROM = {"mosei-base-text-kept": "mosei-base"}


def heads_for(lm_config: Any) -> int:
    """Cross-attention heads that divide the language model's width: the presets' 16, else 9."""
    return 16 if lm_config.hidden_size % 16 == 0 else 9


def published_cross_attention(
    attention: CrossAttention,
    fusion: torch.Tensor,
    av_states: torch.Tensor,
    av_mask: torch.Tensor,
    need_weights: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-attention in the authors' order: keys and values [B, K, D] are made, then attended to by head."""
    states = (attention.query(fusion), *attention.key_value(av_states).chunk(2, dim=-1))
    query, key, value = (
        x.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for x in states
    )  # [B, h, ., D/h]
    scores = (query @ key.transpose(-1, -2)) * attention.scale  # [B, h, F, K]
    weights = scores.masked_fill(~av_mask[:, None, None], float("-inf")).softmax(dim=-1)
    return attention.output((weights @ value).transpose(1, 2).flatten(2)), weights


class Way:
    """One way to train one set-up: builds the model and does steps."""

    def __init__(self, way: str, setup: str, folder: str, options: dict[str, Any]) -> None:
        make_config, settings = SETUPS[setup]
        torch.manual_seed(0)
        device = options["device"]
        self.way, self.device, self.bf16 = way, device, options["bf16"]
        self.loss_lm = settings["loss_lm"]
        lm_config = make_config()
        dropouts = {"attention_dropout": 0.0, "av_dropout": 0.0, "seqaug_av_p_feat": 0.0}
        self.config = DeepMLFConfig(
            **({"cross_attention_heads": heads_for(lm_config), "pad_token_id": 0, **dropouts} | settings),
            text_first=way in ("fast", "kept"),
        )
        with torch.device(device):  # random weights are drawn where they are used: quick on a GPU
            lm = AutoModelForCausalLM.from_config(
                lm_config,
                dtype=getattr(torch, self.config.lm_dtype),
                attn_implementation="eager" if way == "published" else "sdpa",
            )
            if way != "published":
                fuse_gelu(lm)  # as the kit's loader does
            self.model = DeepMLFModel(self.config, lm=lm).to(device).train()
        if way == "published":
            for block in self.model.mm_blocks.values():
                block.cross_attention.forward = MethodType(published_cross_attention, block.cross_attention)
        if way == "kept":
            self.model.cache_text_states(folder)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        # The Trainer's optimizer is the fused one; the published way's is torch's default.
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=way != "published")

    def step(self, batch: dict[str, torch.Tensor]) -> float:
        batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            loss = self._published_loss(batch) if self.way == "published" else self.model(**batch).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())

    def _published_loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        wanted = self.config.max_text_tokens - batch["input_ids"].shape[1]
        ids = F.pad(batch["input_ids"], (0, wanted))
        mask = F.pad(batch["attention_mask"], (0, wanted))
        gamma, self.model.config.loss_lm = self.loss_lm, 0.0  # the LM loss is made here, from all logits
        padded = batch | {"input_ids": ids, "attention_mask": mask}
        output = self.model(**padded)
        states = torch.cat([output.text_states, output.fusion_states], dim=1)
        logits = self.model.language.logits(states)  # [B, L + F, V]
        if not gamma:
            return output.loss
        targets = next_token_targets(ids, mask, self.config.max_text_tokens, 0)
        lm_loss = F.cross_entropy(logits[:, : ids.shape[1]].flatten(0, 1).float(), targets.flatten())
        return output.loss + gamma * lm_loss


def make_batches(setup: str, samples: int, size: int, grouped: bool) -> list[dict[str, torch.Tensor]]:
    """The same utterances for every way: in any order, or sorted by the length of their texts.

    The Trainer sorts the batches of an optimiser step, so the utterances of a round are every few batches of sorted
    steps.
    """
    settings = SETUPS[setup][1]
    generator = torch.Generator().manual_seed(0)
    lengths = torch.distributions.LogNormal(2.7, 0.62)
    torch.manual_seed(0)
    count = samples // size
    steps = -(-count // ACCUMULATION)
    texts = lengths.sample((steps, ACCUMULATION * size)).round().clamp(2, 50).long().sort(dim=1).values
    chosen = ((torch.arange(count) + 0.5) * steps * ACCUMULATION / count).long()  # of the steps' batches
    tokens = texts.view(steps * ACCUMULATION, size)[chosen].flatten()
    order = torch.arange(samples) if grouped else torch.randperm(samples, generator=generator)
    ids = torch.randint(3, 4000, (samples, 50), generator=generator)
    audio = torch.randn(samples, 50, settings.get("audio_dim", 25), generator=generator)
    vision = torch.randn(samples, 50, settings.get("vision_dim", 58), generator=generator)
    labels = torch.randn(samples, generator=generator)
    batches = []
    for rows in order.split(size):
        longest = int(tokens[rows].max())
        mask = (torch.arange(longest) < tokens[rows].unsqueeze(1)).long()
        batches.append(
            {
                "input_ids": ids[rows, :longest] * mask,
                "attention_mask": mask,
                "audio": audio[rows],
                "vision": vision[rows],
                "labels": labels[rows],
            }
        )
    return batches


def matmul_rate(options: dict[str, Any]) -> float:
    """Operations a second of one large matrix product on this device, in the precision of the steps."""
    on_gpu = options["device"] == "cuda"
    dtype = torch.bfloat16 if options["bf16"] else torch.float32
    return measured_rate(2.0, size=8192 if on_gpu else 2048, device=options["device"], dtype=dtype)


def wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def measure(setup: str, ways: list[str], options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Operations and times of each way, interleaved."""
    with tempfile.TemporaryDirectory() as folder:
        runners = {way: Way(way, setup, folder, options) for way in ways}
        batches = {
            way: make_batches(setup, options["samples"], options["batch"], grouped=way != "published")
            for way in ways
        }
        runners[RANDOM_ORDER] = runners["fast"]
        batches[RANDOM_ORDER] = make_batches(setup, options["samples"], options["batch"], grouped=False)
        if reference := DEPARTS_FROM.get(setup):
            runners["reference"] = Way("published", reference, folder, options)
            batches["reference"] = batches["published"]
        ways = list(runners)
        found: dict[str, dict[str, Any]] = {way: {"seconds": []} for way in ways}
        same = batches["kept"][0]
        for way, runner in runners.items():
            start = {n: p.detach().clone() for n, p in runner.model.named_parameters() if p.requires_grad}
            found[way]["loss"] = runner.step(same)
            runner.model.load_state_dict(start, strict=False)
            if way == "kept":
                for batch in batches[way]:  # the first epoch fills the store
                    runner.step(batch)
            with FlopCounterMode(display=False) as counter:
                for batch in batches[way]:
                    runner.step(batch)
            found[way]["operations"] = counter.get_total_flops() / options["samples"]
            if options["compile"] and way in WAYS[1:]:
                compile_layers(runner.model)  # the counter does not see into what is compiled
                for batch in batches[way]:
                    runner.step(batch)
        for turn in range(options["rounds"]):
            for way in ways[turn % len(ways) :] + ways[: turn % len(ways)]:
                found[way]["seconds"].append(timed(runners[way], batches[way], options["clock"]))
        return found


def timed(runner: Way, batches: list[dict[str, torch.Tensor]], clock: Callable[[], float]) -> float:
    wait_for(runner.device)
    began = clock()
    for batch in batches:
        runner.step(batch)
    wait_for(runner.device)
    return clock() - began


def peak_memory(setup: str, way: str, options: dict[str, Any]) -> dict[str, float]:
    """Peak memory of a process that does only this way, and the size of its checkpoint (both in MB)."""
    arguments = ["--setup", setup, "--alone", way, "--samples", str(2 * options["batch"])]
    for name in ("device", "batch", "threads"):
        arguments += [f"--{name}", str(options[name])]
    arguments += [f"--{name}" for name in ("bf16", "compile") if options[name]]
    done = subprocess.run(
        [sys.executable, __file__, *arguments], capture_output=True, text=True, check=True, timeout=1800
    )
    return json.loads(done.stdout.splitlines()[-1])


def alone(setup: str, way: str, options: dict[str, Any]) -> None:
    before, device = _rss(), options["device"]
    with tempfile.TemporaryDirectory() as folder:
        runner = Way(way, setup, folder, options)
        if options["compile"] and way in WAYS[1:]:
            compile_layers(runner.model)
        for _ in range(2):
            for batch in make_batches(
                setup, options["samples"], options["batch"], grouped=way != "published"
            ):
                runner.step(batch)
        runner.model.save_pretrained(folder)
        checkpoint = (Path(folder) / "model.safetensors").stat().st_size / 1e6
    peak = torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else _rss()
    print(json.dumps({"peak": peak, "before": 0.0 if device == "cuda" else before, "checkpoint": checkpoint}))


def _rss() -> float:
    """Peak memory of this process in MB; from /proc where there is one, since ru_maxrss starts at the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 1e3  # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def report(
    setup: str, found: dict[str, dict[str, Any]], samples: int, matmul: float, console: Console
) -> None:
    reference, random_order = found.pop("reference", None), found.pop(RANDOM_ORDER)
    table = Table(title=f"Training step, {setup}")
    for heading in (
        "way",
        "samples/s",
        "spread",
        "x published",
        "operations",
        "x fewer",
        "of matmul",
        "peak MB",
        "share",
        "less imports",
        "loss",
    ):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    base = found["published"]
    for way, values in found.items():
        rates = sorted(samples / seconds for seconds in values["seconds"])
        ratios = [a / b for a, b in zip(base["seconds"], values["seconds"], strict=True)]
        table.add_row(
            way,
            f"{statistics.median(rates):.2f}",
            f"{rates[0]:.2f} to {rates[-1]:.2f}",
            f"{statistics.median(ratios):.2f}",
            f"{values['operations'] / 1e9:.2f} G",
            f"{base['operations'] / values['operations']:.2f}",
            f"{values['operations'] * statistics.median(rates) / matmul:.0%}",
            f"{values['memory']['peak']:.0f}" if "memory" in values else "",
            *(
                (
                    f"{values['memory']['peak'] / base['memory']['peak']:.2f}",
                    f"{_of_the_work(values['memory']) / _of_the_work(base['memory']):.2f}",
                )
                if "memory" in values
                else ("", "")
            ),
            f"{values['loss'] - base['loss']:+.1e}" if way != "published" else f"{base['loss']:.4f}",
        )
    console.print(table)
    console.print(f"A large matrix product: {matmul / 1e12:.3g} T operations/s.")
    ratios = [a / b for a, b in zip(random_order["seconds"], found["fast"]["seconds"], strict=True)]
    console.print(
        f"Sorted by length within optimiser steps of {ACCUMULATION} batches, the fast way is "
        f"{statistics.median(ratios):.2f} times as fast as in random order (operations "
        f"{random_order['operations'] / found['fast']['operations']:.2f} times fewer)."
    )
    if reference is not None:
        times = {
            way: statistics.median(
                a / b for a, b in zip(reference["seconds"], values["seconds"], strict=True)
            )
            for way, values in found.items()
        }
        fewer = {way: reference["operations"] / values["operations"] for way, values in found.items()}
        console.print(
            f"Against the published way of {DEPARTS_FROM[setup]}, from whose settings this departs "
            f"({statistics.median(samples / s for s in reference['seconds']):.2f} samples/s): "
            + ", ".join(f"{way} {times[way]:.2f} times (operations {fewer[way]:.2f})" for way in found)
        )
    if "memory" in base:
        console.print(f"Checkpoint: {base['memory']['checkpoint']:.1f} MB of trained weights.")


def _of_the_work(memory: dict[str, float]) -> float:
    return memory["peak"] - memory["before"]


def main(
    setup: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(SETUPS)}; repeatable.")] = None,
    samples: Annotated[int, typer.Option(help="Utterances a round.")] = 128,
    batch: Annotated[int, typer.Option(help="Utterances per step; the presets' 32.")] = 32,
    rounds: Annotated[int, typer.Option(help="Interleaved rounds.")] = 3,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cuda"
    if torch.cuda.is_available()
    else "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    bf16: Annotated[bool, typer.Option("--bf16", help="Mixed precision.")] = False,
    compiled: Annotated[
        bool, typer.Option("--compile", help="torch.compile in all ways but the published one.")
    ] = False,
    cpu_time: Annotated[
        bool, typer.Option("--cpu-time", help="Seconds of CPU, for a busy machine; take one thread.")
    ] = False,
    memory: Annotated[
        bool, typer.Option(help="Measure peak memory, each way in a process of its own.")
    ] = True,
    alone_way: Annotated[str | None, typer.Option("--alone", hidden=True)] = None,
    save: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
) -> None:
    """Samples/s, operations and peak memory of a training step, the kit's ways beside the published one."""
    torch.set_num_threads(threads)
    options = {"samples": samples, "batch": batch, "rounds": rounds, "device": device, "threads": threads}
    options |= {"bf16": bf16, "compile": compiled}
    options["clock"] = time.process_time if cpu_time else time.perf_counter
    setups = setup or ["embedded", "mosei-base", "mosei-base-text-kept", "mosi-135m"]
    if alone_way:
        return alone(setups[0], alone_way, options)
    console = Console(width=140)
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {threads} threads"
    console.print(
        f"{name}; {samples} utterances a round in batches of {batch}, {rounds} rounds; torch {torch.__version__}"
        + "; seconds of CPU" * cpu_time
    )
    everything = {}
    for name in setups:
        matmul = matmul_rate(options)
        found = measure(name, list(WAYS), options)
        matmul = max(matmul, matmul_rate(options))
        if memory:
            for way in WAYS:
                found[way]["memory"] = peak_memory(name, way, options)
        report(name, found, samples, matmul, console)
        everything[name] = found
    if save:
        save.write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    typer.run(main)
