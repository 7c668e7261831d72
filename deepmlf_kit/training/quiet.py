"""Hide the short progress bars that transformers draws for every file it reads or writes, in favour of one of ours."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging


@contextmanager
def quiet_bars() -> Iterator[None]:
    """No progress bars of transformers inside; the user's setting is restored. Downloads keep theirs."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
