"""The explorer of notebook 20 in JupyterLab, at smoke scale with the real pocket model and all
features of its blocks."""

import re

import numpy as np
import pytest
from playwright.sync_api import expect

from sae_lib.saes.checkpoints import load_saes
from tests.browser.mock import LonelyExplorer
from tests.browser.pages import DRAW_SECONDS, Explorer, Quiet, open_notebook, write_copy

SAES = load_saes("panel", "smoke")
FIRST = next(iter(SAES))


@pytest.fixture(scope="module")
def page(new_page, lab, folder, source):
    """Notebook 20, run."""
    write_copy(source, folder / "notebooks/explorer.ipynb")
    page = new_page(viewport={"width": 1366, "height": 1800})
    page.quiet = Quiet(page)
    open_notebook(page, lab, "notebooks/explorer.ipynb")
    page.locator(".sae-explorer").scroll_into_view_if_needed(timeout=DRAW_SECONDS * 1000)
    return page


@pytest.fixture
def explorer(page):
    """All features, by score; at the end of the test the console must be empty."""
    explorer = Explorer(page.locator(".sae-explorer"))
    expect(explorer.part("status")).to_have_text(re.compile("features?$"), timeout=DRAW_SECONDS * 1000)
    if explorer.part("explorer-search").input_value():
        with explorer.renewed():
            explorer.part("explorer-search").fill("")
    with explorer.renewed():
        explorer.part("block").select_option("")
        explorer.part("sort").select_option("reads")
    yield explorer
    assert page.quiet.complaints == []


def numbers(explorer, pattern):
    """What the cards in the page say that fits the pattern, as numbers."""
    texts = explorer.part("card").all_inner_texts()
    return [float(re.search(pattern, text)[1]) for text in texts]


def test_all_features_can_be_scrolled_through_and_few_cards_are_in_the_page(explorer):
    assert explorer.found() == sum(sae.n_f for sae in SAES.values())
    first, scroller = explorer.cards(), explorer.root.locator(".cards")
    assert 0 < len(first) < 60
    scroller.evaluate("cards => cards.scrollTo(0, cards.scrollHeight / 2)")
    expect(explorer.root.locator(f"[data-feature='{first[0]}'][data-testid=card]")).to_have_count(0)
    assert 0 < len(explorer.cards()) < 60 and not set(explorer.cards()) & set(first)


def test_a_card_shows_an_icon_top_pictures_and_the_modulation(explorer):
    images = explorer.part("card").first.locator("img")
    expect(images).to_have_count(3, timeout=DRAW_SECONDS * 1000)
    sizes = [image.evaluate("image => image.decode().then(() => image.naturalWidth)") for image in images.all()]
    assert sizes[0] == 64 and sizes[1] == sizes[2] == 4 * 64


def test_the_cards_are_sorted_by_what_is_asked(explorer):
    for sort, pattern in {"reads": r"reads (-?[\d.]+)", "rate": r"fires at ([\d.]+) %"}.items():
        with explorer.renewed():
            explorer.part("sort").select_option(sort)
        found = numbers(explorer, pattern)
        assert len(set(found)) > 1 and found == sorted(found, reverse=True), sort
    with explorer.renewed():
        explorer.part("sort").select_option("draws")
    texts = explorer.part("card").all_inner_texts()
    drawn = [float(match[1]) for text in texts if (match := re.search(r"draws (-?[\d.]+)", text))]
    assert drawn and drawn == sorted(drawn, reverse=True) and "not tried" not in texts[0]
    with explorer.renewed():
        explorer.part("sort").select_option("block")
    assert explorer.cards()[:2] == [f"{FIRST}/0", f"{FIRST}/1"]


def test_search_finds_cards_by_meaning_and_by_number(explorer):
    meaning = explorer.part("card").first.locator(".meaning").inner_text()
    with explorer.renewed():
        explorer.part("explorer-search").fill(meaning.split()[0])
    assert meaning.split()[0] in explorer.part("card").first.inner_text()
    with explorer.renewed():
        explorer.part("explorer-search").fill(f"{FIRST}/3")
    assert explorer.cards() == [f"{FIRST}/3"]
    with explorer.renewed():
        explorer.part("explorer-search").fill(f"{FIRST}/9999")
    assert explorer.cards() == [] and explorer.found() == 0


def test_words_that_the_model_never_learnt_are_named_and_weak_hits_folded(explorer):
    with explorer.renewed():
        explorer.part("explorer-search").fill("cat")
    expect(explorer.part("unlearnt")).to_have_text("the pocket model never learnt: cat")
    assert explorer.found() == 0
    with explorer.renewed():
        explorer.part("explorer-search").fill("cat star")
    clear = explorer.found()
    assert explorer.part("unlearnt").inner_text().endswith("cat")
    weak = int(re.search(r"Show (\d+) weak hits?", explorer.part("weak").inner_text())[1])
    with explorer.renewed():
        explorer.part("weak").click()
    assert weak > 0 and explorer.found() == clear + weak


