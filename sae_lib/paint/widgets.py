"""The two widgets: they show what `painter` and `catalogue` compute, and compute nothing themselves.

Browser and kernel exchange messages, with pictures as PNG bytes; no state is kept in the notebook.
"""

import io
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sae_lib.activations.drawing import as_image
from sae_lib.companion.pictures import difference, is_seen
from sae_lib.companion.style import BLOCK_COLORS, BLOCK_MARKERS
from sae_lib.features.feature import FeatureId
from sae_lib.paint.catalogue import BETAS, TOP, Catalogue, Row, finest_grid
from sae_lib.paint.edits import Edit
from sae_lib.paint.painter import Drawn
from sae_lib.paint.suggestions import load_suggestions

_GLYPHS = {"v": "▼", "<": "◀", ">": "▶", "^": "▲", "o": "●", "s": "■", "D": "◆", "P": "✚", "X": "✖", "*": "★", "h": "⬢"}
"""Characters that look like Matplotlib's markers."""

UNSEEN = "This edit changes nothing that is seen at a glance: try more strength, more cells or another feature."


def _file(name: str) -> str:
    return (Path(__file__).parent / name).read_text()


class Stale(Exception):
    """The browser no longer waits for this answer: it was cancelled, or asked anew."""


class LiveWidget(anywidget.AnyWidget):
    """Answers the browser's messages `{"kind", "number", ...}` by the method `on_<kind>`, in a thread per kind.

    So the kernel can receive the next message, above all "cancel", while a picture is drawn, and a search does not wait
    for cards. Only the last message of a kind counts. What a method raises is sent as one sentence.
    """

    _css = _file("style.css")
    _at_once: frozenset[str] = frozenset()
    """Kinds that are answered without the catalogue's reading, which takes a while."""

    def __init__(self, catalogue: Catalogue):
        super().__init__()
        self.catalogue, self.painter = catalogue, catalogue.painter
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._last: dict[str, str] = {}
        self._sending = threading.Lock()
        self.on_msg(self._receive)

    def __repr__(self) -> str:
        return f"{type(self).__name__}: run this notebook to use it; the figure beside it shows what it does"

    def _receive(self, _widget, message: dict[str, Any], _buffers) -> None:
        kind, number = message.pop("kind"), message.pop("number")
        if kind == "ping":
            self.tell("pong", number)
        elif kind == "cancel":
            self._last.pop(message["of"], None)
        else:
            self._last[kind] = number
            if kind not in self._threads:
                self._threads[kind] = ThreadPoolExecutor(1, f"sae_lib widget {kind}")
            self._threads[kind].submit(self._answer, kind, number, message)

    def _answer(self, kind: str, number: str, message: Mapping[str, Any]) -> None:
        def check(done: int = 0, count: int = 0) -> None:
            if self._last.get(kind) != number:
                raise Stale
            if count:
                self.tell("progress", number, done=done, count=count)

        try:
            check()
            if kind not in self._at_once:
                self.catalogue.prepare(check)
            getattr(self, f"on_{kind}")(number, check, **message)
        except Stale:
            self.tell("stale", number)
        except Exception as error:  # noqa: BLE001 - whatever it is, the notebook lives on and the reader sees it
            self.tell("refused", number, sentence=str(error) or type(error).__name__)

    def tell(self, kind: str, number: str, buffers: list[bytes] | None = None, **content: Any) -> None:
        """Sends the browser a message, in answer to the one of that number."""
        with self._sending:
            self.send({"kind": kind, "number": number, **content}, buffers or [])

    def described(self, row: Row) -> dict[str, Any]:
        """A feature as a line of a list."""
        line = {"id": str(row.id), "block": row.id.block, "meaning": row.label, "clear": row.clear}
        return line | {"reads": row.reads if row.meaning else None, "draws": row.draws}

    def fired(
        self, maps: Mapping[str, Float[Tensor, "n_f height width"]], cell: tuple[int, int] | None = None
    ) -> list[dict[str, Any]]:
        """The features that are active in a picture, or at one of its cells, first those with a clear meaning.

        maps: from `Painter.read`.
        """
        lines = [
            self.described(self.catalogue.row(firing.id)) | {"strength": firing.strength, "share": firing.share}
            for firing in self.catalogue.firing(maps, cell)
        ]
        return sorted(lines, key=lambda line: not line["clear"])

    def welcome(self, number: str, check: Callable, buffers: list[bytes] | None = None, **content: Any) -> None:
        """Sends what the browser needs first."""
        assets = self.painter.assets
        blocks = [
            {"name": name, "color": BLOCK_COLORS[name], "mark": _GLYPHS[BLOCK_MARKERS[name]]} for name in assets.blocks
        ]
        self.tell("welcome", number, buffers, blocks=blocks, known=assets.known, **content)


