"""Plotly figures of the kit: each function takes what another part measured and returns a `go.Figure`."""

from importlib import import_module
from typing import Any

_PUBLIC: dict[str, str] = {
    "ablation_curve": "ablation",
    "attention_effect": "effect_views",
    "attention_maps": "attention_views",
    "attention_to_words": "attention_views",
    "calibration": "split_views",
    "clip_timeline": "clip_views",
    "confusion": "split_views",
    "effect_bars": "effect_views",
    "gates_by_depth": "depth_views",
    "gradient_timeline": "clip_views",
    "layer_token_map": "attention_views",
    "live_curves": "live",
    "modality_errors": "modalities",
    "plot_labels": "data_labels",
    "plot_lengths": "data_lengths",
    "plot_normalization": "data_features",
    "plot_ranges": "data_features",
    "plot_utterance": "utterance_timeline",
    "predicted_vs_true": "predictions",
    "sentiment_by_depth": "depth_views",
    "specialisation": "split_views",
    "token_similarity": "depth_views",
    "training_losses": "training_curves",
    "validation_errors": "training_curves",
    "worst_errors": "split_views",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    # On first use: plotly is imported only where something is drawn.
    if name in _PUBLIC:
        return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
