"""The `deepmlf` command: each step of the path from a clip to a sentiment as one subcommand.

One small file per subcommand; each wraps one Python call of the package, the one that the notebooks use, and imports
it only when it runs, so that `deepmlf --help` answers at once.
"""

import sys


def main() -> None:
    """Entry point of the `deepmlf` command; ends the process with the exit code of `frame.run`."""
    from .frame import run

    sys.exit(run(sys.argv[1:]))
