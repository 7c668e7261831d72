"""Repeat a run from its folder alone, and compare the results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datasets import DatasetDict
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import DeepMLFError
from ..training import Run, train
from ..training.dataset import dataset_of_run
from ..training.run_folder import digest_of, weights_digest


@dataclass(frozen=True)
class Rerun:
    """The new run, the metrics that differ (name -> before, now) and the package versions that differ."""

    run: Run
    differing: dict[str, tuple[float, float]]
    versions: dict[str, tuple[str | None, str | None]]

    @property
    def same(self) -> bool:
        """Whether every metric is bitwise the same."""
        return not self.differing


def rerun(
    run: Run | str | Path,
    out: str | Path | None = None,
    dataset: DatasetDict | str | Path | None = None,
    *,
    lm: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    progress: bool = True,
) -> Rerun:
    """Train again with a run's own settings, seed and data.

    Args:
        run: the run to repeat; it is not modified.
        out: the new folder; None: beside the old one, `NAME-again`.
        dataset: where it is now; None: where it was. Its utterances, labels, features and their recipe must be those
            of the run.
        lm, tokenizer: where the run was made with a language model in memory.
        progress: show a progress bar.

    Raises:
        DeepMLFError: there is no finished run, or its dataset or AV pretraining is gone or has changed.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    if not run.finished:
        raise DeepMLFError(f"The run {run.path} is not finished: repeat its own command, it goes on.")
    known = run.info["dataset"]
    data, where = dataset_of_run(run, dataset, "use")
    if (digest := digest_of(data)) != known["digest"]:
        raise DeepMLFError(
            f"The dataset has other utterances, labels or features than the run's (digest {digest}, not "
            f"{known['digest']}): say where the run's own lies, or prepare it as it was."
        )
    folder = Path(out) if out is not None else run.path.with_name(f"{run.path.name}-again")
    if folder.resolve() == run.path.resolve():
        raise DeepMLFError(f"{folder} is the run itself: choose another folder.")
    again = train(
        run.preset,
        where,
        folder,
        model=run.kind,
        av_encoder=_av_start(run),
        seed=run.info["seed"],
        lm=lm,
        tokenizer=tokenizer,
        progress=progress,
    )
    differing = {
        name: (run.metrics.get(name, float("nan")), again.metrics.get(name, float("nan")))
        for name in {**run.metrics, **again.metrics}
        if not _equal(run.metrics.get(name), again.metrics.get(name))
    }
    before, now = run.info["versions"], again.info["versions"]
    versions = {
        name: (before.get(name), now.get(name))
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    }
    return Rerun(again, differing, versions)


def _av_start(run: Run) -> Path | None:
    """The checkpoint that the run's AV encoder was initialised from, unchanged since."""
    known = run.info["av_encoder"]
    if known is None:
        return None
    if known["path"] is None or not Path(known["path"]).exists():
        raise DeepMLFError(
            f"The run {run.path} started from the AV pretraining at {known['path']}, which is gone: bring it back, or run "
            "`deepmlf pretrain-av` and `deepmlf train` anew."
        )
    if (digest := weights_digest(known["path"])) != known["digest"]:
        raise DeepMLFError(
            f"The AV pretraining at {known['path']} has other weights than those that the run {run.path} started from "
            f"(digest {digest}, not {known['digest']}): bring those back, or run `deepmlf train` anew."
        )
    return Path(known["path"])


def _equal(one: float | None, other: float | None) -> bool:
    return one == other or (one is not None and other is not None and one != one and other != other)
