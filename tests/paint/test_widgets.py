import io
import threading
import time

import numpy as np
import pytest
from PIL import Image

from sae_lib.activations.drawing import as_image
from sae_lib.assets import Assets
from sae_lib.companion.style import BLOCK_MARKERS
from sae_lib.features import reading
from sae_lib.features.feature import FeatureId
from sae_lib.paint.catalogue import Catalogue
from sae_lib.paint.edits import Edit
from sae_lib.paint.painter import Painter
from sae_lib.paint.suggestions import load_suggestions
from sae_lib.paint.widgets import _GLYPHS, UNSEEN, ExplorerWidget, LiveWidget, PainterWidget
from sae_lib.saes.checkpoints import load_statistics

PROMPT = "a red heart at sea"
LEFT = [[1, 1, 1, 1, 0, 0, 0, 0]] * 8
FINE_LEFT = ((1.0,) * 8 + (0.0,) * 8,) * 16


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAE_LIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setitem(reading.PICTURES, "smoke", 4)
        catalogue = Catalogue(Painter(Assets("smoke")))
        assert catalogue.rows  # what takes longest, before a test waits for an answer
        yield catalogue


class Browser:
    """The other end of a widget: what it sends, and what it hears."""

    def __init__(self, widget, monkeypatch):
        self.widget, self.heard, self.count = widget, [], 0
        self._more = threading.Condition()
        monkeypatch.setattr(widget, "send", self._hear)

    def _hear(self, content, buffers):
        with self._more:
            self.heard.append((content, buffers))
            self._more.notify_all()

    def ask(self, kind, **content):
        self.count += 1
        self.widget._receive(self.widget, {"kind": kind, "number": f"v-{self.count}", **content}, [])
        return f"v-{self.count}"

    def wait(self, number, *kinds):
        """The first answer to a message that is of one of the kinds, by default of any but progress and quick ones."""
        wanted = lambda told: (
            told["number"] == number
            and (told["kind"] in kinds or not kinds and told["kind"] != "progress" and not told.get("quick"))
        )
        with self._more:
            assert self._more.wait_for(lambda: any(wanted(told) for told, _ in self.heard), 60)
            return next(each for each in self.heard if wanted(each[0]))


@pytest.fixture
def browser(catalogue, monkeypatch):
    return Browser(PainterWidget(catalogue), monkeypatch)


def usable(block):
    """The first feature of a block that has a unit of strength."""
    return f"{block}/{(load_statistics('panel', 'smoke')[block].mean > 0).nonzero()[0].item()}"


FIRST, FINE = usable("up.0.1"), usable("up.1.2")


def edit(feature=FIRST, **fields):
    layer = {"feature": feature, "strength": 10, "mask": LEFT, "steps": None}
    return {"prompt": PROMPT, "seed": 0, "model": "Turbo, 1 step", "layers": [layer]} | fields


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def test_an_edit_is_answered_by_three_pictures_and_its_code(browser):
    told, buffers = browser.wait(browser.ask("draw", edit=edit()))
    drawn = browser.widget.painter.draw(browser.widget.edit)
    assert told["kind"] == "picture" and told["grids"]["up.0.1"] == 8 and told["edit"]["layers"][0]["feature"] == FIRST
    for png, picture in zip(buffers, drawn[:2], strict=False):
        assert (pixels(png) == np.asarray(as_image(picture))).all()
    found = {}
    exec(told["code"], found)  # noqa: S102
    assert (np.asarray(found["picture"]) == pixels(buffers[1])).all()


def test_a_stroke_that_changes_nothing_to_be_seen_is_told_and_an_unpainted_layer_is_not(browser):
    offered = load_suggestions(browser.widget.painter.assets)[0].edit.to_json()
    (layer,) = offered["layers"]
    for fields, said in (({}, ""), ({"strength": 0.1}, UNSEEN), ({"mask": [[0] * 16] * 16}, "")):
        told, _ = browser.wait(browser.ask("draw", edit=offered | {"layers": [layer | fields]}))
        assert told["effect"] == said


def test_a_stroke_is_carried_over_to_the_grid_of_another_blocks_feature(browser):
    told, _ = browser.wait(browser.ask("draw", edit=edit(FINE)))
    assert told["grids"]["up.1.2"] == 16 and told["edit"]["layers"][0]["mask"] == FINE_LEFT
    told, _ = browser.wait(
        browser.ask("draw", edit=told["edit"] | {"layers": [told["edit"]["layers"][0] | {"feature": FIRST}]})
    )
    assert [list(row) for row in told["edit"]["layers"][0]["mask"]] == LEFT


