"""The parts of `benchmarks/fuzz.py`: one module for each kind of file."""
