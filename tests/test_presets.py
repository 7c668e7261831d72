"""Presets: the published recipes, and that nothing misspelt passes unseen."""

import inspect
from dataclasses import fields, is_dataclass

import pytest
import yaml

from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.model.config import DeepMLFConfig
from deepmlf_kit.model.settings import KNOBS
from deepmlf_kit.training.presets import Preset, available_presets, load_preset, preset_text

# The table of published recipes (docs): preset -> setting -> value
PUBLISHED = {
    "mosi": {
        "lm.name": "HuggingFaceTB/SmolLM2-1.7B",
        "lm.dtype": "bfloat16",
        "fusion.layers": [11, 14, 17, 20, 23],
        "fusion.tokens": 8,
        "fusion.ffw": "lora",
        "fusion.lora_r": 512,
        "fusion.lora_alpha": 8192,
        "fusion.lora_dropout": 0.05,
        "loss.fusion": 0.4,
        "loss.av": 0.8,
        "loss.text": 0.8,
        "loss.lm": 0,
        "seqaug.text_p_apply": 0,
        "training.weight_decay": 0.001,
        "training.epochs": 150,
        "training.early_stop": 30,
        "training.select_on": "mae",
        "data.max_text_tokens": 50,
        "av_encoder.steps": 50,
        "av_encoder.audio_dim": 1024,
        "av_encoder.vision_dim": 768,
        "av_encoder.batchnorm": False,
        "pretraining.learning_rate": 1e-3,
    },
    "mosei-base": {
        "lm.name": "gpt2",
        "fusion.layers": [3, 5, 7, 8, 9, 10, 11],
        "fusion.tokens": 12,
        "fusion.ffw": "full",
        "loss.fusion": 1,
        "loss.lm": 1.1,
        "seqaug.text_p_feat": 0.2,
        "seqaug.text_p_apply": 0.3,
        "training.weight_decay": 0.005,
        "training.epochs": 15,
        "training.early_stop": 10,
        "training.select_on": "loss",
        "av_encoder.audio_dim": 74,
        "av_encoder.vision_dim": 35,
        "pretraining.learning_rate": 5e-3,
    },
    "mosei-large": {
        "lm.name": "gpt2-large",
        "fusion.layers": [7, 14, 21, 28, 35],
        "fusion.tokens": 12,
        "loss.lm": 1.0,
        "seqaug.text_p_feat": 0.3,
        "seqaug.text_p_apply": 0.25,
        "training.weight_decay": 0.1,
        "training.epochs": 20,
        "training.early_stop": 10,
        "av_encoder.audio_dim": 74,
        "pretraining.learning_rate": 5e-3,
    },
    "sims": {
        "lm.name": "uer/gpt2-chinese-cluecorpussmall",
        "fusion.layers": [5, 6, 7, 8, 9, 10, 11],
        "fusion.tokens": 20,
        "loss.lm": 1.0,
        "seqaug.text_p_feat": 0.3,
        "seqaug.text_p_apply": 0.25,
        "training.weight_decay": 0.1,
        "training.epochs": 100,
        "training.early_stop": 10,
        "data.max_text_tokens": 39,
        "data.scale": "sims",
        "av_encoder.steps": 55,
        "av_encoder.audio_dim": 33,
        "av_encoder.vision_dim": 709,
        "av_encoder.batchnorm": True,
        "pretraining.learning_rate": 5e-4,
    },
}
# True of all four
COMMON = {
    "fusion.heads": 16,
    "training.betas": (0.9, 0.95),
    "training.learning_rate": 1e-4,
    "training.min_learning_rate": 1e-7,
    "training.batch_size": 32,
    "training.accumulation": 8,
    "training.warmup_epochs": 1,
    "training.clip_value": 5,
    "pretraining.batch_size": 32,
    "pretraining.accumulation": 4,
    "pretraining.clip_value": 1,
    "pretraining.early_stop": 8,
}


def value_of(preset: Preset, path: str):
    node = preset
    for part in path.split("."):
        node = getattr(node, part)
    return node


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipes_hold_the_published_values(name):
    preset = load_preset(name)
    for path, value in {**COMMON, **PUBLISHED[name]}.items():
        assert value_of(preset, path) == value, path


def test_every_preset_gives_a_valid_model_and_survives_yaml(tmp_path):
    assert set(available_presets()) == {*PUBLISHED, "sample", "smollm2"}
    for name in available_presets():
        preset = load_preset(name)
        config = preset.model_config()
        assert config.fusion_tokens == preset.fusion.tokens
        assert config.lora_alpha == preset.fusion.lora_alpha
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(preset.to_dict()))
        assert load_preset(path) == preset


