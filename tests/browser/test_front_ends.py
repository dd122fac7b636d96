"""The same notebook in Notebook 7, by touch on a tablet, and the painter alone in the Voila app."""

import http.client
import json
import re
import tempfile
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
from playwright.sync_api import expect

from sae_lib.cache.artefact import ROOT
from tests.browser.pages import RUN_SECONDS, Painter, Quiet, open_notebook, write_copy
from tests.browser.servers import TOKEN, serve

ACROSS = ((0.2, 0.45), (0.8, 0.45))
NOTEBOOK_ITSELF = (r"Cannot read properties of undefined \(reading 'schema'\)",)
"""Notebook 7.6.5 with JupyterLab 4.6.6 throws this at its start, with a notebook of one cell `1 + 1` too."""
GONE_SECONDS = 60
"""Within this time the kernel of a page that was closed has ended; the server itself waits for 15 to 20 seconds."""


@pytest.fixture(scope="module")
def tablet(new_page, folder, source):
    """Notebook 20, run in Notebook 7 on a tablet."""
    write_copy(source, folder / "notebooks/tablet.ipynb")
    with serve("notebook", folder) as address:
        page = new_page(viewport={"width": 820, "height": 1180}, has_touch=True)
        page.quiet = Quiet(page, NOTEBOOK_ITSELF)
        open_notebook(page, address, "notebooks/tablet.ipynb", "notebook")
        yield page


@pytest.fixture(scope="module")
def served(folder):
    """The address of what `make app` serves."""
    with serve("app", folder) as address:
        yield address


@pytest.fixture(scope="module")
def app(new_page, served, folder):
    """The page of `make app`."""
    page = new_page(viewport={"width": 1366, "height": 768})
    page.quiet = Quiet(page)
    # Voila answers when its cells have run, and the app is at pocket scale.
    page.goto(f"{served}/?token={TOKEN}", timeout=RUN_SECONDS * 1000)
    expect(page.get_by_test_id("status")).to_have_text("ready", timeout=RUN_SECONDS * 1000)
    page.terminal = (folder / ".jupyter" / "app.log").read_text()
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
    painter.start_again()
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


def test_notebook_7_asks_no_other_host(tablet):
    assert tablet.quiet.elsewhere == []


def test_a_stroke_and_undo_in_the_app(app):
    assert_stroke_and_undo(Painter(app.locator(".sae-painter")))


def test_the_app_shows_the_painter_and_no_code(app):
    assert app.locator(".sae-painter").count() == 1
    assert "SAEPaint" in app.locator("body").inner_text() and "PainterWidget" not in app.locator("body").inner_text()


def test_the_app_writes_no_error_to_the_console(app):
    assert app.quiet.complaints == []


def test_the_app_asks_no_other_host(app):
    assert app.quiet.elsewhere == []


def test_a_page_of_the_app_cannot_load_anything_from_another_host(app):
    refused = app.evaluate(
        """() => new Promise(done => {
            document.addEventListener("securitypolicyviolation", event => done(event.blockedURI), {once: true});
            fetch("http://192.0.2.1/").catch(() => setTimeout(() => done("not by the policy"), 1000));
        })"""
    )
    assert refused.startswith("http://192.0.2.1")


def get(address, path, host=None):
    """Status and place of an answer; host: what the request calls this machine."""
    with closing(http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)) as connection:
        connection.request("GET", path, headers={"Host": host} if host else {})
        with connection.getresponse() as answer:
            return answer.status, answer.getheader("Location", "")


@pytest.mark.parametrize(
    "path", ["/", "/api/kernels", "/api/contents", "/terminals/1", "/voila/tree", "/?token=guessed"]
)
def test_without_its_token_the_app_shows_only_the_question_for_it(served, path):
    status, place = get(served, path)
    assert status == 302 and place.startswith("/login?")


@pytest.mark.parametrize(
    "path", ["README.md", "notebooks/20_paint_and_explore.ipynb", "figures/08_writing_with_features/figure1.png"]
)
@pytest.mark.parametrize(
    "prefix", ["/", "/voila/files/", "/voila/render/", "/voila/tree/", "/api/contents/", "/files/"]
)
def test_the_app_serves_no_file_and_no_other_notebook(served, prefix, path):
    assert (ROOT / path).is_file()
    status, place = get(served, f"{prefix}{path}?token={TOKEN}")
    if status == 302:
        status, place = get(served, f"{place}?token={TOKEN}")
    assert (status, place) == (403, "")


def test_the_app_is_refused_under_a_name_that_only_leads_to_this_machine(served):
    assert get(served, f"/?token={TOKEN}", host="evil.example")[0] == 403


def test_the_app_listens_on_loopback_only(served):
    at = {each.laddr.ip for each in psutil.net_connections("inet") if each.laddr.port == urlsplit(served).port}
    assert at == {"127.0.0.1"}


def kernels_of(page):
    """The process of the kernel of a page of the app, which listens on a port of the kernel's connection file."""
    number = page.evaluate("JSON.parse(document.getElementById('jupyter-config-data').textContent).kernelId")
    (file,) = Path(tempfile.gettempdir()).glob(f"voila_*/kernel-{number}.json")
    port = json.loads(file.read_text())["shell_port"]
    listening = {each.pid for each in psutil.net_connections("inet") if each.laddr.port == port and each.pid}
    assert listening
    return [psutil.Process(pid) for pid in listening]


def test_the_kernel_of_the_app_is_forked_from_the_process_that_has_imported_everything(app):
    (kernel,) = kernels_of(app)
    assert kernel.parent().cmdline()[-1] == "notebooks.warm"


def test_the_app_warns_of_nothing_in_the_terminal(app):
    assert "Kernel started" in app.terminal
    assert not re.search("warn|error|websocket_ping|traceback", app.terminal, re.IGNORECASE)


def test_each_page_of_the_app_has_a_kernel_that_ends_when_it_is_closed(app, browser, served):
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{served}/?token={TOKEN}", timeout=RUN_SECONDS * 1000)
    first, second = kernels_of(app), kernels_of(page)
    assert not set(first) & set(second)
    context.close()  # no page says goodbye, as when the browser is killed
    gone, alive = psutil.wait_procs(second, GONE_SECONDS)
    assert gone and not alive
    assert all(each.is_running() for each in first)
    assert_stroke_and_undo(Painter(app.locator(".sae-painter")))
