"""The embedded LM's own tokenizer: byte-level BPE over lower-cased, evenly spaced English.

A vocabulary of a few thousand entries has no room for `Great`, `great` and `GREAT`, and half of the texts are
lower-cased and set with spaces around punctuation (`it 's fun , really .`). The tokenizer therefore brings
every text to one form before it splits it, in pretraining and in use alike: lower case, no accents, straight
quotes, no space before punctuation. Offsets still point into the text as it was given.
"""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, EOS = "<pad>", "<eos>"


def train_tokenizer(texts: Iterable[str], vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """Train the BPE tokenizer on texts.

    Args:
        texts: training texts only, nothing held out.
        vocab_size: entries, with the 256 bytes and the two special tokens.
        max_length: positions of the model, kept as `model_max_length`.

    Returns:
        A fast tokenizer that pads on the right. No special token is added to a text.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex("[\u2018\u2019\u00b4`]"), "'"),
            normalizers.Replace(Regex("[\u201c\u201d]"), '"'),
            normalizers.Replace(Regex("[\u2013\u2014]"), " - "),
            normalizers.Replace(Regex(r"[ \t\r\f\v]+"), " "),
            normalizers.Replace(Regex(r" ?\n[ \n]*"), "\n"),
            normalizers.Replace(Regex(r" +(?=[.,!?;:)\]])"), ""),
            normalizers.Replace(Regex(r" +(?=(n't|'s|'re|'ve|'ll|'d|'m)\b)"), ""),
            normalizers.Replace(Regex(r"(?<=[(\[]) +"), ""),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    # The first word gets the space of any other; decoding takes it off again.
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        bos_token=EOS,
        padding_side="right",
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
