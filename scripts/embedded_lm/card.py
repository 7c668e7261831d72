"""The embedded LM's model card, written from what was measured, and read back by the test that repeats it.

The figures stand in the card's `model-index`, the form that the Hugging Face Hub reads, and again as tables.
"""

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from deepmlf_kit.rendering.tables import Table

_PERPLEXITY = {"lm": "this model", "trigram": "trigram (Kneser-Ney)", "unigram": "unigram"}
_PROBE = {"lm": "this model", "random_weights": "same shape, random weights", "bag_of_words": "bag of words"}

# What the archives say about themselves; a source that is not listed is shown without terms.
_TERMS = {
    "brown": "Brown Corpus (Francis and Kucera 1979): redistribution permitted by the copyright holder",
    "meld": "MELD (Poria and others 2019), dialogue of the series Friends: GPL-3.0 as published by its authors",
    "movie_reviews": "Sentiment Polarity Dataset 2.0 (Pang and Lee 2004): with permission from the authors, "
    "no licence stated",
    "nps_chat": "NPS Chat 1.0: non-commercial, non-profit educational and research use only",
    "product_reviews": "Customer Review Data (Hu and Liu 2004; Ding, Liu and Yu 2008): no licence stated",
    "pros_cons": "Pros and Cons (Liu): CC BY 4.0",
    "sentence_polarity": "Sentence Polarity Dataset 1.0 (Pang and Lee 2005): CC BY 4.0",
    "subjectivity": "Subjectivity Dataset 1.0 (Pang and Lee 2004): CC BY 4.0",
    "switchboard": "Switchboard sample (University of Pennsylvania 2000): Open Content License",
    "webtext": "Web Text Corpus (NLTK): public web postings and scripts, no licence stated",
}


@dataclass(frozen=True)
class Measured:
    """All that the card says about one model.

    `sources` maps a source to (documents, characters, weight, tokens read); `perplexity` is from
    `perplexity.compare`, `probe` from `probe.probe` (None where no probe was asked for).
    """

    parameters: int
    bytes: int
    layers: int
    hidden: int
    vocab: int
    positions: int
    block: int
    steps: int
    tokens_read: int
    tokens_in_texts: int
    sources: dict[str, tuple[int, int, float, int]]
    perplexity: dict[str, float]
    probe: dict[str, float] | None
    command: str
    versions: str
    note: str = ""


def write_card(folder: Path, measured: Measured) -> None:
    """Write `README.md` into the model's folder."""
    m = measured
    results = [_result("text-generation", "held-out English", "perplexity", m.perplexity["lm"])]
    for name in ("trigram", "unigram"):
        results.append(
            _result("text-generation", "held-out English", f"{name}_perplexity", m.perplexity[name])
        )
    if m.probe:
        results += [
            _result("text-classification", "sentence polarity", f"probe_{name}", m.probe[name])
            for name in _PROBE
        ]
    data = ModelCardData(
        language="en",
        license="apache-2.0",
        library_name="transformers",
        pipeline_tag="text-generation",
        model_name="deepmlf-embedded-lm",
        eval_results=results,
    )
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_body(m)}").save(folder / "README.md")


def read_figures(folder: Path) -> dict[str, float]:
    """The figures on a card by name: `perplexity`, `trigram_perplexity`, `probe_lm` and so on."""
    results = ModelCard.load(folder / "README.md").data.eval_results or []
    return {result.metric_type: result.metric_value for result in results}


def _result(task: str, dataset: str, metric: str, value: float) -> EvalResult:
    return EvalResult(
        task_type=task,
        dataset_type=dataset.replace(" ", "_"),
        dataset_name=dataset,
        metric_type=metric,
        metric_value=round(value, 4),
    )


def _body(m: Measured) -> str:
    perplexity = Table(
        ("model of the same tokens", "perplexity"),
        [(label, f"{m.perplexity[name]:.1f}") for name, label in _PERPLEXITY.items()],
    ).markdown()
    sources = Table(
        ("source", "documents", "characters", "weight", "tokens read", "terms"),
        [
            (name, f"{docs:,}", f"{chars:,}", f"{weight:g}", f"{read:,}", _terms(name))
            for name, (docs, chars, weight, read) in sorted(m.sources.items())
        ],
    ).markdown()
    return f"""# The embedded language model of the DeepMLF kit

A small causal language model of short English, made for this kit so that everything in it runs without a
network: the default frozen language model for demonstrations, tests and notebooks. It is no replacement for
a pretrained model of ordinary size; for results, take `gpt2` or larger.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

from deepmlf_kit.model.lm_loading import EMBEDDED_LM

model = AutoModelForCausalLM.from_pretrained(EMBEDDED_LM)
tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_LM)
```

## What it is

Llama architecture (RoPE, RMSNorm, SwiGLU, tied embedding): {m.layers} layers, hidden size {m.hidden},
{m.parameters:,} parameters, {m.bytes:,} bytes as bfloat16 safetensors. Byte-level BPE of {m.vocab:,} entries,
trained on the same texts; it lower-cases, takes accents off and closes the spaces before punctuation, so that
`It 's GREAT .` and `it's great.` are the same to the model. No special token is added to a text; padding is
on the right. It takes {m.positions} tokens and was trained on sequences of {m.block}.

## How well it predicts

Perplexity per token on {int(m.perplexity["tokens"]):,} tokens of documents held out from training by a hash of
their words, all models on the same tokens, each predicted by this model from {m.block // 2} to {m.block - 1}
tokens before it:

{perplexity}
{_probe_text(m)}
## What it was trained on

Next-token prediction, {m.steps:,} steps, {m.tokens_read:,} tokens read from texts of {m.tokens_in_texts:,}
tokens. Labels, tags, ratings and speakers of the corpora were taken off and not used. A source is read
`weight` times in each pass.

{sources}
The texts are not part of this project. They hold the opinions, the language and the prejudices of their
writers, much of it from films of the 1990s and from informal talk; the model may repeat them. It knows no
facts and must not be used to judge people.

## How to make it again

```
{m.command}
```

Made with {m.versions}.{f" {m.note}" if m.note else ""}
"""


def _terms(source: str) -> str:
    return next((text for name, text in _TERMS.items() if source.startswith(name)), "")


def _probe_text(m: Measured) -> str:
    if m.probe is None:
        return "No sentiment probe was run.\n"
    rows = [(label, f"{100 * m.probe[name]:.1f} %") for name, label in _PROBE.items()]
    return f"""## What it knows of sentiment

Accuracy of logistic regression on {int(m.probe["train"]):,} sentences of positive or negative polarity, tested on
{int(m.probe["test"]):,} others. The features of the first two are the mean over tokens of the frozen last hidden
state. None of these sentences, and no line that shares eight words in a row with one, was in the training
texts.

{Table(("features", "accuracy"), rows).markdown()}"""
