"""What the machine refuses: a full disk, a missing permission, a name that is too long; each as one line."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

_ADVICE = {
    errno.ENOSPC: "free some space and repeat the command",
    errno.EDQUOT: "free some of your quota and repeat the command",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f), or write elsewhere",
    errno.EROFS: "choose a place that can be written to",
    errno.EACCES: "choose a place that you may use, or change its permissions",
    errno.EPERM: "choose a place that you may use, or change its permissions",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "a folder of that path is a file; choose another name",
    errno.EISDIR: "a file was expected, not a folder; choose another name",
    errno.EEXIST: "a folder is needed there; choose another name",
    errno.ELOOP: "its symbolic links lead in a circle; remove one",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.EIO: "check the disk",
}
#: How libraries that do not raise OSError tell of one.
_NUMBER = re.compile(r"\(os error (\d+)\)|\[Errno (\d+)\]")
_UNNAMED = ("PytorchStreamWriter failed writing file", "No space left on device", "unexpected pos")


def environment_problem(error: BaseException) -> str | None:
    """What the machine refused and what to do about it, in one line; None where an error has another reason."""
    for cause in _causes(error):
        if isinstance(cause, MemoryError):
            return "memory ran out: close other programs, or use smaller batches (training.batch_size)."
        if isinstance(cause, ImportError) and (library := _library(cause)):
            return (
                f"the library {library} is missing or does not fit the kit ({cause}): install the kit again, "
                "pip install --upgrade --force-reinstall deepmlf-kit."
            )
        if isinstance(cause, UnicodeEncodeError) and _not_unicode(cause.object):
            return f"{cause.object[:200]!a} is not a name in UTF-8: rename it."
        number, name = _number(cause), getattr(cause, "filename", None)
        if number is None:
            continue
        what = os.strerror(number)
        where = f"{os.fsdecode(name)}: " if isinstance(name, str | bytes) else ""
        advice = _ADVICE.get(number, "put that right and repeat the command")
        return f"{where}{what[0].lower()}{what[1:]}: {advice}."
    return None


def not_utf8(text: str) -> bool:
    """Whether a name from the command line or a folder is none in UTF-8 (Python keeps its bytes as surrogates)."""
    return any("\udc80" <= sign <= "\udcff" for sign in text)


def _library(error: ImportError) -> str | None:
    """The library that could not be imported; None where it is a module of the kit's own."""
    name = (error.name or "").partition(".")[0]
    return name if name and name != __name__.partition(".")[0] else None


def _not_unicode(text: object) -> bool:
    return isinstance(text, str) and not_utf8(text)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def _number(error: BaseException) -> int | None:
    """The system's number of an error, where it comes from the system."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    told = str(error)
    if found := _NUMBER.search(told):
        return int(found[1] or found[2])
    return errno.ENOSPC if any(words in told for words in _UNNAMED) else None
