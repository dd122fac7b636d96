"""From the end of a stroke to the new picture on the screen: `make latency` (about a minute on two cores).

Notebook 20 up to the painter, at pocket scale in JupyterLab in a headless Chromium: strokes with the mouse, each of
other cells, in 1-step mode. The time is taken in the browser, from the event that ends the stroke until the new
picture is decoded and set, so it holds the way to the kernel and back. Nothing else is drawn meanwhile; while the
explorer's cards are, a stroke waits for one of them. Writes figures/results/painter_latency.json.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from notebooks import run
from sae_lib.cache.results import result_path, save_result
from tests.browser.pages import Painter, open_notebook, write_copy
from tests.browser.servers import open_browser, serve


def measure(strokes: int, scale: str) -> tuple[list[float], str]:
    """Milliseconds of each stroke, after one that is not counted, and the browser's version.

    Raises ValueError for more strokes than there are different ones.
    """
    if not 1 <= strokes < 48:
        raise ValueError(f"{strokes} strokes; wanted 1 to 47")
    (source,) = run.find_sources(["20_paint_and_explore"])
    with tempfile.TemporaryDirectory() as folder, open_browser() as browser, serve("lab", Path(folder)) as address:
        write_copy(source, Path(folder, "painter.ipynb"), scale, whole=False)
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        open_notebook(page, address, "painter.ipynb")
        painter = Painter(page.locator(".sae-painter").first)
        painter.start_again()
        found = []
        for number in range(strokes + 1):
            row, length = number % 8, 2 + number // 8 % 6  # each another mask: a picture that was drawn before is kept
            painter.stroke((0.06, (row + 0.5) / 8), (0.06 + length / 8, (row + 0.5) / 8))
            found.append(painter.latency())
            painter.press("clear")
        return found[1:], browser.version


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strokes", type=int, default=20)
    parser.add_argument("--scale", default="pocket", help="of the notebook; smoke shows that it runs")
    parser.add_argument("--output", type=Path, default=result_path("painter_latency"))
    options = parser.parse_args()
    milliseconds, chromium = measure(options.strokes, options.scale)
    result = {
        "milliseconds": milliseconds,
        "median": round(statistics.median(milliseconds), 1),
        "worst": max(milliseconds),
        "settings": {"scale": options.scale, "model": "Turbo, 1 step", "front end": "JupyterLab"},
    }
    save_result(options.output, result, "make latency", chromium=chromium, cores=os.cpu_count())
    print(f"{options.strokes} strokes: median {result['median']:.0f} ms, worst {result['worst']:.0f} ms")


if __name__ == "__main__":
    main()
