"""Train the tiny model in a process of its own: `python training_script.py OUT`. Started (and killed) by tests."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from training_fixtures import TINY, tiny_lm, tiny_sample


def main(out: str, overrides: str = "{}") -> None:
    import torch

    from deepmlf_kit.training import train

    torch.set_num_threads(1)
    dataset = tiny_sample()
    lm, tokenizer = tiny_lm(dataset["train"]["text"])
    changes = {**TINY, **json.loads(overrides)}
    train(
        "sample",
        dataset,
        out,
        overrides=changes,
        lm=lm,
        tokenizer=tokenizer,
        progress=False,
        tensorboard=False,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
