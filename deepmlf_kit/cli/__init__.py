"""The `deepmlf` command: each step of the path from a clip to a sentiment as one subcommand.

One small file per subcommand; each wraps one Python call of the package, the one that the notebooks use, and imports
it only when it runs, so that `deepmlf --help` answers at once.
"""

import gc
import os
import sys

_COMPILES_NOTHING = {"predict", "app"}


def main() -> None:
    """Entry point of the `deepmlf` command; ends the process with the exit code of `frame.run`."""
    from .frame import run

    verb = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "")
    if verb in _COMPILES_NOTHING:
        # Where bitsandbytes is installed, peft imports it, and that has torch load its compiler: a second, for nothing here.
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    code = run(sys.argv[1:])
    gc.freeze()  # the end looks for cycles among all that torch and transformers made: a second, for nothing
    sys.exit(code)
