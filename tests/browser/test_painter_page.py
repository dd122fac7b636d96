"""What the painter does in the browser alone, with answers of its kernel in an order that each test chooses."""

import pytest
from playwright.sync_api import expect

from tests.browser.mock import LISTS, TRIES, answer, line, open_painter

RED = [line("up.1.1/5", 0.9, 0.2), line("down.1.0/6", 0.5, 0.8), line("up.1.1/7", 0.7, None)]


@pytest.fixture
def page(new_page):
    """A painter whose first picture and first list are there."""
    page = new_page(viewport={"width": 1366, "height": 900})
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(error.message))
    open_painter(page)
    answer(page, "hello")
    answer(page, "draw")
    answer(page, "search")
    expect(page.get_by_test_id("status")).to_have_text("ready")
    yield page
    assert page.complaints == []


def asked(page, kind):
    return page.evaluate("kind => asked.filter((message) => message.kind === kind)", kind)


def seen(button):
    """The words on a button; of two in one place, those that are visible."""
    return " ".join(button.inner_text().split())


def test_each_button_asks_for_the_edit_that_it_names_and_says_how_often_it_worked(page):
    buttons = page.get_by_test_id("try")
    page.get_by_test_id("strength").fill("5")  # so that none of the three is shown
    answer(page, "draw")
    assert [seen(button) for button in buttons.all()] == [f"{each['words']} {each['count']}" for each in TRIES]
    for number in (1, 2, 0):
        buttons.nth(number).click()
        assert asked(page, "draw")[-1]["edit"] == TRIES[number]["edit"]
        answer(page, "draw")
    page.get_by_test_id("undo").click()
    assert asked(page, "draw")[-1]["edit"] == TRIES[2]["edit"]


def test_the_button_whose_edit_is_shown_is_pressed_until_the_edit_changes(page):
    buttons = page.get_by_test_id("try").all()
    pressed = lambda: [button.get_attribute("aria-pressed") == "true" for button in buttons]
    width = buttons[0].bounding_box()["width"]
    assert pressed() == [True, False, False] and seen(buttons[0]) == f"{TRIES[0]['words']} shown now"
    buttons[1].click()
    answer(page, "draw")
    assert pressed() == [False, True, False] and buttons[0].bounding_box()["width"] == width
    page.get_by_test_id("strength").fill("5")
    answer(page, "draw")
    assert pressed() == [False, False, False]


def test_a_button_that_brings_another_picture_says_so_and_so_does_undo(page):
    note = page.get_by_test_id("note")
    page.get_by_test_id("seed").fill("9")
    page.get_by_test_id("seed").press("Tab")
    answer(page, "draw")
    page.get_by_test_id("model").select_option("Turbo, 1 step")
    answer(page, "draw")
    expect(note).to_be_empty()
    page.get_by_test_id("try").nth(2).click()
    expect(note).to_have_text("New picture: seed 7; Turbo, 4 steps.")
    answer(page, "draw", effect="Nothing is seen.")
    expect(note).to_have_text("New picture: seed 7; Turbo, 4 steps. Nothing is seen.")
    page.get_by_test_id("try").nth(1).click()
    expect(note).to_be_empty()
    answer(page, "draw")
    for undone in ("", "New picture: seed 9; Turbo, 1 step."):
        page.get_by_test_id("undo").click()
        expect(note).to_have_text(undone)
        answer(page, "draw")


@pytest.mark.parametrize("width", [1366, 390])
def test_cancel_is_there_only_while_something_is_drawn_and_moves_nothing(width, page):
    page.set_viewport_size({"width": width, "height": 800})
    page.get_by_test_id("strength").scroll_into_view_if_needed()
    layout = lambda: [page.locator(part).bounding_box() for part in (".tools", ".layers", "[data-testid=status]")]
    cancel, still = page.get_by_test_id("cancel"), layout()
    assert cancel.is_hidden()
    page.get_by_test_id("strength").fill("5")
    expect(cancel).to_be_visible()
    assert layout() == still
    box, (x, y, wide, high) = cancel.bounding_box(), still[2].values()
    assert box["x"] >= x + wide and abs(box["y"] + box["height"] / 2 - y - high / 2) < 3


