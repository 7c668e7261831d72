"""How fast one clip is extracted: each stage in seconds, and how many times faster than the clip plays.

    python benchmarks/extract_clip.py CLIP [--speech-model FOLDER] [--audio egemaps] [--vision blendshapes]

The first run loads the models (cold); the table shows the median of the further runs (warm).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time

from rich.console import Console
from rich.table import Table

from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.features import FeatureRecipe, extract_clip

STAGES = {
    "open": "open the file",
    "decode_audio": "decode the sound",
    "voice": "voice features",
    "transcript": "transcript",
    "decode_video": "decode the pictures",
    "face": "face features",
    "total": "whole clip",
}


def main() -> None:
    """Read the arguments, run, print the table."""
    options = _arguments()
    recipe = FeatureRecipe(
        audio=options.audio, vision=options.vision, fps=options.fps, speech_model=options.speech_model
    )
    began = time.perf_counter()
    first = extract_clip(options.clip, recipe, text=options.text)
    cold = time.perf_counter() - began
    began = time.process_time()
    runs = [extract_clip(options.clip, recipe, text=options.text).timings for _ in range(options.repeat)]
    processor = (time.process_time() - began) / options.repeat
    seconds = first.found.seconds

    table = Table(title=f"{os.path.basename(options.clip)}, {seconds:.1f} s, {os.cpu_count()} cores")
    for heading in ("stage", "seconds (median)", "fastest", "slowest", "times real time"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage, title in STAGES.items():
        taken = [run[stage] for run in runs if stage in run]
        if taken:
            middle = statistics.median(taken)
            ratio = f"{seconds / middle:.1f}" if middle else "-"
            table.add_row(title, f"{middle:.3f}", f"{min(taken):.3f}", f"{max(taken):.3f}", ratio)
    console = Console()
    console.print(table)
    console.print(
        f"Voice and transcript run beside the face. Processor time of a run: {processor:.2f} s, "
        f"{seconds / processor:.1f} times faster than real time on one core; where the whole clip takes longer "
        f"than that, the machine was busy with other things."
    )
    console.print(f"The first run, which loads the models, took {cold:.2f} s.")
    console.print(f"Transcript: {first.text!r} ({len(first.words)} words, {first.text_source})", markup=False)
    for note in first.found.notes:
        console.print(f"note: {note}", markup=False)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How fast one clip is extracted, stage by stage.")
    parser.add_argument("clip")
    parser.add_argument("--audio", default="egemaps")
    parser.add_argument("--vision", default="blendshapes")
    parser.add_argument("--fps", type=float, default=10.0)
    parser.add_argument("--text", help="the words, where speech is not to be transcribed")
    parser.add_argument("--speech-model", help="size, name or folder of a faster-whisper model")
    parser.add_argument("--repeat", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except DeepMLFError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
