"""The painter in a page of its own, with a kernel of a few lines of JavaScript: for what the browser does alone.

Its answers come when the page calls `answer(kind)`, the oldest first, so a test decides on their order.
"""

import json
from typing import Any

from playwright.sync_api import Page

from sae_lib.cache.artefact import ROOT

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
    {"words": words, "count": "10 of 10 seeds", "edit": edit(feature)}
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
window.answer = async (kind, fields = {}, color = "#888") => {
  const at = asked.findIndex((message) => message.kind === kind && !message.answered);
  const message = asked[at], { number } = message;
  message.answered = !fields.more;
  const shown = kind === "draw" && !fields.kind ? await Promise.all(["#aaa", color, "#000"].map(picture)) : [];
  const found = { found: DATA.lists[message.text] ?? [], weak: [], unlearnt: [], strengths: {}, meanings: {} };
  const by = {
    hello: { kind: "welcome", known: true, edit: DATA.about.tries[0].edit, ...DATA.about },
    draw: {
      kind: "picture", edit: message.edit, grids: DATA.about.grids, code: "", notes: [], meanings: {},
      steps: DATA.about.models.find(({ name }) => name === message.edit?.model)?.steps,
    },
    search: { kind: "features", ...found }, active: { kind: "features", ...found },
  }[kind];
  tell({ ...by, number, ...fields }, shown);
};
"""


def open_painter(page: Page) -> None:
    """Show the painter in a page, before its kernel has answered anything."""
    about = {"blocks": BLOCKS, "models": MODELS, "grids": GRIDS, "tries": TRIES}
    code = "".join((PAINT / name).read_text() for name in ("wire.js", "painter.js"))
    code = code.replace("export default", "const widget =")
    style = f"body {{ margin: 0 }} {(PAINT / 'style.css').read_text()}"
    data = json.dumps({"about": about, "lists": LISTS})
    page.set_content(
        f"<!doctype html><meta name=viewport content='width=device-width'><style>{style}</style><div id=place></div>"
        f"<script>const DATA = {data};{KERNEL}{code}\nwidget.render({{ model, el: place }});</script>"
    )


def answer(page: Page, to: str, color: str = "#888", **fields: Any) -> None:
    """Let the kernel answer the oldest unanswered message of the kind `to`. more=True: another answer will come."""
    page.evaluate("([kind, fields, color]) => answer(kind, fields, color)", [to, fields, color])
