"""Convert a large MMSA pickle and print time and peak memory beside its size.

    python benchmarks/convert_pickle.py [--gigabytes 1.0] [--protocol 4] [--folder DIR]

The pickle has the layout of an unaligned MOSEI (audio 74, vision 35 dims, 500 frames, and the BERT features that
come with such files); the conversion runs in a process of its own, whose largest resident size (VmHWM, which counts
mapped file pages too) is printed. The bound to keep: 2.5 times the pickle.
"""

from __future__ import annotations

import argparse
import multiprocessing
import pickle
import re
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

BOUND = 2.5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--protocol", type=int, default=4, help="pickle protocol (old files: 2)")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder where left out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "mosei.pkl"
        # In processes of their own: neither what making the file takes nor what this one holds is counted.
        context = multiprocessing.get_context("spawn")
        _run(context, _make, path, arguments.gigabytes, arguments.protocol)
        size = path.stat().st_size
        seconds, peak, start, utterances = _run(context, _convert, path)
    print(f"pickle     {size / 2**30:6.2f} GiB, protocol {arguments.protocol}, {utterances} utterances")
    print(f"time       {seconds:6.1f} s, {size / 2**20 / seconds:.0f} MiB/s")
    print(f"peak       {peak / 2**30:6.2f} GiB resident, {start / 2**30:.2f} of it before the conversion")
    print(f"peak/size  {peak / size:6.2f} (bound {BOUND})")
    if size > 2**29 and peak > BOUND * size:  # in small files the libraries themselves weigh more
        raise SystemExit("above the bound")


def _run(context, function, *arguments):
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def _make(path: Path, gigabytes: float, protocol: int) -> None:
    frames, audio_dim, vision_dim, text = 500, 74, 35, 50 * 768
    each = 4 * (frames * (audio_dim + vision_dim) + text)
    total = max(30, int(gigabytes * 2**30 / each))
    rng = np.random.default_rng(0)
    content = {}
    for split, share in (("train", 0.7), ("valid", 0.1), ("test", 0.2)):
        n = max(1, int(total * share))
        content[split] = {
            "id": [f"video{i // 9}$_${i % 9}" for i in range(n)],
            "raw_text": [f"some words {i}" for i in range(n)],
            "audio": rng.standard_normal((n, frames, audio_dim), np.float32),
            "vision": rng.standard_normal((n, frames, vision_dim), np.float32),
            "audio_lengths": rng.integers(50, frames, n).tolist(),
            "vision_lengths": rng.integers(50, frames, n).tolist(),
            "text": rng.standard_normal((n, text), np.float32),
            "regression_labels": rng.uniform(-3, 3, n),
        }
    with path.open("wb") as file:
        pickle.dump(content, file, protocol=protocol)


def _convert(path: Path) -> tuple[float, int, int, int]:
    from tqdm import tqdm

    from deepmlf_kit.data.mmsa import convert_mmsa

    bars: dict[str, tqdm] = {}

    def show(split: str, done: int, total: int) -> None:
        bar = bars.setdefault(split, tqdm(total=total, desc=split))
        bar.update(done - bar.n)

    start = _peak()
    began = time.perf_counter()
    dataset = convert_mmsa(path, path.with_name("out"), progress=show)
    seconds = time.perf_counter() - began
    return seconds, _peak(), start, sum(len(part) for part in dataset.values())


def _peak() -> int:
    """Largest resident size of this process in bytes; from /proc where there is one, since ru_maxrss starts at the
    parent's."""
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+)", status.read_text())):
        return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
