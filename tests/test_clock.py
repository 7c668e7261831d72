"""One clock for voice and face: the same moment of an utterance is the same AV step in both."""

import numpy as np
import pytest
import torch
from explain_fixtures import tiny_lens
from tiny_lms import tiny_batch, tiny_config, tiny_lm, tiny_model

from deepmlf_kit.data.clock import PADDING_SPAN, frame_spans, step_times
from deepmlf_kit.data.schema import DatasetError
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.model.av_encoder import AVSentimentModel, even_spans, frames_of_steps, pool_to_steps
from deepmlf_kit.model.baselines_fusion import FlamingoSentimentModel, PrefixSentimentModel


@pytest.fixture(scope="module")
def lens():
    return tiny_lens()


def spans(audio, vision):
    """Spans of two streams given by the times of their frames."""
    times = {"audio": np.asarray(audio, float), "vision": np.asarray(vision, float)}
    return frame_spans({name: len(t) for name, t in times.items()}, times)


def pooled(row, collator, steps, stream):
    batch = collator([row])
    made, real = pool_to_steps(batch[stream], batch[f"{stream}_mask"], steps, batch[f"{stream}_spans"])
    return made[0], real[0]


@pytest.mark.parametrize("timed", [True, False], ids=["times", "no times"])
def test_a_face_lost_half_way_leaves_the_steps_before_as_they_were(lens, timed):
    row = lens.row(2)
    if not timed:
        row = {name: row[name] for name in ("text", "audio", "vision")}
    lost = dict(row, vision=row["vision"].copy())
    lost["vision"][len(row["vision"]) // 2 :] = 0
    before, there = pooled(row, lens.collator, 20, "vision")
    after, still = pooled(lost, lens.collator, 20, "vision")
    assert there[11:].any() and not still[11:].any()
    assert torch.equal(there[:9], still[:9])
    torch.testing.assert_close(before[:9], after[:9])


def test_a_stream_that_ends_early_has_no_steps_after_its_end():
    made = spans(np.arange(100) * 0.04 + 0.02, np.arange(20) * 0.1 + 0.05)  # 4 s of voice, 2 s of face
    face = torch.from_numpy(made["vision"]).unsqueeze(0)
    _, real = pool_to_steps(torch.ones(1, 20, 1), torch.ones(1, 20, dtype=torch.bool), 50, face)
    assert real[0, :25].all() and not real[0, 25:].any()
    assert made["audio"][-1, 1] == 1 and made["vision"][-1, 1] == pytest.approx(0.5)


def test_the_same_moment_is_the_same_step_in_voice_and_face():
    audio, vision = (
        np.arange(300) * 0.01 + 0.005,
        np.arange(10) * 0.2 + 1.0,
    )  # the face is seen from 0.9 s to 2.9 s
    steps = 30
    for name, times in (("audio", audio), ("vision", vision)):
        made = torch.from_numpy(spans(audio, vision)[name]).unsqueeze(0)
        values = torch.from_numpy(times).float().view(1, -1, 1)
        mean, real = pool_to_steps(values, torch.ones(values.shape[:2], dtype=torch.bool), steps, made)
        middle = (torch.arange(steps) + 0.5) / steps * 3.0
        away = (mean[0, :, 0] - middle).abs()[real[0]]
        assert away.max() <= 0.1001 if name == "vision" else away.max() < 0.01, name


def test_nothing_stands_for_frames_that_are_absent():
    made = spans([], np.concatenate([np.arange(10) * 0.1, 3.0 + np.arange(10) * 0.1]))["vision"]
    _, real = pool_to_steps(
        torch.ones(1, 20, 1), torch.ones(1, 20, dtype=torch.bool), 40, torch.from_numpy(made).unsqueeze(0)
    )
    middle = (np.arange(40) + 0.5) / 40 * 3.95
    np.testing.assert_array_equal(real[0].numpy(), (middle < 1.0) | (middle > 2.9))


@pytest.mark.parametrize("steps", [1, 7, 50])
def test_frames_without_times_are_shared_out_evenly(steps):
    for count in (*range(1, 60), 375):
        mask = torch.ones(1, count, dtype=torch.bool)
        j, k = np.arange(count), np.arange(steps)[:, None]
        expected = (  # whole numbers: no rounding
            (2 * j + 1) * steps // (2 * count) == k
            if count >= steps
            else (2 * k + 1) * count // (2 * steps) == j
        )
        np.testing.assert_array_equal(frames_of_steps(even_spans(mask), mask, steps)[0].numpy(), expected)
        given = torch.from_numpy(frame_spans({"audio": count}, {})["audio"]).unsqueeze(0)
        np.testing.assert_array_equal(frames_of_steps(given, mask, steps)[0].numpy(), expected)
        even = frame_spans({"audio": count}, {"audio": np.arange(count) * 0.01 + 0.005})["audio"]
        np.testing.assert_array_equal(
            frames_of_steps(torch.from_numpy(even)[None], mask, steps)[0].numpy(), expected
        )


def test_as_many_frames_as_steps_are_pooled_to_themselves():
    frames, mask = torch.randn(3, 50, 4), torch.ones(3, 50, dtype=torch.bool)
    for given in (None, even_spans(mask)):
        made, real = pool_to_steps(frames, mask, 50, given)
        assert torch.equal(made, frames) and real.all()


def test_a_missing_frame_is_replaced_by_no_other():
    mask = torch.tensor([[True, False, True, False, True]])
    made = torch.from_numpy(frame_spans({"audio": 5}, {})["audio"]).unsqueeze(0)
    _, real = pool_to_steps(torch.ones(1, 5, 1), mask, 10, made)
    assert real[0].tolist() == [True, True, False, False, True, True, False, False, True, True]


def test_the_padding_of_a_batch_is_no_time(lens):
    rows = [lens.row(i) for i in range(6)]
    rows[0] = {name: rows[0][name][:40] if name != "text" else "a" for name in ("text", "audio", "vision")}
    together = lens.collator(rows)
    assert (together["audio_spans"][0, 40:] == PADDING_SPAN).all()
    with torch.no_grad():
        states = lens.model(**together).av_states
        for i, row in enumerate(rows):
            alone = lens.model(**lens.collator([row])).av_states
            torch.testing.assert_close(alone[0], states[i], atol=1e-5, rtol=0)


def test_without_spans_each_streams_own_frames_are_its_length():
    model, batch = tiny_model(), tiny_batch()
    given = {f"{name}_spans": even_spans(batch[f"{name}_mask"]) for name in ("audio", "vision")}
    with torch.no_grad():
        assert torch.equal(model(**batch).prediction, model(**batch, **given).prediction)


def test_every_model_that_reads_voice_and_face_goes_by_the_clock():
    batch = tiny_batch()
    late = {
        "vision_spans": 0.5 + even_spans(batch["vision_mask"]) / 2
    }  # the face is there in the second half only
    torch.manual_seed(0)
    for model in (
        tiny_model(),
        AVSentimentModel(tiny_config()),
        *(kind(tiny_config(), lm=tiny_lm()) for kind in (PrefixSentimentModel, FlamingoSentimentModel)),
    ):
        model.eval()
        with torch.no_grad():
            assert not torch.equal(model(**batch).prediction, model(**batch, **late).prediction), type(model)


def test_a_frame_outside_the_utterance_is_in_no_step():
    made = torch.tensor([[[0.0, 0.5], [0.5, 1.0], [PADDING_SPAN, PADDING_SPAN]]])
    frames = frames_of_steps(made, torch.ones(1, 3, dtype=torch.bool), 4)[0]
    assert frames.tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]]


