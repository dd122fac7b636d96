"""The figures of a chapter: which saved figure a cell shows, where its files are, and what they show, in words."""

import base64
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup, Tag
from PIL import Image

from notebooks.book.prose import shortened, text_of

SAVED = re.compile(r'save_figure\(\s*run,\s*\w+,\s*"(\w+)"')
_ALT_LENGTH = 320
KINDS = {"png": "PNG", "pdf": "PDF", "json": "record"}
"""Files of a saved figure and what a reader calls them."""


def take_out(notebook: nbformat.NotebookNode, stem: str, book: Path) -> None:
    """Mark every picture of a notebook with its figure's name and its file below `book`, for `finish_figures`.

    A cell's picture is the figure that it saves. A figure that the next code cell finishes and saves is shown as saved:
    what Jupyter showed was not finished. A picture that nobody saves becomes a file of its own.
    """
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for place, cell in enumerate(cells):
        names = SAVED.findall(cell.source) or [
            n for later in cells[place + 1 : place + 2] for n in SAVED.findall(later.source)
        ]
        # A figure that is still open is shown at its cell's end, below what the cell says about it.
        cell.outputs.sort(key=lambda output: "text/markdown" in output.get("data", {}))
        for number, output in enumerate(_pictures(cell)):
            name = names[number] if number < len(names) else ""
            file = f"figures/{stem}/{name}.png"
            if not name or not (book / file).is_file():
                file = f"pictures/{stem}_{place}_{number}.png"
                (book / file).parent.mkdir(exist_ok=True)
                (book / file).write_bytes(base64.b64decode(output.data["image/png"]))
            output.metadata.update(book_name=name, book_file=file)
        for output in cell.outputs:
            # The printed paths of a saved figure: its caption has them as links.
            printed = output.get("data", {}).get("text/plain", "")
            output.setdefault("metadata", {})["book_hidden"] = printed.endswith(".png|pdf|json")
            output.metadata["book_live"] = "Widget: run this notebook" in printed  # from `LiveWidget`


def _pictures(cell: nbformat.NotebookNode) -> Iterator[nbformat.NotebookNode]:
    return (output for output in cell.outputs if "image/png" in output.get("data", {}))


def take_out_attached(soup: BeautifulSoup, stem: str, book: Path) -> None:
    """Write the pictures that are attached to a notebook's texts as files below `book`, and show those."""
    for number, image in enumerate(soup.select('img[src^="data:image/png;base64,"]')):
        file = f"pictures/{stem}_attached_{number}.png"
        (book / file).parent.mkdir(exist_ok=True)
        (book / file).write_bytes(base64.b64decode(image["src"].split(",")[1]))
        image["src"] = image.parent["href"] = file


def finish_figures(soup: BeautifulSoup, book: Path, titles: Mapping[str, str]) -> dict[str, str]:
    """Complete the marked figures: the picture with its alt text, a link that enlarges it, and links to its files.

    A saved figure that prose shows gets the same; the words of its Markdown image are its alt text, and a paragraph
    below it that begins in bold is its caption.

    titles: by figure ("04_transfer/figure3") its artefact's title in figures/index.json. Returns
    the alt texts by figure.
    """
    _mark_figures_of_prose(soup)
    alts, marked = {}, soup.select("figure[data-file]")
    last = {figure["data-name"]: figure for figure in marked}  # the address of a figure that is shown twice
    for figure in marked:
        name, file = figure.attrs.pop("data-name"), Path(figure.attrs.pop("data-file"))
        saved = f"{file.parent.name}/{name}"
        title = titles.get(saved, "")
        caption = figure.p or soup.new_tag("figcaption", string=title)
        caption.name = "figcaption"
        alt = figure.attrs.pop("data-alt", "") or describe(figure, title)
        width, height = Image.open(io.BytesIO((book / file).read_bytes())).size
        link = soup.new_tag("a", attrs={"class": "zoom", "href": str(file)})
        look = {"src": str(file), "alt": alt, "width": width, "height": height}
        look |= {"loading": "lazy"} if figure.find_previous("h2") else {}
        link.append(soup.new_tag("img", attrs=look))
        figure.append(link)
        figure.append(caption)
        _add_links(soup, caption, file, book)
        if name and last[name] is figure:
            figure["id"], alts[saved] = f"figure-{name}", alt
    return alts


def _mark_figures_of_prose(soup: BeautifulSoup) -> None:
    for image in soup.select("p > a.zoom > img[src^='figures/']"):
        paragraph, file = image.find_parent("p"), Path(image["src"])
        if text_of(paragraph):
            continue
        marks = {"data-name": file.stem, "data-file": str(file), "data-alt": image.get("alt", "")}
        figure, after = soup.new_tag("figure", attrs=marks), paragraph.find_next_sibling()
        if after is not None and after.name == "p" and after.contents and after.contents[0].name == "strong":
            figure.append(after)  # it leaves its place
        paragraph.replace_with(figure)


def describe(figure: Tag, title: str) -> str:
    """Alt text: the artefact's title, and the first sentences of "What we see" or else the section's heading."""
    seen = _what_we_see(figure)
    heading = figure.find_previous(["h1", "h2", "h3"])
    text = shortened(seen, _ALT_LENGTH) if seen else f"Figure of section {text_of(heading)}." if heading else "Figure."
    return f"{title}. {text}" if title else text


def _what_we_see(figure: Tag) -> str:
    for element in figure.find_all_next(["p", "figure"]):
        if element.name == "figure":
            return ""
        text = text_of(element)
        if text.startswith("What we see."):
            return text.removeprefix("What we see.").strip()
    return ""


def _add_links(soup: BeautifulSoup, caption: Tag, file: Path, book: Path) -> None:
    caption.append(" ")
    for kind, name in KINDS.items():
        if (book / file).with_suffix(f".{kind}").is_file():
            link = soup.new_tag("a", attrs={"href": str(file.with_suffix(f".{kind}"))})
            link.string = name
            caption.append(link)
            caption.append(" ")
