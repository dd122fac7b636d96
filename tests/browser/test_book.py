"""The built book, opened from the file system: what a reader does with it, and what no page may do."""

import re
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from playwright.sync_api import expect

from sae_lib.cache.artefact import cache_root
from tests.browser.pages import Quiet

BOOK = cache_root() / "book"
CHAPTER, BLOCK, LONG = "04_transfer.html", "gallery_up.1.2.html", "gallery_up.0.1.html"
KINDS = (
    "index.html",
    CHAPTER,
    "99_scorecard.html",
    "gallery.html",
    BLOCK,
    "artefacts.html",
    "downloads.html",
    "pocket_model_card.html",
)
"""One page of every kind, and one more chapter."""
WIDE, PHONE = {"width": 1366, "height": 850}, {"width": 390, "height": 844}

# Of a page: what it leads to and loads, its anchors, pictures without words, and what sticks out on the right.
READ_PAGE = """() => {
    const all = selector => [...document.querySelectorAll(selector)];
    return {
        links: all("a[href]").map(each => each.getAttribute("href")),
        files: all("img[src], script[src], link[href]").map(
            each => each.getAttribute("src") || each.getAttribute("href")
        ),
        ids: all("[id]").map(each => each.id),
        unnamed: all("main img").filter(each => !each.alt.trim()).map(each => each.outerHTML),
        headings: all("h1").length,
    };
}"""


class Reader:
    """A page of the book in the browser, with all that it asked for and complained of."""

    def __init__(self, page):
        self.page, self.quiet, self.requests = page, Quiet(page), []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("requestfailed", self._failed)

    def _failed(self, request):
        if request.failure != "net::ERR_ABORTED":  # what was still loading when the page was left
            self.quiet.complaints.append(f"{request.failure}: {request.url}")

    def open(self, address, size=WIDE):
        self.page.set_viewport_size(size)
        self.page.goto("about:blank")  # so that another anchor of the same page is opened like a page
        self.page.goto(f"{BOOK.as_uri()}/{address}")
        return self.page


@pytest.fixture
def reader(new_page):
    reader = Reader(new_page(reduced_motion="reduce"))
    yield reader
    assert reader.quiet.complaints == []
    assert [url for url in reader.requests if not url.startswith(("file:", "about:"))] == []


def test_every_link_picture_and_anchor_of_every_page_resolves_and_every_picture_has_words(reader):
    pages = {}
    for path in sorted(BOOK.glob("*.html")):
        pages[path.name] = reader.open(path.name).evaluate(READ_PAGE)
    wrong = [(name, html) for name, told in pages.items() for html in told["unnamed"]]
    wrong += [(name, "h1") for name, told in pages.items() if told["headings"] != 1]
    for name, told in pages.items():
        for link in told["links"] + told["files"]:
            parts = urlsplit(urljoin(name, link))
            target, anchor = unquote(parts.path), unquote(parts.fragment)
            if parts.scheme in ("http", "https") and link in told["links"]:
                continue
            if parts.scheme or not (BOOK / target).is_file() or (anchor and anchor not in pages[target]["ids"]):
                wrong.append((name, link))
    assert wrong == [] and len(pages) > 20


def test_every_picture_that_is_shown_can_be_read(reader):
    for name in KINDS:
        page = reader.open(name)
        page.evaluate("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
        unread = "[...document.querySelectorAll('main img')].filter(image => !image.complete || !image.naturalWidth)"
        page.wait_for_function(f"() => !{unread}.length")


@pytest.mark.parametrize("size", [PHONE, WIDE], ids=["phone", "wide"])
def test_no_page_scrolls_sideways(reader, size):
    for path in sorted(BOOK.glob("*.html")):
        page = reader.open(path.name, size)
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], path.name


def test_the_search_finds_a_word_by_keyboard_and_says_so_when_there_is_nothing(reader):
    page = reader.open(BLOCK)
    page.keyboard.press("/")
    page.keyboard.type("digitised")
    expect(page.locator("#results a").first).to_contain_text("igitised")
    expect(page.locator("#results .part")).to_have_text(re.compile(r"^\d+ places"))
    expect(page.locator("#found")).to_be_hidden()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    second = page.locator("#results a").nth(1)
    expect(second).to_be_focused()
    address = second.get_attribute("href")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/{address}")
    page.keyboard.press("/")
    page.keyboard.type("zyxwvut")
    expect(page.locator("#found")).to_have_text("The pocket model never learnt: zyxwvut. Nothing found for “zyxwvut”.")
    page.keyboard.press("Escape")
    expect(page.locator("#results")).to_be_hidden()


