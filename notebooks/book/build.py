"""Build the book, a static site of the executed notebooks.

`make book`, or `python -m notebooks.book.build [owner/name]`. With the repository's name, chapters also get links that
run them elsewhere (`colab.py`).
"""

import argparse
import re
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat
from bs4 import BeautifulSoup
from PIL import Image

from notebooks.artefacts import answer_of
from notebooks.book import colab, gallery, pictures, records, search
from notebooks.book.chapters import Chapter, chapter_of, make_chapter, page_of, read_notebook
from notebooks.book.drawing import Gallery, draw_gallery
from notebooks.book.links import Links
from notebooks.book.pages import Page, Writer, in_bytes
from notebooks.book.progress import OnStep, Progress, silent
from notebooks.book.prose import render, slug, text_of
from sae_lib.cache.artefact import ROOT, cache_root, write_whole
from sae_lib.companion.figures import ANSWER
from sae_lib.companion.verdicts import in_words
from sae_lib.judges.attributes import attribute_values
from sae_lib.paint.catalogue import BETAS, CLEAR, TOP
from sae_lib.pocket.captions import vocabulary

HERE = Path(__file__).parent
INSTRUCTOR = "notebooks/workshop/INSTRUCTOR.md"
REFERENCE = ("notebooks/README.md", "sae_lib/pocket/MODEL_CARD.md", "CONTRIBUTING.md")
"""Texts that are pages of their own, in this order."""
THUMBNAIL = 480
"""Width of a figure's small picture, in pixels."""
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="#2b5c7d"/>'
    '<path d="M4 4h3v8H4zM9 7h3v5H9z" fill="#fff"/></svg>\n'
)


