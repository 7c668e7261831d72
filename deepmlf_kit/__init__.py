"""DeepMLF kit: multimodal sentiment analysis with fusion tokens in a frozen language model.

The names below are the public ones. They are imported on first use, so that `import deepmlf_kit` stays
fast and a machine without, say, MediaPipe can still train. After the import, transformers' `AutoConfig` and `AutoModel` know
the kit's models, whichever of the two packages is imported first.
"""

import logging
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import lazy_loader

__version__ = "0.1.0"

# Where bitsandbytes is installed, peft imports it, and on CPU it tells of a kernel it lacks and, at every step, of a
# cast: nothing to act on.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "model.config": ["DeepMLFConfig"],
        "model.deepmlf": ["DeepMLFModel", "DeepMLFOutput"],
        "predict.prediction": ["Prediction"],
        "predict.predictor": ["Predictor"],
    },
)
__all__ += ["__version__"]

_AUTO = "transformers.models.auto"
_AUTO_MODULES = (f"{_AUTO}.configuration_auto", f"{_AUTO}.modeling_auto")


def _register(module: ModuleType) -> None:
    """Enter the kit's names in one of transformers' tables, which import a class when it is first asked for.

    The tables look for a class in `transformers.models.MODEL_TYPE`; this package answers in its place, lazily as always.
    """
    sys.modules.setdefault("transformers.models.deepmlf", sys.modules[__name__])
    module.CONFIG_MAPPING_NAMES["deepmlf"] = "DeepMLFConfig"
    if hasattr(module, "MODEL_MAPPING"):
        module.MODEL_MAPPING_NAMES["deepmlf"] = "DeepMLFModel"
        module.MODEL_MAPPING._reverse_config_mapping["DeepMLFConfig"] = (
            "deepmlf"  # was made of the former names
        )


class _AutoClasses(MetaPathFinder):
    """Finds transformers' tables as anyone would, and registers the kit's models as soon as they are imported."""

    def __init__(self) -> None:
        self.awaited = {name for name in _AUTO_MODULES if name not in sys.modules}

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in self.awaited:
            return None
        self.awaited.discard(fullname)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                _register(module)

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


for _name in _AUTO_MODULES:
    if _name in sys.modules:
        _register(sys.modules[_name])
if not any(type(_finder).__name__ == "_AutoClasses" for _finder in sys.meta_path):
    sys.meta_path.insert(0, _AutoClasses())
