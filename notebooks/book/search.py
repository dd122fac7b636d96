"""The search index, a script that sets one variable: a page opened from the file system may load scripts, not fetch."""

import json
from collections.abc import Iterable
from typing import NamedTuple

from notebooks.book.chapters import Chapter


class Entry(NamedTuple):
    """Something that can be found."""

    address: str
    """"04_transfer.html#4-2-the-claims-as-rules"."""
    page: str
    """Title of the page."""
    title: str
    """Of the section, artefact or feature; empty for a page's beginning."""
    text: str


def of_chapter(chapter: Chapter) -> list[Entry]:
    """The page's beginning, then its sections."""
    page = f"{chapter.number} {chapter.title}".strip()
    first, *others = chapter.sections
    found = [Entry(chapter.page, page, "", first.text)]
    return found + [Entry(f"{chapter.page}#{each.anchor}", page, each.title, each.text) for each in others]


def as_script(entries: Iterable[Entry]) -> str:
    """JavaScript that book.js reads."""
    told = json.dumps([list(entry) for entry in entries], ensure_ascii=False, separators=(",", ":"))
    return f"window.BOOK_INDEX = {told};\n"
