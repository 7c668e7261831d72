"""The live demo, as a script: `python apps/demo.py` is `deepmlf app`."""

import sys

from deepmlf_kit.cli.frame import run

if __name__ == "__main__":
    sys.exit(run(["app", *sys.argv[1:]]))
