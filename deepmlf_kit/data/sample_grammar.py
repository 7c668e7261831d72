"""Words of the sample set: a grammar of our own for short spoken English with a known sentiment.

Where it stands: the first of the three parts of the sample set (`sample_grammar`, `sample_signals`,
`sample`). An utterance is one to three clauses about a topic. What it says, on a scale of -3 to 3, is composed
as listeners compose it: an adjective or verb has a strength, an intensifier stretches it, a hedge shrinks it,
`not` turns it round and weakens it, and after `but` the second clause weighs more. Everything here is
synthetic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Strength 1 (mild) to 3 (strong). Common words first: as in real talk, the first of a row are the most frequent (`_common`).
GOOD = {
    1: "nice fine okay",
    2: "good great lovely",
    3: "wonderful amazing perfect",
}
BAD = {
    1: "slow dull odd",
    2: "bad boring stupid",
    3: "terrible awful horrible",
}
GOOD_VERBS = {1: "like", 2: "enjoyed", 3: "loved"}
BAD_VERBS = {1: "doubt", 2: "regret", 3: "hated"}
INTENSIFIERS = {
    "really": 1.25,
    "very": 1.2,
    "so": 1.2,
    "truly": 1.3,
    "absolutely": 1.4,
    "extremely": 1.4,
    "totally": 1.3,
}
HEDGES = {"a bit": 0.6, "kind of": 0.6, "sort of": 0.6, "rather": 0.8, "fairly": 0.75, "somewhat": 0.65}
TOPICS = {
    "film": "movie film story plot acting ending cast scene camera dialogue trailer director sequel soundtrack script",
    "food": "food soup coffee bread dinner lunch dessert salad sauce cake menu kitchen breakfast chicken pizza",
    "travel": "hotel room flight train trip beach view airport bus tour city driver journey island museum",
    "gadget": "phone screen battery laptop keyboard tablet speaker printer charger watch headset software update app",
    "home": "house garden sofa window kitchen door lamp chair carpet neighbour heating roof balcony garage",
    "people": "teacher doctor waiter manager guide coach singer speaker lawyer nurse host clerk dentist",
    "work": "meeting project office report plan class lecture course team interview talk schedule budget",
    "music": "song album concert band voice melody guitar drummer lyrics chorus stage piano rhythm",
    "sport": "game match team goal referee player race training stadium season fight finish",
    "school": "school teacher lesson homework library student exam book page chapter subject campus",
    "nature": "river forest mountain lake weather sunset bird horse path valley flower wind",
    "health": "clinic gym diet sleep medicine dentist hospital exercise run walk massage bed",
    "shop": "store price service dress jacket shoes shirt bag gift delivery parcel order market",
}
OPENERS = (
    "well",
    "so",
    "okay",
    "you know",
    "look",
    "honestly",
    "listen",
    "right",
    "to be fair",
    "I mean",
    "oh",
)
FRAMES = ("I think", "I guess", "I would say", "they say", "I have to say", "we all felt", "my sister said")
TAILS = (
    "as far as I can tell",
    "if you ask me",
    "at least for me",
    "this time",
    "from start to finish",
    "for the whole evening",
    "last week",
    "and that is it",
    "in the end",
    "when we were there",
)
NEUTRAL = (
    "I will tell you about it now",
    "we got there on {day} at about {hour}",
    "they showed us the {noun} and the {noun2}",
    "the {noun} is next to the {noun2}",
    "it starts at {hour} on {day}",
    "I have been talking about the {noun} since {day}",
    "there is a {noun} and there is a {noun2}",
    "we are going to look at the {noun} today",
    "he asked me about the {noun} on {day}",
    "the {noun} comes with a {noun2}",
    "this is the {noun} that we saw on {day}",
    "let me say a few words about the {noun}",
    "she put the {noun} near the {noun2} at {hour}",
    "that is what they said about the {noun}",
    "you can see the {noun} from the {noun2}",
)
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
HOURS = ("eight", "nine", "ten", "eleven", "noon", "two", "three", "four", "five", "six")


@dataclass(frozen=True)
class Sentence:
    """A sentence and its sentiment.

    Attributes:
        words: the words, lower case but for "I".
        sentiment: what the words say, in [-3, 3].
        strong: index of the word that carries most of it; None for a neutral sentence.
    """

    words: tuple[str, ...]
    sentiment: float
    strong: int | None

    @property
    def text(self) -> str:
        return " ".join(self.words)


def make_sentence(rng: np.random.Generator, polarity: int) -> Sentence:
    """A random sentence.

    Args:
        polarity: sign of what the words say: 1, -1, or 0 for a neutral sentence.
    """
    nouns = TOPICS[_pick(rng, tuple(TOPICS))].split()
    if polarity == 0:
        words = _neutral(rng, nouns)
        if rng.random() < 0.3:
            words = _pick(rng, OPENERS).split() + words
        if rng.random() < 0.2:
            words = [*words, "and", *_neutral(rng, nouns)]
        return Sentence(tuple(words), 0.0, None)

    kind = rng.random()
    if kind < 0.75:
        words, value, strong = _clause(rng, nouns, polarity)
    elif kind < 0.9:  # A fact first, then what one thinks of it.
        lead = [*_neutral(rng, nouns), "and"]
        words, value, strong = _clause(rng, nouns, polarity)
        words, strong = lead + words, strong + len(lead)
    else:
        turn = rng.random() < 0.4  # "but": the second clause is the point.
        value = 0.0
        while (
            value * polarity <= 0.2
        ):  # A strong first clause may win; then it is not the polarity asked for.
            first, value_1, strong_1 = _clause(rng, nouns, -polarity if turn else polarity, short=True)
            second, value_2, strong_2 = _clause(rng, nouns, polarity, short=True)
            value = 0.8 * value_2 + 0.3 * value_1 if turn else 0.6 * (value_1 + value_2)
        words = [*first, "but" if turn else "and", *second]
        strong = len(first) + 1 + strong_2 if turn or abs(value_2) >= abs(value_1) else strong_1
    if rng.random() < 0.3:
        opener = _pick(rng, OPENERS).split()
        words, strong = opener + words, strong + len(opener)
    if len(words) < 22 and rng.random() < 0.08:
        words = words + _pick(rng, TAILS).split()
    return Sentence(tuple(words), float(np.clip(value, -3, 3)), strong)


def _clause(
    rng: np.random.Generator, nouns: list[str], polarity: int, short: bool = False
) -> tuple[list[str], float, int]:
    """Words, what they say (of the sign asked for), and where the strong word is."""
    negated = rng.random() < 0.06
    sign = -polarity if negated else polarity
    strength = int(rng.choice([1, 2, 3], p=[0.25, 0.4, 0.35]))
    value = sign * float(strength)
    if rng.random() < 0.1:
        table = GOOD_VERBS if sign > 0 else BAD_VERBS
        strong_word = _common(rng, table[strength].split())
        adverb = _pick(rng, ("really", "truly", "absolutely")) if rng.random() < 0.35 else ""
        if negated:
            stem = {"loved": "love", "hated": "hate", "enjoyed": "enjoy"}.get(strong_word, strong_word)
            head, strong_word = ["I", "did", "not"], stem
        else:
            head = ["I"]
        head += [adverb] if adverb else []
        value *= INTENSIFIERS.get(adverb, 1.0)
        words = [*head, strong_word, "the", _pick(rng, nouns)]
    else:
        table = GOOD if sign > 0 else BAD
        strong_word = _common(rng, table[strength].split())
        degree = rng.random()
        modifier = ""
        if degree < 0.35:
            modifier = _pick(rng, tuple(INTENSIFIERS))
            value *= INTENSIFIERS[modifier]
        elif degree < 0.55 and not negated:
            modifier = _pick(rng, tuple(HEDGES))
            value *= HEDGES[modifier]
        subject = [_pick(rng, ("the", "that", "this", "their")), _pick(rng, nouns)]
        if not short and rng.random() < 0.25:
            subject = _pick(rng, FRAMES).split() + subject
        verb = _pick(rng, ("was", "is", "was", "looked", "seemed"))
        if negated:
            verb = {"looked": "did not look", "seemed": "did not seem"}.get(verb, f"{verb} not")
        words = [*subject, *verb.split(), *modifier.split(), strong_word]
        head = words[:-1]
    if negated:
        value *= -0.5  # "not terrible" is mild praise.
    return words, value, len(head)


def _neutral(rng: np.random.Generator, nouns: list[str]) -> list[str]:
    noun, noun2 = rng.choice(nouns, 2, replace=False)
    sentence = _pick(rng, NEUTRAL).format(
        noun=noun, noun2=noun2, day=_pick(rng, DAYS), hour=_pick(rng, HOURS)
    )
    return sentence.split()


def _common(rng: np.random.Generator, words: list[str]) -> str:
    """One of `words`, the earlier the more often (Zipf)."""
    weight = 1 / (np.arange(len(words)) + 1.5)
    return words[int(rng.choice(len(words), p=weight / weight.sum()))]


def _pick(rng: np.random.Generator, options: list[str] | tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]
