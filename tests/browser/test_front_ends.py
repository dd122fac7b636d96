"""The same notebook in Notebook 7, by touch on a tablet, and the painter alone in the Voila app."""

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.browser.pages import RUN_SECONDS, Painter, Quiet, open_notebook, write_copy
from tests.browser.servers import serve

ACROSS = ((0.2, 0.45), (0.8, 0.45))
NOTEBOOK_ITSELF = (r"Cannot read properties of undefined \(reading 'schema'\)",)
"""Notebook 7.6.5 with JupyterLab 4.6.6 throws this at its start, with a notebook of one cell `1 + 1` too."""
VOILA_ITSELF = ("fontawesome-free",)
"""Voila 0.5.13's page asks a server elsewhere for icons that nothing here shows, and is told
that there is no network."""


@pytest.fixture(scope="module")
def tablet(new_page, folder, source):
    """Notebook 20, run in Notebook 7 on a tablet."""
    write_copy(source, folder / "tablet.ipynb")
    with serve("notebook", folder) as address:
        page = new_page(viewport={"width": 820, "height": 1180}, has_touch=True)
        page.quiet = Quiet(page, NOTEBOOK_ITSELF)
        open_notebook(page, address, "tablet.ipynb", "notebook")
        yield page


@pytest.fixture(scope="module")
def app(new_page, folder):
    """The page that `make app` serves."""
    with serve("app", folder) as address:
        page = new_page(viewport={"width": 1366, "height": 768})
        page.quiet = Quiet(page, VOILA_ITSELF)
        page.goto(
            address, timeout=RUN_SECONDS * 1000
        )  # Voila answers when its cells have run, and the app is at pocket scale
        expect(page.get_by_test_id("status")).to_have_text("ready", timeout=RUN_SECONDS * 1000)
        yield page


def assert_stroke_and_undo(painter):
    painter.begin()
    before = painter.picture()
    painter.stroke(*ACROSS)
    assert not np.array_equal(painter.picture(), before)
    painter.press("undo")
    assert np.array_equal(painter.picture(), before)


def test_a_stroke_and_undo_in_notebook_7(tablet):
    assert_stroke_and_undo(Painter(tablet.locator(".sae-painter").first))


def test_a_stroke_with_the_finger_paints_and_does_not_scroll(tablet):
    painter = Painter(tablet.locator(".sae-painter").first)
    painter.begin()
    before = painter.picture()
    painter.show()
    touch = tablet.context.new_cdp_session(tablet)
    place = painter.part("brush").bounding_box()
    steps = [painter.at((0.45, 0.2 + 0.6 * step / 10)) for step in range(11)]
    with painter.redrawn():
        for number, (x, y) in enumerate(steps):
            kind = "touchMove" if number else "touchStart"
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    change = np.abs(painter.picture() - before).mean(-1)
    inside = painter.touched((0.45, 0.2), (0.45, 0.8))
    count, grid = painter.cells()
    assert count == inside.sum() * grid**2 / inside.size
    assert change[inside].mean() > 3
    assert painter.part("brush").bounding_box() == place


def test_notebook_7_writes_no_error_to_the_console(tablet):
    assert tablet.quiet.complaints == []


def test_a_stroke_and_undo_in_the_app(app):
    assert_stroke_and_undo(Painter(app.locator(".sae-painter")))


def test_the_app_shows_the_painter_and_no_code(app):
    assert app.locator(".sae-painter").count() == 1
    assert "SAEPaint" in app.locator("body").inner_text() and "PainterWidget" not in app.locator("body").inner_text()


def test_the_app_writes_no_error_to_the_console(app):
    assert app.quiet.complaints == []
