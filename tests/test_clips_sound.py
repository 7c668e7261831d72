"""Sound of every layout becomes the mono that a listener would call the voice."""

import sys
from pathlib import Path

import av
import numpy as np
import pytest
from clips_made import make_clip, voice

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from fuzzing.clips import encode_sound

from deepmlf_kit.features import ClipError, FeatureRecipe, extract_clip
from deepmlf_kit.features.container import MAX_CHANNELS, UndecodableStream
from deepmlf_kit.features.media import read_audio

RATE = 48_000
VOICE = FeatureRecipe(vision="none", transcribe=False)
ORDER = {
    "mono": "FC",
    "stereo": "FL FR",
    "5.1": "FL FR FC LFE BL BR",
    "7.1": "FL FR FC LFE BL BR SL SR",
    "quad": "FL FR BL BR",
}


def wav(path: Path, channels: list[np.ndarray], rate: int = RATE) -> Path:
    """A wav file of the channels as they are, without a word on what they are."""
    import wave

    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.stack(channels, 1) * 32767).astype("<i2").tobytes())
    return path


def layout_clip(path: Path, layout: str, loud: str, codec: str = "flac") -> Path:
    """One second in which only the channel `loud` is heard."""
    names = ORDER[layout].split()
    tone = voice(1.0, RATE)
    packed = np.stack([tone if name == loud else np.zeros_like(tone) for name in names], 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, layout=layout)
        encode_sound(container, stream, packed)
    return path


def loudness(path: Path) -> float:
    """Relative to the tone itself."""
    tone = voice(1.0, RATE)
    return float(np.sqrt(np.mean(read_audio(path).samples ** 2)) / np.sqrt(np.mean(tone**2)))


@pytest.mark.parametrize("layout", ["5.1", "7.1"])
@pytest.mark.parametrize("name", ["clip.flac", "clip.mka"])
def test_the_centre_carries_the_voice_and_the_subwoofer_nothing(tmp_path: Path, layout: str, name: str):
    codec = "flac" if name.endswith("flac") else "pcm_s16le"
    found = {
        loud: loudness(layout_clip(tmp_path / f"{loud}-{name}", layout, loud, codec))
        for loud in ORDER[layout].split()
    }
    assert found["FC"] == pytest.approx(0.707, abs=0.03)
    assert found["FL"] == pytest.approx(0.5, abs=0.03) and found["FR"] == pytest.approx(0.5, abs=0.03)
    assert found["BL"] == pytest.approx(0.354, abs=0.03)
    assert found["LFE"] < 0.01


@pytest.mark.parametrize("layout", ["mono", "stereo", "quad", "5.1", "7.1"])
def test_every_layout_of_aac_is_read_to_its_end(tmp_path: Path, layout: str):
    path = layout_clip(tmp_path / "clip.m4a", layout, ORDER[layout].split()[0], "aac")
    sound = read_audio(path)
    assert sound.seconds == pytest.approx(1.0, abs=0.05)
    assert np.abs(sound.samples[-800:]).max() > 0.03  # the last 50 ms, in all channels alike


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 16, 24, 33, 64])
def test_any_number_of_channels_is_read(tmp_path: Path, count: int):
    sound = read_audio(wav(tmp_path / "clip.wav", [voice(0.5, RATE)] * count))
    assert sound.seconds == pytest.approx(0.5, abs=0.01)
    assert 0.1 < np.abs(sound.samples).max() <= 1.0


def test_many_loud_channels_are_made_softer_not_distorted(tmp_path: Path):
    tone = np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE).astype(np.float32) * 0.9
    mono, many = (read_audio(wav(tmp_path / f"{n}.wav", [tone] * n)).samples[2000:-2000] for n in (1, 6))
    scale = np.abs(many).max() / np.abs(mono).max()
    np.testing.assert_allclose(many, scale * mono, atol=0.02)


@pytest.mark.parametrize("factor", [-1.0, -0.9])
def test_sides_that_cancel_each_other_out_are_read_from_one_and_said(tmp_path: Path, factor: float):
    tone = voice(1.0, RATE)
    path = wav(tmp_path / "clip.wav", [tone, factor * tone])
    assert np.abs(read_audio(path).samples).max() > 0.5 * np.abs(tone).max()
    made = extract_clip(path, VOICE, text="")
    assert any("cancel each other out" in note for note in made.found.notes)
    assert made.found.voiced_share > 0.5
    for plain in (
        [tone, tone],
        [tone, 0 * tone],
        [tone, voice(1.0, RATE, pitch=220.0)],
        [0 * tone, 0 * tone],
    ):
        assert not read_audio(wav(tmp_path / "plain.wav", plain)).cancelled


@pytest.mark.parametrize("name", ["clip.mkv", "clip.mp4"])
def test_the_default_track_is_read_not_the_first(tmp_path: Path, name: str):
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        streams = []
        for pitch, default in ((120.0, False), (260.0, True)):
            stream = container.add_stream("aac", rate=RATE, layout="mono")
            stream.disposition = av.stream.Disposition.default if default else av.stream.Disposition(0)
            streams.append((stream, voice(1.0, RATE, pitch)))
        for stream, samples in streams:
            encode_sound(container, stream, samples[:, None])
    samples = read_audio(path).samples
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    assert np.argmax(spectrum) * 16000 / len(samples) == pytest.approx(260, abs=45)  # its pitch wavers


def set_header(path: Path, offset: int, size: int, value: int) -> Path:
    raw = bytearray(path.read_bytes())
    raw[offset : offset + size] = value.to_bytes(size, "little")
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("rate", [1, 8, 1_000, 2_000_000_000])
def test_a_wild_sampling_rate_is_refused_in_one_line_before_it_takes_memory(tmp_path: Path, rate: int):
    path = set_header(wav(tmp_path / "clip.wav", [voice(0.5, RATE)]), 24, 4, rate)
    with pytest.raises(ClipError) as refused:
        extract_clip(path, VOICE, text="")
    assert "\n" not in str(refused.value) and f"{rate} Hz" in str(refused.value)


def test_too_many_channels_are_refused_in_one_line(tmp_path: Path):
    path = wav(tmp_path / "clip.wav", [voice(0.1, RATE)] * (MAX_CHANNELS + 1))
    with pytest.raises((UndecodableStream, ClipError)):
        read_audio(path)
    with pytest.raises(ClipError) as refused:
        extract_clip(path, VOICE, text="")
    assert "\n" not in str(refused.value)


def test_pictures_survive_sound_that_cannot_be_used(tmp_path: Path, face_model: Path):
    path = make_clip(tmp_path / "clip.avi", 1.0, audio="pcm_s16le")
    raw = bytearray(path.read_bytes())
    place = raw.index(b"strf", raw.index(b"auds")) + 8  # WAVEFORMATEX: format, channels, rate
    raw[place + 4 : place + 8] = (8).to_bytes(4, "little")
    path.write_bytes(raw)
    made = extract_clip(path, FeatureRecipe(transcribe=False, fps=2), text="")
    assert len(made.vision) == 2 and made.found.seconds == pytest.approx(1.0, abs=0.1)
    assert "the audio stream is damaged, its header says 8 Hz" in made.found.notes[0]
