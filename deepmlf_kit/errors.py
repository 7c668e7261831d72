"""The kit's own error, for everything a user can put right.

Every part of the kit raises `DeepMLFError` or a subclass of it where the input is at fault. The command line
prints its message in one line and ends with exit code 2; anything else is a defect of ours and keeps its
traceback.
"""

import difflib
from collections.abc import Iterable


class DeepMLFError(Exception):
    """A clear message for the user: what was found, what was expected, what to do."""


def did_you_mean(given: object, known: Iterable[str]) -> str:
    """End of a message about an unknown name: the known one that is most like it, or all of them."""
    names = list(known)
    close = difflib.get_close_matches(str(given), names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names)}."
