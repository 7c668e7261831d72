"""Which tokens stand for padding, for no words at all, and for a text that is too long: the tokenizer's own. And a text's final mark.

The ids in an LM's config can be another family's: UER's Chinese GPT-2 names GPT-2's 50256 above a vocabulary of
21128 tokens, so that they are never asked. The collator, the LM loss and the explanations all ask here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Marks that a text may end with.
_MARKS = ".!?…,;:-。！？，；："
#: Tokens that can stand alone where there are no words, the most neutral first.
_NEUTRAL = ("bos_token_id", "eos_token_id", "cls_token_id", "unk_token_id", "pad_token_id")


def pad_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that padded positions hold: the pad token, else the end token."""
    return _first_known(tokenizer, ("pad_token_id", "eos_token_id"))


def empty_text_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens of a text without words, at least one: the tokenizer's special tokens, else one neutral token."""
    return list(tokenizer("")["input_ids"]) or [_first_known(tokenizer, _NEUTRAL)]


def kept_tokens(special: Sequence[int], longest: int, keep: str) -> list[int]:
    """Which tokens of a text are read: all of them, or as many as there may be.

    Args:
        special: of each token, whether the tokenizer added it (`special_tokens_mask`); those around a text are kept.
        longest: how many tokens there may be.
        keep: `end` or `start`: which part of a longer text is read.

    Returns:
        Their indices, at most `longest`.
    """
    count = len(special)
    if count <= longest:
        return list(range(count))
    before = next((i for i, added in enumerate(special) if not added), count)
    after = next((i for i, added in enumerate(reversed(special)) if not added), 0)
    room = max(0, longest - before - after)
    first = count - after - room if keep == "end" else before
    return [*range(before), *range(first, first + room), *range(count - after, count)][:longest]


def _first_known(tokenizer: PreTrainedTokenizerBase, names: tuple[str, ...]) -> int:
    ids = (getattr(tokenizer, name, None) for name in names)
    return next((i for i in ids if i is not None), 0)


def with_full_stop(text: str) -> str:
    """A text with a full stop, where it ends without a mark: whether somebody typed one is no matter of sentiment."""
    text = text.rstrip()
    return text if not text or text[-1] in _MARKS else f"{text}."
