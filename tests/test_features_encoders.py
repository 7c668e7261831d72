"""Any frozen Hugging Face encoder, tried on tiny random ones saved to local folders."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from clips_made import make_clip, voice

from deepmlf_kit.features import FeatureCache, FeatureRecipe, extract_clip, hf_encoders
from deepmlf_kit.features.clip import is_cached
from deepmlf_kit.features.hf_encoders import (
    EncoderError,
    crop_face,
    encode_audio,
    encode_frames,
    encoder_width,
)
from deepmlf_kit.features.media import Frame

AUDIO = ("wav2vec2", "hubert", "wavlm", "data2vec")
VISION = ("vit", "dinov2", "clip", "siglip")


def _audio_model(kind: str):
    import transformers as hf

    sizes = {
        **dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32),
        **dict(conv_dim=(8,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2),
    }
    config, model = {
        "wav2vec2": (hf.Wav2Vec2Config, hf.Wav2Vec2Model),
        "hubert": (hf.HubertConfig, hf.HubertModel),
        "wavlm": (hf.WavLMConfig, hf.WavLMModel),
        "data2vec": (hf.Data2VecAudioConfig, hf.Data2VecAudioModel),
    }[kind]
    return model(config(**sizes)), hf.Wav2Vec2FeatureExtractor(do_normalize=True)


def _vision_model(kind: str):
    import transformers as hf
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    size = {"height": 32, "width": 32}
    base = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8)
    tower = dict(base, intermediate_size=32)
    text = dict(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=50
    )
    text |= dict(bos_token_id=0, eos_token_id=1, pad_token_id=1)
    if kind == "vit":
        return hf.ViTModel(hf.ViTConfig(**tower)), ViTImageProcessorPil(size=size)
    if kind == "dinov2":
        return hf.Dinov2Model(hf.Dinov2Config(**base)), BitImageProcessorPil(size=size, crop_size=size)
    if kind == "clip":
        config = hf.CLIPConfig(vision_config=tower, text_config=text)
        return hf.CLIPModel(config), CLIPImageProcessorPil(size=size, crop_size=size)
    config = hf.SiglipConfig(vision_config=tower, text_config=text)
    return hf.SiglipModel(config), SiglipImageProcessorPil(size=size)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one tiny random encoder of every kind."""
    folder = tmp_path_factory.mktemp("encoders")
    for kind in (*AUDIO, *VISION):
        torch.manual_seed(0)
        model, processor = _audio_model(kind) if kind in AUDIO else _vision_model(kind)
        model.save_pretrained(folder / kind)
        processor.save_pretrained(folder / kind)
    return folder


def _frames(count: int, seed: int = 0) -> list[Frame]:
    rng = np.random.default_rng(seed)
    return [Frame(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8), i / 10) for i in range(count)]


@pytest.mark.parametrize("kind", AUDIO)
def test_sound_becomes_frames_with_their_times(encoders, kind: str):
    features, times = encode_audio(voice(2.0), str(encoders / kind), start=1.0)
    assert features.shape == (99, 16) == (len(times), encoder_width("audio", str(encoders / kind)))
    assert features.dtype == times.dtype == np.float32
    assert np.diff(times) == pytest.approx(0.02, abs=1e-5)
    assert times[0] == pytest.approx(1.0125)
    short, _ = encode_audio(voice(1.0)[:10], str(encoders / kind))
    assert short.shape == (1, 16)
    assert encode_audio(voice(1.0)[:0], str(encoders / kind))[0].shape == (0, 16)


@pytest.mark.parametrize("kind", VISION)
def test_pictures_become_a_row_each_whatever_the_batch(encoders, kind: str):
    frames = _frames(7)
    features, times = encode_frames(frames, str(encoders / kind), batch_size=3)
    assert features.shape == (7, 16) == (len(times), encoder_width("vision", str(encoders / kind)))
    assert times == pytest.approx([frame.time for frame in frames])
    at_once, _ = encode_frames(iter(frames), str(encoders / kind), batch_size=16)
    np.testing.assert_allclose(features, at_once, atol=1e-5)
    assert features.std(0).min() > 0  # different pictures, different rows
    assert encode_frames([], str(encoders / kind))[0].shape == (0, 16)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_two_tower_model_gives_its_vision_towers_states(encoders, kind: str):
    from transformers import AutoImageProcessor, AutoModel

    frames = _frames(2)
    features, _ = encode_frames(frames, str(encoders / kind))
    tower = AutoModel.from_pretrained(encoders / kind).vision_model.eval()
    processor = AutoImageProcessor.from_pretrained(encoders / kind, backend="pil")
    with torch.no_grad():
        pixels = processor(images=[frame.image for frame in frames], return_tensors="pt")["pixel_values"]
        states = tower(pixels).last_hidden_state
    expected = states[:, 0] if kind == "clip" else states.mean(1)  # SigLIP has no class token
    np.testing.assert_allclose(features, expected.numpy(), atol=1e-5)


