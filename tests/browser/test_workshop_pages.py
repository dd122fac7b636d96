"""The workshop's pages in the browser: what is projected fits the screen, what is printed fits its paper."""

import re

import pytest

from notebooks.workshop.materials import PAGES

PROJECTOR = {"width": 1366, "height": 768}

# Of each page to project: what sticks out of it or overlaps its last line, and the smallest letters in pixels.
READ_PAGES = """() => [...document.querySelectorAll("section")].map(section => {
    const box = section.getBoundingClientRect(), shown = [...section.querySelectorAll("*:not(details *)")];
    const outside = shown.map(each => [each, each.getBoundingClientRect()]).filter(([each, of]) =>
        of.bottom > box.bottom + 1 || of.right > box.right + 1 || of.left < box.left - 1);
    const letters = shown.filter(each => each.innerText && !each.children.length).map(
        each => parseFloat(getComputedStyle(each).fontSize));
    const body = section.querySelector(".body, .tries"), done = section.querySelector(".done");
    const inside = [...body.querySelectorAll("img, li, p")].map(each => each.getBoundingClientRect().bottom);
    const overlap = Math.max(...inside) - done.getBoundingClientRect().top;
    const sticks_out = outside.map(([each]) => each.outerHTML.slice(0, 80));
    return {id: section.id, outside: sticks_out, smallest: Math.min(...letters), overlap};
})"""

IS_ON_TOP = "id => Math.abs(document.getElementById(id).getBoundingClientRect().top) < 2"


@pytest.fixture
def slides(new_page):
    page = new_page(viewport=PROJECTOR)
    page.goto((PAGES / "slides.html").as_uri())
    return page


def test_each_page_to_project_fits_the_screen_in_letters_for_the_back_row(slides):
    read = slides.evaluate(READ_PAGES)
    assert [one["id"] for one in read] == ["painter", *(f"lesson-{number}" for number in range(1, 7))]
    for one in read:
        assert not one["outside"] and one["overlap"] <= 1 and one["smallest"] >= 20, one


def test_arrow_keys_turn_the_pages_and_the_numbers_unfold(slides):
    for key, shown in [("ArrowRight", "lesson-1"), (" ", "lesson-2"), ("ArrowLeft", "lesson-1")]:
        slides.keyboard.press(key)
        slides.wait_for_function(IS_ON_TOP, arg=shown)
    numbers = slides.locator("#lesson-1 details")
    numbers.locator("summary").click()
    box = numbers.bounding_box()
    assert box["y"] >= 0 and box["y"] + box["height"] <= PROJECTOR["height"] and numbers.locator("pre").is_visible()


@pytest.mark.parametrize(("name", "pages"), [("handout", 1), ("feedback", 1), ("slides", 7)])
def test_what_is_printed_fits_its_paper(new_page, name, pages):
    page = new_page()
    page.goto((PAGES / f"{name}.html").as_uri())
    printed = page.pdf(prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == pages
