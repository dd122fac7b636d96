"""The book's builder, on a repository of two small notebooks."""

import json
import re
import shutil
import tomllib
from concurrent.futures import ThreadPoolExecutor

import nbformat
import pytest
import torch
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from notebooks.book import build as builder, colab, drawing, progress, prose, records
from notebooks.book.build import build
from notebooks.book.chapters import chapter_of
from notebooks.book.links import Links
from sae_lib import Catalogue, Painter
from sae_lib.assets import Assets
from sae_lib.cache.artefact import ROOT
from sae_lib.features import reading
from sae_lib.features.feature import FeatureId
from sae_lib.models.blocks import ATTENTION_BLOCKS
from sae_lib.paint.catalogue import BETAS, CLEAR, NO_CLEAR_MEANING, TOP

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
SAVE = 'save_figure(run, fig, "curve", {}, None, verdicts)'
FIRST = """# 01 The first

**Claim checked.** One is less than two (paper: Fig. 3, A). The rest is prose.

| a | b |
|---|---|
| 1 | 2 |"""
SEEN = "**What we see.** The curve `rises` from left to right. It never falls. " + "It goes on and on. " * 40
LAST = "## 1.2 What is next\n\n[02](02_second.ipynb#the-end) and [the record](../figures/01_first/curve.json)."
VERDICT = {
    "claim": "it rises",
    "value": 0.5,
    "interval": [0.25, 0.75],
    "published": 0.4,
    "source": "digitised",
    "id": "C1",
}
INDEX = [
    {"id": "Figure 1", "title": "A curve", "version": "v5", "source": "digitised", "files": ["01_first/curve"]},
    {"id": "Plot", "title": "The same", "version": "", "source": "", "files": ["01_first/curve"]},
    {"id": "Lines", "title": "Of the third", "version": "", "source": "", "files": ["03_third/lines"]},
    {"id": "Figure 2", "title": "", "version": "v5", "source": "", "files": [], "status": "not identified"},
]


def picture():
    return new_output("display_data", {"image/png": PNG, "text/plain": "<Figure>"})


def printed(text):
    return new_output("stream", text=text)


def with_an_answer():
    """The cells of a notebook that opens with its answer."""
    chips = '<div class="answer"><p><strong>Answer.</strong> Yes, by 2.</p><ul class="verdicts" style="padding: 0">'
    chips += '<li><span class="chip holds" style="color: white">holds</span> C1: it rises</li></ul></div>'
    answer = code('show_answer("03_third")', new_output("display_data", {"text/html": chips}))
    answer.metadata.tags = ["answer"]
    parameters = code("scale: str = 'pocket'  # the scale")
    parameters.metadata.tags = ["parameters"]
    seen = new_output("display_data", {"text/markdown": "**What we see.** It *rises* by 2."})
    return [
        new_markdown_cell("# 03 The third\n\n**Question.** Does it rise?"),
        answer,
        new_markdown_cell("![Lines](../figures/03_third/lines.png)\n\n**Figure 3.** Of `x`.\n\n## 3.0 About\n\nIt."),
        parameters,
        code('fig = 1\nsave_figure(run, fig, "lines", {})\nwe_see(run, "")', seen, picture()),
        new_markdown_cell("**How to read it.** From left to right."),
    ]


def write(path, *cells):
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=list(cells)), path)


