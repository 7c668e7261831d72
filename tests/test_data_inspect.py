import numpy as np
import pytest
from datasets import DatasetDict
from rich.console import Console

from deepmlf_kit.data import schema
from deepmlf_kit.data.inspect import (
    dimension_names,
    inspect_dataset,
    normalization_report,
    print_normalization,
    print_report,
)
from deepmlf_kit.data.sample import make_sample
from deepmlf_kit.data.schema import DatasetError


@pytest.fixture(scope="module")
def odd():
    """300 utterances with known oddities."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(300):
        audio = rng.normal([0, 100, 5, 0], [1, 20, 0, 1], (20 + i % 10, 4))
        audio[:, 3] = 0
        audio[3] = 0
        if i == 7:
            audio[5, 0] = 400.0
            audio[6, 3] = 1.0
        if i == 8:
            audio[0, 0], audio[1, 1] = np.nan, -np.inf
        vision = None if i % 3 == 0 else rng.normal(size=(5, 2))
        label = np.nan if i == 0 else rng.uniform(-3, 3)
        text = "" if i < 30 else "one two three"
        rows.append(schema.utterance(str(i), text, audio, vision, label, audio_dim=4, vision_dim=2))
    return DatasetDict(train=schema.build_split(rows, 4, 2), test=schema.build_split(rows[:30], 4, 2))


def test_counts_are_those_that_were_put_in(odd):
    report = inspect_dataset(odd)
    assert report.splits.loc["train", "utterances"] == 300
    assert report.splits.loc["train", "no label"] == 1
    missing = report.missing.loc["train"]
    assert missing["no text"] == pytest.approx(0.1)
    assert missing["no vision"] == pytest.approx(1 / 3)
    assert missing["no audio"] == 0
    assert missing["NaN values"] == 1 and missing["infinite values"] == 1
    frames = sum(20 + i % 10 for i in range(300))
    assert missing["audio frames missing"] == pytest.approx(300 / frames)
    assert report.labels["train"].sum() == 299
    assert report.lengths.loc[("train", "audio frames"), "max"] == 29


def test_suspicious_dimensions_are_named(odd):
    suspicious = inspect_dataset(odd).suspicious
    assert suspicious.loc[("audio", "0"), "remark"] == "outliers"
    assert suspicious.loc[("audio", "2"), "remark"] == "constant"
    assert suspicious.loc[("audio", "3"), "remark"] == "outliers, nearly always 0"
    assert ("audio", "1") not in suspicious.index


def test_ranges_are_right(odd):
    row = inspect_dataset(odd).features.loc[("audio", "1")]
    assert row["mean"] == pytest.approx(100, abs=1) and row["std"] == pytest.approx(20, rel=0.05)
    assert row["1 %"] == pytest.approx(100 - 2.33 * 20, abs=3)


def test_normalization_report_shows_what_each_choice_does(odd):
    none, train, batch = (normalization_report(odd, choice) for choice in ("none", "train", "batchnorm"))
    wide = ("audio", "1")
    assert none.loc[wide, "std after"] == none.loc[wide, "std"]
    assert train.loc[wide, "std after"] == pytest.approx(1, abs=0.02)
    assert batch.loc[wide, "mean after"] == pytest.approx(0, abs=0.02)
    outliers = ("audio", "0")
    assert train.loc[wide, "clipped"] < 0.001 < 0.01
    assert train.loc[outliers, "largest after"] == 5 and batch.loc[outliers, "largest after"] > 50
    assert train.loc[("audio", "2"), "largest after"] == 0
    with pytest.raises(DatasetError, match="expected one of none, train, clip, batchnorm"):
        normalization_report(odd, "yes")


def test_terminal_report_says_it_all(odd):
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_report(inspect_dataset(odd), console)
    print_normalization(normalization_report(odd, "train"), "train", console)
    text = console.export_text()
    for part in (
        "Splits",
        "Labels",
        "Lengths",
        "Missing",
        "suspicious ones of 6",
        "outliers",
        "10.0%",
        "33.3%",
    ):
        assert part in text, part


@pytest.mark.parametrize("width", [80, 120])
def test_no_heading_is_cut_and_no_line_is_too_long(odd, width):
    wide = DatasetDict(
        train=schema.build_split(
            [
                schema.utterance("a", "so", np.eye(58) * 1e-5, np.eye(709), 1, audio_dim=58, vision_dim=709)
                for _ in range(3)
            ],
            58,
            709,
        )
    )
    for dataset in (odd, wide, make_sample(train=40, valid=5, test=5)):
        console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        print_report(inspect_dataset(dataset), console, all_dims=True)
        print_normalization(normalization_report(dataset, "train"), "train", console)
        text = console.export_text()
        assert "…" not in text and max(map(len, text.splitlines())) <= width
        for word in ("utterances", "transcribed", "infinite", "median", "remark"):
            assert f" {word} " in text
        assert text.count("╭") == text.count("╮") > 4  # whole tables


def test_columns_are_left_out_in_their_order_and_said(odd):
    report = inspect_dataset(odd)
    shown = {}
    for width in (70, 160):
        console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        print_report(report, console)
        shown[width] = console.export_text()
    assert "left out at this width: 1 %, 99 %, zeros" in shown[70]
    assert "left out" not in shown[160] and "beyond 5 std" in shown[160]


def test_annotated_classes_are_counted(odd):
    assert not len(inspect_dataset(odd).classes)
    rows = [
        schema.utterance(
            str(i), "so", np.ones((2, 4)), np.ones((2, 2)), 1, audio_dim=4, vision_dim=2, label_class=c
        )
        for i, c in enumerate((0, 2, 2, float("nan")))
    ]
    report = inspect_dataset(DatasetDict(train=schema.build_split(rows, 4, 2)))
    assert report.classes["train"].to_dict() == {"negative": 1, "neutral": 0, "positive": 2}


def test_sample_set_has_named_dimensions_and_nothing_wild():
    sample = make_sample(train=40, valid=5, test=5)
    names = dimension_names(sample)
    assert names["audio"][0] == "Loudness_sma3" and names["vision"][44] == "mouthSmileLeft"
    assert list(inspect_dataset(sample).suspicious.index) == [("vision", "_neutral")]


def plots(dataset):
    from deepmlf_kit.plots.data_features import plot_normalization, plot_ranges
    from deepmlf_kit.plots.data_labels import plot_labels
    from deepmlf_kit.plots.data_lengths import plot_lengths
    from deepmlf_kit.plots.utterance_timeline import plot_utterance

    report = inspect_dataset(dataset)
    yield plot_labels(report), 2
    yield plot_lengths(dataset), 6
    yield plot_ranges(report, "audio"), 3
    yield plot_normalization(normalization_report(dataset), "audio", "train"), 2
    names = dimension_names(dataset)
    yield from ((plot_utterance(row, names), 3) for row in dataset["test"].select(range(2)))


def test_every_plot_has_a_title_axis_names_and_its_traces(odd):
    for sets in (odd, make_sample(train=12, valid=3, test=4)):
        for number, (made, least) in enumerate(plots(sets)):
            assert made.layout.title.text, number
            titles = [axis.title.text for axis in made.select_yaxes() if axis.title.text]
            titles += [axis.title.text for axis in made.select_xaxes() if axis.title.text]
            assert titles, number
            assert len(made.data) >= least, number
            made.to_json()


def test_timeline_shows_words_where_they_are_said_and_says_what_is_missing():
    from deepmlf_kit.plots.utterance_timeline import plot_utterance

    sample = make_sample(train=1, valid=1, test=1)
    row = sample["train"][0]
    made = plot_utterance(row, dimension_names(sample))
    words = next(trace for trace in made.data if trace.mode == "text")
    assert list(words.text) == [word["word"] for word in row["words"]]
    assert {"loudness", "smile", "brows down"} <= {trace.name for trace in made.data}
    silent = dict(row, audio=[], audio_times=[], vision=[], vision_times=[], words=[])
    shown = {note.text for note in plot_utterance(silent, dimension_names(sample)).layout.annotations}
    assert {"no voice", "no face", "the words' times are not known"} <= shown
