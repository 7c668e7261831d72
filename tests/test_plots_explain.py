"""Every picture of the views: its numbers are those measured, and it can be read on any page."""

import json

import numpy as np
import pandas as pd
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
        **{f"map {m}": plots.layer_token_map(reading, m) for m in ("update", "focus", "time", "sentiment")},
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
    weights, readable = reading.get("cross_attention"), reading.get("av_mask")
    even = 1 / readable.sum()
    np.testing.assert_allclose(
        np.asarray(heatmap(whole).z)[:, readable], weights.mean(axis=(0, 1))[:, readable] / even, rtol=1e-5
    )
    np.testing.assert_allclose(heatmap(whole).x, reading.steps)
    one = plots.clip_timeline(reading, layer=3, head=1)
    np.testing.assert_allclose(
        np.asarray(heatmap(one).z)[:, readable], weights[1, 1][:, readable] / even, rtol=1e-5
    )
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


def test_a_correlation_that_few_points_cannot_settle_is_said_to_be_so(lens):
    found = lens.compare(5, "words")
    for rank, p_value, said, sure in (
        (0.9, 0.001, "it looks most where it is moved most", True),
        (0.1, 0.8, "where it looks most is not what moves it most", False),
    ):
        found.rank_correlation, found.p_value = rank, p_value
        subtitle = plots.attention_effect(found).layout.title.subtitle.text.replace("<br>", " ")
        assert said in subtitle
        assert ("as far as so few can tell" not in subtitle) == sure


def test_an_ablation_joins_numbers_and_not_names():
    runs = pd.DataFrame({"depth": [1, 1, 3, 3], "part": ["a", "a", "b", "b"], "MAE": [1.0, 1.2, 0.8, 0.6]})
    curve, bars = (plots.ablation_curve(runs, setting) for setting in ("depth", "part"))
    line, dots = (next(t for t in made.data if t.name == "mean") for made in (curve, bars))
    assert line.mode == "lines+markers" and dots.mode == "markers"
    np.testing.assert_allclose(line.y, [1.1, 0.7])
    np.testing.assert_allclose(dots.error_y.array, np.sqrt(0.02))
    assert plots.ablation_curve(runs, "part", axis="").layout.xaxis.title.text is None


def test_both_timelines_draw_the_same_tracks_in_the_same_colours(lens, reading):
    from deepmlf_kit.data.inspect import dimension_names

    one = {t.name: t for t in plots.clip_timeline(reading).data if t.name}
    other = {
        t.name: t for t in plots.plot_utterance(reading.row, dimension_names(lens.dataset)).data if t.name
    }
    for name in ("loudness", "smile", "brows down", "brows up", "eyes up", "jaw open"):
        assert one[name].line.color == other[name].line.color, name
        np.testing.assert_allclose(one[name].y, other[name].y, rtol=1e-5, equal_nan=True)


def test_text_can_be_read_on_a_white_and_on_a_dark_page():
    from deepmlf_kit.plots.style import GREY

    def light(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        parts = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.05 + 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    assert light("#ffffff") / light(GREY) > 4 and light(GREY) / light("#111111") > 4


def test_attention_that_is_nearly_even_is_drawn_as_even_on_every_map(reading):
    from deepmlf_kit.explain.reading import times_uniform
    from deepmlf_kit.plots.fusion_attention import fusion_attention

    nearly = np.full((4, 50), 0.02)
    nearly[:, 7], nearly[:, 8] = 0.0205, 0.0195
    report = fusion_attention({1: nearly, 3: nearly}, np.arange(50) / 10)
    clip = heatmap(plots.clip_timeline(reading))
    scales = [(made.layout.coloraxis, "c") for made in (report, plots.attention_maps(reading))] + [
        (clip, "z")
    ]
    for drawn, letter in scales:
        limits = drawn[f"{letter}min"], drawn[f"{letter}max"]
        assert limits == (0, 4)  # the same for every utterance, whatever its weights
        assert "0.06" in dict(drawn.colorscale)[0.25]  # 1, an even spread, is the page's own background
    np.testing.assert_allclose(heatmap(report).z, nearly * 50)
    # Steps that cannot be attended to are no part of the spread, and blank.
    half = np.arange(50) < 25
    spread = times_uniform(np.where(half, 0.04, 0.0), half)
    np.testing.assert_allclose(spread[half], 1)
    assert np.isnan(spread[~half]).all()


# Machado et al. (2009), severity 1, on linear RGB.
COLOUR_BLIND = {
    "none": np.eye(3),
    "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritan": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def seen_as(colour, kind):
    """CIE Lab of a colour as a reader with a colour vision deficiency sees it."""
    part = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    part = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.asarray(COLOUR_BLIND[kind]) @ part, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = to_xyz @ linear / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("kind", COLOUR_BLIND)
def test_curves_of_one_panel_are_told_apart_by_colour_blind_readers(kind):
    from deepmlf_kit.plots.style import COLOURS
    from deepmlf_kit.plots.tracks import TRACK_COLOURS

    pairs = [(COLOURS["text"], COLOURS["fusion"]), (COLOURS["fusion"], COLOURS["task"])]
    pairs += [(TRACK_COLOURS["smile"], TRACK_COLOURS["brows down"])]
    for one, other in pairs:
        assert np.linalg.norm(seen_as(one, kind) - seen_as(other, kind)) > 20, (one, other)
