"""Every picture of the views: its numbers are those measured, and it can be read on any page."""

import json

import numpy as np
import pytest
from explain_fixtures import tiny_lens

from deepmlf_kit import plots
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.plots.tracks import tracks_of


@pytest.fixture(scope="module")
def lens():
    return tiny_lens()


@pytest.fixture(scope="module")
def reading(lens):
    return lens.read(5)


@pytest.fixture(scope="module")
def figures(lens, reading):
    return {
        "timeline": plots.clip_timeline(reading),
        "gradients": plots.gradient_timeline(reading, lens.gradients(5, steps=8)),
        "maps": plots.attention_maps(reading),
        **{f"map {m}": plots.layer_token_map(reading, m) for m in ("reads", "focus", "time", "sentiment")},
        "words": plots.attention_to_words(reading),
        "gates": plots.gates_by_depth(reading),
        "depth": plots.sentiment_by_depth(reading),
        "similarity": plots.token_similarity(reading),
        "effects": plots.effect_bars(lens.effects(5, "words")),
        "compare": plots.attention_effect(lens.compare(5, "words")),
        "specialisation": plots.specialisation(lens.survey()),
        "calibration": plots.calibration(lens.survey()),
        "confusion": plots.confusion(lens.survey()),
        "worst": plots.worst_errors(lens.survey()),
    }


def heatmap(made):
    return next(trace for trace in made.data if trace.type == "heatmap")


def test_every_figure_has_a_title_and_named_axes(figures):
    for name, made in figures.items():
        layout = made.layout
        assert layout.title.text and layout.title.subtitle.text, name
        titles = [axis.title.text for axis in made.select_xaxes()]
        assert any(titles), name
        assert any(axis.title.text for axis in made.select_yaxes()) or name == "worst", name
        hovers = [trace.hovertemplate for trace in made.data if trace.hoverinfo != "skip"]
        assert all(hovers), name


def test_figures_take_the_pages_background(figures):
    for name, made in figures.items():
        template = made.layout.template.layout
        assert template.paper_bgcolor == template.plot_bgcolor == "rgba(0,0,0,0)", name
        json.loads(made.to_json())


def test_the_timeline_draws_the_captured_attention(reading):
    whole = plots.clip_timeline(reading)
    np.testing.assert_allclose(heatmap(whole).z, reading.get("cross_attention").mean(axis=(0, 1)), rtol=1e-6)
    np.testing.assert_allclose(heatmap(whole).x, reading.steps)
    one = plots.clip_timeline(reading, layer=3, head=1)
    np.testing.assert_allclose(heatmap(one).z, reading.get("cross_attention")[1, 1], rtol=1e-6)
    with pytest.raises(DeepMLFError, match="1, 3"):
        plots.clip_timeline(reading, layer=2)
    with pytest.raises(DeepMLFError, match="head 9"):
        plots.clip_timeline(reading, head=9)


def test_hovering_the_timeline_gives_frame_and_word(reading):
    made = plots.clip_timeline(reading)
    word, frames, step = heatmap(made).customdata[0][10]
    start, end = reading.words.start, reading.words.end
    spoken = [
        w for w, a, b in zip(reading.words.words, start, end, strict=True) if a <= reading.steps[10] < b
    ]
    assert word == (spoken[0] if spoken else "–") and step == "10"
    assert "voice frames" in frames and "face frame" in frames


def test_words_stand_at_their_times(reading):
    made = plots.clip_timeline(reading)
    shapes = [shape for shape in made.layout.shapes if shape.name == "word"]
    np.testing.assert_allclose([shape.x0 for shape in shapes], reading.words.start)
    np.testing.assert_allclose([shape.x1 for shape in shapes], reading.words.end)


def test_a_timeline_without_face_or_times_still_draws(lens):
    row = lens.row(2)
    bare = {"text": "a b c", "audio": row["audio"], "vision": np.zeros((0, 58), np.float32)}
    made = plots.clip_timeline(lens.read(bare))
    assert any(note.text == "no face" for note in made.layout.annotations)
    assert made.layout.xaxis4.title.text == "AV step"


def test_tracks_are_the_named_dimensions(lens):
    row = lens.row(2)
    loudness, pitch = tracks_of(row, "audio")
    np.testing.assert_allclose(loudness.values, row["audio"][:, 0], rtol=1e-6)
    assert np.isnan(pitch.values[row["audio"][:, 10] == 0]).all()
    assert [t.name for t in tracks_of(row, "vision")][:2] == ["smile", "brows down"]
    unnamed = {**row, "recipe": ""}
    assert [t.name for t in tracks_of(unnamed, "audio")] == ["voice features"]


def test_gate_dots_are_the_gates(reading):
    made = plots.gates_by_depth(reading)
    dots = [trace for trace in made.data if trace.type == "scatter"]
    np.testing.assert_allclose(dots[0].y, [0.5, 0.5])


def test_confusion_counts_every_labelled_utterance(lens):
    for classes in (3, 5, 7):
        counts = np.asarray(plots.confusion(lens.survey(), classes).data[0].text)
        assert counts.shape == (classes, classes) and counts.sum() == 16
    with pytest.raises(DeepMLFError, match="3, 5 or 7"):
        plots.confusion(lens.survey(), 2)


def test_a_measure_that_was_not_captured_is_named(lens):
    with pytest.raises(DeepMLFError, match="fusion_sentiment"):
        plots.sentiment_by_depth(lens.read(0, "gates"))