class PainterWidget(LiveWidget):
    """SAEPaint: brush features onto a picture and see the model change its mind.

    start: the edit that it opens with, by default the first of `load_suggestions`, or else `Catalogue.first_edit`.

    An edit in four steps of Turbo or FLUX is shown in one step first, which takes a moment.
    """

    _esm = _file("wire.js") + _file("painter.js")
    _at_once = frozenset({"hello", "draw"})

    def __init__(self, catalogue: Catalogue, start: Edit | None = None):
        super().__init__(catalogue)
        self.suggestions = load_suggestions(self.painter.assets)
        if start is None and self.suggestions:
            start = self.suggestions[0].edit
        self._edit = start
        self._listed = False

    @property
    def edit(self) -> Edit | None:
        """The edit that was drawn last; `widget.painter.draw(widget.edit)` gives its pictures."""
        return self._edit

    def scroll_here(self) -> None:
        """Scrolls the page to the painter, such as at the end of a notebook."""
        self.send({"kind": "here"})

    def on_hello(self, number: str, check: Callable) -> None:
        models = [
            {"name": name, "steps": self.painter.assets.call(name)[1].steps} for name in self.painter.assets.models
        ]
        if self._edit is None:
            self.catalogue.prepare(check)
            self._edit = self.catalogue.first_edit
        content = {"models": models, "edit": self._edit.to_json(), "grids": self.painter.grids(self._edit.model)}
        tries = [
            {"words": one.button, "count": one.count, "edit": one.edit.to_json()}
            | {"worked": one.worked, "seeds": len(one.seeds)}
            for one in self.suggestions
        ]
        self.welcome(number, check, tries=tries, **content)

    def on_draw(self, number: str, check: Callable, edit: dict[str, Any]) -> None:
        asked, (one, four, *_) = self.painter.fitted(Edit.from_json(edit)), self.painter.assets.models
        if asked.model == four and not self.painter.keeps(asked) and not any(each.steps for each in asked.layers):
            quick = replace(asked, model=one)
            drawn = self.painter.draw(quick, lambda *_: check())
            check()
            self._show(number, quick, drawn, quick=True)
        drawn = self.painter.draw(asked, check)
        check()
        self._edit = asked
        self._show(number, asked, drawn)

    def _show(self, number: str, edit: Edit, drawn: Drawn, quick: bool = False) -> None:
        pictures = [png(shown) for shown in (drawn.before, drawn.after, difference(drawn.before, drawn.after))]
        content = {"edit": edit.to_json(), "grids": self.painter.grids(edit.model), "code": self.painter.code(edit)}
        content |= {"steps": self.painter.assets.call(edit.model)[1].steps, "notes": list(drawn.notes)}
        painted = any(layer.mask is None or layer.mask_tensor.any() for layer in edit.layers)
        content |= {"effect": UNSEEN if painted and not is_seen(drawn.before, drawn.after) else ""}
        self.tell("picture", number, pictures, meanings=self._meanings(edit), quick=quick, **content)

    def _meanings(self, edit: Edit | None) -> dict[str, str]:
        """What the layers' features read; empty before the first list, since the catalogue takes a while."""
        layers = edit.layers if edit and self._listed else ()
        return {str(layer.feature): self.catalogue.row(layer.feature).label for layer in layers}

    def _list(self, number: str, found: list[dict], weak: Sequence[dict] = (), unlearnt: Sequence[str] = ()) -> None:
        self._listed = True
        content = {"strengths": {block: self.catalogue.strength(block) for block in self.painter.assets.blocks}}
        content |= {"meanings": self._meanings(self._edit), "unlearnt": list(unlearnt), "weak": list(weak)}
        self.tell("features", number, found=found, **content)

    def on_search(self, number: str, check: Callable, text: str) -> None:
        features, weak, unlearnt = self.catalogue.search(text)
        lines = [[self.described(self.catalogue.row(feature)) for feature in part] for part in (features, weak)]
        self._list(number, *lines, unlearnt)

    def on_active(self, number: str, check: Callable, edit: dict[str, Any]) -> None:
        self._list(number, self.fired(self.painter.read(Edit.from_json(edit))))


