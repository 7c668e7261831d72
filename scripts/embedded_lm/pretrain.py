"""Pretrain the embedded LM: a Llama-shaped decoder of eight layers, next-token prediction on packed blocks.

The matrices inside the layers are updated by Muon, which is reported to need fewer steps than AdamW, and the
rest (embedding, norms) by AdamW. The learning rate is warmed up, kept, and brought down to zero over the last
part of the run, so that a run can be ended sooner or later than planned, from its last checkpoint and by
another number of steps, and still be brought down properly.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.training.processes import processes

from .packing import Blocks


@dataclass(frozen=True)
class Shape:
    """Sizes of the model. `hidden` is a multiple of 16 and of `heads`."""

    layers: int
    hidden: int
    heads: int
    intermediate: int
    positions: int


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train; `block` tokens a sequence, `batch` sequences a step."""

    steps: int
    batch: int
    block: int
    save_every: int
    seed: int
    muon_rate: float = 0.02
    adamw_rate: float = 0.004
    warmup: float = 0.02
    decay: float = 0.35

    def factor(self, step: int) -> float:
        """Share of the full learning rate at a step: up in a line, flat, down in a line to zero."""
        up = (step + 1) / max(self.warmup * self.steps, 1)
        down = (self.steps - step) / max(self.decay * self.steps, 1)
        return max(min(1.0, up, down), 0.0)


def build_model(shape: Shape, tokenizer: PreTrainedTokenizerBase, seed: int) -> LlamaForCausalLM:
    """The untrained model: RoPE, RMSNorm, SwiGLU, embedding tied to the output; float32."""
    if shape.hidden % 16 or shape.hidden % shape.heads:
        raise DeepMLFError(
            f"A hidden size of {shape.hidden} with {shape.heads} heads does not fit; choose a multiple of 16 "
            "and of the number of heads."
        )
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=shape.hidden,
            intermediate_size=shape.intermediate,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.heads,
            max_position_embeddings=shape.positions,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


class MuonAdamW(torch.optim.Optimizer):
    """One optimizer over two: Muon for the matrices of the layers, AdamW for everything else.

    Muon (Jordan and others 2024) makes each matrix's momentum orthogonal before the step; it is meant for
    weights that map states to states, so the embedding stays with AdamW.
    """

    def __init__(self, model: torch.nn.Module, muon_rate: float, adamw_rate: float):
        if not hasattr(torch.optim, "Muon"):
            raise DeepMLFError(f"torch {torch.__version__} has no Muon optimizer; 2.9 or newer is needed.")
        named = list(model.named_parameters())
        matrices = [p for name, p in named if p.ndim == 2 and ".layers." in name]
        others = [p for name, p in named if not (p.ndim == 2 and ".layers." in name)]
        super().__init__([{"params": matrices}, {"params": others}], {})
        self.muon = torch.optim.Muon(matrices, lr=muon_rate, weight_decay=0.05)
        self.adamw = torch.optim.AdamW(others, lr=adamw_rate, betas=(0.9, 0.95), weight_decay=0.0)
        self._share_groups()

    def _share_groups(self) -> None:
        # A scheduler writes rates into these groups; they must be the very groups the two step with.
        self.param_groups = self.muon.param_groups + self.adamw.param_groups

    @torch.no_grad()
    def step(self, closure=None):
        self.muon.step()
        self.adamw.step()

    def state_dict(self) -> dict:
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])
        self._share_groups()


def pretrain(
    model: LlamaForCausalLM,
    blocks: np.ndarray,
    held_out: np.ndarray,
    schedule: Schedule,
    run: Path,
) -> LlamaForCausalLM:
    """Train the model on blocks [n, block], in their order, and return it.

    A checkpoint is written into `run` every `save_every` steps; called again with the same run folder, the
    training goes on from the last one. Started by `accelerate launch`, the processes share each step's batch.

    Args:
        model: from `build_model`.
        blocks: at least `steps * batch` blocks, from `packing.passes`.
        held_out: blocks [m, block]; the loss on about 128 of them is shown along the way.
        schedule: length and rates.
        run: folder for checkpoints.
    """
    count = processes().num_processes
    if not torch.cuda.is_available():
        # On short blocks, plain matrix products are faster on CPU than the fused kernel's backward pass.
        model.set_attn_implementation("eager")
    optimizer = MuonAdamW(model, schedule.muon_rate, schedule.adamw_rate)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.factor)
    arguments = TrainingArguments(
        output_dir=str(run),
        max_steps=schedule.steps,
        per_device_train_batch_size=max(schedule.batch // count, 1),
        per_device_eval_batch_size=schedule.batch,
        use_cpu=not torch.cuda.is_available(),
        ddp_backend="gloo" if count > 1 and not torch.cuda.is_available() else None,
        ddp_find_unused_parameters=False if count > 1 else None,
        bf16=_has_fast_bf16(),
        max_grad_norm=1.0,
        logging_steps=max(schedule.save_every // 5, 1),
        eval_strategy="steps",
        eval_steps=schedule.save_every,
        save_steps=schedule.save_every,
        save_total_limit=2,
        seed=schedule.seed,
        # The blocks come in random order already, and in the same one whatever the length of the run.
        train_sampling_strategy="sequential",
        report_to=[],
        dataloader_pin_memory=False,
        prediction_loss_only=True,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=Blocks(blocks),
        eval_dataset=Blocks(held_out[:: max(len(held_out) // 128, 1)]),
        optimizers=(optimizer, scheduler),
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(run)) if run.is_dir() else None)
    return model


def _has_fast_bf16() -> bool:
    """Whether matrix products in bfloat16 are faster here than in float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return torch.cpu.is_available() and getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
