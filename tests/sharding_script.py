"""Shard a tiny model over two CPU processes (FSDP2) and print what differs: `torchrun ... sharding_script.py FFW`.

The step is one of training without LM loss, so that the last layer may be run on the tokens that are used.
"""

from __future__ import annotations

import json
import sys

import torch
import torch.distributed as dist
from tiny_lms import tiny_batch, tiny_model
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


def main(ffw: str) -> None:
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    alone, sharded, batch = tiny_model(ffw=ffw, loss_lm=0.0), tiny_model(ffw=ffw, loss_lm=0.0), tiny_batch()
    blocks = dict(sharded.mm_blocks.items())
    for index, layer in enumerate(sharded.language.layers):
        block = blocks.get(str(index))
        # By LoRA, a block's feed-forward shares its weights with the layer's: both go into one group.
        together = [layer, block.feed_forward] if ffw == "lora" and block is not None else layer
        fully_shard(together, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    losses = []
    for model in (alone, sharded):
        model.training = True  # no other module: dropout stays off
        loss = model(**batch).loss
        loss.backward()
        losses.append(float(loss))
    theirs = {name: p.grad.full_tensor() for name, p in sharded.named_parameters() if p.grad is not None}
    ours = {name: p.grad for name, p in alone.named_parameters() if p.grad is not None}
    assert ours.keys() == theirs.keys()
    apart = max(float((gradient - theirs[name]).abs().max()) for name, gradient in ours.items())
    parts = [p for p in sharded.parameters() if hasattr(p, "to_local")]
    share = sum(p.to_local().numel() for p in parts) / sum(p.numel() for p in parts)
    if dist.get_rank() == 0:
        print(json.dumps({"losses": losses, "gradients_apart": apart, "share": share}))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1])
