"""The page: its layout and its event handlers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr

from ..errors import DeepMLFError
from ..workers.cancel import Cancelled
from . import answering, views
from .answering import Answer, Step, ask_again, read_clip
from .downloads import write_files
from .examples import Example, examples
from .live import LiveSession
from .models import Models
from .privacy import privacy_statement
from .sessions import Session, Sessions, Ticket
from .settings import Settings
from .timeline import live_curve, timeline

_log = logging.getLogger(__name__)
_FONTS = ["ui-sans-serif", "system-ui", "Segoe UI", "Roboto", "sans-serif"]
_HEAD = """<div class="mlf-head"><h1>DeepMLF: sentiment from words, voice and face</h1>
<p>Record or upload a clip of somebody saying a sentence or two. The model answers with a sentiment and says what it
rests on.</p></div>"""
_CAUTION = """<p class="mlf-caution" role="note"><b>Trained on synthetic data. Not for judging people.</b>
{privacy} See <i>About this model</i>.</p>"""
_LIVE = """<div class="mlf-live"><video muted playsinline aria-label="Your camera"></video>
<button type="button" aria-pressed="false">Start camera and microphone</button>
<p class="mlf-status" role="status">The camera is off.</p><span hidden data-fps="{fps:g}"></span></div>"""


def theme() -> gr.themes.Base:
    """The theme: system fonts only, so that nothing is downloaded."""
    return gr.themes.Default(
        primary_hue=gr.themes.colors.blue, font=_FONTS, font_mono=["ui-monospace", "Consolas", "monospace"]
    )


def css() -> str:
    """The page's style sheet."""
    return (files(__package__) / "style.css").read_text(encoding="utf-8")


def js() -> str:
    """The page's script."""
    return (files(__package__) / "cursor.js").read_text(encoding="utf-8")


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
                gr.Markdown((files(__package__) / "card.md").read_text(encoding="utf-8"))
        loading = gr.Timer(1.5)
        page.load(app.tick, outputs=[status, loading], show_progress="hidden", api_visibility="private")
        loading.tick(app.tick, outputs=[status, loading], show_progress="hidden", api_visibility="private")
        page.unload(app.unload)
    page.queue(max_size=settings.queue, default_concurrency_limit=settings.workers)
    return page


