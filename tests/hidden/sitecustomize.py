"""Hides the packages named in HIDDEN_PACKAGES from this Python and its child processes, as if they were not installed."""

import os
import sys
from importlib.machinery import PathFinder

_hidden = set(os.environ.get("HIDDEN_PACKAGES", "").split())


class _Filter(PathFinder):
    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        if fullname.partition(".")[0] in _hidden:
            return None
        return super().find_spec(fullname, path, target)


if _hidden:
    sys.meta_path[:] = [_Filter if finder is PathFinder else finder for finder in sys.meta_path]
