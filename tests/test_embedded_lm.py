"""The embedded LM that ships: it loads like any model, is as small as promised, and knows some English."""

from pathlib import Path

import numpy as np
import pytest
import torch
from embedded_lm.card import read_figures

from deepmlf_kit.model.lm_loading import EMBEDDED_LM

SHARED = Path(__file__).parents[1].parent / "shared"

# Our own sentences, in the ways people and speech recognisers write.
PARAGRAPH = """I was not sure what to expect from this film, but I really liked it. The story is simple and the
actors are good, and there are some very funny scenes in it. My brother did not like the end at all. He said that
it was too long, and he may be right about that. You know, I think that the music was the best part of it! We went
home late, and we talked about it all the way. Would I see it again? Yeah, I would. It is one of the best movies of
the year, and I do not say that very often. The second one was terrible, though. It was a waste of time and money,
and I do not want to talk about it."""


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(EMBEDDED_LM)


@pytest.fixture(scope="module")
def model():
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(EMBEDDED_LM, dtype=torch.float32)


def test_it_loads_as_a_llama_of_eight_layers(model, tokenizer):
    assert model.config.architectures == ["LlamaForCausalLM"]
    assert model.config.num_hidden_layers == 8
    assert model.config.hidden_size % 16 == 0
    assert model.config.vocab_size == len(tokenizer)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_it_loads_in_the_precision_it_is_stored_in():
    from transformers import AutoModelForCausalLM

    stored = AutoModelForCausalLM.from_pretrained(EMBEDDED_LM, dtype="auto")
    assert stored.dtype == torch.bfloat16


def test_its_folder_takes_at_most_eight_megabytes():
    assert sum(path.stat().st_size for path in EMBEDDED_LM.iterdir()) <= 8_000_000


def test_everyday_words_are_one_token_each(tokenizer):
    for text in ("I am so happy", "this was terrible, I hate it", "I really love this movie"):
        words = text.replace(",", " ,").split()
        assert len(tokenizer(text)["input_ids"]) == len(words)


def test_case_accents_quotes_and_spacing_do_not_matter(tokenizer):
    plain = tokenizer("it's great, isn't it?")["input_ids"]
    for text in (
        "It\u2019s GREAT, isn\u2019t it?",
        "it 's great , is n't it ?",
        " It's  gr\u00e9at, isn't it? ",
    ):
        assert tokenizer(text)["input_ids"] == plain
    assert tokenizer.decode(plain) == "it's great, isn't it?"


def test_any_character_is_tokenised_and_comes_back(tokenizer):
    text = "so happy \U0001f600 \u4f60\u597d <b>"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_offsets_point_into_the_text_as_given(tokenizer):
    text = "It 's  GREAT , really"
    encoded = tokenizer(text, return_offsets_mapping=True)
    pieces = [text[a:b].strip() for a, b in encoded["offset_mapping"]]
    assert [piece for piece in pieces if piece.isalpha()] == ["It", "GREAT", "really"]


def test_batches_are_padded_on_the_right(tokenizer):
    batch = tokenizer(["Hi.", "I am so happy today."], padding=True, return_tensors="pt")
    assert batch["attention_mask"][0, 0] == 1 and batch["attention_mask"][0, -1] == 0
    assert batch["input_ids"][0, -1] == tokenizer.pad_token_id != tokenizer.eos_token_id


@torch.no_grad()
def test_it_predicts_english_far_better_than_word_frequencies(model, tokenizer):
    ids = tokenizer(PARAGRAPH, return_tensors="pt")["input_ids"]
    log_probs = model(input_ids=ids).logits[:, :-1].log_softmax(-1)
    lm = float(log_probs.gather(-1, ids[:, 1:, None]).mean())
    # The best any unigram model could do here: the paragraph's own frequencies.
    counts = np.bincount(ids[0, 1:].numpy())
    shares = counts[counts > 0] / counts.sum()
    unigram = float((shares * np.log(shares)).sum())
    assert np.exp(-lm) < 0.7 * np.exp(-unigram)
    assert np.exp(-lm) < 0.25 * read_figures(EMBEDDED_LM)["unigram_perplexity"]


@torch.no_grad()
def test_the_order_of_words_matters_to_it(model, tokenizer):
    ids = tokenizer(PARAGRAPH, return_tensors="pt")["input_ids"][:, :120]
    mixed = ids[:, torch.randperm(ids.shape[1], generator=torch.Generator().manual_seed(0))]
    straight, shuffled = (float(model(input_ids=x, labels=x).loss) for x in (ids, mixed))
    assert shuffled > straight + 1.0


def test_the_card_says_that_it_beats_ngrams_and_random_weights():
    figures = read_figures(EMBEDDED_LM)
    assert figures["perplexity"] < figures["trigram_perplexity"] < figures["unigram_perplexity"]
    assert figures["probe_lm"] >= 0.65
    assert figures["probe_lm"] >= figures["probe_random_weights"] + 0.10


@pytest.mark.slow
@pytest.mark.skipif(
    not (SHARED / "corpora").is_dir(), reason="the corpora that the card's figures come from are not here"
)
def test_the_probe_and_the_perplexity_of_the_card_are_measured_again(model, tokenizer):
    from embedded_lm import packing, perplexity
    from embedded_lm.make import split_texts
    from embedded_lm.probe import probe
    from embedded_lm.split import read_probe

    figures = read_figures(EMBEDDED_LM)
    corpora = SHARED / "corpora"
    sentences = read_probe(corpora / "sentence_polarity.zip")
    scores = probe(model, tokenizer, sentences)
    for name in ("lm", "random_weights", "bag_of_words"):
        assert scores[name] == pytest.approx(figures[f"probe_{name}"], abs=0.01)

    texts = [*sorted(corpora.glob("*.zip")), *sorted(corpora.glob("*.csv"))]
    train, held_out = split_texts(texts, 2, sentences, ("nps_chat", "webtext/singles"))
    stream = [np.concatenate(packing.encode(documents, tokenizer)) for documents in (train, held_out)]
    again = perplexity.compare(model, *stream, block=128)
    for name, metric in (
        ("lm", "perplexity"),
        ("trigram", "trigram_perplexity"),
        ("unigram", "unigram_perplexity"),
    ):
        assert again[name] == pytest.approx(figures[metric], rel=0.01)
