"""The live demo: webcam or clip in, sentiment and its reasons out (`deepmlf app`, `apps/demo.py`, notebook 08).

from deepmlf_kit.app import launch
launch()                             # the bundled checkpoint, at http://127.0.0.1:7860
launch("runs/demo/fused", inline=True, block=False)   # in a notebook
"""

import lazy_loader

# On first use: gradio takes seconds to import.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "server": ["RunningApp", "launch"],
        "settings": ["Settings"],
    },
)
