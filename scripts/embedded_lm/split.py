"""Decide which text is held out: for perplexity, and for the sentiment probe.

Documents are held out by a hash of their words, so that the same text is always on the same side, whatever
file it comes from and in whatever order files are given. The probe's sentences are kept out of pretraining
wherever they turn up, word for word or in part.
"""

import hashlib
import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from deepmlf_kit.errors import DeepMLFError

from .corpora import Document, clean, decode

SHARED_WORDS = 8  # a line that shares this many words in a row with a probe sentence is dropped

_WORD = re.compile(r"[a-z0-9]+")


def words(text: str) -> tuple[str, ...]:
    """The words of a text without case and punctuation, by which texts are compared."""
    return tuple(_WORD.findall(text.lower()))


def bucket(text: str, buckets: int, salt: str = "") -> int:
    """A number in [0, buckets) that depends on the words of the text (and the salt) alone."""
    digest = hashlib.blake2b((salt + " ".join(words(text))).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % buckets


def is_held_out(document: Document, percent: int) -> bool:
    """Whether a document belongs to the `percent` % kept for perplexity."""
    return bucket(document.text, 100, "held-out ") < percent


@dataclass(frozen=True)
class ProbeSentences:
    """Sentences with polarity (1 positive, 0 negative) that the language model has not read.

    `train_*` fit the linear probe, `test_*` measure it.
    """

    train_texts: list[str]
    train_labels: list[int]
    test_texts: list[str]
    test_labels: list[int]

    @property
    def texts(self) -> list[str]:
        return self.train_texts + self.test_texts


def read_probe(path: Path, train_size: int = 3000) -> ProbeSentences:
    """Read the half of a polarity archive that is kept for the probe, chosen by hash.

    Args:
        path: a zip archive with one `*.pos` and one `*.neg` file, a sentence a line (`sentence_polarity`).
        train_size: sentences that fit the probe, at most three quarters of the half; the rest test it.

    Raises:
        DeepMLFError: the archive is missing, is damaged or lacks one of the two files.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            files = {end: [n for n in names if n.endswith(end)] for end in (".pos", ".neg")}
            if not all(len(found) == 1 for found in files.values()):
                raise DeepMLFError(
                    f"{path} holds {len(files['.pos'])} .pos and {len(files['.neg'])} .neg files; one of each "
                    "was expected, with a sentence a line."
                )
            rows = {
                clean(line): label
                for label, end in enumerate((".neg", ".pos"))
                for line in decode(archive.read(files[end][0])).splitlines()
            }
    except (OSError, zipfile.BadZipFile) as error:
        raise DeepMLFError(f"{path} does not open as a zip archive ({error}).") from error
    kept = sorted((bucket(t, 2**60, "order "), t) for t in rows if words(t) and bucket(t, 2, "probe ") == 0)
    texts = [text for _, text in kept]
    cut = min(train_size, len(texts) * 3 // 4)
    labels = [rows[text] for text in texts]
    return ProbeSentences(texts[:cut], labels[:cut], texts[cut:], labels[cut:])


def without_probe(documents: Iterable[Document], probe: ProbeSentences) -> Iterator[Document]:
    """Drop every line that is a probe sentence, or shares `SHARED_WORDS` words in a row with one."""
    whole = set()
    runs: set[tuple[str, ...]] = set()
    for text in probe.texts:
        sentence = words(text)
        whole.add(sentence)
        runs.update(_runs(sentence))
    for document in documents:
        lines = tuple(
            line
            for line, said in ((line, words(line)) for line in document.lines)
            if said not in whole and runs.isdisjoint(_runs(said))
        )
        if lines:
            yield document if len(lines) == len(document.lines) else replace(document, lines=lines)


def _runs(said: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return (said[i : i + SHARED_WORDS] for i in range(len(said) - SHARED_WORDS + 1))
