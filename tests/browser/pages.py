"""What a reader does with a notebook and its painters in the browser, and what is then to be seen."""

import base64
import io
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import numpy as np
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from notebooks import run
from sae_lib.cache.artefact import ROOT
from tests.browser.servers import TOKEN

expect.set_options(timeout=30_000)
RUN_SECONDS = 300
"""The notebook has run after this."""
DRAW_SECONDS = 60
"""A picture has been drawn after this, also by the base model."""
HERE = {"127.0.0.1", "localhost", None}
"""Hosts that are this machine; a `data:` or `blob:` address has none."""
Point = tuple[float, float]
"""A place on a picture, (0, 0) top left, (1, 1) bottom right."""

# Pixels of an <img> at its natural size. A data URL is no other origin, so the canvas can be read.
READ_PIXELS = """async image => {
    await image.decode();
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight), context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const blob = await canvas.convertToBlob({type: "image/png"});
    return await new Promise(done => {
        const reader = new FileReader();
        reader.onload = () => done(reader.result.split(",")[1]);
        reader.readAsDataURL(blob);
    });
}"""


def write_copy(source: Path, target: Path, scale: str = "smoke", painters: int = 1, whole: bool = True) -> None:
    """The notebook of a source, not executed; its painter as often as told, and what follows if whole.

    It lies in notebooks/ beside figures/, as in the repository: a front end asks for the picture of the first screen
    under the page's own address for a moment, before it asks for the file, and there is an answer to that only here.
    """
    figures = Path("figures", source.stem)
    target.parent.mkdir(exist_ok=True)
    shutil.copytree(ROOT / figures, target.parent.parent / figures, dirs_exist_ok=True)
    notebook = run.read_source(source)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    parameters.source += f'\nscale = "{scale}"'
    (place,) = [at for at, cell in enumerate(notebook.cells) if "PainterWidget(catalogue)" in cell.source]
    more = [nbformat.v4.new_code_cell("PainterWidget(catalogue)") for _ in range(painters - 1)]
    notebook.cells[place + 1 :] = more + (notebook.cells[place + 1 :] if whole else [])
    nbformat.write(notebook, target)


class Quiet:
    """What a page complained of: errors in the console, exceptions, and answers of 400 and above; and whom it asked.

    elsewhere: addresses that are not on this machine, of requests and of websockets, also of those that failed.
    """

    def __init__(self, page: Page, ignored: Sequence[str] = ()):
        self.complaints, self._ignored = [], [re.compile(pattern) for pattern in ignored]
        self.elsewhere = []
        for kind in ("request", "websocket"):
            page.on(kind, lambda asked: urlsplit(asked.url).hostname not in HERE and self.elsewhere.append(asked.url))
        page.on("console", lambda message: message.type == "error" and self._add(message.text, message.location))
        page.on("pageerror", lambda error: self._add(error.message, error.stack))
        page.on("response", lambda answer: answer.status >= 400 and self._add(answer.status, answer.url))

    def _add(self, *what):
        text = " ".join(map(str, what))
        if not any(pattern.search(text) for pattern in self._ignored):
            self.complaints.append(text)


def open_notebook(page: Page, address: str, name: str, front_end: str = "lab") -> None:
    """Open a notebook in JupyterLab or Notebook 7 and run all its cells by the menu."""
    folder = {"lab": "lab/tree", "notebook": "notebooks"}[front_end]
    page.goto(f"{address}/{folder}/{name}?token={TOKEN}&reset")  # reset: without the notebooks of another page
    _wait_for_kernel(page, address, name)
    run_all(page)


def _wait_for_kernel(page: Page, address: str, name: str) -> None:
    """Until the page is connected to the notebook's kernel: the page itself says "idle" before it has one."""
    deadline = time.monotonic() + RUN_SECONDS
    while time.monotonic() < deadline:
        sessions = page.request.get(f"{address}/api/sessions?token={TOKEN}").json()
        kernels = [session["kernel"] for session in sessions if session["path"] == name]
        if any(kernel["connections"] and kernel["execution_state"] == "idle" for kernel in kernels):
            return
        page.wait_for_timeout(100)
    raise TimeoutError(f"no kernel for {name} within {RUN_SECONDS} seconds; there are {sessions}")


