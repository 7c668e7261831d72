"""Does the frozen LM tell positive from negative? A linear probe on sentences it has not read.

Beside it stand the same probe on the same architecture with random weights, which says how much the shape
and the tokenizer give away, and bag-of-words on the same split, which says what single words tell.
"""

import numpy as np
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from .split import ProbeSentences

_STRENGTHS = np.logspace(-4, 1, 6)  # inverse regularisation, chosen by 5-fold cross-validation


@torch.no_grad()
def sentence_states(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str], batch: int = 64
) -> np.ndarray:
    """Mean of the last hidden state over a sentence's tokens: float32 [len(texts), D]."""
    model.eval()
    rows = []
    for start in range(0, len(texts), batch):
        inputs = tokenizer(texts[start : start + batch], return_tensors="pt", padding=True, truncation=True)
        states = model.base_model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
        ).last_hidden_state.float()  # [b, L, D]
        mask = inputs["attention_mask"][..., None]
        rows.append(((states * mask).sum(1) / mask.sum(1).clamp(min=1)).numpy())
    return np.concatenate(rows)


def probe(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sentences: ProbeSentences, seed: int = 0
) -> dict[str, float]:
    """Accuracy (0 to 1) on the test sentences of the three probes, and the number of sentences.

    Returns:
        `lm`, `random_weights`, `bag_of_words`, `train` and `test` (sentences).
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        untrained = AutoModelForCausalLM.from_config(model.config, dtype=torch.float32)
    scores = {
        name: _accuracy(
            StandardScaler(),
            sentence_states(m, tokenizer, sentences.train_texts),
            sentence_states(m, tokenizer, sentences.test_texts),
            sentences,
        )
        for name, m in (("lm", model), ("random_weights", untrained))
    }
    counts = CountVectorizer()
    scores["bag_of_words"] = _accuracy(
        MaxAbsScaler(),
        counts.fit_transform(sentences.train_texts),
        counts.transform(sentences.test_texts),
        sentences,
    )
    return {**scores, "train": len(sentences.train_texts), "test": len(sentences.test_texts)}


def _accuracy(scaler, train, test, sentences: ProbeSentences) -> float:
    pipeline = make_pipeline(scaler, LogisticRegression(max_iter=2000))
    search = GridSearchCV(pipeline, {"logisticregression__C": _STRENGTHS}, cv=5)
    fitted = search.fit(train, sentences.train_labels)
    return float(fitted.score(test, sentences.test_labels))