class ExplorerWidget(LiveWidget):
    """All features as cards, and those that fire in a picture of one's own.

    start: the prompt and seed that it opens with, by default those of `Catalogue.first_edit`.
    """

    _esm = _file("wire.js") + _file("explorer.js")

    def __init__(self, catalogue: Catalogue, start: Edit | None = None):
        super().__init__(catalogue)
        self._start = start
        self._read: tuple[Edit, Drawn, dict[str, Tensor]] | None = None

    def on_hello(self, number: str, check: Callable) -> None:
        rows = self.catalogue.rows
        blocks, labels = list(self.painter.assets.blocks), sorted({row.label for row in rows})
        table = [
            np.array([blocks.index(row.id.block) for row in rows], np.float32),
            np.array([row.id.feature for row in rows], np.float32),
            np.array([row.firing_rate for row in rows], np.float32),
            np.array([row.reads for row in rows], np.float32),
            np.array([np.nan if row.draws is None else row.draws for row in rows], np.float32),
            np.array([labels.index(row.label) for row in rows], np.float32),
        ]
        start = self._start or self.catalogue.first_edit
        content = {"labels": labels, "betas": BETAS, "top": TOP, "edit": start.to_json()}
        self.welcome(number, check, buffers=[column.tobytes() for column in table], **content)
        self.catalogue.get_ready()

    def on_search(self, number: str, check: Callable, text: str) -> None:
        features, weak, unlearnt = self.catalogue.search(text, len(self.catalogue.rows))
        found = [[str(feature) for feature in part] for part in (features, weak)]
        self.tell("found", number, found=found[0], weak=found[1], unlearnt=unlearnt)

    def on_panels(self, number: str, check: Callable, features: list[str]) -> None:
        for feature in features:
            check()
            try:
                panel = self.catalogue.panel(FeatureId.parse(feature))
            except ValueError as error:
                self.tell("panel", number, feature=feature, sentence=str(error))
                continue
            rows = [torch.cat(list(pictures), -1) for pictures in (panel.top, panel.strip)]
            shown = [png(picture) for picture in (panel.icon, *rows)]
            self.tell("panel", number, shown, feature=feature, top=len(panel.top))

    def on_read(self, number: str, check: Callable, prompt: str, seed: int, cell: list[int] | None) -> None:
        edit = Edit(prompt, int(seed), self.painter.assets.one_step)
        if self._read is None or self._read[0] != edit:  # another position of the same picture costs no drawing
            self._read = edit, self.painter.draw(edit, check), self.painter.read(edit)
        _, drawn, maps = self._read
        content = {"found": self.fired(maps, tuple(cell) if cell else None), "grid": finest_grid(maps), "cell": cell}
        self.tell("read", number, [png(drawn.before)], notes=list(drawn.notes), **content)


def png(picture: Float[Tensor, "3 height width"]) -> bytes:
    """A picture with values in [0, 1] as a PNG file."""
    with io.BytesIO() as file:
        as_image(picture).save(file, "png")
        return file.getvalue()
