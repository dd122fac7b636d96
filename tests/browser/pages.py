"""What a reader does with a notebook and its painters in the browser, and what is then to be seen."""

import base64
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import nbformat
import numpy as np
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from notebooks import run
from tests.browser.servers import TOKEN

RUN_SECONDS = 120
"""A notebook at smoke scale has run after this."""
DRAW_SECONDS = 60
"""A picture has been drawn after this, also by the base model."""
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


def write_copy(source: Path, target: Path, scale: str = "smoke", more_cells: Sequence[str] = ()) -> None:
    """The notebook of a source, not executed, with further code cells at its end."""
    notebook = run.read_source(source)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    parameters.source += f'\nscale = "{scale}"'
    notebook.cells += [nbformat.v4.new_code_cell(cell) for cell in more_cells]
    nbformat.write(notebook, target)


class Quiet:
    """What a page complained of: errors in the console, exceptions, and answers of 400 and above."""

    def __init__(self, page: Page, ignored: Sequence[str] = ()):
        self.complaints, self._ignored = [], [re.compile(pattern) for pattern in ignored]
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
    run_all(page)


def run_all(page: Page) -> None:
    """Click Run > Run All Cells; wait until no cell is running or waiting."""
    expect(page.locator(".jp-NotebookPanel .jp-Cell").first).to_be_visible(timeout=RUN_SECONDS * 1000)
    expect(page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").first).to_be_attached(timeout=60_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    expect(page.locator(".jp-InputPrompt", has_text="[*]")).to_have_count(0, timeout=RUN_SECONDS * 1000)


def restart_kernel(page: Page) -> None:
    """Click Kernel > Restart Kernel and confirm."""
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_role("menuitem", name="Restart Kernel…", exact=True).click()
    page.get_by_role("button", name="Confirm Kernel Restart").click()
    expect(page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").first).to_be_attached(timeout=60_000)


class Painter:
    """One painter on a page."""

    def __init__(self, root: Locator):
        self.root, self.page = root, root.page

    def part(self, name: str) -> Locator:
        return self.root.get_by_test_id(name)

    def revision(self) -> int:
        return int(self.part("status").get_attribute("data-revision"))

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
        """Pixels `[height, width, 3]` of "before", "after" or "difference" as they are shown, at natural size."""
        data = base64.b64decode(self.part(name).evaluate(READ_PIXELS))
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)

    def at(self, point: Point) -> Point:
        """Where a place on the picture is in the window."""
        box = self.part("brush").bounding_box()
        return box["x"] + point[0] * box["width"], box["y"] + point[1] * box["height"]

    def stroke(self, *points: Point) -> None:
        """Brush from point to point with the mouse, and wait for the new picture."""
        self.part("brush").scroll_into_view_if_needed()
        with self.redrawn():
            self.drag(*points)

    def drag(self, *points: Point) -> None:
        """Brush from point to point with the mouse."""
        self.page.mouse.move(*self.at(points[0]))
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*self.at(point), steps=8)
        self.page.mouse.up()

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
        """Whatever was done, as it was when it was new."""
        self.wait_until_drawn(1)
        if self.part("reset").is_enabled():
            self.press("reset")

    def choose(self, result: Locator) -> None:
        """Click on a search hit, which makes it the feature that is painted."""
        result.click()
