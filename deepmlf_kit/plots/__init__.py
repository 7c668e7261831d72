"""Plotly figures of the kit: each function takes what another part measured and returns a `go.Figure`."""

import lazy_loader

# On first use: plotly is imported only where something is drawn.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "ablation": ["ablation_curve"],
        "attention_views": ["attention_maps", "attention_to_words", "layer_token_map"],
        "clip_views": ["clip_timeline", "gradient_timeline"],
        "data_features": ["plot_normalization", "plot_ranges"],
        "data_labels": ["plot_labels"],
        "data_lengths": ["plot_lengths"],
        "depth_views": ["gates_by_depth", "sentiment_by_depth", "token_similarity"],
        "effect_views": ["attention_effect", "deletion_curve", "effect_bars", "patching_map"],
        "layer_ablation": ["layer_ablation"],
        "live": ["live_curves"],
        "modalities": ["modality_errors"],
        "predictions": ["predicted_vs_true"],
        "split_views": ["calibration", "confusion", "specialisation", "worst_errors"],
        "training_curves": ["training_losses", "validation_errors"],
        "utterance_timeline": ["plot_utterance"],
    },
)