def test_the_layer_asked_for_is_the_layer_taken(encoders):
    from transformers import AutoModel

    sound = voice(1.0)
    model = AutoModel.from_pretrained(encoders / "hubert").eval()
    normal = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)
    with torch.no_grad():
        states = model(torch.from_numpy(normal[None]), output_hidden_states=True).hidden_states
    for layer in (0, 1, 2):
        features, _ = encode_audio(sound, str(encoders / "hubert"), layer=layer)
        np.testing.assert_allclose(features, states[layer][0].numpy(), atol=1e-5)
    last, _ = encode_audio(sound, str(encoders / "hubert"), layer=-1)
    np.testing.assert_allclose(last, features, atol=1e-5)
    with pytest.raises(EncoderError, match="found layer 3, expected -1"):
        encode_audio(sound, str(encoders / "hubert"), layer=3)
    with pytest.raises(EncoderError, match="found layer 9"):
        encode_frames(_frames(1), str(encoders / "vit"), layer=9)


def test_long_sound_goes_through_in_windows_and_loses_no_frame(encoders, monkeypatch):
    sound = np.random.default_rng(0).normal(0, 0.1, 16000 * 7).astype(np.float32)
    whole, times = encode_audio(sound, str(encoders / "wavlm"), layer=0)
    monkeypatch.setattr(hf_encoders, "WINDOW_SECONDS", 3.0)
    monkeypatch.setattr(hf_encoders, "CONTEXT_SECONDS", 0.5)
    shares = []
    pieces, piece_times = encode_audio(sound, str(encoders / "wavlm"), layer=0, progress=shares.append)
    np.testing.assert_array_equal(times, piece_times)
    assert pieces.shape == whole.shape
    assert shares[-1] == 1.0
    # Group normalisation in the front sees a window, not all of the sound; noise looks the same everywhere.
    assert np.corrcoef(pieces.ravel(), whole.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("longest, context", [(10, 2), (7, 3), (100, 5)])
@pytest.mark.parametrize("frames", [1, 7, 10, 11, 23, 99])
def test_windows_take_every_frame_once_and_stay_inside(frames: int, longest: int, context: int):
    taken = []
    for first, skip, take in hf_encoders._windows(frames, longest, context):
        assert first >= 0 and skip + take <= longest
        taken += range(first + skip, first + skip + take)
    assert taken == list(range(frames))


def test_what_is_no_encoder_of_that_kind_is_refused(encoders, tmp_path):
    with pytest.raises(EncoderError, match="found a model of type 'vit', expected an audio encoder"):
        encode_audio(voice(1.0), str(encoders / "vit"))
    with pytest.raises(EncoderError, match="found a model of type 'wavlm', expected a vision encoder"):
        encode_frames(_frames(1), str(encoders / "wavlm"))
    with pytest.raises(EncoderError, match="could not be loaded") as missing:
        encode_audio(voice(1.0), str(tmp_path / "nothing"))
    assert "\n" not in str(missing.value)


def test_a_device_that_is_not_there_is_named(encoders):
    with pytest.raises(EncoderError, match=r"cannot be put on the device 'cuda:99'.*expected cpu, cuda"):
        encode_audio(voice(1.0), str(encoders / "wavlm"), device="cuda:99")


def test_a_processor_that_does_not_fit_its_model_is_named(encoders, tmp_path):
    import shutil

    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    shutil.copytree(encoders / "vit", tmp_path / "vit")
    ViTImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(tmp_path / "vit")
    with pytest.raises(EncoderError, match="does not fit its model"):
        encode_frames(_frames(1), str(tmp_path / "vit"))


def test_the_encoder_is_frozen_and_loaded_once(encoders):
    first = hf_encoders.load_encoder("vision", str(encoders / "vit"), "auto", "auto")
    assert first is hf_encoders.load_encoder("vision", str(encoders / "vit"), "auto", "auto")
    assert not first.model.training
    assert not any(weight.requires_grad for weight in first.model.parameters())


def test_a_face_is_cut_to_a_square_around_its_landmarks():
    image = np.zeros((100, 200, 3), np.uint8)
    image[40:60, 90:110] = 255
    landmarks = np.array([[0.45, 0.4], [0.55, 0.6]])
    cut = crop_face(image, landmarks)
    assert cut.shape == (30, 30, 3)  # 20 pixels of face and a quarter more on every side
    assert (cut[5:25, 5:25] == 255).all() and cut.mean() < 255 * 0.5
    at_the_edge = crop_face(image, landmarks - [0.45, 0.4])
    assert at_the_edge.shape == (30, 30, 3)


def test_a_clip_with_encoders_for_voice_and_face(encoders, tmp_path):
    recipe = FeatureRecipe(
        audio=f"hf:{encoders / 'wavlm'}", vision=f"hf:{encoders / 'siglip'}", fps=5, transcribe=False
    )
    made = extract_clip(make_clip(tmp_path / "clip.mp4", 2.0), recipe)
    assert made.audio.shape == (len(made.audio_times), 16)
    assert made.vision.shape == (10, 16)
    assert made.found.voiced_share > 0.8
    assert made.found.face_share is None  # nobody looked for one


# What is kept of an encoder -------------------------------------------------------------------------------------


def _save(kind: str, folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    model, processor = _audio_model(kind)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def test_features_of_a_folder_whose_weights_changed_are_made_again(tmp_path):
    clip, cache = make_clip(tmp_path / "clip.mp4", 1.0), FeatureCache(tmp_path / "cache")
    recipe = FeatureRecipe(audio=f"hf:{tmp_path / 'encoder'}", vision="none", transcribe=False)
    _save("wavlm", tmp_path / "encoder", seed=0)
    first = extract_clip(clip, recipe, cache=cache).audio
    _save("wavlm", tmp_path / "encoder", seed=1)
    assert not is_cached(clip, recipe, cache=cache)
    second = extract_clip(clip, recipe, cache=cache).audio
    np.testing.assert_array_equal(second, extract_clip(clip, recipe).audio)
    assert np.abs(first - second).max() > 0.1
    _save("wavlm", tmp_path / "encoder", seed=0)
    assert is_cached(clip, recipe, cache=cache), "what was made of the first weights is still theirs"
    (tmp_path / "encoder" / "README.md").write_text("A model card says nothing of the features.")
    assert is_cached(clip, recipe, cache=cache)


def test_features_of_another_commit_on_the_hub_are_made_again(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--someone--encoder"
    (repository / "refs").mkdir(parents=True)
    clip, cache = make_clip(tmp_path / "clip.mp4", 1.0), FeatureCache(tmp_path / "cache")
    recipe = FeatureRecipe(audio="hf:someone/encoder", vision="none", transcribe=False)
    made = []
    for seed, commit in enumerate(("a" * 40, "b" * 40)):
        _save("hubert", repository / "snapshots" / commit, seed)
        (repository / "refs" / "main").write_text(commit)
        hf_encoders._commit.cache_clear()  # as in a later process
        assert not is_cached(clip, recipe, cache=cache)
        made.append(extract_clip(clip, recipe, cache=cache).audio)
        assert is_cached(clip, recipe, cache=cache)
        same = replace(recipe, audio=f"hf:{repository / 'snapshots' / commit}")
        np.testing.assert_array_equal(made[-1], extract_clip(clip, same).audio)
    (repository / "refs" / "main").write_text("a" * 40)
    assert is_cached(clip, recipe, cache=cache)
    np.testing.assert_array_equal(made[1], extract_clip(clip, recipe, cache=cache).audio)
    hf_encoders._commit.cache_clear()
    np.testing.assert_array_equal(made[0], extract_clip(clip, recipe, cache=cache).audio)


def test_features_of_another_precision_are_made_again(encoders, tmp_path):
    clip, cache = make_clip(tmp_path / "clip.mp4", 1.0), FeatureCache(tmp_path / "cache")
    recipe = FeatureRecipe(audio=f"hf:{encoders / 'wav2vec2'}", vision="none", transcribe=False, device="cpu")
    extract_clip(clip, recipe, cache=cache)
    assert is_cached(clip, replace(recipe, half=False), cache=cache), "single precision is what a CPU takes"
    assert not is_cached(clip, replace(recipe, half=True), cache=cache)


def test_face_crops_of_a_real_clip(encoders, clips, face_model):
    recipe = FeatureRecipe(
        audio="none", vision=f"hf:{encoders / 'vit'}", fps=5, face_crop=True, transcribe=False
    )
    smile = extract_clip(clips / "smile_short.mp4", recipe)
    assert smile.found.face_share == 1.0
    assert smile.vision.any(axis=1).all()
    earth = extract_clip(clips / "no_face.mp4", recipe)
    assert earth.found.face_share == 0.0
    assert not earth.vision.any()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_half_precision_on_a_gpu_is_close_to_single_on_the_cpu(encoders):
    for kind in VISION:
        gpu, _ = encode_frames(_frames(4), str(encoders / kind), device="cuda")
        cpu, _ = encode_frames(_frames(4), str(encoders / kind), device="cpu")
        np.testing.assert_allclose(gpu, cpu, atol=2e-2)
    for kind in AUDIO:
        gpu, _ = encode_audio(voice(2.0), str(encoders / kind), device="cuda")
        cpu, _ = encode_audio(voice(2.0), str(encoders / kind), device="cpu")
        np.testing.assert_allclose(gpu, cpu, atol=5e-2)
