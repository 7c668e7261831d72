"""How long the explorer takes to answer, at 24 layers x 16 heads x 20 fusion tokens x 70 positions.

    python benchmarks/explorer_update.py [--repeats 7] [--no-browser]

Two kinds of update are timed. *Looking* (another layer, head, token or view) happens in the browser from numbers
that are there already: measured in headless Chromium, from the control's event to the drawn picture. *Asking*
(another utterance, other words, a modality off) runs the model and sends its answer: measured in Python, and it
grows with the language model; the one here is 24 layers of width 256. The target is 200 ms for looking.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

LAYERS, HEADS, TOKENS, POSITIONS, WIDTH = 24, 16, 20, 70, 256
TARGET = 200
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]


def make_explorer():
    """An explorer on a random model of that size; every text has 70 tokens."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from deepmlf_kit import DeepMLFConfig, DeepMLFModel
    from deepmlf_kit.data.sample import make_sample
    from deepmlf_kit.data.schema import build_split
    from deepmlf_kit.explain import Lens
    from deepmlf_kit.widgets import Explorer

    torch.manual_seed(0)
    vocabulary = {"<pad>": 0, "<unk>": 1} | {f"w{i}": i + 2 for i in range(POSITIONS)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>")
    lm = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            max_position_embeddings=128,
        )
    )
    config = DeepMLFConfig(
        fusion_layers=range(LAYERS),
        fusion_tokens=TOKENS,
        max_text_tokens=POSITIONS,
        cross_attention_heads=HEADS,
        av_steps=POSITIONS,
        av_batchnorm=True,
        ffw="lora",
    )
    model = DeepMLFModel(config, lm=lm, tokenizer=tokenizer).eval()
    dataset = make_sample(train=1, valid=1, test=8)
    text = " ".join(f"w{i}" for i in range(POSITIONS))
    rows = [{**row, "text": text} for row in dataset["test"]]
    dataset["test"] = build_split(rows, 25, 58)
    return Explorer(Lens(model, dataset), progress=False)


def time_asking(explorer, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each kind of question, in Python."""
    times: dict[str, list[float]] = {}

    def clock(name, act):
        started = time.perf_counter()
        act()
        times.setdefault(name, []).append((time.perf_counter() - started) * 1000)

    for i in range(repeats):
        clock("another utterance", lambda i=i: setattr(explorer, "index", 1 + i % 7))
        words = explorer.text.split()
        words[i] = "w0"
        clock("other words", lambda words=words: setattr(explorer, "text", " ".join(words)))
        clock("a modality off", lambda: setattr(explorer, "without", ["voice"]))
    return times


def time_looking(page_path: Path, repeats: int, chromium: str) -> dict[str, list[float]]:
    """Milliseconds of each kind of redraw, in Chromium."""
    from playwright.sync_api import sync_playwright

    times: dict[str, list[float]] = {}
    changes = {
        "layer": [str(i) for i in range(LAYERS)],
        "head": [str(i) for i in range(HEADS)],
        "token": [str(i) for i in range(TOKENS)],
    }
    script = """async ([name, value]) => {
      const control = document.querySelector(`[data-name=${name}]`), root = document.querySelector('.dmlf-explorer');
      const before = root.dataset.drawn, started = performance.now();
      control.value = value;
      control.dispatchEvent(new Event('change'));
      while (root.dataset.drawn === before) await new Promise((done) => setTimeout(done, 1));
      return performance.now() - started;
    }"""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(300_000)
        page.goto(page_path.as_uri())
        page.wait_for_selector("[data-drawn]")
        for view, name in (
            ("timeline", "layer"),
            ("timeline", "head"),
            ("heads", "token"),
            ("layers", "token"),
        ):
            page.evaluate(script, ["view", view])
            for i in range(repeats):
                value = changes[name][(3 * i + 1) % len(changes[name])]
                times.setdefault(f"{view}: another {name}", []).append(page.evaluate(script, [name, value]))
        for i in range(repeats):
            page.evaluate(script, ["view", "timeline"])
            times.setdefault("another view", []).append(page.evaluate(script, ["view", "words"]))
            times.setdefault("words: another LM layer", []).append(
                page.evaluate(script, ["lm_layer", str(i % LAYERS)])
            )
        browser.close()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--no-browser", action="store_true", help="only what Python does")
    options = parser.parse_args()

    explorer = make_explorer()
    sent = len(explorer.cross) + len(explorer.self_attention)
    print(
        f"{LAYERS} layers x {HEADS} heads x {TOKENS} tokens x {POSITIONS} positions; {sent / 1e6:.1f} MB an utterance"
    )
    rows = [("asking", name, values) for name, values in time_asking(explorer, options.repeats).items()]
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not options.no_browser and chromium:
        with tempfile.TemporaryDirectory() as folder:
            page = explorer.export_html(Path(folder) / "explorer.html", [0])
            print(f"exported page with one utterance: {page.stat().st_size / 1e6:.1f} MB")
            rows += [
                ("looking", name, v) for name, v in time_looking(page, options.repeats, chromium).items()
            ]
    print(f"\n{'':9}{'update':28}{'median ms':>10}{'worst ms':>10}")
    for kind, name, values in rows:
        print(f"{kind:9}{name:28}{statistics.median(values):10.0f}{max(values):10.0f}")
    looked = [value for kind, _, values in rows if kind == "looking" for value in values]
    if looked:
        median = statistics.median(looked)
        print(
            f"\nlooking: median {median:.0f} ms, target {TARGET} ms: {'met' if median < TARGET else 'NOT met'}"
        )


if __name__ == "__main__":
    main()
