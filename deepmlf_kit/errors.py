"""The kit's own error, for everything a user can put right.

Every part of the kit raises `DeepMLFError` or a subclass of it where the input is at fault. The command line
prints its message in one line and ends with exit code 2; anything else is a defect of ours and keeps its
traceback.
"""


class DeepMLFError(Exception):
    """A clear message for the user: what was found, what was expected, what to do."""
