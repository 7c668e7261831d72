"""The explorer's Python side: what the controls set, and what the browser is given for it."""

import json

import numpy as np
import pytest
from explain_fixtures import tiny_lens

from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.widgets import Explorer
from deepmlf_kit.widgets.payload import clip_of, pack, plain


@pytest.fixture(scope="module")
def lens():
    return tiny_lens()


@pytest.fixture
def explorer(lens):
    made = Explorer(lens, progress=False)
    yield made
    made.close()


def unpack(data, shape, top):
    return np.frombuffer(data, "<u2").reshape(shape) * (top / 65535)


def test_the_browser_gets_the_captured_attention(lens, explorer):
    explorer.index = 4
    reading, values = lens.read(4), explorer.payload
    cross = unpack(explorer.cross, values["shape"], values["cross_top"])
    np.testing.assert_allclose(cross, reading.get("cross_attention"), atol=1e-5)
    assert values["readable"] == reading.get("av_mask").tolist()
    own = unpack(explorer.self_attention, values["self_shape"], values["self_top"])
    np.testing.assert_allclose(own, reading.attention_to_words(), atol=1e-5)
    assert values["sentiment"] == pytest.approx(reading.sentiment, abs=1e-4)
    assert [word["word"] for word in values["words"]] == reading.words.words
    json.dumps(values, allow_nan=False)
    json.dumps(explorer.listing, allow_nan=False)


def test_editing_words_moves_the_prediction_and_resetting_brings_it_back(explorer):
    before = explorer.payload["sentiment"]
    explorer.text = "terrible"
    assert explorer.payload["sentiment"] != before and explorer.payload["recorded"] == before
    assert [word["word"] for word in explorer.payload["words"]] == ["terrible"]
    explorer.index_again = 1
    assert explorer.payload["sentiment"] == before and explorer.text == explorer.payload["text"]


def test_switching_a_modality_off_is_the_model_without_it(lens, explorer):
    explorer.without = ["audio", "vision"]
    expected = lens.predict(0, without=("audio", "vision"))
    assert explorer.payload["sentiment"] == pytest.approx(expected.sentiment, abs=1e-4)
    assert explorer.payload["tracks"] == {"audio": [], "vision": []}
    explorer.index = 1
    assert explorer.without == [] and explorer.payload["without"] == []


def test_words_can_be_switched_off_and_the_text_emptied(explorer):
    explorer.without = ["text"]
    assert explorer.payload["words"] == [] and explorer.trouble == ""
    explorer.without = []
    explorer.text = ""
    assert explorer.payload["words"] == [] and explorer.trouble == ""


def test_effects_are_measured_when_looked_at(lens, explorer):
    assert explorer.effects == {}
    explorer.view = "effects"
    assert explorer.effects["modalities"]["effect"] == pytest.approx(
        list(lens.effects(0, "modalities").effect), abs=1e-4
    )
    explorer.effects_of = "words"
    assert set(explorer.effects) == {"modalities", "words"} and "rank" in explorer.effects["words"]
    explorer.index = 2  # stays on the view: measured anew
    assert explorer.effects["words"]["names"] == [word["label"] for word in explorer.payload["words"]]


def test_wrong_values_are_refused(explorer):
    for name, value in (("index", 99), ("view", "pie"), ("without", ["smell"]), ("effects_of", "luck")):
        with pytest.raises(DeepMLFError):
            setattr(explorer, name, value)


def test_a_clip_is_sent_where_there_is_one(tmp_path, lens):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"1234")
    assert clip_of({"clip": str(path)}, tmp_path) == (b"1234", "video/mp4")
    assert clip_of({"clip": "a.mp4"}, tmp_path) == (b"1234", "video/mp4")
    assert clip_of({"clip": ""}, tmp_path) is None and clip_of({"clip": "gone.mp4"}, tmp_path) is None
    assert clip_of({"clip": str(path)}, tmp_path, most=3) is None


def test_no_file_outside_the_clips_folder_is_read(tmp_path):
    """A stranger's dataset may name any file, by whatever way."""
    secret, folder = tmp_path / "secret", tmp_path / "data"
    folder.mkdir()
    secret.write_text("key")
    (folder / "link.mp4").symlink_to(secret)
    for clip in (
        str(secret),
        "../secret",
        str(folder / ".." / "secret"),
        "link.mp4",
        str(folder / "link.mp4"),
        ".",
    ):
        assert clip_of({"clip": clip}, folder) is None, clip
    assert clip_of({"clip": str(secret)}, None) is None


def test_packing_keeps_weights_to_a_part_in_65535():
    weights = np.random.default_rng(0).dirichlet(np.ones(70), size=(3, 2, 5)).astype(np.float32)
    data, top = pack(weights)
    np.testing.assert_allclose(unpack(data, weights.shape, top), weights, atol=top / 65535)
    assert pack(np.zeros((1, 2), np.float32))[1] == 1.0


def test_plain_values_have_no_nan():
    assert plain([[0.5, np.nan], [np.inf, 1]]) == [[0.5, None], [None, 1.0]]
    assert plain(np.nan) is None


def test_the_exported_page_holds_everything(explorer, tmp_path):
    path = explorer.export_html(tmp_path / "out" / "explorer.html", [3, explorer.lens.ids[6]])
    page = path.read_text()
    data = json.loads(page.split('type="application/json">')[1].split("</script>")[0])
    assert set(data["utterances"]) == {"3", "6"} and len(data["listing"]) == 2
    one = data["utterances"]["6"]
    assert len(one["without"]) == 7 and set(one["effects"]) == {
        "modalities",
        "time",
        "words",
        "tokens",
        "blocks",
    }
    assert 'src="http' not in page and "cdn." not in page.split("plotly.js v")[0]
    with pytest.raises(DeepMLFError):
        explorer.export_html(path, [])
