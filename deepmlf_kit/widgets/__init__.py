"""Widgets: play with a trained model in a notebook."""

import lazy_loader

# On first use: ipywidgets and torch are imported only where a widget is shown.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "explorer": ["Explorer"],
    },
)
