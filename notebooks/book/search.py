"""The search index: a script that sets one variable, since a page opened from the file system may not fetch data."""

import json
from collections.abc import Iterable
from typing import NamedTuple

from notebooks.book.chapters import Chapter


class Entry(NamedTuple):
    """Something that the search finds."""

    address: str
    """"04_transfer.html#4-2-the-claims-as-rules"."""
    page: str
    """Title of the page."""
    title: str
    """Title of the section, artefact or feature; empty for a page's beginning."""
    text: str


def of_chapter(chapter: Chapter) -> list[Entry]:
    """The page's beginning, then its sections."""
    page = f"{chapter.number} {chapter.title}".strip()
    first, *others = chapter.sections
    beginning = [Entry(chapter.page, page, "", first.text)]
    return beginning + [
        Entry(f"{chapter.page}#{section.anchor}", page, section.title, section.text) for section in others
    ]


def as_script(entries: Iterable[Entry]) -> str:
    """JavaScript that book.js reads."""
    rows = json.dumps([list(entry) for entry in entries], ensure_ascii=False, separators=(",", ":"))
    return f"window.BOOK_INDEX = {rows};\n"
