"""The recipe: what it takes, what it says of a wrong value, and what its keys depend on."""

import pytest

from deepmlf_kit.features import FeatureRecipe, RecipeError, feature_names


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"audio": "egemap"}, "Did you mean 'egemaps'"),
        ({"vision": "openface"}, "expected one of"),
        ({"audio": "facebook/wav2vec2-base"}, "forget the 'hf:'"),
        ({"audio": "hf:"}, "hf:<model>"),
        ({"audio": "hf:<model>"}, "expected one of"),
        ({"fps": 0}, "fps=0"),
        ({"fps": "ten"}, "expected a number"),
        ({"face_crop": True}, "vision='hf:<model>'"),
        ({"half": "yes"}, "True, False or 'auto'"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(values: dict, said: str):
    with pytest.raises(RecipeError, match="found") as refused:
        FeatureRecipe(**values)
    assert said in str(refused.value)


def test_an_unknown_key_suggests_the_right_one():
    with pytest.raises(RecipeError, match="Did you mean 'vision'"):
        FeatureRecipe.from_dict({"vison": "none"})


def test_licences_are_said_where_a_user_chooses():
    with pytest.raises(RecipeError, match="research and private use only"):
        FeatureRecipe(audio="?")
    with pytest.raises(RecipeError, match=r"Apache-2\.0"):
        FeatureRecipe(vision="?")


def test_a_recipe_survives_json_and_a_dataset_may_say_more():
    recipe = FeatureRecipe(audio="mfcc", vision="hf:some/model", fps=5, face_crop=True, language="zh")
    assert FeatureRecipe.from_json(recipe.to_json()) == recipe
    said = recipe.to_json()[:-1] + ', "label_scale": 1.0}'
    assert FeatureRecipe.from_json(said) == recipe


def test_where_features_were_computed_is_no_part_of_what_they_are():
    one, other = FeatureRecipe(device="cuda", batch_size=64, max_seconds=20), FeatureRecipe()
    assert one.to_json() == other.to_json()
    assert [one.key(part) for part in ("audio", "vision", "transcript")] == [
        other.key(part) for part in ("audio", "vision", "transcript")
    ]


def test_a_key_changes_with_its_own_part_only():
    base = FeatureRecipe()
    faster = FeatureRecipe(fps=25)
    assert faster.key("vision") != base.key("vision")
    assert faster.key("audio") == base.key("audio")
    assert FeatureRecipe(audio="mfcc").key("audio") != base.key("audio")
    assert FeatureRecipe(audio="mfcc").key("vision") == base.key("vision")
    assert FeatureRecipe(language="zh").key("transcript") != base.key("transcript")
    deep, last = (FeatureRecipe(audio="hf:m", audio_layer=layer).key("audio") for layer in (9, -1))
    assert deep != last


def test_every_dim_has_a_name_where_the_extractor_names_them():
    audio, vision = feature_names(FeatureRecipe())
    assert (len(audio), len(vision)) == (25, 58)
    assert (len(set(audio)), len(set(vision))) == (25, 58)
    assert len(feature_names(FeatureRecipe(audio="mfcc"))[0]) == 33
    assert feature_names(FeatureRecipe(audio="hf:m", vision="none")) == (None, [])
