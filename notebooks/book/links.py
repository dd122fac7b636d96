"""Where the repository's files are in the book: links of notebooks and READMEs become links of pages."""

import posixpath
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup


class Links:
    """Rewrites links; remembers the files that they lead to, which the book then holds at the same place.

    root: the repository's folder. pages: by file the book's page, such as {"notebooks/04_transfer.ipynb":
    "04_transfer.html"}; all pages lie in the book's own folder.
    """

    def __init__(self, root: Path, pages: Mapping[str, str]):
        self.root, self.pages = root.resolve(), pages
        self.wanted: set[str] = set()
        """Files of the repository that a page leads to, for the builder to copy."""

    def resolve(self, source: str, link: str) -> str:
        """The link as it must be on a page, for a link in the file `source` ("notebooks/04_transfer.ipynb").

        A folder's link leads to the downloads. Raises ValueError for a link to nothing that is in the repository.
        """
        parts = urlsplit(link)
        if parts.scheme or not parts.path:
            return link
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), unquote(parts.path)))
        page = self.pages.get(target) or ("downloads.html" if (self.root / target).is_dir() else "")
        if not page:
            if target.startswith("..") or not (self.root / target).is_file():
                raise ValueError(f"{source}: its link {link!r} leads to no file of the repository")
            self.wanted.add(target)
        return (page or target) + (f"#{parts.fragment}" if parts.fragment else "")

    def rewrite(self, soup: BeautifulSoup, source: str) -> None:
        """Rewrite all links and images of what `source` was rendered to."""
        for name, tag in (("href", "a"), ("src", "img")):
            for element in soup.find_all(tag, **{name: True}):
                element[name] = self.resolve(source, element[name])
