"""A run's folder: everything needed to read its results, to predict with it, and to run it again.

    runs/NAME/
      run.json          what was run: see below
      preset.yaml       every setting; `deepmlf train --preset runs/NAME/preset.yaml` runs it again
      metrics.jsonl     one line an epoch: `train_*`, `valid_*`, gates, learning rate, seconds
      table.json        the final table: metrics of the best checkpoint on the test split
      table.md          the same to read
      predictions.csv   id, label and what every head predicts, for each utterance of the test split; of a model of
                        classes their indices, and the task head's `probability_0`, `probability_1`, ... of each class
      best/             the best checkpoint (`config.json`, `model.safetensors`: trained weights only) and its card
      tensorboard/      logs for TensorBoard
      checkpoints/      while it runs: the last and the best checkpoint with the optimiser's state

`run.json` holds

    format          1
    kind            name of a registered model: fused, av, text, prefix, flamingo or one of yours
    state           running | finished
    preset          the whole tree of settings
    seed            of the run
    dataset         path, rows by split, digest (of utterances, labels, features and their recipe), audio_dim, vision_dim
    av_encoder      path and digest (of the weights) of the AV pretraining's checkpoint, or null
    lm_digest       of an LM in a local folder or in memory, or null
    preprocessing   what turns an utterance into a batch: `lm` (whose tokenizer), `max_text_tokens`,
                    `normalizer` (statistics by modality, or null), `recipe` (extractors and their settings)
    versions        python, torch, transformers, ... and the kit's own
    parameters      trained, frozen
    best            epoch, step, metric, value (validation)
    seconds         of training, resumed sessions together
    test            the final metrics
    calibration     how sure a prediction is (`scoring.calibrate`); null for classes and small validation splits
"""

from __future__ import annotations

import copy
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import xxhash
import yaml
from huggingface_hub import HfApi
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .. import __version__
from ..data.collate import Collator
from ..data.normalize import Normalizer
from ..data.schema import DatasetError, frame_columns, recipe_of
from ..errors import DeepMLFError
from ..model.checkpoints import read_weights
from ..storage.files import misshapen, read_json, write_json, write_text
from ..storage.optional import optional
from .model_card import model_card
from .models import registered_model
from .presets import Preset
from .presets.loader import preset_of
from .quiet import quiet_bars

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc
    from datasets import Dataset, DatasetDict
else:  # a prediction reads no table
    pd, pa, pc = optional("pandas"), optional("pyarrow"), optional("pyarrow.compute")

FORMAT = 1
#: Patterns of what the kit writes into a run's folder (`storage.folders`), but for `run.json`.
RESULT_FILES = (
    "preset.yaml",
    "metrics.jsonl",
    "table.json",
    "table.md",
    "predictions.csv",
    "report.html",
    "best/config.json",
    "best/*.safetensors",
    "best/*.safetensors.index.json",
    "best/training_args.bin",
    "best/README.md",
    "tensorboard/events.out.tfevents.*",
    "checkpoints/checkpoint-*",
)
_NUMBER = (float, type(None))
_SHAPE = {
    "kind": str,
    "state": str,
    "preset": {"av_encoder": {"extra_modalities?": dict}, "heads": {"classes?": int}},
    "seed": int,
    "dataset": {
        "path": (str, type(None)),
        "rows": dict,
        "digest": str,
        "audio_dim": int,
        "vision_dim": int,
    },
    "av_encoder?": (dict, type(None)),
    "versions": dict,
    "preprocessing?": {"max_text_tokens": int, "normalizer": (dict, type(None)), "recipe?": object},
    "parameters?": {"trained": int, "frozen": int},
    "seconds?": float,
}
_SHAPE_FINISHED = {
    "preprocessing": dict,
    "parameters": dict,
    "best": {"value": _NUMBER},
    "test": dict,
}
#: Settings that must be equal for a run to be resumed.
_SETTINGS = ("kind", "preset", "seed", "dataset", "av_encoder", "lm_digest")
_MEANINGS = {
    "dataset.digest": "the digest of the dataset (utterances, labels, features and their recipe)",
    "av_encoder.digest": "the digest of the pretrained AV encoder's weights",
    "lm_digest": "the digest of the language model's folder",
}