def test_four_steps_are_preceded_by_the_same_edit_in_one_step_which_is_said_to_be_quick(browser):
    asked = edit(model="Turbo, 4 steps", seed=6)
    number = browser.ask("draw", edit=asked)
    final, buffers = browser.wait(number)
    (quick, soon), _ = [each for each in browser.heard if (each[0]["number"], each[0]["kind"]) == (number, "picture")]
    assert (quick["quick"], quick["steps"], final["quick"], final["steps"]) == (True, 1, False, 4)
    painter = Painter(Assets("smoke"))
    for sent, model in ((soon, "Turbo, 1 step"), (buffers, "Turbo, 4 steps")):
        drawn = painter.draw(Edit.from_json(final["edit"] | {"model": model}))
        assert (pixels(sent[1]) == np.asarray(as_image(drawn.after))).all()
    assert browser.widget.edit.model == "Turbo, 4 steps"
    again = browser.ask("draw", edit=asked)
    assert browser.wait(again, "picture")[0]["quick"] is False


def test_the_first_picture_does_not_wait_for_the_catalogue(monkeypatch):
    catalogue = Catalogue(Painter(Assets("smoke")))
    monkeypatch.setattr(Catalogue, "prepare", lambda *_: pytest.fail("the catalogue was asked for"))
    browser = Browser(PainterWidget(catalogue, Edit(PROMPT)), monkeypatch)
    told, _ = browser.wait(browser.ask("hello"))
    assert browser.wait(browser.ask("draw", edit=told["edit"]))[0]["kind"] == "picture"


def test_marks_and_colours_of_the_blocks_are_those_of_the_figures(browser):
    blocks = browser.wait(browser.ask("hello"))[0]["blocks"]
    assert [each["name"] for each in blocks] == list(browser.widget.painter.assets.blocks)
    assert len({each["mark"] for each in blocks}) == len({each["color"] for each in blocks}) == len(blocks)
    assert {BLOCK_MARKERS[name] for name in BLOCK_MARKERS} <= set(_GLYPHS)


def test_the_browser_is_welcomed_with_the_edits_to_try_and_the_last_edit(browser):
    told, _ = browser.wait(browser.ask("hello"))
    offered = load_suggestions(browser.widget.painter.assets)
    said = [one.words.replace("square", "shape") for one in offered]
    assert told["kind"] == "welcome" and [each["words"] for each in told["tries"]] == said
    assert [(each["worked"], each["seeds"]) for each in told["tries"]] == [
        (one.worked, len(one.seeds)) for one in offered
    ]
    assert told["edit"] == offered[0].edit.to_json() and told["grids"]["up.1.2"] == 16
    browser.wait(browser.ask("draw", edit=edit(seed=5)))
    assert browser.wait(browser.ask("hello"))[0]["edit"]["seed"] == 5
    assert [each["steps"] for each in told["models"]] == [1, 4, 4]


def test_a_drawing_is_cancelled_between_two_steps_while_the_kernel_listens(browser, monkeypatch):
    listening = threading.Event()
    tell = browser.widget.tell

    def slow(kind, number, buffers=None, **content):
        tell(kind, number, buffers, **content)
        if kind == "progress" and content["done"] == 1:
            listening.wait(60)

    monkeypatch.setattr(browser.widget, "tell", slow)
    number = browser.ask("draw", edit=edit(model="base", seed=8))
    browser.wait(number, "progress")
    browser.wait(browser.ask("ping"), "pong")
    browser.ask("cancel", of="draw")
    listening.set()
    assert browser.wait(number)[0]["kind"] == "stale"
    assert browser.wait(browser.ask("draw", edit=edit()))[0]["kind"] == "picture"


def test_of_several_strokes_only_the_last_is_drawn(browser):
    numbers = [browser.ask("draw", edit=edit(seed=seed, model="Turbo, 4 steps")) for seed in range(60, 64)]
    kinds = [browser.wait(number)[0]["kind"] for number in numbers]
    assert kinds == ["stale"] * 3 + ["picture"]


@pytest.mark.parametrize(
    "asked, sentence",
    [
        (edit("up.0.1/9999"), "feature 9999 of an SAE with"),
        (edit("mid.0/1"), "no SAE of block 'mid.0' is loaded"),
        (edit("up.9/1"), "names no feature"),
        (edit(model="Flux"), "unknown model 'Flux'"),
        ({}, "no edit can be read from this"),
    ],
)
def test_what_cannot_be_drawn_is_told_and_the_widget_lives_on(asked, sentence, browser):
    told, _ = browser.wait(browser.ask("draw", edit=asked))
    assert told["kind"] == "refused" and sentence in told["sentence"]
    assert browser.wait(browser.ask("draw", edit=edit()))[0]["kind"] == "picture"


def test_a_missing_model_is_told_in_place(monkeypatch, tmp_path):
    painter = Painter(Assets("smoke", sae_folder=str(tmp_path / "gone")))
    browser = Browser(PainterWidget(Catalogue(painter)), monkeypatch)
    told, _ = browser.wait(browser.ask("hello"))
    assert told["kind"] == "refused" and "no folder of SAEs 'gone'" in told["sentence"]


