"""Worker processes: Python processes of the package that are handed work and report back, one JSON object per line.

`parent.py` starts, feeds and ends them; `child.py` is their own end of the line. Clips are extracted and the trials of a
sweep trained this way: a worker may crash or be killed without harm to the rest.
"""
