"""Sentences with a rating: those of VADER's raters, and plain sentences of everyday talk that mean nothing by themselves.

VADER's ratings (Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text",
ICWSM 2014; MIT licence) are means of 20 people in [-4, 4]; here [-3, 3], as MOSI's.
"""

from __future__ import annotations

import csv
import zlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from .surface import clean

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Rated:
    """A sentence and what people felt it says, in [-3, 3]."""

    text: str
    rating: float


def rated_sentences(people: Path, longest: int = 60) -> dict[str, list[Rated]]:
    """The sentences by split (90, 5 and 5 %); longer ones than `longest` words are left out.

    A source's sentences come in documents, a few snippets of one after another: every twentieth run of 50 is held out.
    """
    splits: dict[str, list[Rated]] = {name: [] for name in SPLITS}
    with (people / "text" / "vader_rated.csv").open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            text = clean(row["text"])
            if text and len(text.split()) <= longest:
                block = number // 50 % 20
                split = "valid" if block == 7 else "test" if block == 13 else "train"
                splits[split].append(Rated(text, float(row["rating"]) * 0.75))
    return splits


def rated_words() -> dict[str, list[Rated]]:
    """VADER's lexicon by split (90, 5 and 5 %): words with the mean rating of ten people.

    It comes with the package `vaderSentiment` (MIT): `pip install vaderSentiment`.
    """
    splits: dict[str, list[Rated]] = {name: [] for name in SPLITS}
    for line in (files("vaderSentiment") / "vader_lexicon.txt").read_text(encoding="utf-8").splitlines():
        word, mean, *_ = line.split("\t")
        if word.isalpha():  # no emoticons
            share = zlib.crc32(word.encode()) % 20
            splits["valid" if share == 7 else "test" if share == 13 else "train"].append(
                Rated(word, float(mean) * 0.75)
            )
    return splits


def phrase(rng: np.random.Generator, words: list[Rated]) -> Rated:
    """A rated word, as it is or in a few plain words; denied, it counts -0.74 times, as VADER's raters have it."""
    first = words[int(rng.integers(len(words)))]
    form = rng.random()
    if form < 0.35:
        return first
    if form < 0.6:
        frame = _FRAMES[int(rng.integers(len(_FRAMES)))]
        return Rated(frame.format(first.text), first.rating)
    if form < 0.75:
        frame = _DENIALS[int(rng.integers(len(_DENIALS)))]
        return Rated(frame.format(first.text), -0.74 * first.rating)
    second = words[int(rng.integers(len(words)))]
    while second.rating * first.rating < 0:
        second = words[int(rng.integers(len(words)))]
    together = float(np.clip(0.6 * (first.rating + second.rating), -3, 3))
    return Rated(f"{first.text} and {second.text}", together)


_FRAMES = (
    "that is {}",
    "it was {}",
    "I feel {}",
    "so {}",
    "this is so {}",
    "he was {}",
    "what I heard was {}",
    "they are {}",
)
_DENIALS = ("not {}", "that is not {}", "it was not {}", "I'm not {}", "it isn't {}", "never {}")

_PLACES = (
    "the station", "the office", "the kitchen", "the market", "the library", "the bank", "the post office", "my house",
    "the bus stop", "the park", "the second floor", "the car park", "the front door", "the supermarket", "the river",
    "the school", "the town hall", "the garage", "the corner", "the other side of the road",
)  # fmt: skip
_THINGS = (
    "a table", "two chairs", "a lamp", "a bag", "a bottle of water", "the keys", "a box of paper", "three books",
    "a bicycle", "a blue car", "the letter", "a cup of tea", "some bread", "a map", "a printer", "the report", "a coat",
    "the calendar", "a window", "a red pen", "the laptop", "the phone", "a notebook", "half a litre of milk",
)  # fmt: skip
_PEOPLE = (
    "my brother", "my sister", "the teacher", "my neighbour", "the driver", "a colleague", "her uncle", "the woman at the desk",
    "he", "she", "they", "my flatmate", "the man next door", "our accountant", "the two of us", "one of the students",
)  # fmt: skip
_TIMES = (
    "this morning", "yesterday", "on monday", "at three o'clock", "at half past nine", "in the afternoon", "on the weekend",
    "tomorrow", "before lunch", "after work", "last week", "in june", "every day", "at noon", "in the evening", "later today",
)  # fmt: skip
_DONE = (
    "went to {place}", "walked to {place}", "put {thing} on the shelf", "bought {thing}", "carried {thing} to {place}",
    "left {thing} near {place}", "called about {thing}", "sat next to {place}", "drove past {place}", "came back from {place}",
    "wrote an email about {thing}", "looked for {thing} near {place}", "talked about {thing}", "moved {thing} to {place}",
    "counted the pages", "changed the battery", "opened the door", "signed the form", "took the train", "read the instructions",
)  # fmt: skip
_STATED = (
    "there is {thing} in front of {place}", "there are {number} people at {place}", "{place} is next to {place}",
    "{place} opens {time}", "the meeting starts {time}", "the train to the city leaves {time}", "I have {thing} in my bag",
    "it is {number} minutes from here to {place}", "we are going to talk about {thing}", "the next stop is {place}",
    "my name is on the list", "I will tell you about it now", "this is {thing} and that is {thing}", "you can see {place} from here",
    "the room has {number} windows", "I am sitting at a desk", "I am talking to my computer", "my shirt is blue",
    "today is {day}", "I work from home on {day}", "we have {number} chairs and {thing}", "it takes about {number} minutes",
    "the shop closes {time}", "the form has {number} pages", "I usually get up at seven", "the bus comes every {number} minutes",
    "let me show you {thing}", "so this is what I am doing {time}", "okay let me start", "can you hear me now",
    "one two three four five", "this is a test", "hello hello", "and then I said okay", "what time is it",
    "where is {thing}", "who is at {place}", "when does {place} open", "I do not know yet", "that is what they told me",
    "he asked where {place} is", "she said it was {time}", "we need {thing} for {place}", "turn left at {place}",
    "the number is {number} four seven two", "I moved here in june", "water boils at a hundred degrees",
    "the paper is in the second drawer", "my appointment is {time}", "it was raining {time}", "the light is on in {place}",
)  # fmt: skip
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_NUMBERS = ("two", "three", "four", "five", "ten", "twelve", "fifteen", "twenty", "thirty")


def neutral_sentence(rng: np.random.Generator) -> str:
    """A plain sentence of everyday talk: places, times and things, no opinion."""

    def pick(options: tuple[str, ...]) -> str:
        return options[int(rng.integers(len(options)))]

    pattern = pick(_STATED) if rng.random() < 0.6 else f"{pick(('I', 'we', *_PEOPLE))} {pick(_DONE)} {{time}}"
    while "{" in pattern:
        for name, options in (
            ("place", _PLACES),
            ("thing", _THINGS),
            ("time", _TIMES),
            ("number", _NUMBERS),
            ("day", _DAYS),
        ):
            pattern = pattern.replace(f"{{{name}}}", pick(options), 1)
    return pattern
