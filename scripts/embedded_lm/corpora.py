"""Read plain English out of text files and archives: the first step of pretraining the embedded LM.

Files are told apart by what is in them, not by the corpus they come from: running text, lists of sentences,
word/tag text (Brown), chat sessions in XML (NPS Chat), numbered telephone calls (Switchboard), scripts with
speakers, lines in tags (`<Pros>..</Pros>`), annotated product reviews (`feature[+2]##sentence`) and tables
with a text column (MELD). Annotation is taken off; no label, tag or speaker reaches the language model.
"""

import csv
import html
import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from deepmlf_kit.errors import DeepMLFError

TEXT_COLUMNS = ("utterance", "text", "raw_text", "sentence", "review", "content")
"""Names (lower case) of the column that is read from a table, the first that is there."""

LIST_LINES = 200  # a file of more lines than this, with few blank ones, is a list of separate sentences
CONVERSATION_LINES = 16  # calls, scripts and dialogues are cut into documents of this many lines

_NOT_TEXT = re.compile(r"^(readme|license|licence|contents$|cats\.txt$|\.)", re.I)
# The Switchboard sample holds the same calls five times; the plain transcript is the one to read.
_OTHER_RENDERINGS = {"discourse", "disfluency", "tagged", "timed-transcript"}
_TAGGED = re.compile(r"^\S+/[A-Za-z$*'`.,:()+-]+$")
_IN_TAGS = re.compile(r"^\s*<(\w+)>(.*)</\1>\s*$")
_CALL_LINE = re.compile(r"^([A-Z])\.(\d+):\s*(.*)$")
_SPEAKER = re.compile(r"^[A-Z][\w .,'#&/-]{0,40}:\s+")
_CHAT_USER = re.compile(r"\b\d\d-\d\d-\w*?User\d+\b,?\s*")


@dataclass(frozen=True)
class Document:
    """One text: `source` is `archive/member` (or the file's name), `lines` its sentences or utterances."""

    source: str
    lines: tuple[str, ...]
    joiner: str = " "

    @property
    def text(self) -> str:
        """The lines as one string: sentences follow each other by a space, utterances by a new line."""
        return self.joiner.join(self.lines)


def read_documents(paths: list[Path], skip: tuple[str, ...] = ()) -> Iterator[Document]:
    """Yield the documents of text files, tables and zip archives, in the order given.

    Args:
        paths: `.zip` archives, `.csv` tables, or anything else that is text.
        skip: beginnings of sources (`nps_chat`, `webtext/firefox`) to leave out.

    Raises:
        DeepMLFError: a path is missing, an archive is damaged, or a table has no text column.
    """
    for path in paths:
        for source, raw in _members(path):
            if source.startswith(tuple(skip)):
                continue
            yield from parse(source, decode(raw))


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    if not path.is_file():
        raise DeepMLFError(f"{path} is not a file; give text files, .csv tables or .zip archives.")
    if path.suffix.lower() != ".zip":
        yield path.name, path.read_bytes()
        return
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(n for n in archive.namelist() if not n.endswith("/"))
            bases = {n.rsplit("/", 1)[-1] for n in names}
            for name in names:
                base = name.rsplit("/", 1)[-1]
                if _NOT_TEXT.match(base) or base.lower().endswith((".xsd", ".dtd")):
                    continue
                if base in _OTHER_RENDERINGS and "transcript" in bases:
                    continue
                inner = name.removeprefix(f"{path.stem}/")
                yield f"{path.stem}/{inner}", archive.read(name)
    except zipfile.BadZipFile as error:
        raise DeepMLFError(
            f"{path} does not open as a zip archive ({error}); unpack or replace it."
        ) from error


def decode(raw: bytes) -> str:
    """Text of a file: UTF-8 where it is that, Windows-1252 otherwise."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace")


def parse(source: str, text: str) -> Iterator[Document]:
    """Yield the documents of one file's text, annotation taken off; the form is found from the content."""
    return (document for document in _parse(source, text) if document.lines)