def test_a_card_leads_to_the_painter_and_back(explorer):
    card = explorer.part("card").first
    feature = card.get_attribute("data-feature")
    painter = explorer.page.locator(".sae-painter")
    card.get_by_test_id("paint").click()
    expect(painter.get_by_test_id("layer").first).to_have_attribute("data-feature", feature)
    expect(painter.get_by_test_id("brush")).to_be_in_viewport()
    painter.get_by_test_id("back").click()
    expect(explorer.part("card").first).to_be_in_viewport()


def test_cards_are_filtered_by_block(explorer):
    names = [option.inner_text().split()[-1] for option in explorer.part("block").locator("option").all()]
    assert names == ["all", *SAES]
    with explorer.renewed():
        explorer.part("block").select_option("up.1.2")
    assert explorer.found() == SAES["up.1.2"].n_f and {card.split("/")[0] for card in explorer.cards()} == {"up.1.2"}


def test_a_click_on_a_position_shows_which_features_fire_there(explorer):
    def fires():
        return [each.get_attribute("data-feature") for each in explorer.part("fires-here").locator("button").all()]

    with explorer.renewed():
        explorer.part("whole").click()
    whole = fires()
    box = explorer.part("position-image").bounding_box()
    found = []
    for row, column in ((7, 3), (7, 12)):
        with explorer.renewed():
            place = {"x": (column + 0.5) * box["width"] / 16, "y": (row + 0.5) * box["height"] / 16}
            explorer.part("position-image").click(position=place)
        assert explorer.part("where").inner_text() == f"Fire at row {row}, column {column} of 16 × 16"
        found.append(fires())
    assert len(whole) > 3 and all(0 < len(each) <= 40 for each in found)
    assert found[0] != found[1] and whole not in found


def test_a_feature_that_fires_leads_to_its_card(explorer):
    with explorer.renewed():
        explorer.part("whole").click()
    first = explorer.part("fires-here").locator("button").first
    with explorer.renewed():
        first.click()
    assert explorer.cards() == [first.get_attribute("data-feature")]


def test_another_prompt_is_drawn_and_read_and_a_bad_one_told_of(explorer):
    before = explorer.picture("picture")
    for prompt, told in (("a red heart", ""), ("赤いハート", "never learnt"), ("red heart " * 1_000, "were cut")):
        with explorer.renewed():
            explorer.part("prompt").fill(prompt)
            explorer.part("prompt").press("Tab")
        expect(explorer.part("alert")).to_contain_text(told)
        assert not np.array_equal(explorer.picture("picture"), before)


@pytest.fixture
def lonely(new_page):
    """300 features without a kernel: the test answers."""
    return LonelyExplorer(new_page(viewport={"width": 1366, "height": 900}), 300)


def test_while_a_search_runs_nothing_old_is_shown_and_a_late_answer_never_replaces_a_newer_one(lonely):
    lonely.part("explorer-search").fill("star")
    expect(lonely.part("status")).to_have_text("searching …")
    assert lonely.cards() == []
    late = lonely.wait_for("search", 1)
    lonely.part("explorer-search").fill("heart")
    number = lonely.wait_for("search", 2)
    lonely.tell("found", late, found=["up.1.2/7"], weak=[], unlearnt=[])
    assert lonely.cards() == []
    lonely.tell("found", number, found=["up.1.2/3"], weak=["up.1.2/5"], unlearnt=[])
    lonely.tell("found", late, found=["up.1.2/7"], weak=[], unlearnt=[])
    assert lonely.cards() == ["up.1.2/3"]


def test_of_two_positions_the_last_is_shown_whichever_answer_comes_first(lonely):
    lonely.wait_for("read", 1)
    numbers = []
    for count, name in ((2, "whole"), (3, "read")):
        lonely.part(name).click()
        numbers.append(lonely.wait_for("read", count))
    assert lonely.part("where").inner_text() == "reading …"
    for number, feature in ((numbers[1], "up.1.2/3"), (numbers[0], "up.1.2/7")):
        lonely.tell_read(number, feature)
    expect(lonely.part("fires-here").locator("button")).to_have_attribute("data-feature", "up.1.2/3")
    assert "reads 0.50, draws 0.25" in lonely.part("fires-here").inner_text()


def test_only_cards_in_view_are_asked_for_and_those_that_leave_it_are_cancelled(lonely):
    lonely.wait_for("panels", 1)
    (asked,) = lonely.sent("panels")
    assert asked["features"] == lonely.in_view() != lonely.cards() and not lonely.sent("cancel")
    lonely.root.locator(".cards").evaluate("cards => cards.scrollTo(0, cards.scrollHeight / 2)")
    lonely.wait_for("panels", 2)
    assert [message["of"] for message in lonely.sent("cancel")] == ["panels"]
    again = lonely.sent("panels")[1]["features"]
    assert again == lonely.in_view() and not set(again) & set(asked["features"])
