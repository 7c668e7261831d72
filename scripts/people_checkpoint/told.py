"""What SmolLM2 says when asked to talk like people, and parts of rated sentences, rated by the checkpoint on SmolLM2.

    python -m scripts.people_checkpoint.told PEOPLE told.csv --said 30000 --parts 20000

The embedded language model has read too little to learn sentiment from 21,000 rated sentences alone. The checkpoint on
SmolLM2-135M, which learnt from the same sentences, is its teacher (Hinton, Vinyals and Dean, "Distilling the knowledge in a
neural network", 2015): it rates what nobody has rated. The texts are SmolLM2's own (Apache-2.0) and parts of
the training split of VADER's sentences (MIT). A GPU makes 30,000 in a minute, two cores in an hour.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.progress import track
from transformers import AutoModelForCausalLM, AutoTokenizer

from deepmlf_kit import Predictor
from deepmlf_kit.model.fetched_lms import lm_folder
from deepmlf_kit.predict.predictor import text_features

from .sentences import Rated, rated_sentences

ASKED = "Say one short sentence that a person says aloud in a conversation about {topic}. The person feels {feeling}."
BEGINNINGS = (
    "I", "I", "I", "I", "We", "My", "The", "That", "This", "It", "It was", "They", "He", "She", "You", "There", "So", "Well",
    "Oh", "Honestly,", "I think", "I really", "I do not", "I can't", "I was", "Nobody", "Everything", "What", "Yeah,", "No,",
)  # fmt: skip
FEELINGS = (
    "happy", "delighted", "grateful", "proud", "relieved", "amused", "in love", "hopeful", "satisfied", "calm", "surprised in a good way",
    "angry", "annoyed", "sad", "disappointed", "disgusted", "afraid", "worried", "bored", "ashamed", "lonely", "tired", "jealous",
    "nothing in particular", "nothing in particular", "nothing in particular", "unsure", "mixed: good and bad", "mildly pleased",
    "mildly displeased",
)  # fmt: skip
TOPICS = (
    "a film", "the actors of a film", "a restaurant", "the food", "a hotel room", "a waiter", "their job", "a colleague", "their boss",
    "a new phone", "a laptop that they bought", "a car", "the weather", "a holiday", "a flight", "a train journey", "their flat",
    "the neighbours", "a friend", "their mother", "their father", "a child", "a dog", "a wedding", "a birthday party", "a present",
    "an exam", "a teacher", "a book", "a song", "a concert", "a football match", "a doctor", "a visit to hospital", "their health",
    "money", "a bill", "a shop", "an online order", "customer service", "a haircut", "new shoes", "a coat", "a meeting", "the news",
    "a politician", "a game", "a computer programme", "an app", "their weekend", "last night", "this morning", "a meal at home",
    "coffee", "a cake", "a museum", "a city", "a park", "the sea", "a walk", "sport", "a date", "a break-up", "an old friend",
    "moving house", "a repair", "a delay", "a mistake", "a success at work", "an interview for a job", "a promise", "a lie", "a surprise",
    "the end of a story", "a lecture", "a podcast", "a photograph", "a painting", "the garden", "the kitchen", "a bicycle", "the bus",
)  # fmt: skip


@torch.inference_mode()
def said(count: int, seed: int, device: str, batch: int = 1024) -> Iterator[str]:
    """Sentences that SmolLM2 makes up, each about a topic, with a feeling and from a first word drawn for it."""
    lm = AutoModelForCausalLM.from_pretrained(lm_folder("smollm2"), dtype="auto").to(device).eval()
    tokenizer = AutoTokenizer.from_pretrained(lm_folder("smollm2"), padding_side="left")
    tokenizer.pad_token = tokenizer.eos_token
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    for first in track(range(0, count, batch), description="said"):
        begun, prompts = [], []
        for _ in range(min(batch, count - first)):
            asked = ASKED.format(topic=rng.choice(TOPICS), feeling=rng.choice(FEELINGS))
            begun.append(str(rng.choice(BEGINNINGS)))
            chat = tokenizer.apply_chat_template(
                [{"role": "user", "content": asked}], tokenize=False, add_generation_prompt=True
            )
            prompts.append(chat + begun[-1])
        inputs = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False).to(device)
        made = lm.generate(
            **inputs,
            max_new_tokens=28,
            do_sample=True,
            temperature=0.9,
            top_p=0.95,
            pad_token_id=tokenizer.pad_token_id,
        )
        ends = tokenizer.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for start, end in zip(begun, ends, strict=True):
            if text := first_sentence(start + end):
                yield text


def first_sentence(text: str) -> str:
    """The first whole sentence of a text, without quotes; empty where none ends or it is shorter than 3 words."""
    found = re.match(r"[^\n]*?[.!?](?=[\s\"”]|$)", text.strip().strip('"“”'))
    sentence = re.sub(r"[\"“”*]", "", found[0]).strip() if found else ""
    return sentence if 3 <= len(sentence.split()) <= 30 else ""


def parts(rated: list[Rated], count: int, seed: int) -> Iterator[str]:
    """Runs of 3 to 14 words out of rated sentences."""
    rng = np.random.default_rng([seed, 1])
    long = [words for sentence in rated if len(words := sentence.text.split()) > 5]
    for _ in range(count):
        words = long[int(rng.integers(len(long)))]
        length = int(rng.integers(3, min(14, len(words) - 1) + 1))
        start = int(rng.integers(len(words) - length + 1))
        yield " ".join(words[start : start + length])


def rated_by(checkpoint: Path | None, texts: list[str], device: str, batch: int = 512) -> list[Rated]:
    """The texts with what a checkpoint answers to them as words alone; None: the best at hand."""
    predictor, answers = Predictor(checkpoint, device=device), []
    for first in track(range(0, len(texts), batch), description="rated"):
        rows = [predictor.row(text_features(text)) for text in texts[first : first + batch]]
        answers += predictor.rows(rows)["task"].tolist()
    return [Rated(text, answer) for text, answer in zip(texts, answers, strict=True)]


def read(path: Path) -> list[Rated]:
    """What `main` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        return [Rated(row["text"], float(row["rating"])) for row in csv.DictReader(file)]


def main(
    people: Annotated[Path, typer.Argument(help="Folder of the labelled people.")],
    out: Annotated[Path, typer.Argument(help="CSV to write.")],
    count: Annotated[int, typer.Option("--said", help="Sentences that SmolLM2 makes up.")] = 30_000,
    of_rated: Annotated[int, typer.Option("--parts", help="Parts of rated sentences.")] = 20_000,
    teacher: Annotated[
        Path | None, typer.Option(help="Checkpoint that rates; default: the best at hand.")
    ] = None,
    seed: int = 0,
) -> None:
    """Make up sentences, have them rated, write a CSV with `text` and `rating`."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    texts = [*said(count, seed, device), *parts(rated_sentences(people)["train"], of_rated, seed)]
    texts = list(dict.fromkeys(texts))  # each once
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "rating"])
        writer.writerows([one.text, f"{one.rating:.4f}"] for one in rated_by(teacher, texts, device))


if __name__ == "__main__":
    typer.run(main)
