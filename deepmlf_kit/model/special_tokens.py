"""Which tokens stand for padding and for no words at all: the tokenizer's own, never the LM config's.

The ids in an LM's config can be another family's: UER's Chinese GPT-2 names GPT-2's 50256 above a vocabulary of
21128 tokens. The collator, the LM loss and the explanations all ask here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Tokens that can stand alone where there are no words, the most neutral first.
_NEUTRAL = ("bos_token_id", "eos_token_id", "cls_token_id", "unk_token_id", "pad_token_id")


def pad_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that padded positions hold: the pad token, else the end token."""
    return _first_known(tokenizer, ("pad_token_id", "eos_token_id"))


def empty_text_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens of a text without words, at least one: the tokenizer's special tokens, else one neutral token."""
    return list(tokenizer("")["input_ids"]) or [_first_known(tokenizer, _NEUTRAL)]


def _first_known(tokenizer: PreTrainedTokenizerBase, names: tuple[str, ...]) -> int:
    ids = (getattr(tokenizer, name, None) for name in names)
    return next((i for i in ids if i is not None), 0)
