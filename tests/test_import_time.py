"""What makes the first second fast: nothing heavy is imported before it is used."""

import json
import os
import subprocess
import sys

import pytest

HEAVY = [
    "torch",
    "transformers",
    "datasets",
    "gradio",
    "mediapipe",
    "plotly",
    "opensmile",
    "librosa",
    "pandas",
]
HEAVY += ["sklearn", "scipy", "peft", "accelerate", "captum", "optuna", "av", "faster_whisper"]

TRAINING = [
    "transformers.trainer",
    "transformers.training_args",
    "torch.utils.tensorboard",
    "tensorboard",
    "bitsandbytes",
    "deepmlf_kit.training.trainer",
    "deepmlf_kit.training.driver",
]


def heavy_after(statement: str) -> list[str]:
    """The heavy packages that a fresh Python holds after `statement`."""
    script = f"import json, sys\n{statement}\nprint(json.dumps(sorted(set({HEAVY}) & set(sys.modules))))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def test_importing_the_package_imports_nothing_heavy():
    assert heavy_after("import deepmlf_kit") == []


def test_building_the_command_imports_nothing_heavy():
    assert heavy_after("from deepmlf_kit.cli.frame import build_app; build_app()") == []


def test_showing_the_help_imports_nothing_heavy():
    assert heavy_after("from deepmlf_kit.cli.frame import run; assert run(['--help']) == 0") == []


def test_an_extraction_worker_without_an_encoder_does_not_load_torch():
    heavy = heavy_after("import deepmlf_kit.data.extraction_worker")
    assert not {"torch", "transformers", "datasets"} & set(heavy), heavy


def test_what_a_fresh_prediction_starts_with_does_not_load_torch():
    """The clip's extraction begins before torch is imported, so that both go on side by side."""
    heavy = heavy_after("import deepmlf_kit.predict.fresh, deepmlf_kit.cli.predict")
    assert not {"torch", "transformers", "datasets", "pandas", "peft", "av", "scipy"} & set(heavy), heavy


def test_a_fresh_prediction_leaves_out_what_transformers_imports_for_other_models():
    statement = "from deepmlf_kit.predict.fresh import predict_text; predict_text(None, 'what a day')"
    heavy = heavy_after(statement)
    assert "transformers" in heavy and not {"scipy", "sklearn", "pandas"} & set(heavy), heavy
    assert "scipy" in heavy_after(f"{statement}; import scipy.stats; assert scipy.stats.norm.cdf(0) == 0.5")


def test_a_predictor_imports_nothing_of_training_or_of_other_parts():
    """By name. transformers itself imports torch's compiler (masking_utils): not ours to leave out."""
    statement = "import deepmlf_kit.predict.predictor"
    assert set(heavy_after(statement)) == {"torch", "transformers", "scipy", "accelerate"}
    script = f"{statement}\nimport sys\nprint(sorted(set({TRAINING}) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


def test_the_command_ends_without_a_search_for_cycles_in_what_was_imported():
    script = """
import atexit, gc, sys
from deepmlf_kit.cli import main
atexit.register(lambda: print(gc.get_freeze_count() > 10_000, len(gc.get_objects()) < 10_000))
sys.argv = ["deepmlf", "--help"]
main()
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "True True"


def test_a_prediction_does_not_load_torchs_code_generator():
    """Where bitsandbytes is installed, peft imports it, and that has functions compiled."""
    script = """
import sys
from deepmlf_kit.cli import main
sys.argv = ["deepmlf", "predict"]  # lacks a clip
try:
    main()
except SystemExit:
    import peft
print("torch._inductor.select_algorithm" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "False"


def test_torchs_compiler_stays_for_a_training_on_a_folder_of_that_name():
    """Folders may be called `predict` or `app`; only the verb counts."""
    script = """
import os, sys
from deepmlf_kit.cli import main
sys.argv = ["deepmlf", "train", "app"]  # there is no such folder
try:
    main()
except SystemExit:
    print("TORCHDYNAMO_DISABLE" in os.environ)
"""
    environment = {name: value for name, value in os.environ.items() if name != "TORCHDYNAMO_DISABLE"}
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    )
    assert run.stdout.splitlines()[-1] == "False"


def test_the_apps_page_is_served_before_torch_is_imported():
    """With the first example's answer in it; the models are opened from then on."""
    statement = """
import sys, urllib.request
from deepmlf_kit.app import launch
from deepmlf_kit.app.models import Models
from deepmlf_kit.predict.bundled import PEOPLE
Models.start = lambda self: None
app = launch(PEOPLE, block=False, quiet=True)
with urllib.request.urlopen(app.url) as page:
    assert "I really loved this film" in page.read().decode()
loaded = [name for name in sys.modules if name.startswith("torch")]
app.close()
assert not loaded, loaded
"""
    assert not {"torch", "transformers", "datasets", "peft", "mediapipe", "av"} & set(heavy_after(statement))


def test_the_check_sees_a_heavy_import():
    assert heavy_after("import plotly") == ["plotly"]


@pytest.mark.parametrize("name", ["DeepMLFConfig", "DeepMLFModel"])
def test_public_names_are_listed_without_being_imported(name: str):
    assert heavy_after(f"import deepmlf_kit; assert {name!r} in dir(deepmlf_kit)") == []


def test_importing_the_model_sets_no_environment_variable():
    script = """
import os
import peft, sklearn.metrics, transformers
before = dict(os.environ)
import deepmlf_kit.explain.lens, deepmlf_kit.model, deepmlf_kit.training
print(sorted(set(os.environ.items()) ^ set(before.items())))
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TRANSFORMERS_")}
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    )
    assert run.stdout.splitlines()[-1] == "[]"
