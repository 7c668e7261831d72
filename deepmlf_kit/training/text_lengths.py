"""How long a dataset's texts are for a preset's language model, and which `data.max_text_tokens` takes them whole."""

from __future__ import annotations

from dataclasses import dataclass

from datasets import DatasetDict

from ..data.collate import Collator
from ..errors import DeepMLFError
from ..model.known_lms import lm_shape
from ..model.lm_loading import load_tokenizer
from .presets import Preset

_STEP = 10


@dataclass(frozen=True)
class TextLengths:
    """Lengths of texts against the limit of a preset.

    Attributes:
        total, beyond: texts, and those of them that are longer than the limit.
        limit: `data.max_text_tokens` of the preset; `long_texts`: which part of a longer text it reads.
        longest: tokens of the longest text; where the tokenizer is not at hand, its words, which are fewer.
        counted: whether the tokenizer was at hand.
        suggested: the limit that takes all texts whole, or the most that the language model has room for.
    """

    total: int
    beyond: int
    limit: int
    long_texts: str
    longest: int
    counted: bool
    suggested: int

    def __str__(self) -> str:
        """One sentence for people."""
        least = "" if self.counted else "at least "
        part = "beginning" if self.long_texts == "start" else "end"
        return (
            f"Texts: {least}{self.beyond} of {self.total} are longer than the preset's {self.limit} tokens "
            f"(up to {least}{self.longest}); with that limit only their {part} is read"
            + (", as published" if self.long_texts == "start" else "")
        )


def text_lengths(dataset: DatasetDict, preset: Preset) -> TextLengths:
    """Measure the texts of a dataset; nothing is downloaded, so that a tokenizer may not be at hand."""
    texts = [text for part in dataset.values() for text in part.with_format(None)["text"][:]]
    config, limit = preset.model_config(), preset.data.max_text_tokens
    try:
        tokenizer = load_tokenizer(config, local_files_only=True)
        collator = Collator(tokenizer, limit, full_stop=preset.data.full_stop)
        lengths = collator.lengths(texts) if texts else []
        counted = True
    except DeepMLFError:
        # A token is at most a word, or a character of a language without spaces.
        lengths = [len(text.split()) if " " in text or text.isascii() else len(text) for text in texts]
        counted = False
    longest = max(lengths, default=0)
    try:
        room = getattr(lm_shape(config).get_text_config(), "max_position_embeddings", None) or longest
    except DeepMLFError:
        room = 2 * limit
    suggested = min(-(-longest // _STEP) * _STEP, room - config.fusion_tokens)
    beyond = sum(length > limit for length in lengths)
    return TextLengths(
        len(texts), beyond, limit, preset.data.long_texts, longest, counted, max(limit, suggested)
    )
