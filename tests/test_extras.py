"""An install of the core alone: what works, and that everything else names the extra that it lacks."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import lru_cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from clips_made import make_clip
from extra_sizes import FOR_USERS, PROJECT, closure, main
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deepmlf_kit.storage.optional import EXTRAS, MissingPackage, installed, optional, require

ROOT = Path(__file__).parents[1]


@lru_cache
def hidden() -> str:
    """Modules of every package that an install of the core alone would not bring."""
    core = closure(PROJECT["dependencies"]) | {"pip", "deepmlf-kit"}
    modules = packages_distributions()
    return " ".join(
        module
        for module, packages in modules.items()
        if not {canonicalize_name(package) for package in packages} & core
    )


def in_core(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Python as if only the core were installed; its child processes, too."""
    paths = os.pathsep.join(map(str, (ROOT / "tests" / "hidden", ROOT, ROOT / "tests")))
    environment = {
        **os.environ,
        "PYTHONPATH": paths,
        "HIDDEN_PACKAGES": hidden(),
        "DEEPMLF_CACHE": str(cwd / "c"),
    }
    return subprocess.run(
        [sys.executable, "-P", *command], cwd=cwd, env=environment, capture_output=True, text=True
    )


def test_the_core_hides_what_it_should() -> None:
    gone = set(hidden().split())
    assert {name for names in EXTRAS.values() for name in names if installed(name)} <= gone
    assert (
        not {"torch", "transformers", "datasets", "peft", "sklearn", "scipy", "plotly", "numpy", "rich"}
        & gone
    )


def test_the_core_trains_evaluates_and_answers_texts(tmp_path: Path) -> None:
    script = """
import sys
from training_fixtures import TINY, tiny_lm, tiny_sample
from deepmlf_kit import Predictor
from deepmlf_kit.cli.frame import run
from deepmlf_kit.training import train
data = tiny_sample()
lm, tokenizer = tiny_lm(data["train"]["text"])
lm.save_pretrained("lm"), tokenizer.save_pretrained("lm")
data.save_to_disk("data")
settings = {**TINY, "lm.name": "lm", "training.epochs": 1}
train("sample", "data", "run", overrides=settings, progress=False)
assert run(["evaluate", "run", "--intervals", "20"]) == 0
open("texts.csv", "w").write("text\\nwhat a day\\nnever again\\n")
assert run(["predict", "--text-only", "texts.csv", "--csv", "out.csv", "--checkpoint", "run"]) == 0
assert run(["predict", "--text", "what a day", "--checkpoint", "run"]) == 0
assert run(["prepare", "texts.csv"]) == 2  # no labels
import deepmlf_kit.data.mmsa, deepmlf_kit.plots.run_report, deepmlf_kit.explain.lens, deepmlf_kit.evaluation.evaluate
import os
print("held", sorted(set(os.environ["HIDDEN_PACKAGES"].split()) & set(sys.modules)))
"""
    done = in_core("-c", script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "held []"
    assert (tmp_path / "out.csv").read_text().count("\n") == 3
    assert not (tmp_path / "run" / "tensorboard").exists()


ASKED = {
    "a clip": ("features", "from deepmlf_kit.features import extract_clip; extract_clip('a.wav')"),
    "a mel": (
        "features",
        "import numpy; from deepmlf_kit.features.audio_mfcc import mfcc; mfcc(numpy.ones(9999, 'f4'))",
    ),
    "egemaps": ("features", "from deepmlf_kit.features.audio_egemaps import _smile; _smile()"),
    "a face": ("features", "from deepmlf_kit.features.vision_blendshapes import FaceFinder; FaceFinder('x')"),
    "speech": ("features", "from deepmlf_kit.features.transcript import _load; _load('x', 1)"),
    "the app": ("app", "from deepmlf_kit.app import ui; ui.theme()"),
    "a widget": ("notebooks", "from deepmlf_kit.widgets import Explorer"),
    "live curves": (
        "notebooks",
        "from deepmlf_kit.plots.live import live_curves; live_curves('x').__enter__()",
    ),
    "attributions": (
        "notebooks",
        "from deepmlf_kit.explain import gradients; gradients.attribution.IntegratedGradients",
    ),
    "a search": ("sweep", "from deepmlf_kit.sweep import searching; searching.draws_left(None, None)"),
    "4 bit": ("quantized", "from deepmlf_kit.model.lm_loading import _quantization; _quantization(4)"),
    "a GGUF": (
        "gguf",
        "from deepmlf_kit.model.config import DeepMLFConfig as C; from deepmlf_kit.model.lm_loading import _options\n"
        "_options(C(lm_gguf_file='x.gguf'), {})",
    ),
    "SmolLM2": (
        "gguf",
        "from deepmlf_kit.predict.fetching import fetch; fetch(['smollm2'], show_progress=False)",
    ),
}


def test_whatever_needs_an_extra_names_it(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.wav", 0.5, video=None, audio="pcm_s16le")
    asked = {name: code for name, (_, code) in ASKED.items()}
    script = f"""
from deepmlf_kit.storage.optional import MissingPackage
for name, code in {asked!r}.items():
    try:
        exec(code, {{}})
        print(name, "| went through")
    except MissingPackage as error:
        print(name, "|", error)
    except Exception as error:
        print(name, "|", repr(error))
"""
    done = in_core("-c", script, cwd=tmp_path)
    said = dict(line.split(" | ", 1) for line in done.stdout.splitlines() if " | " in line)
    assert list(said) == list(ASKED), done.stderr
    wrong = {
        name: told
        for name, told in said.items()
        if f"pip install 'deepmlf-kit[{ASKED[name][0]}]'" not in told
    }
    assert wrong == {}


def test_a_clip_is_refused_in_one_line_that_names_the_extra(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.wav", 0.5, video=None, audio="pcm_s16le")
    done = in_core("-m", "deepmlf_kit", "predict", "a.wav", "--text", "so", cwd=tmp_path)
    told = [line for line in done.stderr.splitlines() if line.startswith("deepmlf: ")]
    assert done.returncode == 2 and done.stdout == "", done.stderr
    assert len(told) == 1 and "pip install 'deepmlf-kit[features]'" in told[0]


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_brings_what_the_kit_imports_of_it(extra: str) -> None:
    brought = closure([line for line in PROJECT["optional-dependencies"][extra] if "deepmlf-kit" not in line])
    providers = packages_distributions()
    for module in EXTRAS[extra]:
        if installed(module):
            assert {canonicalize_name(name) for name in providers[module]} & brought, (
                f"{module} is not in {extra}"
            )


def test_all_is_every_extra_but_the_one_for_gpus() -> None:
    (line,) = PROJECT["optional-dependencies"]["all"]
    assert Requirement(line).extras == set(EXTRAS) - {"quantized"}


def test_the_table_of_sizes_has_a_line_for_each_extra(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0].strip("| `") for row in rows] == ["core", *FOR_USERS]
    packages, megabytes = ([int(row[column].split()[0]) for row in rows] for column in (1, 2))
    assert packages[-1] == max(packages) and megabytes[-1] == max(megabytes) > megabytes[0] > 300


def test_a_missing_package_of_no_extra_stays_an_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModuleNotFoundError):
        require("no_such_module_at_all")
    monkeypatch.setitem(EXTRAS, "features", ("no_such_module_at_all",))
    lazy = optional("no_such_module_at_all.inside")
    with pytest.raises(MissingPackage, match=r"deepmlf-kit\[features\]"):
        lazy.anything  # noqa: B018
