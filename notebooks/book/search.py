"""The search index: a script that sets one variable, since a page opened from the file system may not fetch data."""

import json
from collections.abc import Iterable, Sequence
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


def as_script(entries: Iterable[Entry], words: Sequence[str]) -> str:
    """JavaScript that book.js reads. words: all that the pocket model learnt."""
    rows, words = (
        json.dumps(each, ensure_ascii=False, separators=(",", ":")) for each in ([list(e) for e in entries], words)
    )
    return f"window.BOOK_INDEX = {rows};\nwindow.BOOK_WORDS = {words};\n"
