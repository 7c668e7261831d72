"""The explorer: pick an utterance, look at it layer by layer, change its words, switch a modality off.

Built on `explain.Lens`, for JupyterLab, Jupyter Notebook and VS Code (it is an ipywidget, made with anywidget).
Python measures an utterance once; every change of layer, head, token or view is then drawn in the browser from
numbers that are there already (`explorer.js`). `export_html` writes the same explorer as one file that needs no
Python and no network.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable
from functools import lru_cache
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from plotly.offline import get_plotlyjs

from ..errors import DeepMLFError
from ..explain.ablations import ABLATIONS
from ..explain.lens import Lens, Row
from ..plots.style import COLOURS, DIVERGING, GREY, GRID, LINE, SEQUENTIAL, TIMES_UNIFORM, modality_label
from ..plots.tracks import TRACK_COLOURS
from ..rendering.html_page import script_json
from ..storage.files import write_text
from ..storage.optional import optional
from .payload import clip_of, effects_payload, payload_of, plain

if TYPE_CHECKING:
    import anywidget
    import traitlets
else:
    anywidget, traitlets = optional("anywidget"), optional("traitlets")

VIEWS = ("timeline", "layers", "heads", "words", "sentiment", "update", "similarity", "effects")


@lru_cache(maxsize=1)
def _plotly_js() -> str:
    """plotly.js as an expression that gives it, whatever module system the page has."""
    return (
        "const Plotly = (() => { const module = { exports: {} }; const exports = module.exports; "
        "const define = undefined;\n" + get_plotlyjs() + "\nreturn module.exports; })();\n"
    )


def _front_end(name: str) -> str:
    return (files("deepmlf_kit.widgets") / name).read_text(encoding="utf-8")


def _script() -> str:
    """`explorer.js`, after the colours and scales that it shares with the figures of `plots`."""
    style = {
        "grey": GREY,
        "grid": GRID,
        "line": LINE,
        "colours": COLOURS,
        "tracks": TRACK_COLOURS,
        "sequential": SEQUENTIAL,
        "diverging": DIVERGING,
        "timesUniform": TIMES_UNIFORM,
    }
    return f"const STYLE = {script_json(style)};\n{_front_end('explorer.js')}"


class Explorer(anywidget.AnyWidget):
    """Explore a trained model utterance by utterance.

    Everything a control sets can be set from Python too: `explorer.index = 3`, `explorer.text = "..."`,
    `explorer.without = ["audio"]`, `explorer.view = "words"`.

    Args:
        model_or_run: a `Lens`, a `DeepMLFModel`, a `Run` or the path of a run's folder.
        dataset: a `DatasetDict` or its path; by default the run's own.
        split: the split to explore.
        limit: list only its first utterances (the list needs one pass over them).
        clips: folder in which the utterances' clips lie, to play and export them; by default the dataset's own. Clips
            elsewhere are left out, since a dataset of somebody else's could name any file of this machine.
        progress: show a bar while the list is made.

    Attributes:
        index: number of the utterance in the split.
        text: its words; changing them reads the utterance again.
        modalities: `text` and those that the model reads beside it, with their labels.
        without: modalities switched off.
        view: one of `VIEWS`. layer, head, lm_layer, lm_head: -1 for the mean; layer counts MM Blocks.
        token: the fusion token. effects_of: what is ablated in the view `effects`.

    Raises:
        DeepMLFError: as `Lens`; a view, modality or utterance that does not exist.
    """

    _css = _front_end("explorer.css")

    listing: Any = traitlets.List().tag(sync=True)
    modalities: Any = traitlets.List().tag(sync=True)
    payload = traitlets.Dict().tag(sync=True)
    cross = traitlets.Bytes().tag(sync=True)
    self_attention = traitlets.Bytes().tag(sync=True)
    clip = traitlets.Bytes().tag(sync=True)
    effects = traitlets.Dict().tag(sync=True)
    index = traitlets.Int(0).tag(sync=True)
    index_again = traitlets.Int(0).tag(sync=True)
    text = traitlets.Unicode("").tag(sync=True)
    without = traitlets.List(traitlets.Unicode()).tag(sync=True)
    view = traitlets.Unicode("timeline").tag(sync=True)
    layer = traitlets.Int(-1).tag(sync=True)
    head = traitlets.Int(-1).tag(sync=True)
    token = traitlets.Int(0).tag(sync=True)
    lm_layer = traitlets.Int(-1).tag(sync=True)
    lm_head = traitlets.Int(-1).tag(sync=True)
    effects_of = traitlets.Unicode("modalities").tag(sync=True)
    busy = traitlets.Bool(False).tag(sync=True)
    trouble = traitlets.Unicode("").tag(sync=True)

    def __init__(
        self,
        model_or_run: Any,
        dataset: Any = None,
        split: str = "test",
        *,
        limit: int | None = None,
        clips: str | Path | None = None,
        progress: bool = True,
    ) -> None:
        self.lens = model_or_run if isinstance(model_or_run, Lens) else Lens(model_or_run, dataset, split)
        survey = self.lens.survey(limit, specialise=False, progress=progress)
        self._scale = survey.scale
        self._clips = clips if clips is not None else self.lens.folder
        self._recorded = 0.0
        self._reading: Any = None
        self._quiet = True
        super().__init__(_esm=_plotly_js() + _script() + "\nexport default { render };\n")
        self.modalities = [
            {"name": name, "label": modality_label(name)}
            for name in ("text", *self.lens.model.config.modalities)
        ]
        self.listing = [
            {
                "index": int(row["index"]),
                "id": row["id"],
                "text": row["text"][:160],
                "label": plain(row["label"]),
                "prediction": plain(row["prediction"]),
                "error": plain(row["error"]),
                "disagreement": plain(row["disagreement"]),
            }
            for row in survey.table.to_dict("records")
        ]
        self._quiet = False
        self._open(0)

    # What the controls set -----------------------------------------------------------------------------------

    @traitlets.validate("index")
    def _check_index(self, proposal: Any) -> int:
        count = len(self.lens)
        if not 0 <= proposal["value"] < count:
            raise DeepMLFError(f"No utterance {proposal['value']}: the split has {count}, counted from 0.")
        return proposal["value"]

    @traitlets.validate("view", "effects_of")
    def _check_choice(self, proposal: Any) -> str:
        name, value = proposal["trait"].name, proposal["value"]
        choices = VIEWS if name == "view" else ABLATIONS
        if value not in choices:
            raise DeepMLFError(f"{name}={value!r} is not known: choose from {', '.join(choices)}.")
        return value

    @traitlets.validate("without")
    def _check_without(self, proposal: Any) -> list[str]:
        known = [modality["name"] for modality in self.modalities]
        if unknown := sorted(set(proposal["value"]) - set(known)):
            raise DeepMLFError(f"without={unknown} is not known: choose from {', '.join(known)}.")
        return proposal["value"]

    @traitlets.observe("index", "index_again")
    def _on_index(self, _: Any) -> None:
        if not self._quiet:
            self._open(self.index)

    @traitlets.observe("text", "without")
    def _on_change(self, _: Any) -> None:
        if not self._quiet:
            self._read()

    @traitlets.observe("view", "effects_of")
    def _on_view(self, _: Any) -> None:
        if not self._quiet and self.view == "effects":
            self._measure_effects()

    # What they lead to -----------------------------------------------------------------------------------------

    def _open(self, index: int) -> None:
        """The utterance as it was recorded."""
        row = self.lens.row(index)
        self._quiet = True
        self.text, self.without = row["text"], []
        self._quiet = False
        found = clip_of(row, self._clips)
        self.clip = found[0] if found else b""
        self._clip_type = found[1] if found else ""
        self._recorded = float("nan")
        self._read()

    def _read(self) -> None:
        self.busy, self.trouble = True, ""
        try:
            row = self.lens.changed(self.index, self.text, self.without)
            self._reading = self.lens.read(row)
            values, cross, own = payload_of(self._reading, self._scale)
            if not np.isfinite(self._recorded):
                self._recorded = self._reading.sentiment
            values |= {
                "index": self.index,
                "text": self.text,
                "without": list(self.without),
                "recorded": plain(self._recorded),
                "clip": {"type": self._clip_type} if self._clip_type else None,
            }
            with self.hold_sync():  # one message: the view never mixes two utterances
                self.effects = {}
                self.cross, self.self_attention = cross, own
                self.payload = values
            if self.view == "effects":
                self._measure_effects()
        except DeepMLFError as error:
            self.trouble = str(error)
        finally:
            self.busy = False

    def _measure_effects(self) -> None:
        if self.effects_of in self.effects:
            return
        self.busy = True
        try:
            found = self.lens.effects(self._reading.row, self.effects_of)
            self.effects = {**self.effects, self.effects_of: effects_payload(found, self._reading)}
        except DeepMLFError as error:
            self.trouble = str(error)
        finally:
            self.busy = False

    # One file ----------------------------------------------------------------------------------------------------

    def export_html(self, path: str | Path, utterances: Iterable[Row] | None = None) -> Path:
        """Write the explorer as one HTML file that works without Python and without a network.

        Words are fixed there (changing them needs the model); switching modalities off shows the prediction
        measured beforehand, the plots stay those of the utterance as recorded.

        Args:
            path: of the file; about 5 MB, and 0.1 to 3 MB for each utterance, more with clips.
            utterances: numbers or ids; by default the one on show and the 11 with the largest errors.

        Returns:
            The path.
        """
        chosen = [self.index, *self._worst(11)] if utterances is None else list(utterances)
        numbers = list(
            dict.fromkeys(self.lens.ids.index(u) if isinstance(u, str) else int(u) for u in chosen)
        )  # type: ignore[arg-type]
        if not numbers:
            raise DeepMLFError("No utterance to export: name one or more.")
        by_index = {row["index"]: row for row in self.listing}
        frozen = [self._frozen(number) for number in numbers]
        data = {
            "modalities": self.modalities,
            "listing": [by_index[n] for n in numbers if n in by_index],
            "utterances": {str(n): values for n, values in zip(numbers, frozen, strict=True)},
            "first": numbers[0],
        }
        page = _PAGE.format(
            title=f"Explorer: {html.escape(self.lens.name, quote=False)}",
            css=_front_end("explorer.css"),
            plotly=_plotly_js().replace("</script", "<\\/script"),
            front_end=_script(),
            static=_front_end("static.js"),
            data=script_json(data),
        )
        write_text(path, page)
        return Path(path)

    def _worst(self, count: int) -> list[int]:
        ordered = sorted(self.listing, key=lambda row: -abs(row["error"] or 0))
        return [row["index"] for row in ordered[:count]]

    def _frozen(self, index: int) -> dict[str, Any]:
        """All that the page needs of one utterance."""
        row = self.lens.row(index)
        reading = self.lens.read(row)
        values, cross, own = payload_of(reading, self._scale)
        clip = clip_of(row, self._clips, most=12_000_000)
        values |= {
            "index": index,
            "without": [],
            "recorded": values["sentiment"],
            "clip": {"type": clip[1]} if clip else None,
            "fixed_text": True,
        }
        without = {}
        known = [modality["name"] for modality in self.modalities]
        for count in range(1, len(known) + 1):
            for gone in combinations(known, count):
                ablated = self.lens.read(self.lens.changed(row, without=gone), "gates")
                without[",".join(gone)] = {
                    "sentiment": plain(ablated.sentiment),
                    "heads": {name: plain(value) for name, value in ablated.heads.items()},
                }
        measured = {}
        for of in ABLATIONS:
            if of != "words" or reading.words.words:
                measured[of] = effects_payload(self.lens.effects(row, of), reading)
        return {
            "payload": values,
            "cross": _base64(cross),
            "self_attention": _base64(own),
            "clip": _base64(clip[0]) if clip else "",
            "without": without,
            "effects": measured,
        }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 16px auto; max-width: 1280px; padding: 0 12px; background: Canvas; color: CanvasText;
  font-family: system-ui, sans-serif; }}
h1 {{ font-size: 18px; }}
{css}
</style>
</head>
<body>
<h1>{title}</h1>
<div id="explorer"></div>
<script id="data" type="application/json">{data}</script>
<script>
{plotly}
{front_end}
{static}
</script>
</body>
</html>
"""
