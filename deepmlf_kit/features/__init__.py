"""From a clip (a video or audio file) to the features a model reads; the first stage of the pipeline.

`extract_clip(path, FeatureRecipe())` is the one call; `data.prepare_folder` runs it over a folder of clips. The
names are imported on first use, because MediaPipe, openSMILE and faster-whisper take seconds to import.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cache": ["FeatureCache"],
        "clip": ["ClipFeatures", "extract_clip"],
        "face_model": ["FaceModelMissing"],
        "hf_encoders": [
            "encode_audio",
            "encode_frames",
            "encoder_identity",
            "encoder_width",
            "load_encoder",
        ],
        "container": ["ClipError"],
        "media": ["MediaInfo", "probe"],
        "recipe": ["FeatureRecipe", "RecipeError", "feature_names"],
        "transcript": ["SpeechModelMissing"],
    },
)
