"""Widgets: play with a trained model in a notebook, and what the notebooks of the course are made with."""

import lazy_loader

# On first use: ipywidgets and torch are imported only where a widget is shown.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "course": ["Course", "check", "fold", "quiet", "say"],
        "explorer": ["Explorer"],
    },
)