def code(source, *outputs, count=1):
    return new_code_cell(source, outputs=list(outputs), execution_count=count)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A repository as small as one can be."""
    root = tmp_path_factory.mktemp("repository")
    (root / "README.md").write_text(
        "# A companion\n\nWhat it is, see [two](notebooks/02_second.ipynb).\n\n"
        "![A sheet](figures/01_first/curve.png)\n\n## Later\nno\n"
    )
    figures = root / "figures" / "01_first"
    figures.mkdir(parents=True)
    Image.new("RGB", (30, 20)).save(figures / "curve.png")
    (figures / "curve.pdf").write_bytes(b"%PDF")
    words = ("holds on the pocket model", "fails on the pocket model", "undecided on the pocket model")
    verdicts = [VERDICT | {"word": word} for word in words]
    (figures / "curve.json").write_text(json.dumps({"result": {"verdicts": verdicts}}))
    shutil.copytree(ROOT / "figures/99_scorecard", root / "figures/99_scorecard", ignore=shutil.ignore_patterns("sdxl"))
    defaults = {"status": "made", "notebooks": []}
    (root / "figures" / "index.json").write_text(json.dumps([defaults | row for row in INDEX]))
    saved = new_output("execute_result", {"text/plain": "01_first/curve.png|pdf|json"})
    first = (new_markdown_cell(FIRST), code("plot()", picture()), code(SAVE, saved), new_markdown_cell(SEEN))
    write(root / "notebooks/01_first.ipynb", *first, new_markdown_cell(LAST))
    second = (new_markdown_cell("# 02 The second\n\nNo claim here."), code("plot()", picture(), printed("a < b\n")))
    write(root / "notebooks/02_second.ipynb", *second, new_markdown_cell("## The end\n\nDone."))
    write(root / "notebooks/03_third.ipynb", *with_an_answer())
    answered = root / "figures/03_third"
    answered.mkdir()
    Image.new("RGB", (40, 20)).save(answered / "lines.png")
    (answered / "lines.pdf").write_bytes(b"%PDF")
    (answered / "lines.json").write_text(json.dumps({"result": {"verdicts": verdicts}}))
    (answered / "answer.json").write_text(json.dumps({"result": {"answer": "Yes, by 2.", "verdicts": []}}))
    lesson = "# Lesson 1: Add\n\nAdd it.\n\n<details><summary>Hint</summary>\n\nTry *plus*.\n\n</details>"
    came_out = "<details><summary>What came out</summary>\n\n![Two](attachment:two.png)\n\n</details>"
    attached = new_markdown_cell(came_out, attachments={"two.png": {"image/png": PNG}})
    exercise = (new_markdown_cell(lesson), code("1 +", count=None), attached)
    write(root / "notebooks/workshop/1_add_exercise.ipynb", *exercise)
    write(root / "notebooks/workshop/1_add_solution.ipynb", new_markdown_cell(lesson), code("1 + 1", printed("2")))
    (root / "notebooks/workshop/INSTRUCTOR.md").write_text(
        "# Instructor notes\n\nSee [1](1_add_exercise.ipynb), [all](../src/).\n"
    )
    (root / "notebooks/src").mkdir()
    (root / "notebooks/src/01_first.py").write_text("# %%\n")
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copyfile(ROOT / name, root / name)
    return root


@pytest.fixture(scope="module")
def book(made, tmp_path_factory):
    return build(made, tmp_path_factory.mktemp("built") / "book").parent


@pytest.fixture
def root(made, tmp_path):
    """A copy of the repository, to be spoilt."""
    return shutil.copytree(made, tmp_path / "repository")


def page(book, name):
    return BeautifulSoup((book / name).read_text(), "html.parser")


def test_every_link_and_picture_of_every_page_is_there(book):
    for path in book.glob("*.html"):
        soup = page(book, path.name)
        for element in soup.select("a[href], img[src], script[src], link[href]"):
            address, _, anchor = (element.get("href") or element.get("src")).partition("#")
            assert (book / (address or path.name)).is_file(), (path.name, address)
            if anchor and address.endswith((".html", "")):
                assert page(book, address or path.name).find(id=anchor), (path.name, address, anchor)


def test_links_between_notebooks_lead_to_the_chapters_and_their_anchors(book):
    links = {link["href"] for link in page(book, "01_first.html").select("main a")}
    assert {"02_second.html#the-end", "figures/01_first/curve.json", "notebooks/01_first.ipynb"} <= links


def test_a_folder_of_the_repository_leads_to_the_downloads(book):
    links = {link["href"] for link in page(book, "workshop_instructor.html").select("main .text a")}
    assert {"workshop_1_add_exercise.html", "downloads.html"} <= links


def test_the_first_page_takes_its_words_from_the_readme_and_the_notebooks(book):
    soup = page(book, "index.html")
    assert soup.h1.get_text() == "A companion" and soup.find("img", alt="A sheet")
    assert "no" not in [p.get_text() for p in soup.select("main p")]
    told = [line.get_text("|") for line in soup.select(".chapters a")]
    assert told[0] == "01|The first|One is less than two (paper: Fig. 3, A).|Tests: 1 holds, 1 fails, 1 undecided"
    assert told[1].startswith("02|The second")
    assert told[2] == "03|The third|Does it rise?|Yes, by 2.|Tests: 1 holds, 1 fails, 1 undecided"


def test_a_chapter_opens_with_question_answer_and_figure_before_tools_and_contents(book):
    soup = page(book, "03_third.html")
    opening = soup.select_one(".opening")
    assert [child.name for child in opening.find_all(recursive=False)] == ["p", "div", "figure"]
    assert opening.p.get_text() == "Question. Does it rise?" and not opening.select("details, [style], .toc, .tools")
    assert [chip["class"] for chip in opening.select(".answer .chip")] == [["chip", "holds"]]
    assert opening.find_next_sibling()["class"] == ["tools"]


def test_the_figure_of_the_opening_is_a_figure_like_others_and_has_no_address_of_its_own(book):
    first, saved = page(book, "03_third.html").select("figure")
    assert first.img["alt"] == "Lines" and (first.img["width"], first.img["height"]) == ("40", "20")
    assert "Figure 3. Of x." in first.figcaption.get_text()
    assert [link.get_text() for link in first.figcaption.select("a")] == ["PNG", "PDF", "record"]
    assert first.select_one("a.zoom")["href"] == "figures/03_third/lines.png" and "loading" not in first.img.attrs
    assert "id" not in first.attrs and saved["id"] == "figure-lines"


def test_what_a_cell_says_about_its_figure_stands_below_it_and_is_its_alt_text(book):
    saved = page(book, "03_third.html").select("figure")[1]
    assert saved.img["alt"] == "Lines: Of the third. It rises by 2."
    assert saved.find_next("p").get_text() == "What we see. It rises by 2."


def test_the_code_of_the_answer_is_never_shown_and_other_code_says_in_a_line_what_it_is(book):
    folded = page(book, "03_third.html").select("details.code")
    assert [each.summary.get_text() for each in folded] == ["Parameters, 1 line", "Figure lines, 3 lines"]
    assert not [each for each in folded if each.has_attr("open")]


def test_a_damaged_answer_is_told_of(root, tmp_path):
    (root / "figures/03_third/answer.json").write_text("{}")
    with pytest.raises(ValueError, match="figures/03_third/answer.json is damaged"):
        build(root, tmp_path / "book")


def test_verdicts_are_counted_once_a_figure_and_misses_like_successes(book):
    counts = [each.get_text(" ", strip=True) for each in page(book, "index.html").select(".counts a")]
    assert counts == ["2 hold", "2 fail", "2 undecided"]
    rows = page(book, "artefacts.html").select(".verdicts li")
    assert [row["data-word"] for row in rows] == ["holds", "fails", "undecided"] * 2
    told = " ".join(rows[1].get_text(" ").split())
    assert "fails on the pocket model it rises C1 0.5" in told and "0.25 to 0.75" in told and "0.4 (digitised)" in told


def test_the_claims_are_told_as_the_committed_scorecard_tells_them(book):
    claims = json.loads((ROOT / "figures/99_scorecard/scorecard.json").read_text())["result"]["claims"]
    rows = page(book, "artefacts.html").select("#claims + .scroll tbody tr")
    shown = [[cell.get_text() for cell in row.select("td")] for row in rows]
    assert shown == [[id, c["statement"], c["word"], c["secondary tests"]] for id, c in claims.items()]


def test_an_artefact_that_was_not_made_says_why(book):
    assert page(book, "artefacts.html").find(id="figure-2").find(class_="missing").get_text() == "not identified"


def test_a_figure_that_a_later_cell_finishes_is_shown_as_saved_with_what_we_see_as_its_alt_text(book):
    (image,) = page(book, "01_first.html").select("figure img")
    assert image["src"] == "figures/01_first/curve.png" and (image["width"], image["height"]) == ("30", "20")
    start = "Figure 1: A curve; Plot: The same. The curve rises from left to right. It never falls."
    assert image["alt"].startswith(start) and 100 < len(image["alt"]) < 400 and image["alt"].endswith("on.")
    assert "png|pdf|json" not in page(book, "01_first.html").get_text()


def test_a_picture_that_nobody_saved_is_a_file_and_is_named_by_its_section(book):
    (image,) = page(book, "02_second.html").select("figure img")
    assert (book / image["src"]).is_file() and image["alt"] == "Figure of section 02 The second."


def test_a_picture_that_is_attached_to_a_text_is_a_file(book):
    (image,) = page(book, "workshop_1_add_exercise.html").select("main img")
    assert (book / image["src"]).is_file() and image.parent["href"] == image["src"] and image["alt"] == "Two"


def test_no_page_asks_for_anything_from_elsewhere(book):
    for path in book.glob("*.html"):
        loads = [each.get("src") or each["href"] for each in page(book, path.name).select("[src], link[href]")]
        assert not [address for address in loads if re.match("[a-z]+:|//", address)]
    assert not re.search(r"url\(|@import|https?:", (book / "assets/book.css").read_text())
    assert "http" not in (book / "assets/book.js").read_text()


def test_code_folds_and_is_highlighted_and_output_is_escaped(book):
    soup = page(book, "02_second.html")
    assert soup.select_one("details.code summary").get_text() == "Code, 1 line"
    assert (
        soup.select_one(".highlight .n").get_text() == "plot" and soup.select_one("pre.output").get_text() == "a < b\n"
    )


def test_lessons_are_shown_without_outputs_and_lead_to_their_solutions_and_back(book):
    exercise, solution = page(book, "workshop_1_add_exercise.html"), page(book, "workshop_1_add_solution.html")
    assert exercise.select_one("main details:not(.code) em").get_text() == "plus" and not exercise.select(".output")
    assert exercise.select_one(".tools a[href*=solution]") and solution.select_one(".tools a[href*=exercise]")
    assert solution.h1.get_text() == "Lesson 1: Add (solution)" and solution.select_one(".output").get_text() == "2"


def test_where_a_widget_cannot_run_the_page_says_what_runs_it(root, tmp_path):
    left = new_output("execute_result", {"text/plain": "PainterWidget: run this notebook to use it"})
    write(root / "notebooks/04_fourth.ipynb", new_markdown_cell("# 04 Fourth"), code("PainterWidget()", left))
    soup = page(build(root, tmp_path / "book").parent, "04_fourth.html")
    said = soup.select_one(".live").get_text()
    assert "Here runs the painter" in said and "make app" in said and not soup.select("pre.output")


def test_without_a_workshop_there_is_no_part_of_that_name(root, tmp_path):
    shutil.rmtree(root / "notebooks/workshop")
    first = build(root, tmp_path / "book")
    assert "Workshop" not in first.read_text() and not list(first.parent.glob("workshop*"))


def test_the_search_index_is_a_script_with_sections_artefacts_and_verdicts(book):
    script = (book / "assets/search.js").read_text()
    index, words, _ = script.split(";\n")
    assert "star" in json.loads(words.removeprefix("window.BOOK_WORDS = ")) and '"cat"' not in words
    entries = json.loads(index.removeprefix("window.BOOK_INDEX = "))
    found = {address: text for address, _, _, text in entries}
    assert {"01_first.html", "01_first.html#1-2-what-is-next", "artefacts.html#figure-2"} <= set(found)
    assert "One is less than two" in found["01_first.html"] and "artefacts.html#only-fails" in found


def test_pages_are_turned_in_the_order_of_the_contents(book):
    soup = page(book, "01_first.html")
    assert soup.select_one(".turn [rel=prev]")["href"] == "index.html"
    assert soup.select_one(".turn [rel=next]")["href"] == "02_second.html"
    assert soup.select_one("#contents [aria-current]")["href"] == "01_first.html"


def test_a_book_replaces_the_one_before_as_a_whole_and_leaves_nothing_beside_it(made, book):
    before = (book / "index.html").read_bytes()
    (book / "stale.html").write_text("old")
    build(made, book)
    assert (book / "index.html").read_bytes() == before and not (book / "stale.html").exists()
    assert [path.name for path in book.parent.iterdir()] == ["book"]


def test_a_build_that_fails_leaves_the_book_that_was_there(root, tmp_path):
    first = build(root, tmp_path / "book")
    (root / "figures/index.json").write_text("{")
    with pytest.raises(ValueError, match="index.json is missing or damaged .*: run make notebooks"):
        build(root, tmp_path / "book")
    assert first.is_file() and not list(tmp_path.glob(".*unfinished"))


@pytest.mark.parametrize("content", ["{", "[]", "{}", '[{"id": "Figure 1"}]', "[1]"])
def test_a_damaged_index_is_told_of(root, content):
    (root / "figures/index.json").write_text(content)
    with pytest.raises(ValueError, match="figures/index.json is missing or damaged"):
        records.read_index(root / "figures")


def test_a_damaged_record_is_told_of(root, tmp_path):
    (root / "figures/01_first/curve.json").write_text("{}")
    with pytest.raises(ValueError, match="figures/01_first/curve.json is damaged"):
        build(root, tmp_path / "book")


def test_a_notebook_that_was_never_executed_is_refused(root, tmp_path):
    write(root / "notebooks/04_fourth.ipynb", new_markdown_cell("# 04 Fourth"), code("1", count=None))
    with pytest.raises(ValueError, match="04_fourth.ipynb was never executed, it has no outputs: run make notebooks"):
        build(root, tmp_path / "book")


def test_a_file_that_is_no_notebook_is_refused(root, tmp_path):
    (root / "notebooks/04_fourth.ipynb").write_text("<html>")
    with pytest.raises(ValueError, match="04_fourth.ipynb is no notebook"):
        build(root, tmp_path / "book")


def test_a_link_to_nothing_is_refused(root, tmp_path):
    write(root / "notebooks/04_fourth.ipynb", new_markdown_cell("# 04 Fourth\n\n[five](05_fifth.ipynb)"))
    with pytest.raises(ValueError, match="notebooks/04_fourth.ipynb: its link '05_fifth.ipynb' leads to no file"):
        build(root, tmp_path / "book")


def test_a_folder_that_cannot_be_written_is_told_of_in_one_sentence(made, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="the book cannot be written to .*: "):
        build(made, tmp_path / "file" / "book")


def test_a_repository_that_is_not_owner_and_name_is_refused(capsys):
    for wrong in ("engine", "https://github.com/ada/engine", "ada/engine/x", "ada/eng ine", "/engine"):
        assert builder.main([wrong]) == 2
        assert f"REPOSITORY={wrong} is not owner/name" in capsys.readouterr().err
    assert colab.check_repository("ada/engine.io") == "ada/engine.io" and colab.check_repository("") == ""


def test_only_with_a_repository_chapters_lead_to_colab_and_binder(made, book, tmp_path):
    assert not page(book, "01_first.html").select(".elsewhere") and not (book / "colab").exists()
    soup = page(build(made, tmp_path / "book", "ada/engine").parent, "01_first.html")
    one, other = soup.select(".elsewhere")
    assert (
        one["href"].endswith("/github/ada/engine/blob/gh-pages/colab/01_first.ipynb") and "untested" in one.get_text()
    )
    assert (
        other["href"].endswith("/gh/ada/engine/HEAD?labpath=notebooks%2F01_first.ipynb")
        and "untested" in other.get_text()
    )
    cell, *others = nbformat.read(tmp_path / "book/colab/01_first.ipynb", as_version=4).cells
    assert "https://github.com/ada/engine" in cell.source and 'os.chdir("/content/engine/notebooks")' in cell.source
    assert others == nbformat.read(made / "notebooks/01_first.ipynb", as_version=4).cells
    compile(cell.source, "colab", "exec")


def test_colab_keeps_its_torch_and_gets_the_locks_versions_of_what_is_missing(made):
    packages = colab.packages_for_colab(made)
    assert not [each for each in packages if each.startswith("torch")] and "diffusers==" in " ".join(packages)
    direct = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {each.split("==")[0] for each in packages} == set(direct) - set(colab.NOT_INSTALLED)


def test_sentences_end_where_a_capital_follows_and_not_after_an_abbreviation():
    assert prose.sentences("See Fig. A of it. Then B? (C too.) d.") == ["See Fig. A of it.", "Then B?", "(C too.) d."]
    assert (
        prose.shortened("One two. Three. Four.", 15) == "One two. Three."
        and prose.shortened("One two.", 3) == "One two."
    )


def test_headings_of_the_same_text_get_anchors_of_their_own():
    soup = BeautifulSoup("<h1>A</h1><h2>B b</h2><h2>B b</h2>", "html.parser")
    prose._give_anchors(soup)
    assert [heading["id"] for heading in soup.find_all(["h1", "h2"])] == ["a", "b-b", "b-b-2"]


# Colours


def colors():
    css = (ROOT / "notebooks/book/book.css").read_text()
    found = re.findall(r"--(\w+): light-dark\((#\w{6}), (#\w{6})\)", css)
    return {theme: {name: each[at] for name, *each in found} for at, theme in enumerate(("light", "dark"))}


def luminance(color):
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    """WCAG 2's ratio, 1 to 21."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_the_standards_examples():
    assert contrast("#000000", "#ffffff") == pytest.approx(21) and contrast("#777777", "#ffffff") == pytest.approx(
        4.48, abs=0.01
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read_on_its_ground_in_both_themes(theme):
    pairs = {
        "paper": ("ink", "quiet", "accent", "holds", "fails", "part", "undecided"),  # and the other way round: chips
        "side": ("ink", "quiet", "accent"),
        "code": ("ink", "keyword", "string", "number", "comment", "name"),
    }
    of = colors()[theme]
    low = {f"{name} on {ground}" for ground in pairs for name in pairs[ground] if contrast(of[ground], of[name]) < 4.5}
    assert low == set()


# The gallery


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    """Of 12 pictures, with a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAE_LIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setitem(reading.PICTURES, "smoke", 12)
        catalogue = Catalogue(Painter(Assets("smoke")))
        catalogue.__dict__["written"] = {}  # what features draw takes long to measure
        yield catalogue


@pytest.fixture(scope="module")
def cards(catalogue):
    """Two per block."""
    return {block: of_block[:2] for block, of_block in drawing.cards_of(catalogue).items()}


@pytest.mark.parametrize("block", ["up.1.2", "up.0.1"])
def test_features_drawn_together_are_those_of_their_cards(catalogue, cards, block):
    tops = {card["number"]: card["top"] for card in cards[block]}
    for feature, strip in zip(tops, drawing.draw_strips(catalogue.reading, block, tops, BETAS), strict=True):
        panel, rounding = catalogue.panel(FeatureId(block, feature)), {"rtol": 0, "atol": 1e-4}
        torch.testing.assert_close(strip[: len(panel.rows)], catalogue.pictures[panel.rows])
        torch.testing.assert_close(strip[TOP : TOP + len(panel.top)], panel.top)
        torch.testing.assert_close(strip[2 * TOP :], panel.strip, **rounding)


@pytest.fixture(scope="module")
def gallery(catalogue, cards, made, tmp_path_factory):
    """A book with a gallery of two cards per block: one of a clear meaning, that draws, and one of none."""
    drawn, (clear, other) = tmp_path_factory.mktemp("drawn"), cards["up.1.2"]
    clear.update(label="red (colour)", clear=True, reads=0.9, draws=0.25)
    other.update(label=NO_CLEAR_MEANING, clear=False, reads=0.1, draws=None)
    for block, of_block in cards.items():
        drawing.draw_block("smoke", drawn, BETAS, block, {card["number"]: card["top"] for card in of_block})
    n_f = {block: sae.n_f for block, sae in catalogue.assets.saes().items()}
    return build(made, drawn / "book", drawn=drawing.Gallery(drawn, cards, n_f)).parent


def test_a_drawn_block_becomes_a_page_with_a_card_for_each_live_feature(catalogue, cards, gallery):
    soup = page(gallery, "gallery_up.1.2.html")
    shown, rest = soup.select(".cards li"), catalogue.assets.saes()["up.1.2"].n_f - 2
    assert f"{rest} more never fired" in " ".join(soup.get_text().split())
    assert [card["id"] for card in shown] == [f"f{card['number']}" for card in cards["up.1.2"]]
    with Image.open(gallery / shown[0].img["src"]) as strip:
        assert strip.size == (drawing.TILES * 64, 64)
    assert f"gallery_up.1.2.html#{shown[0]['id']}" in (gallery / "assets/search.js").read_text()
    pages = [link["href"] for link in page(gallery, "gallery.html").select("main .doors a")]
    assert pages == [f"gallery_{block}.html" for block in ATTENTION_BLOCKS if block in catalogue.assets.blocks]


def test_a_card_says_what_its_feature_reads_and_draws_and_names_no_meaning_below_the_threshold(gallery):
    soup = page(gallery, "gallery_up.1.2.html")
    clear, other = (card.get_text("|", strip=True) for card in soup.select(".cards li"))
    assert "red (colour)|reads 0.90|draws 0.25|fires at" in clear
    assert f"{NO_CLEAR_MEANING}|reads 0.10|drawing not tried|fires at" in other
    assert f"below {CLEAR} it has no clear meaning" in " ".join(soup.get_text().split())


def test_the_gallery_is_drawn_once_and_says_how_far_it_is(catalogue, cards, monkeypatch):
    drawn, steps = [], []

    def draw(scale, folder, betas, block, tops):
        (folder / block).mkdir()
        for number in tops:
            (folder / block / f"{number}.webp").touch()
        drawn.append(block)

    monkeypatch.setattr(drawing, "ProcessPoolExecutor", ThreadPoolExecutor)
    monkeypatch.setattr(drawing, "Catalogue", lambda painter: catalogue)
    monkeypatch.setattr(drawing, "cards_of", lambda catalogue: cards)
    monkeypatch.setattr(drawing, "draw_block", draw)
    first = drawing.draw_gallery("smoke", 1, lambda *step: steps.append(step))
    count = sum(map(len, cards.values()))
    assert steps[-1] == ("Cards of the gallery", count, count, "")
    assert drawing.draw_gallery("smoke", 1) == first and sorted(drawn) == sorted(cards)


# Progress


def test_progress_is_a_line_when_something_begins_now_and_then_and_when_it_ends(capsys, monkeypatch):
    now = iter([0.0, 5.0, 20.0, 30.0, 31.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    line = progress.Progress()
    for done, where in ((0, ""), (1, "up.1.2 1/8"), (4, "up.1.2 4/8"), (8, "")):
        line.tell("Cards", done, 8, where)
    line.tell("Pages", 1, 2, "01_first")
    line.end()
    assert capsys.readouterr().out.splitlines() == [
        "Cards: 0 of 8",
        "Cards: 4 of 8, up.1.2 4/8, less than a minute left",
        "Cards: 8 of 8",
        "Pages: 1 of 2, 01_first",
    ]


def test_a_book_says_which_notebook_it_shows(made, tmp_path):
    steps = []
    build(made, tmp_path / "book", on_step=lambda *step: steps.append(step))
    assert steps[0] == ("Pages of notebooks", 1, 5, "01_first") and steps[-1][1:3] == (5, 5)


def test_a_comment_of_a_text_is_not_shown(tmp_path):
    (tmp_path / "TEXT.md").touch()
    text = "# Title\n\nBefore.\n\n<!-- written by a command -->\n\n## Section\n\nAfter."
    chapter = chapter_of(prose.render(text, "TEXT.md", Links(tmp_path, {})), "TEXT.md")
    assert "written by" not in chapter.opening + chapter.html
