"""A small untrained model with a subword tokenizer over a few sample utterances; shared by the tests of views."""

import torch
from tiny_lms import tiny_llama
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from deepmlf_kit import DeepMLFConfig, DeepMLFModel
from deepmlf_kit.data.sample import make_sample
from deepmlf_kit.explain import Lens


def subword_tokenizer(texts):
    """A BPE tokenizer with so few tokens that most words take several."""
    inner = Tokenizer(models.BPE(unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    inner.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=90, special_tokens=["<pad>", "<unk>"], show_progress=False)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>", eos_token="<pad>"
    )


def tiny_lens(seed=0, **changes):
    """A `Lens` on 16 sample utterances; the model is random, with states large enough that all of it shows."""
    dataset = make_sample(seed=seed, train=2, valid=2, test=16)
    tokenizer = subword_tokenizer(dataset["test"]["text"])
    torch.manual_seed(seed)
    lm = tiny_llama(96, 4, max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=0)
    values = {
        "fusion_layers": [1, 3],
        "fusion_tokens": 4,
        "max_text_tokens": 100,
        "cross_attention_heads": 2,
        "av_steps": 20,
        "av_width": 12,
        "av_heads": 3,
        "av_layers": 1,
        "av_batchnorm": True,
        "task_hidden": 16,
    }
    model = DeepMLFModel(DeepMLFConfig(**(values | changes)), lm=lm, tokenizer=tokenizer)
    with torch.no_grad():
        model.fusion_tokens.mul_(30)
        for statistics in (model.av_encoder.audio.batch_norm, model.av_encoder.vision.batch_norm):
            statistics.running_var.fill_(1e4 if statistics is model.av_encoder.audio.batch_norm else 0.1)
    return Lens(model.eval(), dataset)