@dataclass
class Run:
    """One run on disk; `Run.open(path)` reads it."""

    path: Path
    info: dict[str, Any] = field(default_factory=dict)

    #: What `info` is read from.
    FILE: ClassVar[str] = "run.json"

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Read a run's folder, or the `best` folder inside it.

        Raises:
            DeepMLFError: there is no run.
        """
        path = Path(path)
        if path.name == "best" and (path.parent / "run.json").is_file():
            path = path.parent
        repair = (
            "bring the file back as the training wrote it, or train again (with --overwrite in this folder)."
        )
        try:
            info = read_json(path / "run.json", repair)
        except FileNotFoundError as error:
            expected = "expected the folder that `deepmlf train` wrote, with run.json and best/ in it."
            if (path / "config.json").is_file():  # what save_pretrained leaves
                expected += " A model alone predicts (`deepmlf predict`, Predictor); for the rest load it with AutoModel.from_pretrained."
            raise DeepMLFError(f"No run at {path}: {expected}") from error
        if info.get("format") != FORMAT:
            raise DeepMLFError(
                f"{path / 'run.json'} has format {info.get('format')}, this kit reads {FORMAT}: use the version of the "
                "kit that wrote it."
            )
        wrong = misshapen(info, _SHAPE)
        if not wrong and info["state"] not in ("running", "finished"):
            wrong = f"state is {info['state']!r:.80}, expected running or finished"
        if not wrong and info["state"] == "finished":
            wrong = misshapen(info, _SHAPE_FINISHED)
            for name, value in info["test"].items() if not wrong else ():
                wrong = wrong or misshapen(value, _NUMBER, f"test.{name}")
        if wrong:
            raise DeepMLFError(f"{path / 'run.json'} was damaged or edited: {wrong}; {repair}")
        return cls(path, info)

    # What is inside ------------------------------------------------------------------------------------------

    @property
    def kind(self) -> str:
        """Name of the registered model: fused, av, text, prefix, flamingo or one of yours."""
        return self.info["kind"]

    @property
    def finished(self) -> bool:
        return self.info["state"] == "finished"

    @property
    def preset(self) -> Preset:
        """The settings, as `load_preset` gives them."""
        return preset_of(self.info["preset"])

    @property
    def best(self) -> Path:
        """The folder of the best checkpoint."""
        return self.path / "best"

    @property
    def metrics(self) -> dict[str, float]:
        """The final metrics on the test split; empty while the run is not finished."""
        return self.info.get("test", {})

    def history(self) -> list[dict[str, Any]]:
        """One dict an epoch, from `metrics.jsonl`."""
        path = self.path / "metrics.jsonl"
        rows: list[dict[str, Any]] = []
        for number, line in enumerate(path.read_bytes().splitlines() if path.is_file() else (), start=1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if wrong := misshapen(row, {"epoch": int, "step": int}):
                raise DeepMLFError(
                    f"{path} is damaged in line {number} ({wrong}), expected one JSON object an epoch: remove the file to do "
                    "without its curves, or train again (--overwrite)."
                )
            rows.append(row)
        return rows

    def predictions(self) -> pd.DataFrame:
        """`predictions.csv` as a DataFrame.

        Raises:
            DeepMLFError: it is missing or damaged.
        """
        path = self.path / "predictions.csv"
        repair = "remove the file and repeat the training's command, which writes it again"
        try:
            table = pd.read_csv(path, dtype={"id": str})
            numbers = table[[name for name in table if name != "id"]].astype(float)
        except FileNotFoundError as error:
            raise DeepMLFError(
                f"{path} is missing: repeat the training's command, which writes it again."
            ) from error
        except (ValueError, pd.errors.ParserError) as error:
            raise DeepMLFError(f"{path} is damaged ({str(error)[:200]}): {repair}.") from error
        if lacking := {"id", "label", "prediction"} - set(table):
            raise DeepMLFError(f"{path} lacks the columns {', '.join(sorted(lacking))}: {repair}.")
        return table.assign(**numbers)

    # Using it ------------------------------------------------------------------------------------------------

    def load_model(
        self, lm: PreTrainedModel | None = None, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> PreTrainedModel:
        """The model with the best weights, in eval mode.

        Args:
            lm, tokenizer: where the run was made with a language model in memory.

        Raises:
            DeepMLFError: there is no checkpoint yet, or the run's model is not registered.
        """
        if not self.best.is_dir() or "preprocessing" not in self.info:
            raise DeepMLFError(f"The run {self.path} has no best checkpoint yet: let its training end first.")
        with quiet_bars():
            model = registered_model(self.kind).load(self.best, lm=lm, tokenizer=tokenizer)
        self._check_sizes(model.config)
        return model

    def _check_sizes(self, config: Any) -> None:
        """Refuse a `run.json` whose sizes are not those of the checkpoint: batches are made by the one, read by the other."""
        done, data, preset = self.info["preprocessing"], self.info["dataset"], self.info["preset"]
        named = {
            "max_text_tokens": done["max_text_tokens"],
            "audio_dim": data["audio_dim"],
            "vision_dim": data["vision_dim"],
            "extra_modalities": preset["av_encoder"].get("extra_modalities", {}),
            "num_classes": preset["heads"].get("classes", 0),
        }
        for name, here in named.items():
            there = getattr(config, name, here)
            if here != there:
                raise DeepMLFError(
                    f"{self.path / self.FILE} has {name} {here}, but {self.best / 'config.json'} has {there}: one of them was "
                    "edited; bring both back as the training wrote them."
                )

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Collator:
        """Rows -> batch, exactly as in the run's training."""
        done, data = self.info["preprocessing"], self.info["dataset"]
        return Collator(
            tokenizer,
            done["max_text_tokens"],
            normalizer=self._normalizer(),
            long_texts=done.get("long_texts", "start"),  # how runs of the kit's first days were trained
            full_stop=done.get("full_stop", False),
            audio_dim=data["audio_dim"],
            vision_dim=data["vision_dim"],
            extra_dims=self.info["preset"]["av_encoder"].get("extra_modalities"),
            classes=self.info["preset"]["heads"].get("classes", 0),
        )

    def _normalizer(self) -> Normalizer | None:
        statistics = self.info["preprocessing"]["normalizer"]
        if not statistics:
            return None
        data, extra = self.info["dataset"], self.info["preset"]["av_encoder"].get("extra_modalities", {})
        widths = {"audio": data["audio_dim"], "vision": data["vision_dim"], **extra}
        try:
            return Normalizer.from_dict(statistics, widths)
        except DatasetError as error:
            raise DeepMLFError(
                f"{self.path / self.FILE} was damaged or edited: preprocessing.{error}; bring the file back as the training wrote it, or "
                "train again."
            ) from error

    # Sharing -------------------------------------------------------------------------------------------------

    def push_to_hub(self, repository: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload what another machine needs to predict with this run, the model card in front.

        Args:
            repository: on the hub, `user/name`; made where it does not exist.
            private: make it private.
            token: of the hub; None: the one this machine is logged in with.

        Returns:
            The repository's address.
        """
        if not self.finished:
            raise DeepMLFError(f"The run {self.path} is not finished: let its training end first.")
        info = copy.deepcopy(self.info)
        for part in ("dataset", "av_encoder"):
            if info[part]:
                info[part]["path"] = None  # a path of this machine
        files: dict[str, Path | bytes] = {
            path.relative_to(self.path).as_posix(): path for path in self.best.iterdir() if path.is_file()
        }
        files |= {name: self.path / name for name in ("preset.yaml", "table.md", "metrics.jsonl")}
        files["run.json"] = (json.dumps(info, indent=1) + "\n").encode()
        files["README.md"] = model_card(self).encode()
        api = HfApi(token=token)
        where = api.create_repo(repository, private=private, exist_ok=True)
        for path, content in files.items():
            source = content if isinstance(content, bytes) else str(content)
            api.upload_file(path_or_fileobj=source, path_in_repo=path, repo_id=repository)
        return str(where)

    # Writing -------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write `run.json` and `preset.yaml`, each atomically."""
        write_json(self.path / "run.json", self.info)
        write_text(self.path / "preset.yaml", yaml.safe_dump(self.info["preset"], sort_keys=False))

    def check_same(self, wanted: Mapping[str, Any]) -> None:
        """Raise where this run was started with other settings than `wanted`."""
        differing = []
        for name in _SETTINGS:
            differing += _differences(name, self.info.get(name), wanted.get(name))
        if differing:
            raise DeepMLFError(
                f"{self.path} holds a run with other settings or other data: {'; '.join(differing[:6])}. Choose another folder, or "
                "overwrite=True (--overwrite) to start anew."
            )


def versions() -> dict[str, str]:
    """Versions of the packages that a result may depend on."""
    # torch says of which build it is (+cpu, +cu130); the metadata of some of its wheels does not
    found = {
        "python": platform.python_version(),
        "deepmlf-kit": __version__,
        "torch": str(torch.__version__),
    }
    for name in ("transformers", "datasets", "accelerate", "peft", "numpy", "scikit-learn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def digest_of(dataset: DatasetDict) -> str:
    """A short fingerprint of what a training reads, the same wherever the dataset is stored.

    It covers utterances, labels, every frame of each modality with its time, and the recipe that made them. Frames
    are hashed in the Arrow buffers they lie in: 1 GB takes 0.35 s of one core, less than to read it from disk.
    """
    digest = xxhash.xxh3_128(json.dumps(recipe_of(dataset), sort_keys=True).encode())
    for name in sorted(dataset):
        numbers = [c for c in ("label", "label_class") if c in dataset[name].column_names]
        part = dataset[name].with_format(None).select_columns(["id", "text", *numbers])
        digest.update(name.encode())
        for column in ("id", "text"):
            digest.update("\x00".join(part[column]).encode())
        for column in numbers:
            values = np.asarray(part[column], np.float32)
            if column == "label" or not np.isnan(values).all():  # without classes as before they were kept
                digest.update(values.tobytes())
        for column in frame_columns(dataset[name].features):
            digest.update(_list_column_digest(dataset[name], column))
            digest.update(_list_column_digest(dataset[name], f"{column}_times"))
    return digest.hexdigest()[:16]


def weights_digest(folder: str | Path) -> str:
    """A short fingerprint of a checkpoint's tensors: names, shapes, types and values.

    Raises:
        DeepMLFError: the folder holds no readable checkpoint.
    """
    path = Path(folder) / "model.safetensors"
    if not path.is_file():
        raise DeepMLFError(
            f"No AV encoder checkpoint at {str(folder)!r}: expected the folder that `deepmlf pretrain-av` wrote, with "
            "model.safetensors in it."
        )
    tensors = read_weights(path)
    digest = xxhash.xxh3_128()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _list_column_digest(split: Dataset, column: str) -> bytes:
    """Of a column of (nested) lists of numbers: lengths and values, however the rows are cut into chunks."""
    digests: list[Any] = []  # lengths of each level of lists, then the values
    for batch in split.with_format("arrow", columns=[column]).iter(256):
        for chunk in batch[column].chunks:
            array = chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk
            levels = []
            while pa.types.is_nested(array.type):
                levels.append(pc.list_value_length(array))
                array = array.flatten()
            for i, level in enumerate([*levels, array]):
                if i == len(digests):
                    digests.append(xxhash.xxh3_128())
                digests[i].update(np.ascontiguousarray(level.to_numpy(zero_copy_only=False)))
    return b"".join(digest.digest() for digest in digests)


def _differences(name: str, there: Any, here: Any) -> list[str]:
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        # A dataset and a checkpoint are known by their content, wherever they lie.
        keys = [k for k in {**there, **here} if not (name in ("dataset", "av_encoder") and k == "path")]
        return [d for key in keys for d in _differences(f"{name}.{key}", there.get(key), here.get(key))]
    told = _MEANINGS.get(name, name.removeprefix("preset."))
    return [] if there == here else [f"{told} is {there!r} there, {here!r} here"]
