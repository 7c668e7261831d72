"""A user's own files survive whatever the kit writes: only what it wrote is ever removed, and a kill leaves old or new."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from training_fixtures import TINY

from deepmlf_kit.data import schema
from deepmlf_kit.data.sample import make_sample
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.storage import folders
from deepmlf_kit.storage.files import replacing, write_text
from deepmlf_kit.training import Run, train

QUICK = {**TINY, "training.epochs": 1}


def start(out: Path, dataset: Any, language: Any, **options: Any) -> Run:
    quiet = {"progress": False, "tensorboard": True, "overrides": QUICK}
    return train("sample", dataset, out, **language, **{**quiet, **options})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def small() -> Any:
    return make_sample(0, 3, 2, 2)


# Files ---------------------------------------------------------------------------------------------------------


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_a_file_s_neighbours_and_links_stay(tmp_path: Path) -> None:
    (tmp_path / "a.json.tmp").write_text("mine")
    (tmp_path / "elsewhere.json").write_text("old")
    (tmp_path / "a.json").symlink_to("elsewhere.json")
    write_text(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").is_symlink() and (tmp_path / "elsewhere.json").read_text() == "new"
    assert (tmp_path / "a.json.tmp").read_text() == "mine"


def test_what_is_no_regular_file_is_written_to_as_it_is(tmp_path: Path) -> None:
    write_text("/dev/null", "nothing")
    assert not Path("/dev/null").is_file()
    with pytest.raises(DeepMLFError, match="is a folder"):
        write_text(tmp_path, "x")


# Datasets ------------------------------------------------------------------------------------------------------


def test_making_a_dataset_anew_leaves_everything_beside_it(small: Any, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    schema.save(small, out)
    for name in ("old", "writing", "building", "parts", "failed", "new", "tmp"):
        (tmp_path / f"mine.{name}").mkdir()
        (tmp_path / f"mine.{name}" / "thesis.tex").write_text("mine")
    before = contents(tmp_path)
    schema.save(small, out)
    assert contents(tmp_path).keys() == before.keys()
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


@pytest.mark.parametrize(
    "own", ["notes.txt", "train/notes.txt", "raw/clip.mp4", "train.bak/data-00000-of-00001.arrow"]
)
def test_a_dataset_with_files_of_ones_own_in_it_is_not_replaced(own: str, small: Any, tmp_path: Path) -> None:
    out = schema.save(small, tmp_path / "mine")
    (out / own).parent.mkdir(exist_ok=True)
    (out / own).write_text("mine")
    before = contents(out)
    with pytest.raises(DeepMLFError, match="which the kit did not write"):
        schema.save(small, out)
    assert contents(out) == before


def test_somebody_s_own_dataset_is_not_replaced(small: Any, tmp_path: Path) -> None:
    other = small.remove_columns(["clip", "recipe"])
    other.save_to_disk(str(tmp_path / "mine"))
    with pytest.raises(DeepMLFError, match="a dataset that the kit did not write"):
        schema.save(small, tmp_path / "mine")
    assert (tmp_path / "mine" / "dataset_dict.json").is_file()


def test_a_link_to_a_dataset_is_followed_twice(small: Any, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "mine").symlink_to(tmp_path / "disk" / "set")
    for _ in range(2):
        schema.save(small, tmp_path / "mine")
        assert (tmp_path / "mine").is_symlink() and (
            tmp_path / "disk" / "set" / "dataset_dict.json"
        ).is_file()
    schema.load(tmp_path / "mine")


@pytest.mark.parametrize("swap_known", [True, False])
def test_a_kill_while_a_dataset_is_replaced_leaves_old_or_new(
    swap_known: bool, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = schema.save(small, tmp_path / "mine")
    before = contents(out)

    class Killed(BaseException):
        pass

    def killed(*_: Any) -> None:
        raise Killed

    monkeypatch.setattr(folders, "_exchange", killed)
    with pytest.raises(Killed):
        schema.save(make_sample(1, 3, 2, 2), out)
    assert contents(out) == before
    monkeypatch.undo()
    if not swap_known:
        monkeypatch.setattr(folders.ctypes, "CDLL", lambda *_: object())
    schema.save(make_sample(1, 3, 2, 2), out)
    assert contents(out) != before and os.listdir(tmp_path) == ["mine"]


def test_what_a_killed_process_left_is_cleared_by_the_next_one_only(small: Any, tmp_path: Path) -> None:
    out = tmp_path / ("n" * 250)
    with folders.working_folder(out) as left:
        left.rename(kept := left.with_name(left.name[:-1] + "x"))  # as if a kill had spared it
    with folders.working_folder(tmp_path / "other") as others:
        schema.save(small, out)
        assert not kept.exists() and others.exists()
    assert os.listdir(tmp_path) == [out.name]


# Runs ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(dataset: Any, language: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return start(tmp_path_factory.mktemp("runs") / "run", dataset, language).path


def test_starting_a_run_over_leaves_what_is_not_the_kit_s(
    finished: Path, dataset: Any, language: Any, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "real")
    out = tmp_path / "run"
    out.symlink_to(tmp_path / "real")
    mine = ["thesis.tex", "best/notes.txt", "figures/a.png", "tensorboard/mine.txt", "checkpoints/mine.txt"]
    for own in mine:
        (out / own).parent.mkdir(exist_ok=True)
        (out / own).write_text("mine")
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "run.json").write_text((out / "run.json").read_text())
    (out / "run.json").unlink()
    (out / "run.json").symlink_to(tmp_path / "disk" / "run.json")
    again = start(out, dataset, language, seed=1, overwrite=True)
    assert again.finished and again.info["seed"] == 1 and out.is_symlink()
    for own in mine:
        assert (out / own).read_text() == "mine"
    assert (out / "run.json").is_symlink() and json.loads((tmp_path / "disk" / "run.json").read_text())[
        "seed"
    ] == 1


def test_a_run_leaves_no_file_that_starting_over_would_not_know(
    finished: Path, dataset: Any, language: Any, tmp_path: Path
) -> None:
    from deepmlf_kit.plots.run_report import write_report
    from deepmlf_kit.training.run_folder import RESULT_FILES

    run = Run.open(shutil.copytree(finished, tmp_path / "run"))
    write_report(run, dataset, **language)
    assert folders.foreign(run.path, ("run.json", *RESULT_FILES)) == []


def test_repeating_a_finished_run_writes_what_is_missing(
    finished: Path, dataset: Any, language: Any, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "run"))
    predictions = Run.open(out).predictions()
    for name in ("best/README.md", "table.json", "table.md", "predictions.csv", "preset.yaml"):
        (out / name).unlink()
    (out / "checkpoints" / "checkpoint-7").mkdir(parents=True)  # a kill after "finished" left it
    run = start(out, dataset, language)
    assert contents(out).keys() == contents(finished).keys() and not (out / "checkpoints").exists()
    for name in ("best/README.md", "table.json", "table.md", "preset.yaml"):
        assert (out / name).read_text() == (finished / name).read_text()
    pd.testing.assert_frame_equal(run.predictions(), predictions, atol=1e-5)


def test_a_kill_just_after_a_run_began_does_not_block_its_folder(
    dataset: Any, language: Any, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / ".deepmlf-lock").touch()
    (out / ".deepmlf-0123456789abcdef01234567.json").write_text("{")
    assert start(out, dataset, language).finished
    assert not [p for p in out.iterdir() if p.name.startswith(".")]


# Locks ---------------------------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from deepmlf_kit.storage.folders import sole_writer_of
from deepmlf_kit.storage.locks import sole_writer
out = Path(sys.argv[2])
with sole_writer(out, out / ".deepmlf-lock") if sys.argv[1] == "run" else sole_writer_of(out):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("kind", ["run", "dataset"])
def test_of_two_writers_of_a_folder_the_second_is_told_and_a_dead_one_frees_it(
    kind: str, small: Any, dataset: Any, language: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code = [sys.executable, "-c", HOLDER, kind, str(out)]
    with subprocess.Popen(code, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(DeepMLFError, match="being written by another process"):
            start(out, dataset, language) if kind == "run" else schema.save(small, out)
        holder.kill()
    start(out, dataset, language) if kind == "run" else schema.save(small, out)
    assert not list(tmp_path.glob(".deepmlf-*"))
