"""Forward hooks that see (or change) one thread's forward pass and are always removed afterwards.

Where it stands: under `capture` and `effects`. A model may answer several users at once; in another
thread's pass a hook does nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

Hook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], Any]
"""(module, args, kwargs, output) -> None, or a replacement for the output."""


@contextmanager
def forward_hooks(hooks: Iterable[tuple[nn.Module, Hook]]) -> Iterator[None]:
    """Hook modules for the passes this thread runs inside the `with` block."""
    owner = threading.get_ident()

    def only_here(hook: Hook) -> Hook:
        # Another thread may run into this while it is registered or removed, and then comes without the kwargs.
        def guarded(module: nn.Module, *seen: Any) -> Any:
            return hook(module, *seen) if threading.get_ident() == owner else None

        return guarded

    handles = []
    try:
        for module, hook in hooks:
            handles.append(module.register_forward_hook(only_here(hook), with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()