def test_a_feature_is_found_by_its_number_and_by_its_meaning(reader):
    first = reader.open(BLOCK).locator(".cards li").first
    number, meaning = first.get_attribute("data-number"), first.get_attribute("data-text")
    page = reader.open("index.html")
    page.locator("#query").fill(f"up.1.2/{number}")
    expect(page.locator("#results a").first).to_have_attribute("href", f"{BLOCK}#f{number}")
    page.locator("#query").fill(f"{re.sub(r'[()]', '', meaning)} up.1.2")
    expect(page.locator("#results a").first).to_have_attribute("href", re.compile(r"gallery_up\.1\.2\.html#f\d+"))


def test_the_search_shows_features_before_pages_and_names_what_the_model_never_learnt(reader):
    page = reader.open("index.html")
    page.locator("#query").fill("red")
    parts = page.locator("#results .part")
    expect(parts).to_have_text([re.compile(r"^\d+ features?"), re.compile(r"^\d+ places?")])
    expect(page.locator("#results a").first).to_have_attribute("href", re.compile(r"^gallery_.*#f\d+$"))
    page.locator("#query").fill("cat")
    expect(page.locator("#found")).to_contain_text("The pocket model never learnt: cat.")
    page.locator("#query").fill("variance")
    expect(page.locator("#results a").first).to_be_visible()
    expect(page.locator("#found")).to_be_hidden()


def test_light_and_dark_follow_the_system_until_the_switch_is_used_and_are_remembered(new_page):
    reader = Reader(new_page(color_scheme="dark"))
    ground = "getComputedStyle(document.body).backgroundColor"
    page = reader.open("index.html")
    dark = page.evaluate(ground)
    page.locator("#theme").click()
    light = page.evaluate(ground)
    assert dark != light
    page.locator("#theme").click()
    assert page.evaluate(ground) == dark
    page.locator("#theme").click()
    assert reader.open(CHAPTER).evaluate(ground) == light and reader.quiet.complaints == []


def test_a_page_works_where_nothing_can_be_remembered(reader):
    broken = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError') }})"
    reader.page.add_init_script(broken)
    page = reader.open(CHAPTER)
    page.locator("#theme").click()
    page.locator("#code").click()
    expect(page.locator("details.code:not([open])")).to_have_count(0)


def test_figures_are_enlarged_turned_and_left_by_keyboard(reader):
    page = reader.open(CHAPTER)
    zooms, lightbox = page.locator("a.zoom"), page.locator("#lightbox")
    zooms.first.focus()
    page.keyboard.press("Enter")
    expect(lightbox).to_be_visible()
    expect(lightbox.locator("p")).to_have_text(zooms.first.locator("img").get_attribute("alt"))
    page.keyboard.press("ArrowRight")
    expect(lightbox.locator("img")).to_have_attribute("src", re.compile(zooms.nth(1).get_attribute("href")))
    assert page.url.endswith(CHAPTER)
    page.keyboard.press("Escape")
    expect(lightbox).to_be_hidden()
    expect(zooms.nth(1)).to_be_focused()


def test_white_figures_lie_on_white_paper_in_the_dark(new_page):
    page = Reader(new_page(color_scheme="dark")).open(CHAPTER)
    for zoom in page.locator("a.zoom").all():
        assert zoom.evaluate("each => getComputedStyle(each).backgroundColor") == "rgb(255, 255, 255)"


def test_code_is_folded_on_every_chapter_until_somebody_shows_it_all(reader):
    page = reader.open(CHAPTER)
    everything = page.locator("details.code").count()
    assert everything > 10 and page.locator("details.code[open]").count() == 0
    page.locator("#code").click()
    expect(page.locator("details.code[open]")).to_have_count(everything)
    page = reader.open("05_which_blocks_matter.html")
    expect(page.locator("details.code:not([open])")).to_have_count(0)
    expect(page.locator("#code")).to_have_attribute("aria-pressed", "true")
    page.locator("#code").click()
    expect(reader.open(CHAPTER).locator("details.code[open]")).to_have_count(0)


@pytest.mark.parametrize("size", [{"width": 1366, "height": 768}, PHONE], ids=["laptop", "phone"])
def test_a_chapter_shows_question_answer_and_figure_without_scrolling(reader, size):
    """On a phone the answer is what must be seen."""
    for chapter in sorted(BOOK.glob("[0-9]*.html")):
        page = reader.open(chapter.name, size)
        if page.locator(".answer .verdicts").count():
            bottom = page.locator(".answer").bounding_box()
            assert bottom["y"] + bottom["height"] <= size["height"], chapter.name
            top = page.locator(".opening figure img").first.bounding_box()["y"]
            assert size == PHONE or top < size["height"] - 100, chapter.name