def test_leaving_a_stream_out_does_not_move_the_other(lens):
    row = lens.row(2)
    row |= {"vision": row["vision"][:10], "vision_times": row["vision_times"][:10]}  # the voice is longer
    whole, _ = pooled(row, lens.collator, 20, "vision")
    for silent in (np.zeros_like(row["audio"]), row["audio"][:0]):
        alone, _ = pooled({**row, "audio": silent}, lens.collator, 20, "vision")
        torch.testing.assert_close(whole, alone)


def test_a_reading_is_on_the_clock_of_the_encoder(lens):
    row = lens.row(2)
    row |= {
        "audio": row["audio"][:100],
        "audio_times": row["audio_times"][:100],
    }  # the voice ends, the face goes on
    reading = lens.read(row, "cross_attention")
    half = (reading.steps[1] - reading.steps[0]) / 2
    np.testing.assert_allclose(reading.steps, step_times(row, 20))
    assert reading.steps[-1] + half > row["vision_times"][-1] > row["audio_times"][-1] + 1
    for stream in ("audio", "vision"):
        averaged = reading.frames_of_steps(stream)
        assert averaged.any()
        for step, frames in enumerate(averaged):
            away = np.abs(reading.frame_times(stream)[frames] - reading.steps[step])
            assert (away <= max(half, 0.06) + 1e-3).all()
    seen = reading.seen.av_mask[0]
    np.testing.assert_array_equal(
        seen, reading.frames_of_steps("audio").any(axis=1) | reading.frames_of_steps("vision").any(axis=1)
    )


def test_an_utterance_that_starts_late_in_its_recording_is_not_stretched():
    early, late = (spans(np.arange(50) * 0.1 + start, []) for start in (0.05, 600.05))
    np.testing.assert_allclose(early["audio"], late["audio"], atol=1e-4)


def test_times_that_do_not_fit_are_refused(lens):
    row = lens.row(2)
    with pytest.raises(DatasetError, match="3 entries"):
        lens.collator([{**row, "audio_times": [0.0, 0.1, 0.2]}])
    with pytest.raises(DatasetError, match="backwards"):
        lens.collator([{**row, "vision_times": row["vision_times"][::-1]}])
    batch = lens.batch(2)
    with pytest.raises(DeepMLFError, match=r"audio_spans has shape \[1, 3, 2\]"):
        lens.model(**{**batch, "audio_spans": batch["audio_spans"][:, :3]})
