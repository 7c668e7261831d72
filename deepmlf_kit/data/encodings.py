"""Bytes of unknown encoding -> the words people meant: label files of spreadsheets, and texts that Python 2 pickled.

Read are UTF-8, the Windows code page of Chinese (936; as its superset GB18030) and that of Western Europe (1252). Any
other is refused, as its words would come out as rubbish without anyone being told.
"""

from __future__ import annotations

from ..errors import DeepMLFError


class UnknownEncodingError(DeepMLFError):
    """Bytes in none of the encodings that are read."""


def decoded(raw: bytes) -> tuple[str, str]:
    """The text, and a sentence on how it was read; empty where it is plain UTF-8.

    Raises:
        UnknownEncodingError: it is in another encoding.
    """
    text = raw.decode("utf-8", "replace")
    damaged = text.count("\ufffd")
    beyond_ascii = sum(sign > "\x7f" for sign in text)
    if damaged * 10 <= beyond_ascii - damaged:  # of another encoding hardly a character would be UTF-8
        return text, f"{damaged} characters are not UTF-8 and were replaced" if damaged else ""
    chinese = raw.decode("gb18030", "replace")
    signs = [sign for sign in chinese if sign > "\x7f"]
    if sum(map(_is_common_chinese, signs)) > 0.8 * len(signs):
        return chinese, "not UTF-8; read as GB18030 (Chinese Windows): check the words"
    western = "".join(_western(byte) for byte in raw)
    in_runs = sum(
        here > "\x7f" and (before > "\x7f" or after > "\x7f")
        for before, here, after in zip(" " + western, western, western[1:] + " ", strict=False)
    )
    if in_runs > 0.5 * sum(sign > "\x7f" for sign in western):  # accents stand alone between plain letters
        raise UnknownEncodingError(
            "found a text that is neither UTF-8 nor of a Chinese or Western Windows, expected UTF-8: save it again as UTF-8"
        )
    return western, "not UTF-8; read as Windows-1252 (Western Europe): check the words"


def _western(byte: int) -> str:
    return bytes([byte]).decode("cp1252" if byte not in (0x81, 0x8D, 0x8F, 0x90, 0x9D) else "latin-1")


def _is_common_chinese(sign: str) -> bool:
    """Whether it is punctuation or one of the 3,755 common characters of GB2312, which come first in it."""
    try:
        first, _ = sign.encode("gb2312")
    except (UnicodeEncodeError, ValueError):
        return False
    return 0xA1 <= first <= 0xA3 or 0xB0 <= first <= 0xD7


def repaired(texts: list[str]) -> list[str] | None:
    """Texts whose UTF-8 was once read as Latin-1 or Windows-1252 (`Itâ€™s`), made right; None where they were not."""
    touched = [text for text in texts if not text.isascii()]
    if not touched:
        return None
    for encoding in ("latin-1", "cp1252"):
        try:
            right = {text: text.encode(encoding).decode("utf-8") for text in touched}
        except UnicodeError:
            continue
        return [right.get(text, text) for text in texts]
    return None
