"""The `deepmlf` command: its subcommands, exit codes and error messages.

Exit codes: 0 done; 1 a defect of ours (one line; the traceback with `--debug`); 2 the input or the usage is at
fault (one line that says what to do); 130 stopped by the user.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

from .. import __version__
from ..errors import DeepMLFError

# In the order of the work. A subcommand lives in the file of its name (`pretrain-av` in pretrain_av.py), which defines
# the function `command`.
SUBCOMMANDS: tuple[str, ...] = (
    "demo",
    "fetch",
    "sample",
    "prepare",
    "inspect",
    "presets",
    "pretrain-av",
    "train",
    "evaluate",
    "sweep",
    "rerun",
    "predict",
    "app",
)

HELP = """DeepMLF: the sentiment of an utterance from its words, voice and face.

Start with `deepmlf demo`, or `deepmlf predict CLIP` on a clip of yours."""


def _version(wanted: bool) -> None:
    if wanted:
        print(f"deepmlf {__version__}")
        raise typer.Exit()


def build_app() -> typer.Typer:
    """The typer application with every subcommand; imports none of the libraries that they need."""
    app = typer.Typer(
        name="deepmlf",
        help=HELP,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def options(
        debug: Annotated[
            bool, typer.Option("--debug", help="Show the traceback of an unexpected error.")
        ] = False,
        version: Annotated[
            bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
        ] = False,
    ) -> None:
        pass

    for name in SUBCOMMANDS:
        module = import_module(f"{__package__}.{name.replace('-', '_')}")
        app.command(name=name)(module.command)
    return app


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _print_error(message: str) -> None:
    """One line on stderr, red on a terminal that shows colours."""
    if sys.stderr.isatty() and "NO_COLOR" not in os.environ:
        from rich.console import Console

        Console(stderr=True, highlight=False).print(message, style="red", markup=False, soft_wrap=True)
    else:
        print(message, file=sys.stderr)


def run(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code (see the module's docstring); raises only with `--debug`.

    `--debug` is understood before or after the subcommand.
    """
    arguments = list(arguments)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    debug = "--debug" in arguments[:end]
    arguments = [word for word in arguments[:end] if word != "--debug"] + arguments[end:]
    try:
        build_app()(arguments, prog_name="deepmlf")
    except SystemExit as stop:  # how typer ends, well or badly
        return stop.code if isinstance(stop.code, int) else 1
    except DeepMLFError as error:
        if debug:
            traceback.print_exc()
        _print_error(f"deepmlf: {_one_line(error)}")
        return 2
    except KeyboardInterrupt:
        _print_error("deepmlf: stopped")
        return 130
    except Exception as error:
        if debug:
            raise
        _print_error(
            f"deepmlf: unexpected {type(error).__name__}: {_one_line(error)} "
            "(this is a defect of the kit; the same command with --debug shows where)"
        )
        return 1
    return 0