def test_every_setting_of_the_model_reaches_it():
    """A key that nothing reads is worse than none: each model key must change the config it maps to."""
    preset = Preset()
    sections = {f.name for f in fields(Preset) if is_dataclass(getattr(preset, f.name))}
    keys = {f"{section}.{key}" for section in sections for key in vars(getattr(preset, section))}
    for_the_model = {f"{knob.section}.{knob.key}" for knob in KNOBS.values() if knob.section}
    others = {key for key in keys - for_the_model if not key.startswith(("training.", "pretraining."))}
    assert for_the_model <= keys and others == {
        "data.scale",
        "data.normalize",
        "data.long_texts",
        "data.full_stop",
    }
    classes = ["heads.classes=3", "training.select_on=loss", "pretraining.select_on=loss"]
    changed = load_preset("sample", ["fusion.gate_init=0.5", "seqaug.av_p_feat=0.1", *classes])
    config = changed.model_config()
    assert (config.gate_init, config.seqaug_av_p_feat, config.num_classes) == (0.5, 0.1, 3)


def test_every_setting_of_the_configuration_is_a_knob_that_it_documents():
    config = DeepMLFConfig()
    for name, knob in KNOBS.items():
        assert (
            list(getattr(config, name)) == knob.default
            if name == "fusion_layers"
            else getattr(config, name) == knob.default
        )
        assert f"\n    {name}: " in DeepMLFConfig.__doc__
    assert list(inspect.signature(DeepMLFConfig).parameters) == [*KNOBS, "kwargs"]


def test_overrides_take_yaml_numbers_lists_and_scientific_notation():
    preset = load_preset(
        "mosi",
        ["fusion.tokens=12", "fusion.layers=[1, 2]", "training.learning_rate=1e-4", "lm.revision=null"],
    )
    assert preset.fusion.tokens == 12
    assert preset.fusion.layers == [1, 2]
    assert preset.training.learning_rate == 1e-4
    assert preset.lm.revision is None
    assert preset.with_overrides({"fusion.layers": "3,5"}).fusion.layers == [3, 5]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("fusion.token=3", "did you mean 'fusion.tokens'"),
        ("tokens=3", "did you mean 'fusion.tokens'"),
        ("training.lr=1", "did you mean 'training.learning_rate'"),
        ("pretraining.lr=1", "did you mean 'pretraining.learning_rate'"),
        ("training.learnin_rate=1", "did you mean 'training.learning_rate'"),
        ("fusion=3", "whole section"),
        ("fusion.tokens=many", "'many', but must be a whole number"),
        ("fusion.tokens=2.5", "must be a whole number"),
        ("fusion.tokens=true", "must be a whole number"),
        ("fusion.ffw_on_text=2", "must be true or false"),
        ("fusion.tokens", "write a key and a value"),
        ("training.betas=[0.9]", "training: betas"),
        ("training.select_on=acc", "mae, loss"),
        ("training.epochs=0", "at least 1"),
        ("data.scale=imdb", "mosi, mosei, sims"),
    ],
)
def test_a_wrong_override_is_refused_with_the_right_one(given, words):
    with pytest.raises(DeepMLFError, match=words):
        load_preset("mosi", [given])


def test_a_file_may_start_from_a_preset_and_its_misspelt_key_is_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: mosei-base\nname: mine\nfusion: {tokens: 20}\n")
    preset = load_preset(path)
    assert preset.fusion.tokens == 20 and preset.fusion.layers == load_preset("mosei-base").fusion.layers
    path.write_text("base: mosei-base\nfusion: {tokns: 20}\n")
    with pytest.raises(DeepMLFError, match=r"'fusion\.tokns': did you mean 'fusion\.tokens'"):
        load_preset(path)
    path.write_text(f"base: {path}\n")
    with pytest.raises(DeepMLFError, match="its own base"):
        load_preset(path)
    path.write_text("fusion: [1\n")
    with pytest.raises(DeepMLFError, match="not valid YAML"):
        load_preset(path)


def test_an_unknown_preset_is_refused_with_the_closest_name():
    with pytest.raises(DeepMLFError, match="did you mean 'mosei-base'"):
        load_preset("mosei_base")
    assert "SmolLM2-1.7B" in preset_text("mosi")


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\n"
        + "".join(
            f"b{i}: &b{i} [*{f'b{i - 1}' if i else 'a'}{', *b' + str(i - 1) if i else ''}]\n"
            for i in range(40)
        ),
        "a: &a [*a]\n",
        "a: " + "[" * 5000 + "]" * 5000,
        "a: " + "9" * 5000,
        "a: 2026-99-99",
        "# " + "x" * 200_000,
    ],
    ids=["aliases of aliases", "itself", "deep", "a long number", "a wrong date", "long"],
)
@pytest.mark.timeout(30)
def test_a_hostile_preset_file_is_refused_in_one_short_line(text, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(DeepMLFError) as refused:
        load_preset(tmp_path / "a.yaml")
    assert len(str(refused.value)) < 500
    with pytest.raises(DeepMLFError):
        load_preset("sample", [f"fusion.layers={text.partition(': ')[2]}"])


def test_a_preset_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00name: x")
    with pytest.raises(DeepMLFError, match="UTF-8"):
        load_preset(tmp_path / "a.yaml")
