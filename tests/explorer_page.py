"""Working the explorer's controls on a page, in a notebook or exported; shared by the tests in a browser."""

PICTURE = """() => { const c = document.querySelector('.dmlf-chart');
  return JSON.stringify([c.data.map((t) => [t.z, t.y, t.type]), c.layout.title.text]); }"""
MEASURED = "document.querySelector('.dmlf-chart').data[0]?.type === 'bar'"


def watch(page):
    """A list that errors of the page are added to."""
    troubles = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    return troubles


def redrawn(page, act):
    """Do something, wait for the picture to be drawn again, and return what it shows."""
    before = int(page.locator(".dmlf-explorer").get_attribute("data-drawn"))
    act()
    page.wait_for_function(
        "n => Number(document.querySelector('.dmlf-explorer').dataset.drawn) > n", arg=before
    )
    return page.evaluate(PICTURE)


def pick(page, name, value):
    return redrawn(page, lambda: page.select_option(f"[data-name={name}]", value))


def sentiment(page):
    return page.inner_text("[data-name=sentiment]")
