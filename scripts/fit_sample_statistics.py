"""Take from real clips the statistics that the synthetic sample set is made with.

    DEEPMLF_FACE_MODEL=... python scripts/fit_sample_statistics.py CLIP... [--out FILE]

Each clip goes through the kit's own extractors (openSMILE eGeMAPS at 100 Hz, MediaPipe blendshapes and head
pose at 10 fps). Only moments leave this script, never frames:

* audio, for three kinds of frame (`voiced`: the pitch is above 0; `unvoiced`: it is 0 amid speech; `pause`: it
  is 0 and the loudness is below the clip's 30th percentile): per dimension mean, deviation within a clip and lag-1
  autocorrelation within a run, and the correlation matrix of dimensions; the deviation between clips' means;
  the 0.5th and 99.5th percentile; the length of voiced runs; and the mean and deviation of `silence`, the
  frames of clips in which nothing is voiced;
* vision: per dimension mean, deviation between clips, deviation within a clip, lag-1 autocorrelation at 10 fps,
  percentiles; `speech`: how the lower face follows loudness (regression on the loudness of the same moment, clips
  with voice); `smile`: mean of the frames with the broadest smiles minus that of the least smiling ones;
  `frown`: mean of frames with lowered brows minus that of the other clips' unsmiling frames.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from deepmlf_kit.features.audio_egemaps import AUDIO_NAMES, F0, egemaps
from deepmlf_kit.features.face_model import find_face_model
from deepmlf_kit.features.faces import read_faces
from deepmlf_kit.features.media import probe, read_audio, read_frames
from deepmlf_kit.features.vision_blendshapes import VISION_NAMES

FPS = 10
OUT = Path(__file__).parents[1] / "deepmlf_kit" / "assets" / "sample_statistics.json"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    voices, faces, seconds = {}, {}, {}
    for clip in arguments.clips:
        info = probe(clip)
        seconds[clip.stem] = round(info.seconds, 2)
        if info.has_audio:
            sound = read_audio(clip)
            voices[clip.stem] = egemaps(sound.samples, sound.start)
        if info.has_video:
            reading = read_faces(read_frames(clip, fps=FPS), find_face_model())
            rows, times = reading.features, reading.times
            if (rows.any(axis=1)).mean() > 0.5:
                faces[clip.stem] = rows, times
    result = {
        "made_by": "scripts/fit_sample_statistics.py from short real clips; moments only, no frame of them",
        "seconds": {"voice": sum(seconds[c] for c in voices), "face": sum(seconds[c] for c in faces)},
        "audio": fit_audio(voices),
        "vision": fit_vision(faces, voices),
    }
    arguments.out.write_text(json.dumps(_rounded(result)) + "\n")
    print(
        f"{arguments.out}: {arguments.out.stat().st_size / 1024:.0f} KB from {len(voices)} voices, {len(faces)} faces"
    )


def fit_audio(voices: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict:
    """Moments of the three kinds of frame, over the clips in which something is voiced."""
    speaking = [x for x, _ in voices.values() if (x[:, F0] > 0).mean() > 0.2]
    silent = np.concatenate([x for x, _ in voices.values() if (x[:, F0] > 0).mean() <= 0.2])
    kinds: dict[str, list[np.ndarray]] = {"voiced": [], "unvoiced": [], "pause": []}
    runs: list[int] = []
    for x in speaking:
        voiced = x[:, F0] > 0
        pause = ~voiced & (x[:, 0] < np.percentile(x[:, 0], 30))
        for kind, mask in (("voiced", voiced), ("unvoiced", ~voiced & ~pause), ("pause", pause)):
            kinds[kind].append(np.where(mask[:, None], x, np.nan))
        edges = np.flatnonzero(np.diff(np.r_[0, voiced.astype(int), 0]))
        runs += list(edges[1::2] - edges[::2])
    out: dict = {"names": list(AUDIO_NAMES), "hz": 100}
    for kind, parts in kinds.items():
        means = np.stack([np.nanmean(p, 0) for p in parts])
        centred = [p - m for p, m in zip(parts, means, strict=True)]
        frames = np.concatenate([c[~np.isnan(c[:, 0])] for c in centred])
        out[kind] = {
            "mean": means.mean(0),
            "std": frames.std(0),
            "ar": _autocorrelation(centred),
            "corr": _correlation(frames),
            "between": means.std(0),
        }
    everything = np.concatenate(speaking)
    out["low"], out["high"] = np.percentile(everything, [0.5, 99.5], axis=0)
    out["voiced_run_frames"] = np.percentile(runs, [10, 25, 50, 75, 90])
    out["silence"] = {"mean": silent.mean(0), "std": silent.std(0)}
    return out


def fit_vision(faces: dict, voices: dict) -> dict:
    """Moments of the face, and the directions of speech, smile and lowered brows."""
    column = {name: i for i, name in enumerate(VISION_NAMES)}
    clips = {name: x[x.any(axis=1)] for name, (x, _) in faces.items()}
    smile = {n: x[:, [column["mouthSmileLeft"], column["mouthSmileRight"]]].mean(1) for n, x in clips.items()}
    brows = {n: x[:, [column["browDownLeft"], column["browDownRight"]]].mean(1) for n, x in clips.items()}
    broad, plain, lowered, others = [], [], [], []
    for name, x in clips.items():
        broad.append(x[smile[name] > 0.55])
        plain.append(x[(smile[name] < 0.15) & (brows[name] < 0.2)])
        lowered.append(x[(brows[name] > 0.45) & (smile[name] < 0.3)])
        others.append(x[(brows[name] < 0.2) & (smile[name] < 0.3)])
    calm = [x for n, x in clips.items() if np.median(smile[n]) < 0.55 and np.median(brows[n]) < 0.3]
    means = np.stack([x.mean(0) for x in calm])
    centred = [x - x.mean(0) for x in calm]
    return {
        "names": list(VISION_NAMES),
        "hz": FPS,
        "mean": means.mean(0),
        "between": means.std(0),
        "plain": np.concatenate(plain).mean(0),
        "std": np.concatenate(centred).std(0),
        "ar": _autocorrelation(centred),
        "low": np.percentile(np.concatenate(list(clips.values())), 0.5, axis=0),
        "high": np.percentile(np.concatenate(list(clips.values())), 99.5, axis=0),
        "smile": np.concatenate(broad).mean(0) - np.concatenate(plain).mean(0),
        "frown": np.concatenate(lowered).mean(0) - np.concatenate(others).mean(0),
        "speech": _speech_direction(faces, voices),
    }


def _speech_direction(faces: dict, voices: dict) -> np.ndarray:
    """Slope of each face dimension on loudness (0 to 1 within a clip) at the same moment, voiced clips only."""
    x, y = [], []
    for name, (rows, times) in faces.items():
        if name not in voices or (voices[name][0][:, F0] > 0).mean() < 0.2:
            continue
        frames, at = voices[name]
        loud = np.interp(times, at, frames[:, 0]) / np.percentile(frames[:, 0], 95)
        valid = rows.any(axis=1)
        x.append(np.clip(loud[valid], 0, 1) - np.clip(loud[valid], 0, 1).mean())
        y.append(rows[valid] - rows[valid].mean(0))
    loud, rows = np.concatenate(x), np.concatenate(y)
    return loud @ rows / (loud @ loud)


def _autocorrelation(parts: list[np.ndarray]) -> np.ndarray:
    """Lag-1 autocorrelation of centred [n, d] parts, over adjacent rows that are both there."""
    ahead = np.concatenate([p[1:] for p in parts])
    behind = np.concatenate([p[:-1] for p in parts])
    both = ~np.isnan(ahead[:, 0]) & ~np.isnan(behind[:, 0])
    ahead, behind = ahead[both], behind[both]
    norm = np.sqrt((ahead**2).sum(0) * (behind**2).sum(0))
    return np.divide((ahead * behind).sum(0), norm, out=np.zeros(len(norm)), where=norm > 0).clip(0, 0.98)


def _correlation(frames: np.ndarray) -> np.ndarray:
    """[d, d]; a constant dimension correlates with itself alone. Shrunk a little, so that it has a root."""
    std = frames.std(0)
    scaled = np.divide(frames, std, out=np.zeros_like(frames), where=std > 0)
    corr = scaled.T @ scaled / len(frames)
    return 0.95 * np.where(np.eye(len(std), dtype=bool), 1.0, corr) + 0.05 * np.eye(len(std))


def _rounded(value):
    """JSON-ready: arrays to lists, four significant digits."""
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return [_rounded(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.4g}")
    return value


if __name__ == "__main__":
    main()
