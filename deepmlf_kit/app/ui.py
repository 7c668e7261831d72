"""The page: its layout and its event handlers."""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DeepMLFError
from ..storage.optional import optional
from ..workers.cancel import Cancelled
from . import views
from .answering import Answer, Step, answer_example, ask_again, face_boxes, read_clip
from .downloads import write_files, write_page
from .examples import Example, examples, shown_examples
from .live import LiveSession
from .models import Models
from .privacy import privacy_statement
from .sessions import Session, Sessions, Ticket
from .settings import Settings
from .streams import Streams
from .timeline import live_curve, timeline, timeline_said

if TYPE_CHECKING:
    import gradio as gr
else:
    gr = optional("gradio")

_log = logging.getLogger(__name__)
_FONTS = ["ui-sans-serif", "system-ui", "Segoe UI", "Roboto", "sans-serif"]
_HEAD = """<div class="mlf-head"><h1>DeepMLF: sentiment from words, voice and face</h1>
<p>Give a clip of somebody saying a sentence, or take an example. Then change a word, or leave out voice or face: what
changes the model's mind?</p></div>"""
_CAUTION = """<p class="mlf-caution" role="note"><b>Not for judging people.</b> {privacy} See <i>About this model</i>.</p>"""
_CLIP = """<div class="mlf-in"><div class="mlf-stage"><div class="mlf-face" hidden aria-hidden="true"></div>
<p>Drop a video or sound file here</p></div>
<div class="mlf-buttons"><button type="button" class="mlf-primary" data-do="record" aria-pressed="false">Record</button>
<button type="button" data-do="choose">Choose a file</button></div>
<input type="file" hidden aria-label="A clip"><p class="mlf-status" role="status">Any video or sound file, up to
{seconds:.0f} s and {megabytes} MB</p>
<span hidden data-seconds="{seconds:g}" data-megabytes="{megabytes}" data-first="{first}" data-clips="{clips}"></span></div>"""
_LIVE = """<div class="mlf-live"><video muted playsinline aria-label="Your camera"></video>
<button type="button" class="mlf-primary" aria-pressed="false">Start camera and microphone</button>
<p class="mlf-status" role="status">The camera is off.</p><span hidden data-fps="{fps:g}"></span></div>"""


def theme() -> gr.themes.Base:
    """The theme: system fonts only, so that nothing is downloaded; colours that can be read (WCAG AA)."""
    made = gr.themes.Default(
        primary_hue=gr.themes.colors.blue, font=_FONTS, font_mono=["ui-monospace", "Consolas", "monospace"]
    )
    return made.set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
    )


def css() -> str:
    """The page's style sheet."""
    return _text("style.css")


def js() -> str:
    """The page's script."""
    return _text("cursor.js")


