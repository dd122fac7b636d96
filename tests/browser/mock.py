"""A widget in a page of its own, with a kernel of a few lines of JavaScript: for what the browser does alone.

That kernel keeps what the widget asks and answers when a test says so, in the order of the test.
"""

import json
from typing import Any

from playwright.sync_api import Page

from sae_lib.cache.artefact import ROOT
from tests.browser.pages import Explorer

PAINT = ROOT / "sae_lib" / "paint"
BLOCKS = [{"name": "up.1.1", "color": "#0072b2", "mark": "▲"}, {"name": "down.1.0", "color": "#d55e00", "mark": "■"}]
MODELS = [
    {"name": name, "steps": steps} for name, steps in {"Turbo, 1 step": 1, "Turbo, 4 steps": 4, "base": 20}.items()
]
GRIDS = {"up.1.1": 16, "down.1.0": 8}


def edit(feature: str, **fields: Any) -> dict[str, Any]:
    """An edit of one feature, everywhere, in four steps."""
    layers = [{"feature": feature, "strength": 20, "mask": None, "steps": None}]
    return {"prompt": "a large blue square at sea", "seed": 7, "model": "Turbo, 4 steps", "layers": layers} | fields


TRIES = [
    {"words": words, "count": "10 of 10 seeds", "worked": 10, "seeds": 10, "edit": edit(feature)}
    for words, feature in (
        ("Turn the square red", "up.1.1/1"),
        ("Make the square vanish", "up.1.1/2"),
        ("Let night fall", "down.1.0/3"),
    )
]


def line(name: str, reads: float, draws: float | None) -> dict[str, Any]:
    """A feature as the kernel lists it."""
    return {
        "id": name,
        "block": name.split("/")[0],
        "meaning": "red (colour)",
        "clear": True,
        "reads": reads,
        "draws": draws,
    }


LISTS = {"": [line(f"up.1.1/{number}", 0.9 - number / 50, number % 7 / 7) for number in range(1, 30)]}

KERNEL = """
const asked = [], listeners = [];
const picture = async (color) => {
  const canvas = new OffscreenCanvas(64, 64), pen = canvas.getContext("2d");
  pen.fillStyle = color;
  pen.fillRect(0, 0, 64, 64);
  return new DataView(await (await canvas.convertToBlob()).arrayBuffer());
};
const model = {
  on(name, listener) { if (name === "msg:custom") listeners.push(listener); },
  off() {},
  send(message) { if (message.kind !== "ping") asked.push(structuredClone(message)); },
};
const tell = (message, buffers = []) => listeners.forEach((listener) => listener(message, buffers));
window.asked = asked;
window.tell = tell;
window.answer = async (kind, fields = {}, color = "#888") => {
  const at = asked.findIndex((message) => message.kind === kind && !message.answered);
  const message = asked[at], { number } = message;
  message.answered = !fields.more;
  const shown = kind === "draw" && !fields.kind ? await Promise.all(["#aaa", color, "#000"].map(picture)) : [];
  const found = { found: DATA.lists[message.text] ?? [], weak: [], unlearnt: [], strengths: {}, meanings: {} };
  const by = {
    hello: { kind: "welcome", known: true, edit: DATA.about.tries[0].edit, ...DATA.about },
    draw: {
      kind: "picture", edit: message.edit, grids: DATA.about.grids, code: "", notes: [], meanings: {}, effect: "",
      steps: DATA.about.models.find(({ name }) => name === message.edit?.model)?.steps,
    },
    search: { kind: "features", ...found }, active: { kind: "features", ...found },
  }[kind];
  tell({ ...by, number, ...fields }, shown);
};
"""


# Tells the explorer that there are some features of one block.
WELCOME = """count => {
  const column = (make) => new DataView(Float32Array.from({ length: count }, (_, i) => make(i)).buffer);
  const table = [() => 0, (i) => i, () => 0.1, () => 0.5, () => NaN, () => 0].map(column);
  const about = { blocks: [{ name: "up.1.2", color: "#000", mark: "x" }], known: true, labels: ["red (colour)"] };
  const start = { betas: [-5, 5], top: 4, edit: { prompt: "a star", seed: 0 } };
  tell({ kind: "welcome", number: asked[0].number, ...about, ...start }, table);
}"""
# The features of the cards that can be seen.
IN_VIEW = """cards => {
  const seen = cards.getBoundingClientRect();
  const shows = ({ top, bottom }) => bottom > seen.top + 5 && top < seen.bottom - 5;
  return [...cards.querySelectorAll(".card")].filter((card) => shows(card.getBoundingClientRect()))
    .map((card) => card.dataset.feature);
}"""


def open_widget(page: Page, script: str, data: dict[str, Any]) -> None:
    """Show a widget in a page, before its kernel has answered anything. data: what the kernel knows."""
    code = "".join((PAINT / name).read_text() for name in ("wire.js", script))
    code = code.replace("export default", "const widget =")
    style = f"body {{ margin: 0 }} {(PAINT / 'style.css').read_text()}"
    page.set_content(
        f"<!doctype html><meta name=viewport content='width=device-width'><style>{style}</style><div id=place></div>"
        f"<script>const DATA = {json.dumps(data)};{KERNEL}{code}\nwidget.render({{ model, el: place }});</script>"
    )


def open_painter(page: Page) -> None:
    """Show the painter in a page."""
    about = {"blocks": BLOCKS, "models": MODELS, "grids": GRIDS, "tries": TRIES}
    open_widget(page, "painter.js", {"about": about, "lists": LISTS})


def answer(page: Page, to: str, color: str = "#888", **fields: Any) -> None:
    """Let the kernel answer the oldest unanswered message of the kind `to`. more=True: another answer will come."""
    page.evaluate("([kind, fields, color]) => answer(kind, fields, color)", [to, fields, color])


class LonelyExplorer(Explorer):
    """An explorer on a page of its own, with so many features."""

    def __init__(self, page: Page, features: int):
        open_widget(page, "explorer.js", {})
        page.evaluate(WELCOME, features)
        super().__init__(page.locator(".sae-explorer"))

    def sent(self, kind: str) -> list[dict]:
        """What it sent the kernel of a kind."""
        return self.page.evaluate("kind => asked.filter(message => message.kind === kind)", kind)

    def wait_for(self, kind: str, count: int) -> str:
        """Until it sent so many messages of a kind; returns the last one's number."""
        enough = "([kind, count]) => asked.filter(message => message.kind === kind).length === count"
        self.page.wait_for_function(enough, arg=[kind, count])
        return self.sent(kind)[-1]["number"]

    def tell(self, kind: str, number: str, **content) -> None:
        """Sends it a message, as the kernel does."""
        self.page.evaluate("message => tell(message)", {"kind": kind, "number": number, **content})

    def tell_read(self, number: str, feature: str) -> None:
        """Sends it a picture in which one feature fires."""
        line = {"id": feature, "block": "up.1.2", "meaning": "red (colour)", "reads": 0.5, "draws": 0.25}
        content = {"found": [line | {"strength": 2.0, "share": 0.1}], "grid": 16, "cell": None, "notes": []}
        picture = "new DataView(new ArrayBuffer(8))"
        message = {"kind": "read", "number": number, **content}
        self.page.evaluate(f"message => tell(message, [{picture}])", message)

    def in_view(self) -> list[str]:
        """The features of the cards that can be seen."""
        return self.root.locator(".cards").evaluate(IN_VIEW)
