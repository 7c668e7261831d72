"""Run a run again from its folder alone, and say whether the same came out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DeepMLFError

if TYPE_CHECKING:
    from datasets import DatasetDict
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ..training import Run


@dataclass(frozen=True)
class Rerun:
    """The new run, what differs in its metrics (name -> before, now) and in what it was computed with."""

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
        run: what to run again; it stays as it is.
        out: the new folder; None: beside the old one, `NAME-again`.
        dataset: where it lies now; None: where it lay. Its utterances, labels, features and
            their recipe must be those of the run.
        lm, tokenizer: where the run was made with a language model in memory.

    Raises:
        DeepMLFError: there is no finished run, its dataset cannot be found or is another one by now.
    """
    from ..training import Run
    from ..training.driver import open_dataset
    from ..training.run_folder import digest_of

    run = run if isinstance(run, Run) else Run.open(run)
    if not run.finished:
        raise DeepMLFError(f"The run {run.path} is not finished: repeat its own command, it goes on.")
    known = run.info["dataset"]
    where = dataset if dataset is not None else known["path"]
    if where is None:
        raise DeepMLFError(
            f"The run {run.path} was trained on a dataset in memory: say which dataset to use."
        )
    data, _ = open_dataset(where)
    if (digest := digest_of(data)) != known["digest"]:
        raise DeepMLFError(
            f"The dataset has other utterances, labels or features than the run's (digest {digest}, not "
            f"{known['digest']}): say where the run's own lies, or prepare it as it was."
        )
    folder = Path(out) if out is not None else run.path.with_name(f"{run.path.name}-again")
    if folder.resolve() == run.path.resolve():
        raise DeepMLFError(f"{folder} is the run itself: choose another folder.")
    again = _train(run, where, folder, lm, tokenizer, progress)
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


def _train(
    run: Run,
    dataset: DatasetDict | str | Path,
    out: Path,
    lm: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase | None,
    progress: bool,
) -> Run:
    from ..training import pretrain_av, train

    common = {"seed": run.info["seed"], "tokenizer": tokenizer, "progress": progress}
    if run.kind == "av":
        return pretrain_av(run.preset, dataset, out, **common)
    if run.kind == "text":
        from ..model.baselines import train_text_only

        return train_text_only(run.preset, dataset, out, lm=lm, **common)
    start = _av_start(run)
    if run.kind == "fused":
        return train(run.preset, dataset, out, av_encoder=start, lm=lm, **common)
    from ..model.baselines_fusion import train_baseline

    return train_baseline(run.kind, run.preset, dataset, out, av_encoder=start, lm=lm, **common)


def _av_start(run: Run) -> Path | None:
    """The checkpoint that the run's AV encoder started from, as it was then."""
    from ..training.run_folder import weights_digest

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
