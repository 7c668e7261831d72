"""The kit's own error, for everything a user can put right.

Every part of the kit raises `DeepMLFError` or a subclass of it where the input is at fault. The command line
prints its message in one line and ends with exit code 2; anything else is a defect of ours and keeps its
traceback.
"""

import difflib
import reprlib
from collections.abc import Iterable


class DeepMLFError(Exception):
    """A clear message for the user: what was found, what was expected, what to do."""


def did_you_mean(given: object, known: Iterable[str]) -> str:
    """End of a message about an unknown name: the known one that is most like it, or all of them."""
    names = list(known)
    close = difflib.get_close_matches(str(given), names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names)}."


def excerpt(value: object, length: int = 80) -> str:
    """What a stranger wrote (a file's content, a name in it), as a message may quote it.

    Returns:
        One line of at most `length` characters: control characters and all else that does not print are escaped,
        and a long text keeps its beginning, an ellipsis and its end.
    """
    if isinstance(value, bytes | bytearray):
        value = bytes(value[: 2 * length]).decode("utf-8", "backslashreplace")
    text = value if isinstance(value, str) else reprlib.repr(value)
    half = 2 * length  # of a text of megabytes, only its ends are looked at
    text = text if len(text) <= 2 * half else f"{text[:half]}{text[-half:]}"
    text = printable(" ".join(text.split()))
    tail = length // 4
    return text if len(text) <= length else f"{text[: length - tail - 1]}…{text[-tail:]}"


def printable(text: str) -> str:
    """`text` with everything that does not print (control characters, marks of direction, halves of pairs) escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
