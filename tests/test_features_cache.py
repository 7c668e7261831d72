"""Kept features: only what is new is computed, damage is repaired, the key is the content."""

import os
from pathlib import Path

import numpy as np
import pytest
from clips_made import make_clip

from deepmlf_kit.downloads.cache import CacheError
from deepmlf_kit.features import FeatureCache, FeatureRecipe, extract_clip
from deepmlf_kit.features import clip as clip_module
from deepmlf_kit.features.cache import cache_limit, clip_hash
from deepmlf_kit.features.clip import is_cached

VOICE = FeatureRecipe(vision="none", transcribe=False)


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "cache")


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is computed, by extractor, as it happens."""
    done = []
    real = clip_module.extract_audio

    def counted(sound, recipe, progress=None):
        done.append(recipe.audio)
        return real(sound, recipe, progress)

    monkeypatch.setattr(clip_module, "extract_audio", counted)
    return done


def test_a_second_run_computes_nothing_and_gives_the_same(tmp_path, cache, computed):
    path = make_clip(tmp_path / "clip.mp4", 1.0)
    assert not is_cached(path, VOICE, cache=cache)
    first = extract_clip(path, VOICE, cache=cache)
    assert is_cached(path, VOICE, cache=cache)
    second = extract_clip(path, VOICE, cache=cache)
    assert computed == ["egemaps"]
    np.testing.assert_array_equal(first.audio, second.audio)
    np.testing.assert_array_equal(first.audio_times, second.audio_times)
    assert first.found == second.found


def test_a_second_recipe_computes_only_what_is_new(tmp_path, cache, computed):
    path = make_clip(tmp_path / "clip.mp4", 1.0)
    extract_clip(path, VOICE, cache=cache)
    extract_clip(path, FeatureRecipe(vision="none", transcribe=False, fps=25), cache=cache)
    assert computed == ["egemaps"]
    extract_clip(path, FeatureRecipe(audio="mfcc", vision="none", transcribe=False), cache=cache)
    assert computed == ["egemaps", "mfcc"]


def test_the_same_content_under_another_name_is_known(tmp_path, cache, computed):
    path = make_clip(tmp_path / "clip.mp4", 1.0)
    extract_clip(path, VOICE, cache=cache)
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(path.read_bytes())
    extract_clip(copy, VOICE, cache=cache)
    other = make_clip(tmp_path / "other.mp4", 1.2)
    extract_clip(other, VOICE, cache=cache)
    assert computed == ["egemaps", "egemaps"]
    assert clip_hash(path) == clip_hash(copy) != clip_hash(other)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "other"])
def test_a_damaged_entry_is_made_again(tmp_path, cache, computed, damage: str):
    path = make_clip(tmp_path / "clip.mp4", 1.0)
    first = extract_clip(path, VOICE, cache=cache)
    for entry in cache.folder.rglob("*.npz"):
        raw = bytearray(entry.read_bytes())
        middle = len(raw) // 2
        raw[middle : middle + 40] = bytes(byte ^ 0xFF for byte in raw[middle : middle + 40])
        entry.write_bytes(
            {"truncated": raw[:middle], "flipped": raw, "empty": b"", "other": b"hello"}[damage]
        )
    again = extract_clip(path, VOICE, cache=cache)
    assert computed == ["egemaps", "egemaps"]
    np.testing.assert_array_equal(first.audio, again.audio)
    extract_clip(path, VOICE, cache=cache)
    assert computed == ["egemaps", "egemaps"]


def test_nothing_is_cached_where_no_cache_is_given(tmp_path, own_cache):
    before = sorted(own_cache.rglob("*"))
    extract_clip(make_clip(tmp_path / "clip.mp4", 1.0), VOICE)
    assert sorted(own_cache.rglob("*")) == before


def test_a_save_that_fails_leaves_no_entry(cache):
    with pytest.raises(TypeError):
        cache.save("ab" * 16, "audio", {"features": np.zeros(3)}, {"bad": object()})
    with pytest.raises(ValueError, match="allow_pickle"):
        cache.save("ab" * 16, "audio", {"features": np.array([object()])}, {})
    assert cache.load("ab" * 16, "audio") is None
    assert not list(cache.folder.rglob("*.part"))


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs a file system with permissions")
def test_a_cache_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(CacheError, match="DEEPMLF_CACHE"):
        extract_clip(make_clip(tmp_path / "clip.mp4", 1.0), VOICE, cache=FeatureCache(tmp_path / "cache"))


def keep(cache: FeatureCache, number: int, used: float) -> str:
    """An entry of 8 kB, last used at a second."""
    clip = f"{number:032x}"
    cache.save(clip, "audio", {"features": np.zeros(1000)}, {})
    entry = cache.folder / clip[:2] / clip / "audio.npz"
    os.utime(entry, (used, used))
    return clip


def test_trimming_removes_what_was_not_used_for_longest(cache):
    first, second, third = (keep(cache, number, used=1000 + number) for number in range(3))
    size = sum(entry.stat().st_size for entry in cache.folder.rglob("*.npz"))
    assert cache.trim(size) == 0
    assert cache.load(first, "audio") is not None  # now the one used last
    assert cache.trim(size * 0.7) == 1
    assert [cache.holds(clip, "audio") for clip in (first, second, third)] == [True, False, True]
    assert not (cache.folder / second[:2] / second).exists()
    assert cache.trim(0) == 2


def test_the_limit_is_a_number_of_gigabytes(monkeypatch):
    monkeypatch.delenv("DEEPMLF_CACHE_GB", raising=False)
    assert cache_limit() == 20e9
    for said, limit in (("0.5", 0.5e9), ("0", 0), ("inf", float("inf"))):
        monkeypatch.setenv("DEEPMLF_CACHE_GB", said)
        assert cache_limit() == limit
    for said in ("20GB", "-1", "nan"):
        monkeypatch.setenv("DEEPMLF_CACHE_GB", said)
        with pytest.raises(CacheError, match="DEEPMLF_CACHE_GB"):
            cache_limit()


def test_a_transcript_of_a_local_speech_model_belongs_to_its_content(tmp_path):
    model = tmp_path / "speech"
    model.mkdir()
    keys = set()
    for weights in (b"one", b"other", b"one"):
        (model / "model.bin").write_bytes(weights)
        recipe = FeatureRecipe(speech_model=str(model))
        keys.add(
            clip_module._Extraction(tmp_path / "clip.mp4", recipe, None, None, None, None).key("transcript")
        )
    assert len(keys) == 2
