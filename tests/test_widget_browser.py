"""The explorer's exported page in a real browser, offline, light and dark."""

import numpy as np
import pytest
from explain_fixtures import tiny_lens
from explorer_page import PICTURE, pick, redrawn, sentiment, watch

from deepmlf_kit.explain.reading import times_uniform
from deepmlf_kit.plots.style import TIMES_UNIFORM

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(2400)]
PATIENCE = 180_000  # milliseconds; a busy machine is slow, not wrong


@pytest.fixture(scope="module")
def exported(tmp_path_factory, clips):
    from deepmlf_kit.widgets import Explorer

    lens = tiny_lens()
    row = lens.row(2)
    clip = clips / "smile_short.mp4"
    lens.row = lambda which, inner=lens.row: (
        {**inner(which), "clip": str(clip)} if which == 2 else inner(which)
    )
    assert row["clip"] == ""
    explorer = Explorer(lens, clips=clips, progress=False)
    path = explorer.export_html(tmp_path_factory.mktemp("page") / "explorer.html", [1, 2, 3])
    explorer.close()
    return path


def test_attention_is_drawn_as_times_even_on_the_scale_of_the_figures(chromium, exported):
    lens = tiny_lens()
    reading = lens.read(1)
    readable = reading.get("av_mask")
    weights = times_uniform(reading.get("cross_attention"), readable)  # [M, heads, F, K]
    page = chromium.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(exported.as_uri())
    page.wait_for_selector("[data-drawn]")
    views = {
        "timeline": weights.mean(axis=(0, 1)),
        "layers": weights.mean(axis=1)[:, 0],
        "heads": weights.mean(axis=0)[:, 0],
    }
    for number, (view, expected) in enumerate(views.items()):
        if number:
            pick(page, "view", view)
        z, scale, low, high = page.evaluate(
            "() => { const t = document.querySelector('.dmlf-chart').data[0]; "
            "return [t.z, t.colorscale, t.zmin, t.zmax]; }"
        )
        np.testing.assert_allclose(np.asarray(z, float), expected, atol=1e-3)
        assert (low, high) == (TIMES_UNIFORM["cmin"], TIMES_UNIFORM["cmax"])
        assert [tuple(stop) for stop in scale] == [tuple(stop) for stop in TIMES_UNIFORM["colorscale"]]
    assert "times even" in page.locator(".dmlf-chart").inner_text()
    assert "Bright" not in page.locator("#explorer").inner_text()
    page.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_exported_page_works_offline(chromium, exported, theme):
    context = chromium.new_context(color_scheme=theme, offline=True, viewport={"width": 1200, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    troubles, asked = watch(page), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(exported.as_uri())
    page.wait_for_selector("[data-drawn]")
    pictures = [page.evaluate(PICTURE)]
    pictures += [pick(page, "layer", "0"), pick(page, "layer", "1"), pick(page, "head", "1")]
    pictures += [pick(page, "view", "heads"), pick(page, "token", "3")]
    for view in ("words", "layers", "sentiment", "update", "similarity", "effects"):
        pictures.append(pick(page, "view", view))
    pictures.append(pick(page, "effects_of", "words"))
    assert len(set(pictures)) == len(pictures)  # every control changes the picture

    whole = sentiment(page)
    redrawn(page, lambda: page.uncheck("[data-name=use_audio]"))
    redrawn(page, lambda: page.uncheck("[data-name=use_text]"))
    assert sentiment(page) != whole
    redrawn(page, lambda: page.click("[data-name=reset]"))
    assert sentiment(page) == whole

    pick(page, "view", "timeline")
    page.evaluate(
        "() => { window.places = new Set(); const needle = document.querySelector('.dmlf-cursor');"
        "new MutationObserver(() => window.places.add(needle.style.transform)).observe(needle, {attributes: true}); }"
    )
    page.click("[data-name=play]")
    page.wait_for_function("window.places.size > 2 && !document.querySelector('.dmlf-cursor').hidden")

    redrawn(page, lambda: page.select_option("[data-name=utterance]", "2"))  # the one with a clip
    page.wait_for_function("document.querySelector('video')?.readyState >= 2")
    page.evaluate("document.querySelector('video').currentTime = 1.0")
    page.wait_for_function(
        "x => { const c = document.querySelector('.dmlf-chart')._fullLayout.xaxis;"
        "const want = c._offset + c.l2p(1.0); const is = document.querySelector('.dmlf-cursor').style.transform;"
        "return Math.abs(parseFloat(is.slice(11)) - want) < 2; }"
    )
    page.fill("[data-name=search]", "no such words")
    assert "nothing found" in page.inner_text("[data-name=utterance]")
    assert not troubles
    assert all(url.startswith(("file:", "blob:", "data:")) for url in asked)
    context.close()
