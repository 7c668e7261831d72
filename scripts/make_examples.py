"""Make the app's example clips anew (`deepmlf_kit/assets/examples`): drawn faces, synthetic voices, and the answers to them.

    python scripts/make_examples.py [--answers]

With --answers the clips stay and only the answers are made anew, as after the training of a checkpoint; `deepmlf fetch smollm2`
must have been run.
"""

import sys

from example_clips.make import make_examples

from deepmlf_kit import Predictor
from deepmlf_kit.app.kept import keep_answers
from deepmlf_kit.model.fetched_lms import FETCHED_LMS
from deepmlf_kit.predict.bundled import PEOPLE

if __name__ == "__main__":
    for path in [] if "--answers" in sys.argv[1:] else make_examples():
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
    checkpoints = [PEOPLE, *(PEOPLE.with_name(f"people-{lm}") for lm in FETCHED_LMS)]
    path = keep_answers(Predictor(folder, device="cpu") for folder in checkpoints)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
