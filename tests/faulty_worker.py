"""A worker that fails as damaged clips make real ones fail; what a clip's name says decides how.

Run in place of `deepmlf_kit.data.extraction_worker` by tests/test_folder_prepare.py.
"""

import os
import signal
import time
from pathlib import Path

from deepmlf_kit.data import extraction_worker
from deepmlf_kit.features import clip

_real = clip.extract_clip


def extract_clip(path, *arguments, **named):
    """The real one, after the mishap in the clip's name."""
    name = Path(path).name  # its folder's name is that of the test
    if "hangs" in name:
        time.sleep(600)
    if "crashes" in name:
        os.write(2, b"terminate called: bad packet\n")
        os.abort()
    if "killed_always" in name:
        os.kill(os.getpid(), signal.SIGKILL)
    if "killed_once" in name:
        mark = Path(path).with_suffix(".killed")
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    if "surprises" in name:
        raise RecursionError("line one\nline two")
    if "prints" in name:
        os.write(1, b'{"done": "not an answer"}\n')
        print("a library's greeting")
    if "slow" in name:
        for _ in range(3):
            time.sleep(5)
            named["progress"]("face", 0.5)
    return _real(path, *arguments, **named)


extraction_worker.extract_clip = extract_clip

if __name__ == "__main__":
    extraction_worker.main()