class Book:
    """A book in the making, in the empty folder `book`.

    drawn: the gallery (`drawing.draw_gallery`), if any. on_step: told what is done, how much of it, of how much, where.

    Raises ValueError, in one sentence, for what cannot be shown: a notebook that was never executed, a damaged index,
    a link to nothing, a repository that is not owner/name.
    """

    def __init__(
        self,
        root: Path,
        book: Path,
        repository: str = "",
        drawn: Gallery | None = None,
        on_step: OnStep = silent,
    ):
        self.root, self.book, self.repository = root, book, colab.check_repository(repository)
        self.rows = records.read_index(root / "figures")
        self.titles = records.titles_of(self.rows)
        self.findings = records.findings(self.rows, root / "figures")
        self.notebooks = self._find("notebooks/[0-9][0-9]_*.ipynb")
        self.exercises = self._find("notebooks/workshop/*_exercise.ipynb")
        self.solutions = self._find("notebooks/workshop/*_solution.ipynb")
        texts = [text for text in (INSTRUCTOR, *REFERENCE) if (root / text).is_file()]
        shown = {source: page_of(source) for source in (*self.notebooks, *self.exercises, *self.solutions, *texts)}
        self.links = Links(root, {"README.md": "index.html", "figures/README.md": "artefacts.html", **shown})
        self.blocks = gallery.read_gallery(drawn) if drawn else []
        self.drawn, self.on_step = drawn, on_step

    def _find(self, pattern: str) -> list[str]:
        """Files by their paths; what lies in a hidden folder was left by a killed process."""
        paths = [path.relative_to(self.root) for path in sorted(self.root.glob(pattern))]
        return [path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts)]

    def write(self) -> None:
        """All pages and files."""
        self._copy_files()
        parts = self._parts()
        writer = Writer(self.book, self._title, [part for part in parts if part[1]])
        self._write_first_page(writer)
        for chapter in self._chapters:
            self._write_chapter(writer, chapter)
        self._write_gallery(writer)
        self._write_artefacts(writer)
        self._write_downloads(writer)
        self._write_search()
        for path in sorted(self.links.wanted):
            self._copy(path)

    def _parts(self) -> list[tuple[str, list[Page]]]:
        of = {chapter.source: Page(chapter.page, chapter.title, chapter.number) for chapter in self._chapters}
        for source in self.solutions:
            of[source] = replace(of[source], title=f"Solution {Path(source).name.split('_')[0]}")
        lessons = [of[each] for each in sorted(self.exercises + self.solutions)]
        features = [Page("gallery.html", "All features")] if self.blocks else []
        features += [Page(block.page, f"Features of {block.name}") for block in self.blocks]
        more = [Page("artefacts.html", "Artefacts and verdicts"), *(of[each] for each in of if each in REFERENCE)]
        return [
            ("The book", [Page("index.html", "First page")]),
            ("Chapters", [of[each] for each in self.notebooks]),
            ("Workshop", lessons + [of[each] for each in of if each == INSTRUCTOR]),
            ("Gallery", features),
            ("Reference", [*more, Page("downloads.html", "Downloads")]),
        ]

    # What is shown

    @cached_property
    def _opening(self) -> BeautifulSoup:
        """README.md up to its first section."""
        text = (self.root / "README.md").read_text()
        return render(re.split(r"^## ", text, maxsplit=1, flags=re.MULTILINE)[0], "README.md", self.links)

    @cached_property
    def _pointed_at(self) -> str:
        """The sections of README.md to which its opening points."""
        _, *parts = re.split(r"^(?=## )", (self.root / "README.md").read_text(), flags=re.MULTILINE)
        wanted = {link["href"] for link in self._opening.select("a[href^='#']")}
        shown = [part for part in parts if f"#{slug(part.splitlines()[0])}" in wanted]
        return "".join(str(render(part, "README.md", self.links)) for part in shown)

    @cached_property
    def _title(self) -> str:
        return text_of(self._opening.find("h1"))

    @cached_property
    def _chapters(self) -> list[Chapter]:
        sources, chapters = (*self.notebooks, *self.exercises, *self.solutions), []
        for done, source in enumerate(sources, 1):
            chapters.append(self._chapter(source))
            self.on_step("Pages of notebooks", done, len(sources), Path(source).stem)
        for source in (INSTRUCTOR, *REFERENCE):
            if source in self.links.pages:
                chapters.append(chapter_of(render((self.root / source).read_text(), source, self.links), source))
        return chapters

    def _chapter(self, source: str) -> Chapter:
        executed = source not in self.exercises
        notebook = read_notebook(self.root / source, executed)
        if self.repository and source in self.notebooks:
            copy = colab.colab_copy(notebook, source, self.repository, self.root)
            (self.book / "colab").mkdir(exist_ok=True)
            nbformat.write(copy, self.book / "colab" / Path(source).name)
        chapter = make_chapter(notebook, source, self.links, self.titles, self.book)
        return replace(chapter, title=f"{chapter.title} (solution)") if source in self.solutions else chapter

    # Files

    def _copy(self, path: str) -> None:
        target = self.book / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.root / path, target)

    def _copy_files(self) -> None:
        shutil.copytree(self.root / "figures", self.book / "figures", ignore=shutil.ignore_patterns(".*"))
        for file in dict.fromkeys(file for row in self.rows for file in row["files"]):
            small = Image.open(self.root / "figures" / f"{file}.png").convert("RGB")
            small.thumbnail((THUMBNAIL, THUMBNAIL))
            target = self.book / "thumbnails" / f"{file}.webp"
            target.parent.mkdir(parents=True, exist_ok=True)
            small.save(target, quality=85)
        assets = self.book / "assets"
        assets.mkdir()
        for name in ("book.css", "book.js"):
            shutil.copyfile(HERE / name, assets / name)
        (assets / "icon.svg").write_text(ICON)

    # Pages

    def _write_first_page(self, writer: Writer) -> None:
        opening = BeautifulSoup(str(self._opening), "html.parser")
        opening.find("h1").decompose()
        counts = Counter(row["status"] for row in self.rows)
        doors = [("Gallery of features", "every feature as a card", "gallery.html")] if self.blocks else []
        doors += [("Artefacts and verdicts", "every figure, every test", "artefacts.html")]
        doors += [("Workshop", "lessons with exercises", page_of(self.exercises[0]))] if self.exercises else []
        doors += [("Downloads", "notebooks, figures, numbers", "downloads.html")]
        by_source = {chapter.source: chapter for chapter in self._chapters}
        content = {"opening": str(opening), "doors": doors, "statuses": dict(counts.most_common())}
        content["sections"] = self._pointed_at
        content |= {"chapters": [by_source[source] for source in self.notebooks]}
        content["answers"] = {source: self._answer(Path(source).stem) for source in self.notebooks}
        content |= {"lessons": [by_source[source] for source in self.exercises]}
        writer.write("index", "index.html", self._title, total=len(self.findings), verdicts=self._counts, **content)

    def _answer(self, notebook: str) -> tuple[str, str]:
        """What a notebook answered, and how often each verdict was given in it, in words; empty where there is none."""
        words = [finding.word for finding in self.findings if finding.figure.startswith(f"{notebook}/")]
        there = (self.root / "figures" / notebook / f"{ANSWER}.json").is_file()
        return answer_of(notebook, self.root / "figures") if there else "", in_words(words)

    @property
    def _counts(self) -> dict[str, int]:
        return records.counted(finding.word for finding in self.findings)

    def _write_chapter(self, writer: Writer, chapter: Chapter) -> None:
        of_notebook = self.repository and chapter.source in self.notebooks
        addresses = colab.addresses(chapter.source, self.repository) if of_notebook else {}
        content = {
            "chapter": chapter,
            "claim": chapter.claim,
            "addresses": addresses,
            "related": self._related(chapter),
        }
        writer.write(
            "chapter", chapter.page, chapter.title, code='class="code"' in chapter.opening + chapter.html, **content
        )

    def _related(self, chapter: Chapter) -> dict[str, str]:
        """An exercise's solution and the other way round."""
        pair = {"_exercise.": ("_solution.", "The solution"), "_solution.": ("_exercise.", "The exercise")}
        for one, (other, name) in pair.items():
            if one in chapter.source and (page := self.links.pages.get(chapter.source.replace(one, other))):
                return {name: page}
        return {}

    def _write_gallery(self, writer: Writer) -> None:
        if not self.blocks:
            return
        tile = gallery.copy_strips(self.drawn, self.book)
        numbered = {chapter.number: chapter for chapter in self._chapters if chapter.number}
        writer.write("gallery", "gallery.html", "All features", blocks=self.blocks, tile=tile, numbered=numbered)
        betas = [f"{beta:+g}".replace("-", "−") for beta in BETAS]
        for block in self.blocks:
            words = ", ".join(dict.fromkeys(card["label"].split(" (")[0] for card in block.cards[:6] if card["clear"]))
            content = {"block": block, "tile": tile, "top": TOP, "betas": betas, "threshold": CLEAR}
            writer.write("block", block.page, f"Features of {block.name}", examples=words, **content)

    def _write_artefacts(self, writer: Writer) -> None:
        places, alts = {}, {}
        for row in self.rows:
            row["words"] = records.counted(finding.word for finding in self.findings if finding.figure in row["files"])
            for file in row["files"]:
                places[file] = self._place(file)
                alts[file] = self._alts.get(file, self.titles[file])
        scorecard = next((file for file in places if file.endswith("/scorecard")), "")
        content: dict[str, Any] = {"rows": self.rows, "findings": self.findings, "verdicts": self._counts, "alts": alts}
        content |= {"places": places, "scorecard": scorecard, "claims": records.claims_of(self.root / "figures")}
        writer.write("artefacts", "artefacts.html", "Artefacts and verdicts", kinds=pictures.KINDS, **content)

    def _place(self, file: str) -> str:
        stem, name = file.split("/")
        anchor = f"#figure-{name}" if file in self._alts else ""
        return self.links.pages.get(f"notebooks/{stem}.ipynb", "index.html") + anchor

    @cached_property
    def _alts(self) -> dict[str, str]:
        """What the chapters say about the figures that they show."""
        return {file: alt for chapter in self._chapters for file, alt in chapter.figures.items()}

    def _write_downloads(self, writer: Writer) -> None:
        patterns = {
            "Notebooks": "notebooks/*.ipynb",
            "Workshop": "notebooks/workshop/*.*",
            "Their sources": "notebooks/src/*.py",
            "Results that take longer": "figures/results/*.json",
            "Records of the figures": "figures/[0-9]*/**/*.json",
            "Figures as PDF": "figures/**/*.pdf",
            "Figures as PNG": "figures/**/*.png",
        }
        groups = [(name, [self._file(path) for path in self._find(pattern)]) for name, pattern in patterns.items()]
        writer.write("downloads", "downloads.html", "Downloads", groups=[group for group in groups if group[1]])

    def _file(self, path: str) -> dict[str, str]:
        self.links.wanted.add(path)
        size = in_bytes((self.root / path).stat().st_size)
        return {"path": path, "name": "/".join(Path(path).parts[1:]), "size": size}

    def _write_search(self) -> None:
        entries = [entry for chapter in self._chapters for entry in search.of_chapter(chapter)]
        page = "Artefacts and verdicts"
        for row in self.rows:
            text = f"{row['title']}. {row['status']}. {' '.join(row['files'])}"
            entries.append(search.Entry(f"artefacts.html#{slug(row['id'])}", page, row["id"], text))
        for finding in self.findings:
            text = f"{finding.whole_word} {finding.id}: {finding.value}, 95 % {finding.interval}"
            entries.append(search.Entry(f"artefacts.html#only-{slug(finding.word)}", page, finding.claim, text))
        for block in self.blocks:
            entries += gallery.entries_of(block)
        words = [*vocabulary(), *dict.fromkeys(family for family, _ in attribute_values())]
        (self.book / "assets" / "search.js").write_text(search.as_script(entries, words))


def build(
    root: Path,
    output: Path,
    repository: str = "",
    drawn: Gallery | None = None,
    on_step: OnStep = silent,
) -> Path:
    """Build the book as the folder `output`, which is replaced as a whole; the path of its first page.

    Raises what `Book` raises, and ValueError if the folder cannot be written.
    """

    def write(unfinished: Path) -> None:
        unfinished.mkdir()
        Book(root, unfinished, repository, drawn, on_step).write()

    try:
        write_whole(output, write)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise ValueError(f"the book cannot be written to {output}: {error.strerror}{where}") from None
    return output / "index.html"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 2 if something is wrong, which one sentence then says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", nargs="?", default="", help="owner/name, for links to Colab and Binder")
    options, progress = parser.parse_args(arguments), Progress()
    try:
        colab.check_repository(options.repository)
        records.read_index(ROOT / "figures")
        drawn = draw_gallery(on_step=progress.tell)
        first = build(ROOT, cache_root() / "book", options.repository, drawn, progress.tell)
        progress.end()
        print(first)
    except ValueError as error:
        progress.end()
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