def test_arrow_keys_turn_pages_but_not_while_somebody_types(reader):
    page = reader.open("03_train_saes.html")
    page.locator("#query").fill("a b")
    page.keyboard.press("ArrowLeft")
    assert page.url.endswith("03_train_saes.html")
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    page.wait_for_url(f"**/{CHAPTER}")
    page.keyboard.press("ArrowLeft")
    page.wait_for_url("**/03_train_saes.html")


def test_verdicts_are_filtered_by_word(reader):
    page = reader.open("index.html")
    page.locator(".counts .fails").click()
    page.wait_for_url("**/artefacts.html#only-fails")
    rows = page.locator(".verdicts li:visible")
    failed = int(page.locator("#only-fails").inner_text().split()[0])
    expect(rows).to_have_count(failed)
    assert {row.get_attribute("data-word") for row in rows.all()} == {"fails"}
    page.locator("#only-all").click()
    assert rows.count() > failed
    expect(page.locator("#shown")).to_have_text(f"{rows.count()} verdicts")


def test_cards_are_found_by_word_and_number_and_sorted(reader):
    page = reader.open(BLOCK)
    cards, everything = page.locator(".cards li:visible"), page.locator(".cards li").count()
    word, number = cards.first.get_attribute("data-text").split()[0], cards.first.get_attribute("data-number")
    page.locator("#wanted").fill(word)
    assert 0 < cards.count() < everything
    for card in cards.all():  # a card that is not drawn yet has no inner text (content-visibility)
        expect(card).to_contain_text(word)
    page.locator("#wanted").fill(number)
    assert [card.get_attribute("id") for card in cards.all()] == [f"f{number}"]
    page.locator("#wanted").fill("a cat")
    expect(page.locator("#none")).to_contain_text("The pocket model never learnt: cat.")
    page.locator("#wanted").fill("")
    for order in ("draws", "rate", "number"):
        page.locator("#order").select_option(order)
        values = page.evaluate(
            "name => [...document.querySelectorAll('.cards li')].map(card => +card.dataset[name])", order
        )
        assert values == sorted(values, reverse=order != "number") and len(values) == everything


def test_a_long_page_of_cards_opens_with_its_first_ones_and_grows_where_it_is_read(reader):
    page = reader.open(LONG)
    cards, everything = page.locator(".cards li:visible"), page.locator(".cards li").count()
    assert cards.count() == 24 < everything
    page.locator("#more").scroll_into_view_if_needed()
    expect(cards).to_have_count(48)
    last = page.locator(".cards li").last.get_attribute("id")
    page = reader.open(f"{LONG}#{last}")
    expect(page.locator(f"#{last}")).to_be_in_viewport()


def test_a_map_appears_under_the_pointer_at_the_keyboards_focus_and_at_a_touch(new_page):
    place = "each => getComputedStyle(each).objectPosition"
    page = Reader(new_page()).open(BLOCK)
    maps = page.locator("button.maps").first
    bare = maps.locator("img").first.evaluate(place)
    maps.hover()
    under = maps.locator("img").first.evaluate(place)
    assert under != bare
    page.mouse.move(0, 0)
    assert maps.locator("img").first.evaluate(place) == bare
    page.locator("#order").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")  # the link of the card, then its pictures
    expect(maps).to_be_focused()
    assert maps.locator("img").first.evaluate(place) == under
    touched = Reader(new_page(has_touch=True, is_mobile=True, viewport=PHONE)).open(BLOCK, PHONE).locator("button.maps")
    for wanted in (under, bare):
        touched.first.tap()
        assert touched.first.locator("img").first.evaluate(place) == wanted


def test_on_a_phone_the_contents_open_and_close_by_keyboard(reader):
    page = reader.open(CHAPTER, PHONE)
    expect(page.locator("#contents")).to_be_hidden()
    page.locator("#menu").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#contents [aria-current]")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#contents")).to_be_hidden()
    expect(page.locator("#menu")).to_be_focused()


def test_the_first_tab_skips_to_the_text(reader):
    page = reader.open(CHAPTER)
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    expect(page.locator(".skip")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()


def test_without_scripts_everything_can_be_read(new_page):
    page = Reader(new_page(java_script_enabled=False)).open(CHAPTER, PHONE)
    expect(page.locator("#contents")).to_be_visible()
    expect(page.locator("main h1")).to_be_visible()