class _App:
    """The handlers of one page."""

    def __init__(self, models: Models, sessions: Sessions, settings: Settings) -> None:
        self.models, self.sessions, self.settings = models, sessions, settings
        self.live: dict[str, LiveSession] = {}
        self.refused: dict[str, str] = {}

    def tick(self) -> tuple[str, Any]:
        """Update the loading status; stops the timer once everything is loaded or known to be missing."""
        status = self.models.status
        known = bool(status.problem) or (
            status.ready and status.face is not None and status.speech is not None
        )
        return views.status_line(status), gr.Timer(active=not known)

    def unload(self, request: gr.Request) -> None:
        self.sessions.close(request.session_hash)

    # The clip ------------------------------------------------------------------------------------------------

    def clip_tab(self) -> None:
        limit = f"up to {self.settings.max_seconds:.0f} s and {self.settings.max_megabytes} MB"
        with gr.Row():
            with gr.Column(scale=5, min_width=320):
                with gr.Tabs():
                    with gr.Tab("Video"):
                        video = gr.Video(
                            label=f"Video, {limit}",
                            sources=["upload", "webcam"],
                            include_audio=True,
                            webcam_options=gr.WebcamOptions(mirror=False),
                            elem_id="video",
                        )
                    with gr.Tab("Sound"):
                        sound = gr.Audio(
                            label=f"Sound, {limit}",
                            sources=["upload", "microphone"],
                            type="filepath",
                            elem_id="sound",
                        )
                    with gr.Tab("File"):
                        file = gr.File(  # the other two take only what the browser knows by its ending
                            label=f"Any video or sound file, {limit}", type="filepath", elem_id="file"
                        )
                words = gr.Textbox(
                    label="Words",
                    info="Leave empty to have them transcribed; correct them and press Enter to ask again.",
                    placeholder="what is said in the clip",
                    lines=1,
                    max_lines=4,
                    max_length=1000,
                    elem_id="words",
                )
                with gr.Row():
                    voice = gr.Checkbox(True, label="Use the voice", min_width=120)
                    face = gr.Checkbox(True, label="Use the face", min_width=120)
                with gr.Row():
                    read = gr.Button("Read the clip", variant="primary", min_width=120)
                    again = gr.Button("Ask again with these words", interactive=False, min_width=120)
                buttons = []
                if examples():
                    gr.HTML(
                        "<p class='mlf-found'>No camera at hand? Three drawn clips, made by the kit "
                        "(a drawn face, a hummed voice, words given):</p>",
                        apply_default_css=False,
                    )
                    with gr.Row():
                        for example in examples():
                            button = gr.Button(example.title, size="sm", min_width=90)
                            buttons.append((button, example))
            with gr.Column(scale=7, min_width=320):
                steps = gr.HTML(views.steps({}, None, 0, set()), elem_id="steps", apply_default_css=False)
                answer = gr.HTML(views.EMPTY_ANSWER, elem_id="answer", apply_default_css=False)
                plot = gr.Plot(
                    show_label=False, label="The clip over time", visible=False, elem_id="timeline"
                )
                reasons = gr.HTML(elem_id="reasons", apply_default_css=False)
                with gr.Row(visible=False) as downloads:
                    files_ = [
                        gr.DownloadButton(name, size="sm", min_width=100)
                        for name in ("Answer (JSON)", "Effects (CSV)", "Frames (CSV)")
                    ]
        shown = [steps, answer, plot, reasons, downloads, *files_, words, again]
        quiet = {"show_progress": "hidden"}
        private = {"api_visibility": "private"}
        for source, given in (
            (video, video.input),
            (sound, sound.input),
            (file, file.upload),
            (file, file.clear),
        ):
            given(self.new_clip, inputs=[source], outputs=shown, queue=False, **quiet, **private)
        read.click(
            self.read,
            inputs=[video, sound, words, voice, face, file],
            outputs=shown,
            concurrency_id="work",
            concurrency_limit=self.settings.workers,
            api_name="read",
            **quiet,
        )
        for button, example in buttons:
            button.click(
                self.choose(example), outputs=[video, sound, words, file], queue=False, **quiet, **private
            ).then(
                self.read_example(example),
                inputs=[voice, face],
                outputs=shown,
                concurrency_id="work",
                concurrency_limit=self.settings.workers,
                **quiet,
                **private,
            )
        asking: dict[str, Any] = {"inputs": [words, voice, face], "outputs": shown, **quiet}
        asking |= {"concurrency_id": "work", "concurrency_limit": self.settings.workers}
        again.click(self.again, api_name="again", **asking)
        words.submit(self.again, **private, **asking)
        for switch in (voice, face):
            switch.input(self.again, **private, **asking)

    def new_clip(self, clip: str | None, request: gr.Request) -> list[Any]:
        """Another clip was given (or taken away): forget the last one."""
        session = self.sessions.get(request.session_hash)
        session.forget_clip()
        if clip:
            self.sessions.add_upload(session, Path(clip))
        return [
            views.steps({}, None, 0, set()),
            views.EMPTY_ANSWER,
            *self._hidden(),
            "",
            gr.Button(interactive=False),
        ]

    def choose(self, example: Example) -> Any:
        def chosen() -> tuple[str, None, str, None]:
            return str(example.path), None, example.text, None

        return chosen

    def read_example(self, example: Example) -> Any:
        def run(voice: bool, face: bool, request: gr.Request) -> Iterator[list[Any]]:
            session = self.sessions.get(request.session_hash)
            yield from self._read(session, example.path, example.text, voice, face, example.words)

        return run

    def read(
        self,
        video: str | None,
        sound: str | None,
        words: str,
        voice: bool,
        face: bool,
        file: str | None,
        request: gr.Request,
    ) -> Iterator[list[Any]]:
        """Read the clip that was given, reporting each step."""
        session = self.sessions.get(request.session_hash)
        given = video or sound or file
        if not given:
            yield self._problem("No clip yet: record or upload one, or press one of the examples.")
            return
        path = Path(given)
        self.sessions.add_upload(session, path)
        known = next((e.words for e in examples() if path.name == e.path.name and words == e.text), None)
        yield from self._read(session, path, words or "", voice, face, known)

    def _read(
        self,
        session: Session,
        path: Path,
        words: str,
        voice: bool,
        face: bool,
        times: list[dict[str, Any]] | None = None,
    ) -> Iterator[list[Any]]:
        session.forget_clip()
        ticket = session.begin()
        done: dict[str, float] = {}
        order = list(views.STEPS)
        last: tuple[str, int] | None = None
        try:
            for news in read_clip(self.models, self.settings, path, words, times, ticket):
                if isinstance(news, Step):
                    now = (news.stage, int(news.fraction * 5))
                    if now != last and news.stage in order:
                        last = now
                        yield self._steps(views.steps(done, news.stage, news.fraction, set()))
                    continue
                if not (voice and face):
                    text = news.prediction.text
                    news = answering.answer(
                        self.models, news.features, news.recipe, text, audio=voice, vision=face, cancel=ticket
                    )
                yield self._show(session, ticket, path, news)
        except Cancelled:
            return  # a newer request shows its own
        except DeepMLFError as error:
            yield self._problem(str(error))
        except Exception:
            _log.exception("reading a clip failed")
            yield self._problem("Something went wrong with this clip; it is written to the app's log.")

    def again(self, words: str, voice: bool, face: bool, request: gr.Request) -> list[Any]:
        """Answer again for the same clip with other words or streams."""
        session = self.sessions.get(request.session_hash)
        if session.features is None:
            return [gr.skip()] * 10
        before = session.prediction.sentiment if session.prediction else None
        ticket = session.begin()
        try:
            answer = ask_again(self.models, session, words or "", audio=voice, vision=face, cancel=ticket)
        except Cancelled:
            return [gr.skip()] * 10
        except DeepMLFError as error:
            return self._problem(str(error))
        return self._show(session, ticket, session.clip, answer, before)

    # What handlers return: steps, answer, plot, reasons, downloads, three files, words, again ----------------

    def _show(
        self,
        session: Session,
        ticket: Ticket,
        clip: Path | None,
        answer: Answer,
        before: float | None = None,
    ) -> list[Any]:
        if not session.keep(ticket, clip, answer.features, answer.prediction, answer.reasons):
            return [gr.skip()] * 10
        written = write_files(
            session.folder, answer.prediction, answer.reasons, answer.features, answer.recipe
        )
        left_out = {stage for stage in views.STEPS if stage not in answer.seconds}
        has_av = answer.reasons.has_av
        figure = timeline(answer.reasons) if has_av else None
        return [
            views.steps(answer.seconds, None, 0, left_out),
            views.answer(answer.prediction, before),
            gr.Plot(figure, visible=has_av),
            views.reasons(answer.reasons),
            gr.Row(visible=True),
            *(str(path) for path in written),
            answer.prediction.text,
            gr.Button(interactive=True),
        ]

    def _hidden(self) -> list[Any]:
        return [gr.Plot(None, visible=False), "", gr.Row(visible=False), None, None, None]

    def _problem(self, message: str) -> list[Any]:
        nothing = views.steps({}, None, 0, set())
        return [nothing, views.problem(message), *self._hidden(), gr.skip(), gr.Button(interactive=False)]

    def _steps(self, html: str) -> list[Any]:
        return [html, *[gr.skip()] * 9]

    # Live ----------------------------------------------------------------------------------------------------

    def live_tab(self) -> None:
        def push_live(packet: dict[str, Any]) -> dict[str, Any]:  # Gradio marks it, which a method cannot be
            return self.push_live(packet)

        with gr.Row():
            with gr.Column(scale=5, min_width=320):
                panel = gr.HTML(
                    html_template=_LIVE.format(fps=self.settings.live_fps),
                    js_on_load=(files(__package__) / "live.js").read_text(encoding="utf-8"),
                    server_functions=[push_live],
                    apply_default_css=False,
                    elem_id="live-panel",
                )
                text = gr.Textbox(
                    label="Words while live",
                    info="Used where no speech model is at hand.",
                    max_length=1000,
                    elem_id="live-words",
                )
            with gr.Column(scale=7, min_width=320):
                answer = gr.HTML(views.live_answer(None), elem_id="live-answer", apply_default_css=False)
                curve = gr.Plot(
                    show_label=False, label="Sentiment over time", visible=False, elem_id="live-curve"
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
        try:
            for state in live.states():
                figure = gr.Plot(
                    live_curve(state.points, state.words, self.models.predictor.scale), visible=True
                )
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