def _text(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def build(models: Models, sessions: Sessions, settings: Settings) -> gr.Blocks:
    """Build the page with all its handlers.

    Args:
        models: the models, which may still be loading.
        sessions: store of users' clips and answers.
        settings: limits.
    """
    app = _App(models, sessions, settings)
    with gr.Blocks(
        title="DeepMLF demo", analytics_enabled=False, delete_cache=(600, round(settings.idle_hours * 3600))
    ) as page:
        gr.HTML(_HEAD, apply_default_css=False)
        status = gr.HTML(views.status_line(models.status), elem_id="status", apply_default_css=False)
        gr.HTML(_CAUTION.format(privacy=privacy_statement(settings)), apply_default_css=False)
        with gr.Tabs():
            with gr.Tab("Clip", id="clip"):
                app.clip_tab()
            with gr.Tab("Live", id="live"):
                app.live_tab()
            with gr.Tab("About this model", id="about"):
                gr.Markdown(_text("card.md"))
        app.wait_for_models(page, status)
    page.queue(max_size=settings.queue, default_concurrency_limit=settings.workers)
    return page


@dataclass(frozen=True)
class _Given:
    """A clip that is to be read: its file, the words where they are known, and their times; or an example."""

    path: Path
    text: str = ""
    words: list[dict[str, Any]] | None = None
    example: Example | None = None


@dataclass(frozen=True)
class _Asked:
    """How a clip is asked about: which streams, against which held answer, and with which words left out."""

    voice: bool = True
    face: bool = True
    held: Streams | None = None
    with_clip: bool = False
    before: float | None = None
    slots: list[dict[str, Any]] | None = None


class _App:
    """The handlers of one page."""

    def __init__(self, models: Models, sessions: Sessions, settings: Settings) -> None:
        self.models, self.sessions, self.settings = models, sessions, settings
        self.examples = shown_examples()
        self.given: dict[str, _Given] = {}
        self.live: dict[str, LiveSession] = {}
        self.refused: dict[str, str] = {}

    def wait_for_models(self, page: gr.Blocks, status: gr.HTML) -> None:
        """Tell what is loaded; show the examples' answers, and the first one's in full, as soon as they are there."""
        loading = gr.Timer(1.0)

        def tick(answered: int, words: str, request: gr.Request) -> Iterator[dict[Any, Any]]:
            now = self.models.status
            known = bool(now.problem) or (now.ready and now.face is not None and now.speech is not None)
            changed = {status: views.status_line(now), loading: gr.Timer(active=not known)}
            count = len(self.models.predictions)
            if count != answered:
                changed |= {
                    self.answered: count,
                    self.cards: views.cards(self.examples, self.models.predictions),
                }
            yield changed
            session = self.sessions.get(request.session_hash)
            first = self.examples[0] if self.examples else None
            typed = (words or "").strip()
            if (
                session.untouched
                and not typed
                and first is not None
                and first.name in self.models.predictions
            ):
                given = _Given(first.path, first.text, first.words, first)
                yield from self._read(session, given, _Asked())

        for begin in (page.load, loading.tick):
            begin(
                tick,
                inputs=[self.answered, self.words],
                outputs=[status, loading, self.answered, self.cards, *self.shown],
                show_progress="hidden",
                api_visibility="private",
                concurrency_limit=None,
            )

    # The clip ------------------------------------------------------------------------------------------------

    def clip_tab(self) -> None:
        self.answered, self.held = gr.State(len(self.models.predictions)), gr.State(None)
        self.put = gr.State("")
        self.cards = gr.HTML(
            views.cards(self.examples, self.models.predictions),
            js_on_load=_text("cards.js"),
            elem_id="examples",
            apply_default_css=False,
            visible=bool(self.examples),
        )
        with gr.Row():
            with gr.Column(scale=4, min_width=300):
                panel = gr.HTML(
                    html_template=self._panel(),
                    js_on_load=_text("camera.js") + _text("clip.js"),
                    elem_id="clip-panel",
                    apply_default_css=False,
                )
                self.words = gr.Textbox(
                    label="Words",
                    info="Leave empty to have them transcribed; Enter asks again.",
                    placeholder="what is said in the clip",
                    lines=1,
                    max_lines=4,
                    max_length=1000,
                    elem_id="words",
                )
                self.steps = gr.HTML(
                    views.steps({}, None, 0, set()), elem_id="steps", apply_default_css=False
                )
                self.stop = gr.Button("Cancel", size="sm", visible=False, elem_id="cancel")
            with gr.Column(scale=7, min_width=320):
                self.answer = gr.HTML(views.EMPTY_ANSWER, elem_id="answer", apply_default_css=False)
                self.transcript = gr.HTML(
                    js_on_load=_text("words.js"), elem_id="transcript", apply_default_css=False
                )
                with gr.Row(equal_height=True, elem_classes="mlf-switches"):
                    self.voice = gr.Checkbox(True, label="Use the voice", min_width=120, container=False)
                    self.face = gr.Checkbox(True, label="Use the face", min_width=120, container=False)
                    self.hold = gr.Button("Hold to compare", size="sm", min_width=120, interactive=False)
                    self.let_go = gr.Button("Stop comparing", size="sm", min_width=120, visible=False)
        self.plot = gr.Plot(show_label=False, label="The clip over time", visible=False, elem_id="timeline")
        self.plot_said = gr.HTML(elem_id="timeline-said", apply_default_css=False)
        self.reasons = gr.HTML(elem_id="reasons", apply_default_css=False)
        with gr.Row(visible=False, equal_height=True) as self.downloads:
            self.with_clip = gr.Checkbox(
                False, label="Put the clip into the page", min_width=180, container=False
            )
            self.files = [
                gr.DownloadButton(name, size="sm", min_width=100)
                for name in ("Page (HTML)", "Answer (JSON)", "Effects (CSV)", "Frames (CSV)")
            ]
        file = gr.File(type="filepath", visible=False)
        self.shown = [self.steps, self.answer, self.transcript, self.plot, self.plot_said, self.reasons]
        self.shown += [self.downloads, *self.files, self.words, self.put, self.hold, self.stop]
        self._connect(panel, file)

    def _panel(self) -> str:
        clips = {
            example.name: f"data:video/mp4;base64,{base64.b64encode(example.path.read_bytes()).decode()}"
            for example in self.examples
        }
        return _CLIP.format(
            seconds=self.settings.max_seconds,
            megabytes=self.settings.max_megabytes,
            first=self.examples[0].name if self.examples else "",
            clips=escape(json.dumps(clips)),
        )

    def _connect(self, panel: gr.HTML, file: gr.File) -> None:
        quiet: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "multiple"}
        private: dict[str, Any] = {**quiet, "api_visibility": "private"}
        asked = [self.voice, self.face, self.held, self.with_clip]
        work = {"concurrency_id": "work", "concurrency_limit": self.settings.workers + 1}
        reading = {"inputs": asked, "outputs": self.shown, **work}
        panel.sending(self.clear, outputs=self.shown, queue=False, **private)
        for given, accept, inputs in (
            (panel.clip, self.take_upload, [self.words, self.put]),
            (self.cards.choose, self.take_example, []),
        ):
            given(accept, inputs=inputs, outputs=self.shown, queue=False, **private).then(
                self.read_given, **reading, **private
            )
        file.upload(
            self.read,
            inputs=[file, self.words, *asked[:2]],
            outputs=self.shown,
            api_name="read",
            **work,
            **quiet,
        )
        asking: dict[str, Any] = {"outputs": self.shown, "concurrency_id": "again", "concurrency_limit": 4}
        self.words.submit(self.again, inputs=[self.words, *asked], api_name="again", **asking, **quiet)
        self.transcript.edit(self.edited, inputs=asked, **asking, **private)
        for switch in (self.voice, self.face):
            switch.input(self.again, inputs=[self.words, *asked], **asking, **private)
        self.stop.click(self.cancel, outputs=self.shown, queue=False, **private)
        for button, hold in ((self.hold, True), (self.let_go, False)):
            button.click(
                self.hold_answer if hold else self.let_answer_go,
                outputs=[self.held, self.answer, self.let_go],
                queue=False,
                **private,
            )
        self.with_clip.input(
            self.write_page, inputs=[self.with_clip], outputs=[self.files[0]], queue=False, **private
        )

    def clear(self, request: gr.Request) -> dict[Any, Any]:
        """Another clip is on its way: stop the work, forget the last one."""
        session = self.sessions.get(request.session_hash)
        self.given.pop(session.id, None)
        session.forget_clip()
        return self._cleared(views.READING)

    def take_upload(self, words: str, put: str, event: gr.EventData, request: gr.Request) -> dict[Any, Any]:
        """A clip has come. Words that were typed for it stay; those that belong to the one before go."""
        session = self.sessions.get(request.session_hash)
        session.forget_clip()
        path = Path(str(event._data.get("path"))).resolve()
        if not (path.is_relative_to(self.sessions.root) and path.is_file()):
            return self._problem("The file is no longer there. Give the clip again.")
        self.sessions.add_upload(session, path)
        typed = words if (words or "").strip() != put.strip() else ""
        self.given[session.id] = _Given(path, typed)
        return self._cleared(views.READING) | {
            self.words: typed,
            self.put: "",
            self.stop: gr.Button(visible=True),
        }

    def take_example(self, event: gr.EventData, request: gr.Request) -> dict[Any, Any]:
        """An example was chosen."""
        session = self.sessions.get(request.session_hash)
        session.forget_clip()
        name = event._data.get("name")
        example = next((example for example in self.examples if example.name == name), None)
        if example is None:
            return self._problem("There is no such example.")
        self.given[session.id] = _Given(example.path, example.text, example.words, example)
        put = {self.words: example.text, self.put: example.text}
        return self._cleared(views.READING) | put | {self.stop: gr.Button(visible=True)}

    def read_given(
        self, voice: bool, face: bool, held: Streams | None, with_clip: bool, request: gr.Request
    ) -> Iterator[dict[Any, Any]]:
        """Read the clip that was given last, reporting each step."""
        session = self.sessions.get(request.session_hash)
        given = self.given.pop(session.id, None)
        if given is None:  # another request has taken it
            yield {self.steps: gr.skip()}
            return
        yield from self._read(session, given, _Asked(voice, face, held, with_clip))

    def read(
        self, file: str | None, words: str, voice: bool, face: bool, request: gr.Request
    ) -> Iterator[dict[Any, Any]]:
        """Read a clip: the interface for programs."""
        session = self.sessions.get(request.session_hash)
        if not file:
            yield self._problem("No clip yet: record or choose one, or take one of the examples.")
            return
        self.sessions.add_upload(session, Path(file))
        known = next((e for e in examples() if Path(file).name == e.path.name and words == e.text), None)
        given = _Given(Path(file), words or "", known.words if known else None)
        yield from self._read(session, given, _Asked(voice, face))

    def _read(self, session: Session, given: _Given, asked: _Asked) -> Iterator[dict[Any, Any]]:
        session.forget_clip()
        ticket = session.begin()
        yield self._cleared(views.READING) | {self.stop: gr.Button(visible=True)}
        last, done, began = ("", 0), dict[str, float](), time.perf_counter()
        streams = {"audio": asked.voice, "vision": asked.face}
        try:
            if given.example is not None and given.example.name in self.models.examples:
                news: Iterator[Step | Answer] = answer_example(
                    self.models, given.example, cancel=ticket, **streams
                )
            else:
                news = read_clip(
                    self.models, self.settings, given.path, given.text, given.words, ticket, **streams
                )
            for item in news:
                if ticket.cancelled:
                    return  # a newer request shows its own
                if isinstance(item, Answer):
                    yield self._show(session, ticket, given.path, item, asked)
                    continue
                now = (item.stage, int(item.fraction * 5))
                if now == last or item.stage not in views.STEPS:
                    continue
                if item.stage != last[0]:
                    if last[0] in views.STEPS:
                        done.setdefault(last[0], time.perf_counter() - began)
                    began = time.perf_counter()
                last = now
                yield {self.steps: views.steps(done, item.stage, item.fraction, set())}
        except Cancelled:
            return
        except DeepMLFError as error:
            yield self._problem(str(error))
        except Exception:
            _log.exception("reading a clip failed")
            yield self._problem("Something went wrong with this clip; it is written to the app's log.")

    def again(
        self,
        words: str,
        voice: bool,
        face: bool,
        held: Streams | None,
        with_clip: bool,
        request: gr.Request,
    ) -> Iterator[dict[Any, Any]]:
        """Answer again for the same clip with other words or streams."""
        yield from self._again(views.slots_of(words or ""), _Asked(voice, face, held, with_clip), request)

    def edited(
        self,
        voice: bool,
        face: bool,
        held: Streams | None,
        with_clip: bool,
        event: gr.EventData,
        request: gr.Request,
    ) -> Iterator[dict[Any, Any]]:
        """A word was dropped, put back or replaced."""
        slots = views.slots_given(event._data.get("slots"))
        yield from self._again(slots, _Asked(voice, face, held, with_clip), request)

    def _again(
        self, slots: list[dict[str, Any]], asked: _Asked, request: gr.Request
    ) -> Iterator[dict[Any, Any]]:
        session = self.sessions.get(request.session_hash)
        if session.features is None:
            yield {self.steps: gr.skip()}
            return
        asked = replace(
            asked, before=session.prediction.sentiment if session.prediction else None, slots=slots
        )
        ticket = session.begin()
        try:
            for answer in ask_again(
                self.models,
                session,
                views.text_of(slots),
                audio=asked.voice,
                vision=asked.face,
                cancel=ticket,
            ):
                yield self._show(session, ticket, session.clip, answer, asked)
        except Cancelled:
            return
        except DeepMLFError as error:
            yield self._problem(str(error))

    def cancel(self, request: gr.Request) -> dict[Any, Any]:
        """Stop reading."""
        session = self.sessions.get(request.session_hash)
        self.given.pop(session.id, None)
        session.forget_clip()
        return self._problem("Cancelled. Give a clip again, or take one of the examples.")

    def hold_answer(self, request: gr.Request) -> dict[Any, Any]:
        """Keep the answer to compare the next ones with."""
        session = self.sessions.get(request.session_hash)
        if session.reasons is None or session.prediction is None:
            return {self.let_go: gr.skip()}
        streams = session.reasons.streams
        drawn = views.answer(session.prediction, streams, held=streams, faces=face_boxes(session.features))
        return {self.held: streams, self.answer: drawn, self.let_go: gr.Button(visible=True)}

    def let_answer_go(self, request: gr.Request) -> dict[Any, Any]:
        """Compare no more."""
        session = self.sessions.get(request.session_hash)
        changed: dict[Any, Any] = {self.held: None, self.let_go: gr.Button(visible=False)}
        if session.reasons is not None and session.prediction is not None:
            faces = face_boxes(session.features)
            changed[self.answer] = views.answer(session.prediction, session.reasons.streams, faces=faces)
        return changed

    def write_page(self, with_clip: bool, request: gr.Request) -> Any:
        """Write the page to hand on anew, with or without the clip."""
        session = self.sessions.get(request.session_hash)
        if session.reasons is None or session.prediction is None:
            return gr.skip()
        return str(self._page_file(session, with_clip))

    def _page_file(self, session: Session, with_clip: bool) -> Path:
        assert session.prediction is not None and session.reasons is not None
        clip = session.clip if with_clip else None
        return write_page(session.folder / "answer.html", session.prediction, session.reasons, clip)

    # What handlers return: the components that change --------------------------------------------------------

    def _show(
        self, session: Session, ticket: Ticket, clip: Path | None, answer: Answer, asked: _Asked
    ) -> dict[Any, Any]:
        prediction, reasons, so_far = answer.prediction, answer.reasons, answer.state == "heard"
        if ticket.cancelled:
            return {self.steps: gr.skip()}
        drawn = views.answer(
            prediction,
            reasons.streams,
            changed=asked.before,
            held=asked.held,
            so_far=so_far,
            faces=[] if so_far else face_boxes(answer.features),
        )
        changed: dict[Any, Any] = {
            self.answer: drawn,
            self.transcript: views.transcript(reasons.streams, asked.slots),
            self.words: prediction.text,
            self.put: prediction.text,
        }
        if so_far:
            return changed
        if not session.keep(ticket, clip, answer.features, prediction, reasons):
            return {self.steps: gr.skip()}
        left_out = {stage for stage in views.STEPS if stage not in answer.seconds}
        if answer.state == "answered":
            done = {stage: took for stage, took in answer.seconds.items() if stage != "model"}
            measured = all(word["effect"] is not None for word in reasons.streams.words)
            return changed | {self.steps: views.steps(done, "model", 0.6 if measured else 0.2, left_out)}
        page = self._page_file(session, asked.with_clip)
        written = write_files(session.folder, prediction, reasons, answer.features, answer.recipe)
        has_av = reasons.has_av
        return changed | {
            self.steps: views.steps(answer.seconds, None, 0, left_out),
            self.plot: gr.Plot(timeline(reasons) if has_av else None, visible=has_av),
            self.plot_said: f'<p class="mlf-found">{escape(timeline_said(reasons))}</p>' if has_av else "",
            self.reasons: views.reasons(reasons),
            self.downloads: gr.Row(visible=True),
            **dict(zip(self.files, map(str, (page, *written)), strict=True)),
            self.hold: gr.Button(interactive=True),
            self.stop: gr.Button(visible=False),
        }

    def _cleared(self, answer: str) -> dict[Any, Any]:
        return {
            self.steps: views.steps({}, None, 0, set()),
            self.answer: answer,
            self.transcript: "",
            self.plot: gr.Plot(None, visible=False),
            self.plot_said: "",
            self.reasons: "",
            self.downloads: gr.Row(visible=False),
            **dict.fromkeys(self.files),
            self.hold: gr.Button(interactive=False),
            self.stop: gr.Button(visible=False),
        }

    def _problem(self, message: str) -> dict[Any, Any]:
        return self._cleared(views.problem(message))

    # Live ----------------------------------------------------------------------------------------------------

    def live_tab(self) -> None:
        def push_live(packet: dict[str, Any]) -> dict[str, Any]:  # Gradio marks it, which a method cannot be
            return self.push_live(packet)

        with gr.Row():
            with gr.Column(scale=5, min_width=320):
                panel = gr.HTML(
                    html_template=_LIVE.format(fps=self.settings.live_fps),
                    js_on_load=_text("camera.js") + _text("live.js"),
                    server_functions=[push_live],
                    apply_default_css=False,
                    elem_id="live-panel",
                )
            with gr.Column(scale=7, min_width=320):
                answer = gr.HTML(views.live_answer(None), elem_id="live-answer", apply_default_css=False)
                curve = gr.Plot(
                    show_label=False, label="Sentiment over time", visible=False, elem_id="live-curve"
                )
                text = gr.Textbox(
                    label="Words while live",
                    info="Used where no speech model is at hand.",
                    max_length=1000,
                    elem_id="live-words",
                )
        panel.start(
            self.start_live,
            inputs=[text],
            outputs=[answer, curve],
            concurrency_id="live",
            concurrency_limit=self.settings.live_users + 2,  # those turned away answer at once
            show_progress="hidden",
            api_visibility="private",
        )
        text.change(self.set_live_words, inputs=[text], queue=False, api_visibility="private")

    def start_live(self, text: str, event: gr.EventData, request: gr.Request) -> Iterator[list[Any]]:
        """A live session, from start to stop: yields each new state."""
        session = self.sessions.get(request.session_hash)
        id = str(event._data["id"])
        running = [live for live in self.live.values() if not live.stopped]
        why = ""
        if len(running) >= self.settings.live_users:
            why = (
                f"{len(running)} live sessions are running, which is all this machine takes. Try again later."
            )
        try:
            recipe = self.models.recipe() if not why else None
        except DeepMLFError as error:
            why = str(error)
        if why or recipe is None:
            self.refused[id] = why
            yield [views.problem(why), gr.skip()]
            return
        if session.live is not None:
            session.live.stop()
        live = LiveSession(
            self.models.predictor, recipe, self.settings, face_model=self.models.face_model, text=text or ""
        )
        session.live = self.live[id] = live
        sure = self.models.predictor.calibration
        zone = sure.zone("text+audio+vision") if sure else None
        try:
            for state in live.states():
                drawn = live_curve(state.points, state.words, self.models.predictor.scale, zone=zone)
                figure = gr.Plot(drawn, visible=True)
                yield [views.live_answer(state), figure if state.points else gr.skip()]
        finally:
            live.stop("The tab was closed.")
            self.live.pop(id, None)

    def set_live_words(self, text: str, request: gr.Request) -> None:
        session = self.sessions.find(request.session_hash)
        if session is not None and session.live is not None:
            session.live.text = text or ""

    def push_live(self, packet: dict[str, Any]) -> dict[str, Any]:
        """Receive frames and sound from the browser; session ids are random, known to their sender only."""
        id = str(packet.get("id"))
        if id in self.refused:
            return {"go": False, "why": self.refused.pop(id)}
        live = self.live.get(id)
        if live is None:
            return {"go": True}  # its start is on the way
        if packet.get("stop"):
            live.stop()
            return {"go": False, "why": "Stopped."}
        return live.push(packet)
