"""What every subcommand of `deepmlf` shares: exit codes, one-line errors, one JSON object."""

import io
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import deepmlf_kit
from deepmlf_kit.cli import frame
from deepmlf_kit.cli.output import plain, print_json, stdout_reserved_for_json
from deepmlf_kit.errors import DeepMLFError


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make `deepmlf fail` a subcommand that raises `error`."""

    def command() -> None:
        raise error

    monkeypatch.setattr(frame, "SUBCOMMANDS", ("fail",))
    monkeypatch.setattr(frame, "import_module", lambda name: SimpleNamespace(command=command))


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]):
    assert frame.run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in frame.SUBCOMMANDS)


@pytest.mark.parametrize("name", frame.SUBCOMMANDS)
def test_every_subcommand_explains_itself(name: str, capsys: pytest.CaptureFixture[str]):
    assert frame.run([name, "--help"]) == 0
    assert f"deepmlf {name}" in capsys.readouterr().out


def test_version_is_the_package_version(capsys: pytest.CaptureFixture[str]):
    assert frame.run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"deepmlf {deepmlf_kit.__version__}"


def test_unknown_verb_is_a_usage_error(capsys: pytest.CaptureFixture[str]):
    assert frame.run(["juggle"]) == 2
    assert "juggle" in capsys.readouterr().err


def test_bad_input_is_one_line_on_stderr_and_exit_code_2(monkeypatch, capsys):
    fail_with(monkeypatch, DeepMLFError("found a text file,\n  expected a clip; give an mp4"))
    assert frame.run(["fail"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "deepmlf: found a text file, expected a clip; give an mp4\n"


def test_defect_is_one_line_that_names_debug_and_exit_code_1(monkeypatch, capsys):
    fail_with(monkeypatch, ZeroDivisionError("division by zero"))
    assert frame.run(["fail"]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "ZeroDivisionError: division by zero" in err and "--debug" in err


@pytest.mark.parametrize("arguments", [["--debug", "fail"], ["fail", "--debug"]])
def test_debug_keeps_the_traceback_of_a_defect(monkeypatch, arguments):
    fail_with(monkeypatch, ZeroDivisionError("division by zero"))
    with pytest.raises(ZeroDivisionError):
        frame.run(arguments)


def test_debug_shows_where_bad_input_was_refused(monkeypatch, capsys):
    fail_with(monkeypatch, DeepMLFError("no such preset"))
    assert frame.run(["fail", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_stopping_gives_exit_code_130(monkeypatch):
    fail_with(monkeypatch, KeyboardInterrupt())
    assert frame.run(["fail"]) == 130


def test_the_installed_command_answers():
    command = Path(sys.executable).with_name("deepmlf")
    if not command.exists():
        pytest.skip("the `deepmlf` script is not beside this Python (the package is not installed)")
    run = subprocess.run([command, "--version"], capture_output=True, text=True)
    assert (run.returncode, run.stdout.strip()) == (0, f"deepmlf {deepmlf_kit.__version__}")


def test_json_is_one_object_and_stray_prints_go_to_stderr(capsys):
    with stdout_reserved_for_json(True):
        print("a library says hello")
    print_json({"sentiment": np.float32(0.5), "missing": float("nan"), "where": Path("clip.mp4")})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"sentiment": 0.5, "missing": None, "where": "clip.mp4"}
    assert "hello" in err


def test_plain_turns_dataclasses_and_arrays_into_json_values():
    @dataclass
    class Found:
        times: np.ndarray
        names: tuple[str, ...]

    assert plain(Found(np.array([0.5, np.inf]), ("a", "b"))) == {"times": [0.5, None], "names": ["a", "b"]}


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "cp437", "utf-8"])
def test_output_never_fails_for_a_sign_that_its_encoding_has_not(encoding, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))

    def command() -> None:
        print("5 ± 1 → █ ●… 好 \udcff")
        print_json({"text": "好"})

    monkeypatch.setattr(frame, "SUBCOMMANDS", ("say",))
    monkeypatch.setattr(frame, "import_module", lambda name: SimpleNamespace(command=command))
    assert frame.run(["say"]) == 0
    text, answer = written.getvalue().decode(encoding).splitlines()
    assert text.startswith("5 ") and "\\udcff" in text and json.loads(answer) == {"text": "好"}
    if encoding == "ascii":
        assert text == r"5 +/- 1 -> # o... \u597d \udcff"


def test_a_reader_that_has_enough_is_no_error(tmp_path):
    program = "from deepmlf_kit.cli import main; main()"
    command = f"{sys.executable} -c '{program}' --help 2>{tmp_path / 'err'} | true"
    subprocess.run(["bash", "-c", command], check=True, timeout=60)
    assert (tmp_path / "err").read_text() == ""


def test_a_message_shows_no_control_character(monkeypatch, capsys):
    fail_with(monkeypatch, DeepMLFError("found \x1b[31mred"))
    assert frame.run(["fail"]) == 2
    assert capsys.readouterr().err == "deepmlf: found \\x1b[31mred\n"