def run_all(page: Page) -> None:
    """Click Run > Run All Cells; wait until the last cell has run."""
    idle = page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").first
    expect(idle).to_be_attached(timeout=RUN_SECONDS * 1000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    prompts = page.locator(".jp-NotebookPanel .jp-CodeCell .jp-InputPrompt")
    expect(prompts.first).not_to_have_text("[ ]:")
    expect(prompts.last).to_have_text(re.compile(r"\[\d+\]:"), timeout=RUN_SECONDS * 1000)


def restart_kernel(page: Page) -> None:
    """Click Kernel > Restart Kernel and confirm."""
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_role("menuitem", name=re.compile("^Restart Kernel…")).click()
    page.get_by_role("button", name="Confirm Kernel Restart").click()
    expect(page.get_by_role("dialog")).to_have_count(0)


class Widget:
    """A painter or an explorer on a page."""

    def __init__(self, root: Locator):
        self.root, self.page = root, root.page

    def part(self, name: str) -> Locator:
        return self.root.get_by_test_id(name)

    def revision(self) -> int:
        """How often it has shown something new."""
        return int(self.part("status").get_attribute("data-revision"))

    def picture(self, name: str) -> np.ndarray:
        """Pixels `[height, width, 3]` of an image as it is shown, at natural size."""
        data = base64.b64decode(self.part(name).evaluate(READ_PIXELS))
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


class Painter(Widget):
    """One painter on a page."""

    def wait_until_drawn(self, revision: int) -> None:
        """Until the picture of this revision, or a later one, is shown and nothing is being drawn."""
        shown = "([status, number]) => status.dataset.revision >= number && status.textContent.trim() === 'ready'"
        handle = self.part("status").element_handle(timeout=DRAW_SECONDS * 1000)
        self.page.wait_for_function(shown, arg=[handle, revision], timeout=DRAW_SECONDS * 1000)

    @contextmanager
    def redrawn(self) -> Iterator[None]:
        """What is done inside draws exactly one new picture, which is shown at the end."""
        before = self.revision()
        yield
        self.wait_until_drawn(before + 1)
        assert self.revision() == before + 1

    def picture(self, name: str = "after") -> np.ndarray:
        """Of "before", "after" or "difference"."""
        return super().picture(name)

    def at(self, point: Point) -> Point:
        """Where a place on the picture is in the window."""
        box = self.part("brush").bounding_box()
        return box["x"] + point[0] * box["width"], box["y"] + point[1] * box["height"]

    def show(self) -> None:
        """Scroll to the pictures, and wait until they rest: JupyterLab lays out cells while they come into sight."""
        self.part("brush").scroll_into_view_if_needed()
        places = [None]
        while self.part("brush").bounding_box() != places[-1]:
            places.append(self.part("brush").bounding_box())
            self.page.wait_for_timeout(100)

    def stroke(self, *points: Point) -> None:
        """Brush from point to point with the mouse, and wait for the new picture."""
        self.show()
        with self.redrawn():
            self.drag(*points)

    def drag(self, *points: Point) -> None:
        """Brush from point to point with the mouse."""
        self.page.mouse.move(*self.at(points[0]))
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*self.at(point), steps=8)
        self.page.mouse.up()

    def latency(self) -> float:
        """Milliseconds from the end of the last stroke until its picture was on the screen, as
        the page measured them."""
        self.page.wait_for_function("root => root.dataset.latencyMs", arg=self.root.element_handle())
        return float(
            self.root.evaluate(
                "root => { const ms = root.dataset.latencyMs; delete root.dataset.latencyMs; return ms; }"
            )
        )

    def press(self, name: str) -> None:
        """Click a button that draws a new picture."""
        with self.redrawn():
            self.part(name).click()

    def fill(self, name: str, text: str) -> None:
        """Type into a field and leave it, which draws a new picture."""
        with self.redrawn():
            self.part(name).fill(text)
            self.part(name).press("Tab")

    def start_again(self) -> None:
        """Whatever was done: the edit that it opens with, but in one step and with nothing painted."""
        self.wait_until_drawn(1)
        if self.part("reset").is_enabled():
            self.press("reset")
        if self.part("model").input_value() != "Turbo, 1 step":
            with self.redrawn():
                self.part("model").select_option("Turbo, 1 step")
        if not re.search(r"\b0 cells of", self.part("layer").inner_text()):
            self.press("clear")

    def begin(self) -> None:
        """Remember the feature that the painter opens with: one whose stroke shows (`load_suggestions`)."""
        self.wait_until_drawn(1)
        self.strong = self.part("layer").get_attribute("data-feature")

    def cells(self) -> tuple[int, int]:
        """How many cells of the only layer are painted, and the cells along each side of its grid."""
        return tuple(map(int, re.search(r"(\d+) cells of (\d+)", self.part("layer").inner_text()).groups()))

    def touched(self, *points: Point) -> np.ndarray:
        """Which pixels lie in the cells that a straight stroke from one point to another, along a
        row or a column, paints."""
        grid, (height, width) = self.cells()[1], self.picture().shape[:2]
        (left, top), (right, bottom) = ([int(at * grid) for at in point] for point in (points[0], points[-1]))
        inside = np.zeros((grid, grid), bool)
        inside[top : bottom + 1, left : right + 1] = True
        return inside.repeat(height // grid, 0).repeat(width // grid, 1)

    def find(self, text: str) -> Locator:
        """The search hits for a text that contain it, the best first."""
        of_before = self.root.locator(".results li").first.element_handle()
        self.part("search").fill(text)
        self.page.wait_for_function("line => !line.isConnected", arg=of_before)
        found = self.part("result").filter(has_text=text)
        expect(found.first).to_be_visible(timeout=DRAW_SECONDS * 1000)
        return found

    def another(self) -> Locator:
        """Of another block than that of the feature the painter opens with: the first search hit."""
        block = "up.1.1" if self.strong.startswith("up.1.2/") else "up.1.2"
        return self.find(f"{block}/").first


class Explorer(Widget):
    """One explorer on a page."""

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """What is done inside shows something new, which is there at the end."""
        before = self.revision()
        yield
        expect(self.part("status")).not_to_have_attribute("data-revision", str(before), timeout=DRAW_SECONDS * 1000)
        expect(self.part("status")).to_have_text(re.compile("^[0-9,]+ features?$"), timeout=DRAW_SECONDS * 1000)

    def cards(self) -> list[str]:
        """The features of the cards in the page, from the first."""
        return [card.get_attribute("data-feature") for card in self.part("card").all()]

    def found(self) -> int:
        """How many features there are to scroll through."""
        return int(self.part("status").inner_text().split()[0].replace(",", ""))
