"""Writing the book's pages: the order in which they are read, and the templates that draw them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from notebooks.book.chapters import TEMPLATES
from notebooks.book.prose import slug
from sae_lib.companion.verdicts import in_words


@dataclass(frozen=True)
class Page:
    """A line of the contents."""

    page: str
    title: str
    number: str = ""


class Writer:
    """Writes pages into the folder `book`. parts: the contents by part, which is also the order of reading."""

    def __init__(self, book: Path, title: str, parts: Sequence[tuple[str, Sequence[Page]]]):
        self.book = book
        self._order = [page for _, pages in parts for page in pages]
        self._env = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
        self._env.trim_blocks = True
        self._env.filters |= {"slug": slug, "first_word": lambda text: text.split()[0]}
        self._env.filters["counted"] = lambda word, count: in_words([word] * count)
        self._env.globals |= {"book": title, "parts": parts}

    def write(self, template: str, page: str, title: str, **content: Any) -> None:
        """Write one page. Raises KeyError for a page that is not in the contents."""
        places = {listed.page: place for place, listed in enumerate(self._order)}
        at = places[page]
        before = self._order[at - 1] if at else None
        after = self._order[at + 1] if at + 1 < len(self._order) else None
        common: Mapping[str, Any] = {"claim": "", "here": page, "title": title, "before": before, "after": after}
        html = self._env.get_template(f"{template}.html.j2").render(**{**common, "kind": template, **content})
        (self.book / page).write_text(html)


def in_bytes(size: int) -> str:
    """A file's size for a reader.

    >>> in_bytes(900), in_bytes(12_345), in_bytes(3_450_000)
    ('900 bytes', '12 kB', '3.5 MB')
    """
    return f"{size} bytes" if size < 1_000 else f"{size / 1e3:.0f} kB" if size < 1e6 else f"{size / 1e6:.1f} MB"
