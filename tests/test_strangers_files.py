"""What a stranger's model or dataset may not do: run code, or break out of a page."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from deepmlf_kit.data import schema
from deepmlf_kit.data.sample import make_sample
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.model.config import DeepMLFConfig
from deepmlf_kit.model.lm_loading import load_lm, load_lm_config, load_tokenizer
from deepmlf_kit.rendering.html_page import script_json

PACKAGE = Path(__file__).parents[1] / "deepmlf_kit"


def test_every_load_of_a_model_refuses_its_code() -> None:
    """By default transformers asks on the terminal, and a "y" in the input runs the code that comes with a model."""
    asking = []
    for path in PACKAGE.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                continue
            owner = ast.unparse(call.func.value)
            if owner.startswith("Auto") and call.func.attr in ("from_pretrained", "from_config"):
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
                if given.get("trust_remote_code") != "False" and given.get(None) != "options":
                    asking.append(f"{path.name}:{call.lineno}")
    assert not asking


@pytest.mark.parametrize("load", [load_lm, load_lm_config, load_tokenizer])
def test_a_model_s_code_does_not_run_whatever_the_input_says(
    load: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"model_type": "theirs", "auto_map": {}, "architectures": ["Theirs"]}
    for auto in ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer"):
        config["auto_map"][auto] = ["theirs.Theirs", None] if auto == "AutoTokenizer" else "theirs.Theirs"  # type: ignore[index]
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": config["auto_map"]}))
    (tmp_path / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Theirs: pass\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(DeepMLFError, match="could not be loaded"):
        load(DeepMLFConfig(lm=str(tmp_path)))  # type: ignore[operator]
    assert not (tmp_path / "ran").exists()


def test_no_text_ends_a_page_s_script() -> None:
    texts = ["<!-- <script>", "</script><img src=x onerror=alert(1)>", "]]>&amp;", "\u2028\u2029", "你好"]
    written = script_json({"texts": texts})
    assert json.loads(written) == {"texts": texts}
    assert not set("<>&\u2028\u2029") & set(written) and "你好" in written


@pytest.mark.parametrize(
    "recipe", ["{", "[1]", '{"label_scale": "big"}', '{"label_scale": -1}', "[" * 100_000]
)
def test_a_recipe_of_another_shape_is_named(recipe: str) -> None:
    dataset = make_sample(0, 2, 1, 1)["train"].map(lambda row: {"recipe": recipe})
    with pytest.raises(schema.DatasetError, match="the column recipe holds"):
        schema.scale_of(dataset)
