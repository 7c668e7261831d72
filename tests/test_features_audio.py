"""Voice features: sizes, times, short sound, pitch where there is one."""

import numpy as np
import pytest
from clips_made import voice

from deepmlf_kit.features import audio_egemaps, audio_mfcc
from deepmlf_kit.features.audio_egemaps import egemaps
from deepmlf_kit.features.audio_mfcc import mfcc
from deepmlf_kit.features.voicing import voiced_share

EXTRACTORS = {"egemaps": (egemaps, audio_egemaps, 0.01), "mfcc": (mfcc, audio_mfcc, 512 / 22050)}


@pytest.mark.parametrize("name", EXTRACTORS)
def test_frames_come_at_their_step_and_carry_the_clips_times(name: str):
    extract, module, step = EXTRACTORS[name]
    features, times = extract(voice(1.5, module.RATE), start=2.0)
    assert features.dtype == times.dtype == np.float32
    assert features.shape == (len(times), len(module.AUDIO_NAMES))
    assert np.isfinite(features).all()
    assert np.diff(times) == pytest.approx(step, abs=1e-4)
    assert 2.0 <= times[0] < 2.05
    assert 3.4 < times[-1] < 3.55


@pytest.mark.parametrize("name", EXTRACTORS)
@pytest.mark.parametrize("samples", [0, 1, 100, 700, 1601])
def test_very_short_sound_gives_few_finite_frames(name: str, samples: int):
    extract, module, step = EXTRACTORS[name]
    features, times = extract(voice(1.0, module.RATE)[:samples])
    assert features.shape == (len(times), len(module.AUDIO_NAMES))
    assert np.isfinite(features).all()
    if samples == 0:
        assert len(features) == 0
    else:
        assert 1 <= len(features) <= samples / module.RATE / step + 2


@pytest.mark.parametrize("name", EXTRACTORS)
def test_a_voice_has_a_pitch_and_silence_has_none(name: str):
    extract, module, _ = EXTRACTORS[name]
    high, low = (extract(voice(1.0, module.RATE, pitch))[0][:, module.F0] for pitch in (220.0, 110.0))
    for pitch in (high, low):
        assert (pitch > 0).mean() > 0.8
    octave = {"egemaps": 12.0, "mfcc": np.log(2)}[name]  # semitones; natural logarithm
    assert np.median(high[high > 0]) - np.median(low[low > 0]) == pytest.approx(octave, rel=0.1)
    silent = extract(np.zeros(module.RATE, np.float32))[0]
    assert np.isfinite(silent).all()
    assert not silent[:, module.F0].any()


def test_egemaps_names_are_those_of_opensmile():
    assert tuple(audio_egemaps._smile().feature_names) == audio_egemaps.AUDIO_NAMES


def test_voiced_share_without_an_extractors_pitch():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, 16000).astype(np.float32)
    assert voiced_share(voice(1.0), 16000) > 0.9
    assert voiced_share(noise, 16000) < 0.1
    assert voiced_share(np.zeros(16000, np.float32), 16000) == 0.0
    assert voiced_share(np.concatenate([voice(1.0), noise * 0.01]), 16000) == pytest.approx(0.5, abs=0.1)
    assert voiced_share(voice(1.0)[:10], 16000) <= 1.0
