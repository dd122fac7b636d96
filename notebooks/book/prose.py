"""Markdown and executed cells as the book's HTML: headings with anchors, tables that scroll in their own box."""

import re
from typing import NamedTuple

from bs4 import BeautifulSoup, Comment, Tag
from nbconvert.filters import markdown2html

from notebooks.book.links import Links

_LAST_WORDS = ("Fig.", "Figs.", "App.", "eq.", "eqs.", "vs.", "e.g.", "i.e.", "Sec.", "Tab.")


class Section(NamedTuple):
    """A heading of a page and the text below it, up to the next one."""

    anchor: str
    title: str
    text: str


def render(markdown: str, source: str, links: Links) -> BeautifulSoup:
    """The HTML of markdown from the file `source`."""
    return finish(markdown2html(markdown), source, links)


def finish(html: str, source: str, links: Links) -> BeautifulSoup:
    """Rendered HTML with the book's links, ids at headings, boxes around what may be wide, and pictures to enlarge."""
    soup = BeautifulSoup(html, "html.parser")
    for element in soup.select("style, script, a.anchor-link"):
        element.decompose()
    for comment in soup.find_all(string=lambda text: isinstance(text, Comment)):
        comment.decompose()
    links.rewrite(soup, source)
    _give_anchors(soup)
    for number, wide in enumerate(soup.find_all(["table", "pre"]), 1):
        box = wide.find_parent("div", class_="highlight") or wide
        kind = "Table" if wide.name == "table" else "Code" if box is not wide else "Output"
        label = {"tabindex": "0", "role": "group", "aria-label": f"{kind} {number}"}
        box.wrap(soup.new_tag("div", attrs={"class": "scroll", **label}))
    for image in soup.find_all("img"):
        image["loading"] = "lazy"
        if not image.find_parent("a"):
            image.wrap(soup.new_tag("a", attrs={"class": "zoom", "href": image["src"]}))
    return soup


def _give_anchors(soup: BeautifulSoup) -> None:
    seen = set()
    for heading in soup.find_all(["h1", "h2", "h3", "h4"]):
        anchor = stem = slug(text_of(heading)) or "section"
        count = 1
        while anchor in seen:
            count += 1
            anchor = f"{stem}-{count}"
        seen.add(anchor)
        heading["id"] = anchor


def slug(text: str) -> str:
    """Lower-case words joined by "-", for an anchor: "4.2 The claims, as rules" is "4-2-the-claims-as-rules"."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def text_of(element: Tag) -> str:
    """An element's text in one line."""
    return " ".join(element.get_text().split())


def sections(soup: BeautifulSoup) -> list[Section]:
    """The sections of a page: its title with the text below it, then each h2 with its text; code is left out."""
    collected: list[tuple[str, str, list[str]]] = []
    for element in soup.find_all(["h1", "h2", "h3", "p", "li", "td", "th", "figcaption"]):
        if element.name in ("h1", "h2"):
            collected.append((element["id"], text_of(element), []))
        elif collected and not element.find_parent(["li", "td", "th", "figcaption"]):
            collected[-1][2].append(text_of(element))
    return [Section(anchor, title, " ".join(parts)) for anchor, title, parts in collected]


def sentences(text: str) -> list[str]:
    """A text, cut after full stops, question and exclamation marks that are followed by a capital."""
    parts = [""]
    for piece in re.split(r"(?<=[.!?])\s+(?=[\"“(]?[A-Z])", text.strip()):
        glued = parts[-1].endswith(_LAST_WORDS)
        parts[-1:] = [f"{parts[-1]} {piece}"] if glued else [parts[-1], piece]
    return [part for part in parts if part]


def shortened(text: str, length: int) -> str:
    """The first sentences of a text that together have at most `length` characters, but always one."""
    first, *others = sentences(text) or [""]
    for sentence in others:
        if len(first) + 1 + len(sentence) > length:
            break
        first += f" {sentence}"
    return first