def _parse(source: str, text: str) -> Iterator[Document]:
    name = source.lower()
    if name.endswith(".csv"):
        yield from _table(source, text)
        return
    if name.endswith(".xml") or text.lstrip().startswith("<?xml"):
        yield from _chat(source, text)
        return
    lines = text.splitlines()
    filled = [line for line in lines if line.strip()]
    if not filled:
        return
    head = filled[:400]
    if _share(head, _IN_TAGS.match) > 0.5:
        for line in filled:
            found = _IN_TAGS.match(line)
            # The source escapes twice: `&amp;quot;`.
            yield _document(source, [html.unescape(found[2])]) if found else _document(source, [line])
    elif _share(head, lambda line: "##" in line) > 0.3:
        yield from _product_reviews(source, filled)
    elif _share(head, _CALL_LINE.match) > 0.5:
        yield from _calls(source, filled)
    elif _share(" ".join(head).split()[:2000], _TAGGED.match) > 0.9:
        yield from _paragraphs(source, [_untag(line) for line in lines])
    elif _share(head, _SPEAKER.match) > 0.5:
        yield from _script(source, lines)
    elif len(filled) > LIST_LINES and len(lines) - len(filled) < len(filled) / 5:
        for line in filled:
            yield _document(source, [line])
    else:
        yield from _paragraphs(source, lines)


def clean(line: str) -> str:
    """One line without character references, control characters and doubled spaces."""
    line = html.unescape(line).replace("``", '"').replace("''", '"')
    return " ".join("".join(c if c.isprintable() else " " for c in line).split())


def _document(source: str, lines: list[str], joiner: str = " ") -> Document:
    return Document(source, tuple(filter(None, map(clean, lines))), joiner)


def _share(items: list[str], test) -> float:
    return sum(bool(test(item)) for item in items) / max(len(items), 1)


def _paragraphs(source: str, lines: list[str]) -> Iterator[Document]:
    block: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            block.append(line)
        elif block:
            yield _document(source, block)
            block = []


def _conversation(source: str, lines: list[str]) -> Iterator[Document]:
    for start in range(0, len(lines), CONVERSATION_LINES):
        yield _document(source, lines[start : start + CONVERSATION_LINES], "\n")


def _table(source: str, text: str) -> Iterator[Document]:
    rows = csv.DictReader(io.StringIO(text))
    names = {name.strip().lower(): name for name in rows.fieldnames or ()}
    column = next((names[name] for name in TEXT_COLUMNS if name in names), None)
    if column is None:
        raise DeepMLFError(
            f"{source} has the columns {', '.join(names) or 'none'}; one of {', '.join(TEXT_COLUMNS)} was "
            "expected. Rename the column that holds the text."
        )
    dialogue = names.get("dialogue_id")
    turns: list[str] = []
    current = None
    for row in rows:
        if dialogue is None:
            yield _document(source, [row[column] or ""])
            continue
        if row[dialogue] != current:
            yield from _conversation(source, turns)
            turns, current = [], row[dialogue]
        turns.append(row[column] or "")
    yield from _conversation(source, turns)


def _chat(source: str, text: str) -> Iterator[Document]:
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise DeepMLFError(
            f"{source} is not well-formed XML ({error}); repair it or leave it out."
        ) from error
    posts = [post for post in root.iter("Post") if post.get("class") != "System"]
    texts = [_CHAT_USER.sub("", post.text or "") for post in posts]
    yield from _conversation(source, [line for line in texts if line.strip()])


def _product_reviews(source: str, lines: list[str]) -> Iterator[Document]:
    review: list[str] = []
    for line in lines:
        if line.startswith("*"):
            continue
        if line.startswith("[t]"):
            yield _document(source, review)
            review = [line.removeprefix("[t]")]
        elif "##" in line:
            review.append(line.split("##", 1)[1])
    yield _document(source, review)


def _calls(source: str, lines: list[str]) -> Iterator[Document]:
    turns: list[str] = []
    last = 0
    for line in lines:
        found = _CALL_LINE.match(line)
        if not found:
            turns.append(line)
            continue
        if int(found[2]) < last:
            yield from _conversation(source, turns)
            turns = []
        last = int(found[2])
        turns.append(re.sub(r"<[^>]*>", " ", found[3]))
    yield from _conversation(source, turns)


def _script(source: str, lines: list[str]) -> Iterator[Document]:
    scene: list[str] = []
    for line in [*lines, ""]:
        said = re.sub(r"\[[^\]]*\]|\([^)]*\)", " ", _SPEAKER.sub("", line)).strip()
        if not line.strip():
            yield from _conversation(source, scene)
            scene = []
        elif said:
            scene.append(said)


def _untag(line: str) -> str:
    return " ".join(word.rsplit("/", 1)[0] for word in line.split())
