"""The `deepmlf` command: its subcommands, exit codes and error messages.

Exit codes: 0 done; 1 a defect of ours (one line; the traceback with `--debug`); 2 the input, the usage or the machine
(a full disk, a missing permission) is at fault (one line that says what to do); 130 stopped by the user (Ctrl-C), 143 by
SIGTERM, each with one line.
"""

import codecs
import contextlib
import functools
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

from .. import __version__
from ..errors import DeepMLFError, printable
from ..storage.problems import environment_problem, not_utf8

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


class _Stopped(BaseException):
    """The user or the system wants the command to end; the exit code is its argument."""


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
        app.command(name=name)(_stoppable(module.command))
    return app


def _stoppable(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with Ctrl-C let through to `run`: typer would end without a word."""

    @functools.wraps(command)
    def run_command(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            raise _Stopped(128 + signal.SIGINT) from None

    return run_command


@contextlib.contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the command as Ctrl-C does, so that worker processes and temporary files go with it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
        raise _Stopped(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _one_line(error: BaseException) -> str:
    return printable(" ".join(str(error).split())) or type(error).__name__


def _print_error(message: str) -> None:
    """One line on stderr, red on a terminal that shows colours."""
    if sys.stderr.isatty() and "NO_COLOR" not in os.environ:
        from rich.console import Console

        Console(stderr=True, highlight=False).print(message, style="red", markup=False, soft_wrap=True)
    else:
        print(message, file=sys.stderr)


# What stands for a sign where output goes to an encoding without it: an old console, or a file of Windows.
_PLAIN = {
    **str.maketrans("●○·•–—−─│┃━█‘’“”×↑↓←", "o*.*----||=#''\"\"x^v<"),
    **dict.fromkeys(map(ord, "┌┐└┘├┤┬┴┼╭╮╯╰"), "+"),
    **str.maketrans({"…": "...", "±": "+/-", "→": "->", "≥": ">=", "≤": "<="}),
}


def _in_plain_signs(error: UnicodeError) -> tuple[str, int]:
    """What to write in place of what the output's encoding does not have; all that has no plain form is escaped."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end].translate(_PLAIN)
    return signs.encode("ascii", "backslashreplace").decode(), error.end


codecs.register_error("deepmlf_plain", _in_plain_signs)


def run(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code (see the module's docstring); raises only with `--debug`.

    `--debug` is understood before or after the subcommand. Output never fails for a sign that its encoding has not, nor
    because its reader has closed the pipe (`| head`).
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="deepmlf_plain")
    code = _run(list(arguments))
    try:
        sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            _print_error(f"deepmlf: output cannot be written ({error.strerror}): choose another place for it")
            code = code or 2
        # What is left in the buffer would fail once more at the interpreter's end.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _run(arguments: list[str]) -> int:
    end = arguments.index("--") if "--" in arguments else len(arguments)
    debug = "--debug" in arguments[:end]
    arguments = [word for word in arguments[:end] if word != "--debug"] + arguments[end:]
    try:
        if odd := next(filter(not_utf8, arguments), None):
            raise DeepMLFError(
                f"{odd!a} is not in UTF-8, as names and texts must be: rename that file or folder."
            )
        with _ending_on_sigterm():
            build_app()(arguments, prog_name="deepmlf")
    except SystemExit as stop:  # how typer ends, well or badly
        return stop.code if isinstance(stop.code, int) else 1
    except DeepMLFError as error:
        if debug:
            traceback.print_exc()
        _print_error(f"deepmlf: {_one_line(error)}")
        return 2
    except BrokenPipeError:  # the reader of the output has what it wanted
        return 0
    except (_Stopped, KeyboardInterrupt) as stop:
        code = stop.args[0] if isinstance(stop, _Stopped) else 128 + signal.SIGINT
        how = "stopped" if code == 128 + signal.SIGINT else "stopped by SIGTERM"
        _print_error(f"deepmlf: {how}; repeat the command to go on")
        return int(code)
    except Exception as error:
        if debug:
            raise
        if problem := environment_problem(error):
            _print_error(f"deepmlf: {_one_line(problem)}")
            return 2
        _print_error(
            f"deepmlf: unexpected {type(error).__name__}: {_one_line(error)} "
            "(this is a defect of the kit; the same command with --debug shows where)"
        )
        return 1
    return 0
