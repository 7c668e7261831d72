"""`python -m deepmlf_kit VERB`: the `deepmlf` command, as `accelerate launch -m` takes it."""

from .cli import main

if __name__ == "__main__":
    main()
