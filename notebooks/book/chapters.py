"""Executed notebooks as chapters."""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter

from notebooks.book import pictures
from notebooks.book.links import Links
from notebooks.book.prose import Section, finish, sections, sentences, text_of

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Chapter:
    """A notebook, or a text, as a page of the book."""

    page: str
    """Its file, "04_transfer.html"."""
    source: str
    """The repository's file that it shows, "notebooks/04_transfer.ipynb"."""
    number: str
    """"04", "W1"; empty for a page that has none."""
    title: str
    claim: str
    """The sentence of the first cell that says what the page is about; may be empty."""
    opening: str
    """Its HTML up to the first section: the question, its answer and one figure, where a notebook has them."""
    html: str
    """The rest."""
    sections: tuple[Section, ...]
    """The first is the page's own title."""
    figures: Mapping[str, str]
    """By saved figure, "04_transfer/figure3", the alt text of its picture."""


def page_of(source: str) -> str:
    """The page that shows a file of the repository.

    >>> page_of("notebooks/04_transfer.ipynb"), page_of("notebooks/workshop/1_saes_exercise.ipynb")
    ('04_transfer.html', 'workshop_1_saes_exercise.html')
    >>> page_of("notebooks/README.md"), page_of("CONTRIBUTING.md")
    ('notebooks.html', 'contributing.html')
    """
    parts = Path(source.removesuffix("/README.md")).with_suffix("").parts
    return "_".join(parts[1:] or parts).lower() + ".html"


def read_notebook(path: Path, executed: bool = True) -> nbformat.NotebookNode:
    """Reads a notebook. Raises ValueError for a file that is none and, if `executed`, for one
    that never was executed."""
    try:
        notebook = nbformat.read(path, as_version=4)
    except (OSError, ValueError, nbformat.ValidationError) as error:
        raise ValueError(f"{path.name} is no notebook: {error}") from None
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    if executed and cells and not any(cell.execution_count or cell.outputs for cell in cells):
        raise ValueError(f"{path.name} was never executed, it has no outputs: run make notebooks")
    return notebook


def make_chapter(
    notebook: nbformat.NotebookNode, source: str, links: Links, titles: Mapping[str, str], book: Path
) -> Chapter:
    """The chapter of a notebook; its figures' files are taken from, or written to, `book`."""
    pictures.take_out(notebook, Path(source).stem, book)
    exporter = HTMLExporter(template_name="cells", extra_template_basedirs=[str(TEMPLATES)], exclude_anchor_links=True)
    exporter.register_filter("says", summary_of)
    soup = finish(exporter.from_notebook_node(notebook)[0], source, links)
    for element in soup.select(".answer [style]"):
        del element["style"]  # a notebook has no style sheet, the book has
    pictures.take_out_attached(soup, Path(source).stem, book)
    return chapter_of(soup, source, pictures.finish_figures(soup, book, titles))


def chapter_of(soup: BeautifulSoup, source: str, figures: Mapping[str, str] | None = None) -> Chapter:
    """The chapter of a finished page. Raises ValueError if it has no title."""
    heading = soup.find("h1")
    if heading is None:
        raise ValueError(f"{source} has no title: its first cell must start with '# '")
    number, title = re.fullmatch(r"(\d\d)? ?(.*)", text_of(heading)).groups()
    claim, parts = claim_of(soup), tuple(sections(soup))
    heading.decompose()
    opening, rest = _cut(soup)
    return Chapter(page_of(source), source, number or "", title, claim, opening, rest, parts, figures or {})


def _cut(soup: BeautifulSoup) -> tuple[str, str]:
    """A page's HTML up to its first section, and from there; all is rest where there is no section."""
    first = soup.find("h2", recursive=False)
    before = [] if first is None else [str(element) for element in first.previous_siblings][::-1]
    return "".join(before), "".join(str(element) for element in [*soup.contents][len(before) :])


def summary_of(cell: nbformat.NotebookNode) -> str:
    """What a folded cell of code does, in one line.

    >>> summary_of(nbformat.v4.new_code_cell("import torch"))
    'Imports, 1 line'
    >>> summary_of(nbformat.v4.new_code_cell("def level(curves):\\n    return curves.mean()"))
    'Code: level, 2 lines'
    """
    lines = len(cell.source.splitlines())
    return f"{_kind_of(cell)}, {lines} line{'s' if lines > 1 else ''}"


def _kind_of(cell: nbformat.NotebookNode) -> str:
    if "parameters" in cell.metadata.get("tags", []):
        return "Parameters"
    if names := pictures.SAVED.findall(cell.source):
        return f"Figure {', '.join(names)}"
    try:
        parts = ast.parse(cell.source).body
    except SyntaxError:  # an exercise that is not written yet
        return "Code"
    if parts and all(isinstance(part, ast.Import | ast.ImportFrom) for part in parts):
        return "Imports"
    names = [part.name for part in parts if isinstance(part, ast.FunctionDef | ast.ClassDef)]
    return f"Code: {', '.join(names)}" if names else "Code"


def claim_of(soup: BeautifulSoup) -> str:
    """The first sentence of the first paragraph that ends with a full stop, without a lead such as "Claim checked."."""
    for paragraph in soup.find_all("p"):
        text = text_of(paragraph)
        lead = paragraph.find("strong")
        if lead and (lead_text := text_of(lead)).endswith(".") and text.startswith(lead_text):
            text = text.removeprefix(lead_text).strip()
        if text.endswith((".", "?")):
            return sentences(text)[0]
    return ""
