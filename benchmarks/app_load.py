"""The app under load: clips from several clients at once; nothing may be lost, memory must stay flat.

    python benchmarks/app_load.py [--clips 20] [--clients 4] [--checkpoint RUN] [CLIP ...]

Each client is a user of its own who uploads one clip after another; without clips, the bundled examples are used.
Prints what a clip took beside one client alone, and the memory of the server and its processes after each quarter beside that
before, as ratios; ends with 1 where something was lost.
"""

from __future__ import annotations

import contextlib
import re
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Annotated

import typer


def main(
    clips: Annotated[list[Path] | None, typer.Argument(help="Clips to upload, in turn.")] = None,
    count: Annotated[int, typer.Option("--clips", help="Clips in all.")] = 20,
    clients: int = 4,
    checkpoint: Annotated[Path | None, typer.Option(help="A run; default: the bundled one.")] = None,
) -> None:
    from gradio_client import Client, handle_file

    from deepmlf_kit.app import launch
    from deepmlf_kit.app.examples import examples

    paths = clips or [example.path for example in examples()]
    app = launch(checkpoint, block=False, quiet=True)
    app.models.recipe(patience=600)
    took: list[float] = []
    answers: dict[tuple[int, str], list[str]] = {}
    lost: list[str] = []
    memory: list[float] = []
    lock = threading.Lock()
    todo = iter(range(count))

    def read(client: Client, number: int) -> str:
        path = paths[number % len(paths)]
        words = f"this is clip number {number % len(paths)}"
        result = client.predict(handle_file(str(path)), words, True, True, api_name="/read")
        found = re.search(r'data-testid="sentiment">([^<]+)', result[1])
        return found[1] if found else ""

    def user(number: int) -> None:
        client = Client(app.url, verbose=False, analytics_enabled=False)
        while True:
            with lock:
                clip = next(todo, None)
            if clip is None:
                break
            began = time.perf_counter()
            try:
                said = read(client, clip)
            except Exception as error:
                said = ""
                with lock:
                    lost.append(f"clip {clip}: {error}")
            with lock:
                took.append(time.perf_counter() - began)
                if said:
                    answers.setdefault((clip % len(paths), paths[clip % len(paths)].name), []).append(said)
                else:
                    lost.append(f"clip {clip}: no answer")
                if len(took) % max(1, count // 4) == 0:
                    memory.append(resident())
        app.sessions.close(client.session_hash)

    warm = Client(app.url, verbose=False, analytics_enabled=False)
    alone = []
    for number in range(2 * len(paths)):  # the first round loads what is loaded on first use
        began = time.perf_counter()
        read(warm, number)
        alone.append(time.perf_counter() - began)
    alone = alone[len(paths) :]
    app.sessions.close(warm.session_hash)
    before, began = resident(), time.perf_counter()
    threads = [threading.Thread(target=user, args=(n,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    # (gradio keeps an empty file of every upload until the app tidies up)
    left = [path for path in app.folder.rglob("*") if path.is_file() and path.stat().st_size]
    app.close()

    mixed = {name: sorted(set(said)) for (_, name), said in answers.items() if len(set(said)) > 1}
    print(
        f"{len(took)} clips from {clients} clients in {seconds:.1f} s: {seconds / max(1, len(took)):.2f} s a clip"
    )
    one = statistics.median(alone)
    print(f"one client alone: median {one:.2f} s a clip; throughput {one * len(took) / seconds:.2f} of that")
    print(
        f"one of {clients} clients: median {statistics.median(took):.2f} s ({statistics.median(took) / one:.1f} times), "
        f"slowest {max(took):.2f} s ({max(took) / one:.1f} times), waiting included"
    )
    print(
        f"lost: {len(lost)}; answers that differ for one clip: {len(mixed)}; files left behind: {len(left)}"
    )
    quarters = ", ".join(f"{value:.0f} ({value / before:.2f})" for value in memory)
    print(f"memory: {before:.0f} MB before; after each quarter (and as a share of that): {quarters} MB")
    for line in [*lost, *map(str, mixed.items()), *map(str, left)]:
        print(f"  {line}")
    if lost or mixed or left:
        sys.exit(1)


def resident() -> float:
    """Memory of this process and those it has started, in MB."""
    import psutil

    here, total = psutil.Process(), 0
    for process in (here, *here.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total / 1e6


if __name__ == "__main__":
    typer.run(main)