def test_the_row_of_steps_is_there_for_models_of_several_steps_only(page):
    steps = page.get_by_test_id("steps-start")
    assert steps.is_visible()
    page.get_by_test_id("model").select_option("Turbo, 1 step")
    expect(steps).to_be_hidden()


def test_the_numbers_are_explained_beside_the_list(page):
    numbers = page.get_by_test_id("numbers")
    numbers.locator("summary").click()
    assert [term.inner_text() for term in numbers.locator("dt").all()][:3] == ["reads", "draws", "not tried"]


def test_the_picture_in_one_step_is_shown_first_and_said_to_be_that(page):
    seen = page.get_by_test_id("seen")
    expect(seen).to_have_text("– in 4 steps")
    page.get_by_test_id("try").nth(1).click()
    answer(page, "draw", "#f00", steps=1, quick=True, more=True)
    expect(seen).to_have_text("– in one step; 4 are being drawn")
    assert page.get_by_test_id("cancel").is_enabled()
    answer(page, "draw", "#00f")
    expect(seen).to_have_text("– in 4 steps")
    expect(page.get_by_test_id("status")).to_have_text("ready")


def test_a_drawing_that_is_cancelled_after_its_quick_picture_leaves_the_pictures_of_before(page):
    pixel = """image => {
        const pen = new OffscreenCanvas(1, 1).getContext("2d");
        pen.drawImage(image, 0, 0);
        return [...pen.getImageData(0, 0, 1, 1).data];
    }"""
    after = page.get_by_test_id("after")
    before = after.evaluate(pixel)
    page.get_by_test_id("try").nth(1).click()
    answer(page, "draw", "#f00", steps=1, quick=True, more=True)
    expect(page.get_by_test_id("seen")).to_contain_text("one step")
    assert after.evaluate(pixel) == [255, 0, 0, 255]
    page.get_by_test_id("cancel").click()
    expect(page.get_by_test_id("seen")).to_have_text("– in 4 steps")
    page.wait_for_function(
        "([pixel, image, before]) => `${eval(pixel)(image)}` === `${before}`",
        arg=[pixel, after.element_handle(), before],
    )


def test_the_steps_are_those_of_the_picture_that_is_being_drawn(page):
    page.get_by_test_id("model").select_option("base")
    status = page.get_by_test_id("status")
    answer(page, "draw", kind="progress", done=1, count=40, more=True)
    expect(status).to_have_text("step 2 of 20, picture 1 of 2")
    answer(page, "draw", kind="progress", done=21, count=40, more=True)
    expect(status).to_have_text("step 2 of 20, picture 2 of 2")
    answer(page, "draw")
    page.get_by_test_id("strength").fill("10")
    answer(page, "draw", kind="progress", done=4, count=20, more=True)
    expect(status).to_have_text("step 5 of 20")


def test_a_late_answer_to_an_earlier_search_does_not_overwrite_the_list(page):
    search, results = page.get_by_test_id("search"), page.locator(".results")
    search.fill("red")
    page.wait_for_function("asked.some((message) => message.text === 'red')")
    search.fill("star")
    page.wait_for_function("asked.some((message) => message.text === 'star')")
    late = asked(page, "search")[-2]["number"]
    answer(page, "search", number=asked(page, "search")[-1]["number"], found=RED[:1], more=True)
    expect(page.get_by_test_id("result")).to_have_count(1)
    answer(page, "search", number=late, found=RED)
    expect(results).not_to_contain_text("down.1.0/6")
    expect(page.get_by_test_id("result")).to_have_count(1)