def test_two_painters_in_one_notebook_do_not_disturb_each_other(catalogue, monkeypatch):
    both = [Browser(PainterWidget(catalogue), monkeypatch) for _ in range(2)]
    numbers = [each.ask("draw", edit=edit(seed=70 + i, model="Turbo, 4 steps")) for i, each in enumerate(both)]
    for i, (each, number) in enumerate(zip(both, numbers, strict=True)):
        told, buffers = each.wait(number)
        anew = Painter(Assets("smoke")).draw(each.widget.edit)
        assert told["edit"]["seed"] == 70 + i and (pixels(buffers[1]) == np.asarray(as_image(anew.after))).all()


def test_features_are_searched_and_read_from_the_picture(browser):
    told, _ = browser.wait(browser.ask("search", text="up.0.1/3"))
    assert [each["id"] for each in told["found"]] == ["up.0.1/3"]
    assert not told["weak"] and not told["unlearnt"]
    told, _ = browser.wait(browser.ask("search", text="cat night"))
    assert told["unlearnt"] == ["cat"] and all(each["clear"] for each in told["found"])
    for each in told["found"] + told["weak"]:
        row = browser.widget.catalogue.row(FeatureId.parse(each["id"]))
        assert (each["meaning"], each["reads"], each["draws"]) == (row.label, row.reads, row.draws)
    told, _ = browser.wait(browser.ask("active", edit=edit()))
    assert told["found"] and all(each["strength"] > 0 for each in told["found"])


def test_the_explorer_sends_its_table_and_the_cards_that_are_in_view(catalogue, monkeypatch):
    browser = Browser(ExplorerWidget(catalogue), monkeypatch)
    told, buffers = browser.wait(browser.ask("hello"))
    block, number, rate, reads, draws, label = (np.frombuffer(each, np.float32) for each in buffers)
    row = catalogue.rows[300]
    assert (told["blocks"][int(block[300])]["name"], number[300]) == row.id
    assert reads[300] == pytest.approx(row.reads) and np.isfinite(draws).sum() == len(catalogue.written) > 0
    assert rate[300] == pytest.approx(row.firing_rate) and told["labels"][int(label[300])] == row.label
    ids = [str(next(each.id for each in catalogue.rows if bool(each.firing_rate) == fires)) for fires in (True, False)]
    asked = browser.ask("panels", features=ids)
    start = time.monotonic()
    while sum(told["number"] == asked for told, _ in browser.heard) < 2 and time.monotonic() < start + 60:
        time.sleep(0.01)
    (shown, pictures), (silent, none) = (each for each in browser.heard if each[0]["number"] == asked)
    assert shown["feature"] == ids[0] and pixels(pictures[2]).shape == (64, 4 * 64, 3)
    assert "is active in none of the 4 pictures" in silent["sentence"] and not none


def test_the_explorer_says_what_fires_at_a_position(catalogue, monkeypatch):
    browser = Browser(ExplorerWidget(catalogue), monkeypatch)
    told, (png,) = browser.wait(browser.ask("read", prompt=PROMPT, seed=0, cell=[3, 4]))
    assert told["cell"] == [3, 4] and told["grid"] == 16 and told["found"] and pixels(png).shape == (64, 64, 3)
    told, _ = browser.wait(browser.ask("read", prompt=PROMPT, seed=0, cell=[16, 0]))
    assert "there is no cell (16, 0)" in told["sentence"]


def test_searches_and_positions_are_answered_while_cards_wait_to_be_drawn(catalogue, monkeypatch):
    browser = Browser(ExplorerWidget(catalogue), monkeypatch)
    browser.wait(browser.ask("hello"))
    browser.wait(browser.ask("read", prompt=PROMPT, seed=0, cell=None))
    drawing, go_on, drawn = threading.Event(), threading.Event(), []

    def panel(feature):
        drawn.append(str(feature))
        drawing.set()
        with catalogue.assets.lock:  # as a model that draws
            assert go_on.wait(60)
        raise ValueError("drawn")

    monkeypatch.setattr(catalogue, "panel", panel)
    panels = browser.ask("panels", features=[FIRST, FINE])
    assert drawing.wait(60)
    answers = [browser.ask("search", text="cat red star"), browser.ask("read", prompt=PROMPT, seed=0, cell=[3, 4])]
    assert [browser.wait(number)[0]["kind"] for number in answers] == ["found", "read"]
    assert not any(told["number"] == panels for told, _ in browser.heard)
    browser.ask("cancel", of="panels")
    go_on.set()
    assert browser.wait(panels, "stale") and drawn == [FIRST]


def test_a_widget_says_of_itself_what_a_reader_without_a_kernel_must_know(catalogue):
    assert repr(PainterWidget(catalogue)).startswith("PainterWidget: run this notebook to use it")
    assert not [name for name in LiveWidget(catalogue).keys if not name.startswith("_") and name not in KNOWN_TRAITS]


KNOWN_TRAITS = {"layout", "tabbable", "tooltip"}
"""Of every widget; ours adds none, so that there is no state to store."""