def test_a_search_says_which_words_were_never_learnt_and_folds_weak_hits(page):
    page.get_by_test_id("search").fill("cat")
    page.wait_for_function("asked.some((message) => message.text === 'cat')")
    expect(page.get_by_test_id("found")).to_have_text("searching …")
    answer(page, "search", unlearnt=["cat"], weak=RED)
    expect(page.get_by_test_id("found")).to_have_text("the pocket model never learnt: cat")
    assert page.get_by_test_id("result").first.is_hidden()
    page.get_by_test_id("weak").locator("summary").click()
    expect(page.get_by_test_id("result").first).to_be_visible()


@pytest.mark.parametrize("by", ["reads", "draws"])
def test_the_list_is_sorted_by_either_number_and_what_was_not_tried_comes_last(by, page):
    page.get_by_test_id("search").fill("red")
    page.wait_for_function("asked.some((message) => message.text === 'red')")
    answer(page, "search", found=RED)
    page.get_by_test_id("sort").select_option(by)
    shown = [each.get_attribute("data-feature") for each in page.get_by_test_id("result").all()]
    assert shown == [each["id"] for each in sorted(RED, key=lambda each: -(-2 if each[by] is None else each[by]))]


@pytest.mark.parametrize("width, height", [(1040, 770), (1040, 640), (1366, 768)])
def test_pictures_and_list_are_visible_together_on_a_laptop(width, height, page):
    """1040 px: what JupyterLab leaves of 1366 px to a cell, at a window of 900 px and of 768 px."""
    page.set_viewport_size({"width": width, "height": height})
    for part in ("before", "after", "result"):
        box = page.get_by_test_id(part).first.bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= height
    after, results = page.get_by_test_id("after").bounding_box(), page.locator(".results").bounding_box()
    assert results["x"] > after["x"] + after["width"] and results["height"] > 300
    assert len(LISTS[""]) * 35 > results["height"]  # more than it shows: it scrolls, and nothing grows


def test_on_a_phone_the_list_stands_directly_under_the_pictures(page):
    page.set_viewport_size({"width": 390, "height": 844})
    before, after = (page.get_by_test_id(part).bounding_box() for part in ("before", "after"))
    search, brush = (page.locator(part).bounding_box() for part in (".finder", ".tools"))
    assert before["y"] == after["y"] and before["x"] + before["width"] < after["x"]
    assert 0 < search["y"] - (after["y"] + after["height"]) < 20
    assert brush["y"] > search["y"] + search["height"] - 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_strength_can_be_typed_and_stays_within_the_sliders_ends(page):
    for typed, strength in (("-7", -7), ("90", 40)):
        page.get_by_test_id("strength-number").fill(typed)
        page.get_by_test_id("strength-number").press("Enter")
        assert asked(page, "draw")[-1]["edit"]["layers"][0]["strength"] == strength
        assert page.get_by_test_id("strength").input_value() == str(strength)


def test_a_feature_takes_its_blocks_strength_unless_the_strength_was_moved_by_hand(page):
    page.get_by_test_id("search").fill("red")
    page.wait_for_function("asked.some((message) => message.text === 'red')")
    answer(page, "search", found=RED, strengths={"up.1.1": 15, "down.1.0": 5})
    for number, strength in ((0, 15), (1, 5)):
        page.get_by_test_id("result").nth(number).click()
        assert asked(page, "draw")[-1]["edit"]["layers"][0]["strength"] == strength
        answer(page, "draw")
    page.get_by_test_id("strength").fill("30")
    answer(page, "draw")
    page.get_by_test_id("result").first.click()
    assert asked(page, "draw")[-1]["edit"]["layers"][0]["strength"] == 30


def test_a_card_hands_its_feature_to_the_painter_and_a_button_leads_back(page):
    taken = page.evaluate(
        """() => !document.dispatchEvent(new CustomEvent("sae-paint", { cancelable: true, detail: {
            feature: { id: "down.1.0/9", block: "down.1.0", meaning: "night" },
            back: () => { window.isBack = true; } } }))"""
    )
    assert taken and asked(page, "draw")[-1]["edit"]["layers"][0]["feature"] == "down.1.0/9"
    answer(page, "draw")
    page.get_by_test_id("back").click()
    assert page.evaluate("window.isBack") and page.get_by_test_id("back").is_hidden()
